"""Pieces of work: by whom they are done, what may be done together, and whose random numbers are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.emphasis import Emphasis
from ssdkd_env.distillation.execution import Execution
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.distillation.methods import make_method
from ssdkd_env.distillation.run import DistillationRun
from ssdkd_env.distillation.work import (
    LayerRandom,
    LogitsWork,
    SynthesisWork,
    TrainingWork,
    Work,
    helped_by,
    perform,
)
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.digits import ASSETS
from tests.distillation.test_inversion import UNIFORM, frozen_teacher, make_inversion, make_student
from tests.distillation.test_student import make_trainer, training_data

CPU = torch.device("cpu")
RANDOM = LayerRandom(3, CPU)
IMAGES = torch.randint(256, (5, 2, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@dataclass(frozen=True)
class Squaring:
    """A piece of work that needs no run."""

    name: ClassVar[str] = "squaring"
    number: int

    @property
    def key(self) -> str:
        return "squaring"

    def alone(self) -> int:
        if self.number < 0:
            raise ValueError("no such number")
        return self.number**2


def squares(*numbers: int) -> list[int]:
    """Comes to one square after the other."""
    return [perform(Squaring(number)) for number in numbers]


def nothing() -> str:
    """Has nothing to do."""
    return "done"


def refusing() -> None:
    """Gives up after its first work."""
    perform(Squaring(1))
    raise RuntimeError("the budget is used up")


class Noting(GroupedRuns):
    """Notes how many pieces are done at once."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[int] = []

    def _do(self, works: list[Any]) -> list[Any]:
        self.done.append(len(works))
        return [work.alone() for work in works]


# --- by whom ---


def test_alone_work_is_done_at_once() -> None:
    assert squares(2, 3, 5) == [4, 9, 25]
    with pytest.raises(ValueError, match="no such number"):
        squares(2, -1)


def test_a_helper_does_the_work_inside_its_block_only() -> None:
    seen: list[int] = []

    def helper(work: Work[Any]) -> int:
        seen.append(work.number)  # type: ignore[attr-defined]
        return -1

    with helped_by(helper):
        assert squares(2, 3) == [-1, -1]
    assert squares(4) == [16]
    assert seen == [2, 3]


def test_several_calls_return_in_their_order() -> None:
    """Whatever each has to do, and if one ends before another or at once."""
    runs = Noting()
    assert runs.play([]) == []
    assert runs.play([nothing, nothing]) == ["done", "done"]
    calls: list[Any] = [partial(squares, 2), nothing, partial(squares, 3, 4, 5)]
    assert runs.play(calls) == [[4], "done", [9, 16, 25]]
    assert runs.done == [2, 1, 1]


def test_what_one_of_several_calls_raises_goes_to_the_caller_and_ends_the_others() -> None:
    ended: list[str] = []

    def waiting() -> None:
        try:
            squares(1, 2, 3)
        finally:
            ended.append("waiting")

    with pytest.raises(RuntimeError, match="budget"):
        Noting().play([waiting, refusing])
    assert ended == ["waiting"]


def test_what_work_raises_goes_to_the_caller_and_ends_the_calls() -> None:
    with pytest.raises(ValueError, match="no such number"):
        Noting().play([partial(squares, 1), partial(squares, -1)])
    assert squares(2) == [4], "nothing of it is left"


def test_a_call_may_not_wait_where_gradients_are_switched_off() -> None:
    """Gradient mode belongs to the thread, and so to the others too."""

    @torch.no_grad()
    def careless() -> None:
        squares(1)

    with pytest.raises(AssertionError):
        Noting().play([careless, nothing])
    assert torch.is_grad_enabled()


def test_a_group_of_groups_is_played_by_the_inner_one() -> None:
    inner, outer = Noting(), Noting()

    def both() -> list[list[int]]:
        return inner.play([partial(squares, 2), partial(squares, 3)])

    assert outer.play([both]) == [[[4], [9]]]
    assert (inner.done, outer.done) == ([2], [])


# --- random numbers of layers ---


def test_lent_randomness_is_the_seeds_and_leaves_the_global_one_alone() -> None:
    draws = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        with RANDOM.lent():
            draws.append(torch.rand(4))
        assert torch.equal(torch.get_rng_state(), before)
    with LayerRandom(4, CPU).lent():
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], torch.rand(4, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(draws[0], draws[2])


def test_lent_randomness_is_given_back_after_an_exception() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), RANDOM.lent():
        torch.rand(1) @ torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)


# --- what may be done together ---


def answer_work(network: nn.Module, role: str = "student", **settings: Any) -> LogitsWork:
    return replace(LogitsWork(network, role, IMAGES, Normalize((0.4, 0.6), (0.3, 0.2), CPU), RANDOM), **settings)


def synthesis_work(student: nn.Module | None = None, momentum: float = 0.0, **settings: Any) -> SynthesisWork:
    method = make_method("ssdkd", {"statistics_momentum": momentum})
    inversion = make_inversion(method, frozen_teacher())
    return replace(SynthesisWork(inversion, student, UNIFORM, 8, 2, Emphasis.of(method), RANDOM), **settings)


def training_work(minibatches: int, batch_size: int) -> TrainingWork:
    trainer = make_trainer(ConvNet(4, 1, (4,)), ConvNet(4, 1, (6,)))
    images, draws, weights = training_data(0, minibatches, batch_size)
    return TrainingWork(trainer, images, draws, weights, 0.1, RANDOM)


def same(first: Work[Any], second: Work[Any]) -> bool:
    return first.key == second.key


def test_students_answer_together_but_not_with_a_teacher_of_their_kind() -> None:
    students = [ConvNet(4, 2, (4,)), ConvNet(4, 2, (4,))]
    teacher = ConvNet(4, 2, (6,)).requires_grad_(False)
    assert same(*map(answer_work, students))
    assert same(answer_work(teacher, "teacher"), answer_work(teacher, "teacher"))
    assert not same(answer_work(students[0]), answer_work(teacher, "teacher"))
    assert not same(answer_work(students[0]), answer_work(students[0], images=IMAGES[:3]))


def test_minibatches_of_one_size_are_learnt_together_however_many_each_has() -> None:
    assert same(training_work(3, 5), training_work(3, 5))
    assert same(training_work(3, 5), training_work(2, 5))
    assert not same(training_work(3, 5), training_work(3, 4))


def test_batches_are_made_together_if_all_have_an_adversary_and_earlier_statistics_or_none() -> None:
    student = make_student()
    assert same(synthesis_work(), synthesis_work())
    assert same(synthesis_work(student), synthesis_work(make_student()))
    assert not same(synthesis_work(), synthesis_work(student))
    assert not same(synthesis_work(), synthesis_work(count=9))
    later = synthesis_work(momentum=0.9)
    assert same(later, synthesis_work(momentum=0.9))
    later.alone()
    assert not same(later, synthesis_work(momentum=0.9))


def test_work_that_is_not_for_sharing_has_a_key_of_its_own() -> None:
    student = make_student()
    for first, second in (
        [answer_work(student, together=False) for _ in range(2)],
        [synthesis_work(student, together=False) for _ in range(2)],
    ):
        assert not same(first, second)
        assert same(first, first)


def test_runs_of_different_kinds_do_nothing_together() -> None:
    """The kind says what the key does not see: teacher, student, and how they are used."""
    student = ConvNet(4, 2, (4,))
    for work in (answer_work(student), synthesis_work(), training_work(3, 5)):
        assert same(replace(work, kind="a"), replace(work, kind="a"))
        assert not same(replace(work, kind="a"), replace(work, kind="b"))


def test_batches_of_more_and_fewer_steps_are_made_together() -> None:
    work = synthesis_work()
    assert work.key == replace(work, steps=work.steps + 1).key


def test_compiled_networks_are_grouped_where_all_is_equal() -> None:
    """A group of each size would be compiled anew."""
    work, training = synthesis_work(), training_work(3, 5)
    work.inversion.execution = training.trainer.execution = Execution(compiler="eager")
    assert work.key != replace(work, steps=work.steps + 1).key
    assert training.key != replace(training, draws=training.draws[:2]).key


def test_kind_of_a_run_is_its_networks_and_their_use_but_not_seed_rounds_or_buffer() -> None:
    def kind_of(seed: int = 0, **arguments: Any) -> Any:
        return DistillationRun(load_task("digits", **arguments), make_method("ssdkd"), seed)._kind

    alike = [
        kind_of(1),
        kind_of(budget={"rounds": 3}),
        kind_of(buffer_scale=0.05),
        kind_of(budget={"warmup_rounds": 2}),
    ]
    assert all(each == kind_of() for each in alike)
    narrow = str(ASSETS / "digits_teacher_narrow.safetensors")
    others: list[dict[str, Any]] = [
        {"teacher": narrow},
        {"student_arch": "convnet6"},
        {"student": {"lr": 0.1}},
        {"budget": {"candidates": 16}},
    ]
    kinds = [kind_of(**arguments) for arguments in others]
    assert kind_of() not in kinds and len(set(kinds)) == len(kinds)
    assert kind_of(teacher=narrow) == kinds[0], "loaded again, it is the same teacher"
