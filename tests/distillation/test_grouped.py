"""Runs in a group against the same runs alone."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation import DistillationRun, SamplingPlan, make_method, priority
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.work import LogitsWork, SynthesisWork, TrainingWork, perform
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.grouping import EXAMPLES, NetworkGroup
from ssdkd_env.tasks import Task, load_task
from ssdkd_env.tasks.task import build_teacher
from tests.distillation.test_run import BUDGET, flatten, plain, same_state
from tests.own_networks import DENSE_TASK

#: Different in everything, one for each run.
PLANS = [
    SamplingPlan(),
    SamplingPlan(0.0, 0.0, 0.0, importance_exponent=0.0, replaced_share=0.25),
    SamplingPlan(-0.7, 1.5, 2.0, importance_exponent=1.0, replaced_share=1.0),
    SamplingPlan(0.5, 0.5, 0.0, importance_exponent=0.2, replaced_share=0.0),
    SamplingPlan(2.0, -1.0, 1.0, importance_exponent=0.6, replaced_share=0.5),
]
#: Methods whose batches are made together, and settings that make them short.
TOGETHER: dict[str, dict[str, Any]] = {
    "ssdkd": {},
    "fast5": {"steps": 2, "first_layer_reset": 0.3},
    "fast5_plain": {"steps": 2},
}
#: Methods whose batches each run makes for itself.
BY_THEMSELVES: dict[str, dict[str, Any]] = {
    "dafl": {},
    "cmi": {"steps": 2},
    "vanilla_kd": {"real_share": 0.01},
    "nayer": {"steps": 2},
}
ROUNDS = 2
CPU = torch.device("cpu")


class Stubborn(ConvNet):
    """A network that cannot be traced, so that BatchNorm is not folded and teacher and student are of one kind."""

    def forward(self, images: Tensor) -> Tensor:
        if images.isinf().all():
            raise ValueError("nothing to see")
        return super().forward(images)


class ForgetfulNet(ConvNet):
    """A network with a frozen bias, and a spare weight that takes no part."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__(num_classes, in_channels, (4, 6))
        self.classifier.bias.requires_grad_(False)
        self.spare = nn.Linear(2, 2)


@cache
def digits(dtype: torch.dtype = torch.float64, student_arch: str = "") -> Task:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # tasks are shared with other tests
    task = load_task("digits", budget=BUDGET, student_arch=student_arch or None)
    torch.set_default_dtype(before)
    spec = replace(task.spec, generator_options={"channels": 8})
    if not student_arch:
        spec = replace(spec, student_options={"channels": (4, 6)})
    return Task(spec, copy.deepcopy(task.teacher_on(CPU)).to(dtype))


def make_runs(task: Task, method: Method, seeds: Sequence[int], backend: str = "fast") -> list[DistillationRun]:
    return [DistillationRun(task, method, seed, backend=backend) for seed in seeds]


def step_together(
    grouped: GroupedRuns, runs: Sequence[DistillationRun], plans: Sequence[SamplingPlan]
) -> list[dict[str, Any]]:
    calls = [partial(run.step, plan) for run, plan in zip(runs, plans, strict=True)]
    return [plain(report) for report in grouped.play(calls)]


def step_alone(runs: Sequence[DistillationRun], plans: Sequence[SamplingPlan]) -> list[dict[str, Any]]:
    return [plain(run.step(plan)) for run, plan in zip(runs, plans, strict=True)]


def plans_of(method: Method, seeds: Sequence[int]) -> list[SamplingPlan]:
    """A run's plan depends on its seed, not on its place."""
    plans = [PLANS[seed] for seed in seeds]
    return [replace(plan, discrepancy_exponent=0.0) for plan in plans] if method.memory == "real" else plans


def assert_same(actual: Any, expected: Any) -> None:
    """Equal but for rounding in float64."""
    left, right = flatten(actual), flatten(expected)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)
        else:
            assert a == (pytest.approx(b, rel=1e-9, abs=1e-9, nan_ok=True) if isinstance(b, float) else b)


def assert_same_runs(actual: Sequence[DistillationRun], expected: Sequence[DistillationRun]) -> None:
    for run, wanted in zip(actual, expected, strict=True):
        assert_same(run.state_dict(), wanted.state_dict())


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the pieces of work that were done for one run alone."""
    counts: Counter[str] = Counter()
    for kind in (SynthesisWork, TrainingWork, LogitsWork):

        def counted(work: Any, own: Any = kind.alone) -> Any:
            counts[type(work).__name__] += 1
            return own(work)

        monkeypatch.setattr(kind, "alone", counted)
    return counts


def method_of(name: str) -> Method:
    return make_method(name, (TOGETHER | BY_THEMSELVES)[name])


# --- a run gives in a group what it gives alone ---


@cache
def lone_results(name: str) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Reports of each round and the last state of runs 0 to 4, each alone."""
    method, seeds = method_of(name), range(5 if name in TOGETHER else 3)
    runs = make_runs(digits(), method, seeds)
    reports = [step_alone(runs, plans_of(method, seeds)) for _ in range(ROUNDS)]
    return reports, [run.state_dict() for run in runs]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "seeds"),
    [(name, seeds) for name in TOGETHER for seeds in ([3], [1, 0], [4, 2, 0, 3, 1])]
    + [(name, [2, 0, 1]) for name in BY_THEMSELVES],
)
def test_a_run_gives_in_a_group_what_it_gives_alone(name: str, seeds: list[int], alone: Counter[str]) -> None:
    """With any others, in any order, each with a plan of its own."""
    reports, states = lone_results(name)
    alone.clear()
    method, grouped = method_of(name), GroupedRuns()
    runs = make_runs(digits(), method, seeds)
    for round_index in range(ROUNDS):
        found = step_together(grouped, runs, plans_of(method, seeds))
        assert_same(found, [reports[round_index][seed] for seed in seeds])
    for run, seed in zip(runs, seeds, strict=True):
        assert_same(run.state_dict(), states[seed])
    if len(seeds) > 1:
        assert alone["TrainingWork"] == alone["LogitsWork"] == 0
        assert (alone["SynthesisWork"] > 0) == (name in ("dafl", "cmi", "nayer"))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["ssdkd", "fast5"])
def test_runs_may_be_at_different_rounds(name: str, alone: Counter[str]) -> None:
    """One warms up, others step at other learning rates and with other memories, and one is done and left out."""
    method, seeds = method_of(name), [0, 1, 2, 3]
    together, apart = (make_runs(digits(), method, seeds) for _ in range(2))
    for runs in (together, apart):
        for run, rounds in zip(runs, (0, 2, 1, 1), strict=True):
            for _ in range(rounds):
                run.step(PLANS[run.seed])
    grouped = GroupedRuns()
    alone.clear()
    for _ in range(3):
        going = [run.seed for run in together if not run.done]
        found = step_together(grouped, [together[seed] for seed in going], plans_of(method, going))
        done_together = alone.copy()
        assert_same(found, step_alone([apart[seed] for seed in going], plans_of(method, going)))
        assert_same_runs(together, apart)
        alone.clear()
        if len(going) > 2:
            # The one that warms up, and the one behind it, have some work that no other has at the same time.
            assert done_together["TrainingWork"] <= 1
    assert all(run.done for run in together)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", list(TOGETHER))
def test_runs_may_spend_unlike_amounts(name: str, alone: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with fewer steps leave their group: one at a time, two at once, and the last goes on alone."""
    monkeypatch.setattr("ssdkd_env.distillation.forward.FORWARD_CHUNK", 2 * BUDGET["batch_size"])
    method, seeds = method_of(name), range(5)
    amounts = [(3, 2), (1, 7), (5, 1), (3, 2), (2, 4)]
    plans = [
        replace(plan, inversion_steps=inversion, student_steps=student)
        for plan, (inversion, student) in zip(PLANS, amounts, strict=True)
    ]
    together, apart = (make_runs(digits(), method, seeds) for _ in range(2))
    grouped = GroupedRuns()
    for turn in range(3):
        wanted = plans[turn:] + plans[:turn]
        alone.clear()
        found = step_together(grouped, together, wanted)
        assert not alone
        assert_same(found, step_alone(apart, wanted))
        assert_same_runs(together, apart)


@pytest.mark.usefixtures("float64")
def test_a_run_may_warm_up_beside_others() -> None:
    method = method_of("ssdkd")
    together, apart = (make_runs(digits(), method, [0, 1, 2]) for _ in range(2))
    reports = GroupedRuns().play([run.warm_up for run in together])
    assert_same([plain(report) for report in reports], [plain(run.warm_up()) for run in apart])
    assert_same_runs(together, apart)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("chunk", [1, 12])
def test_work_in_several_chunks_may_be_grouped(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdkd_env.distillation.forward.FORWARD_CHUNK", chunk)
    answered: list[int] = []
    forward = NetworkGroup.forward

    def record(group: NetworkGroup, inputs: Tensor) -> Tensor:
        if inputs.dim() == 4 and not torch.is_grad_enabled():
            answered.append(len(inputs))
        return forward(group, inputs)

    monkeypatch.setattr(NetworkGroup, "forward", record)
    together, apart = (make_runs(digits(), method_of("ssdkd"), [0, 1, 2]) for _ in range(2))
    assert_same(step_together(GroupedRuns(), together, PLANS[:3]), step_alone(apart, PLANS[:3]))
    assert_same_runs(together, apart)
    assert answered
    assert max(answered) <= max(chunk, 2 * EXAMPLES)  # on which a group is compared with its members


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["ssdkd", "fast5_plain", "dfad"])
def test_segmentation_runs_may_be_grouped(name: str) -> None:
    task = Task(DENSE_TASK, build_teacher(DENSE_TASK, seed=0).double())
    method = make_method(name, {"steps": 2})
    together, apart = (make_runs(task, method, [0, 1, 2]) for _ in range(2))
    grouped = GroupedRuns()
    for _ in range(2):
        assert_same(step_together(grouped, together, PLANS[:3]), step_alone(apart, PLANS[:3]))
    assert_same_runs(together, apart)


@pytest.mark.usefixtures("float64")
def test_a_teacher_without_batch_norm_serves_a_group() -> None:
    spec = replace(digits().spec, teacher_options={"channels": (4,), "batch_norm": False})
    task = Task(spec, build_teacher(spec, seed=0).double())
    with pytest.warns(UserWarning, match="BatchNorm"):
        together, apart = (make_runs(task, method_of("fast5"), [0, 1, 2]) for _ in range(2))
    assert_same(step_together(GroupedRuns(), together, PLANS[:3]), step_alone(apart, PLANS[:3]))
    assert_same_runs(together, apart)


@pytest.mark.usefixtures("float64")
def test_teachers_and_students_of_one_kind_are_not_mixed_up() -> None:
    """The one that warms up asks the teacher when the other asks its student about as many images."""
    spec = digits().spec
    kind = "tests.distillation.test_grouped:Stubborn"
    spec = replace(
        spec, teacher_arch=kind, student_arch=kind, budget=replace(spec.budget, warmup_rounds=3, buffer_capacity=16)
    )
    teacher = Stubborn(10, 1, (16, 32, 64)).double()
    teacher.load_state_dict(digits().teacher_on(CPU).state_dict())
    task = Task(spec, teacher)
    together, apart = (make_runs(task, method_of("ssdkd"), [0, 1]) for _ in range(2))
    assert type(together[0]._logits_teacher) is type(together[0].student)
    for runs in (together, apart):
        runs[0].step(PLANS[0])
    assert_same(step_together(GroupedRuns(), together, PLANS[:2]), step_alone(apart, PLANS[:2]))
    assert_same_runs(together, apart)


@pytest.mark.usefixtures("float64")
def test_frozen_and_idle_weights_stay_as_they_are() -> None:
    task = digits(student_arch="tests.distillation.test_grouped:ForgetfulNet")
    together, apart = (make_runs(task, method_of("ssdkd"), [0, 1]) for _ in range(2))
    before = copy.deepcopy(together[1].student.state_dict())
    grouped = GroupedRuns()
    for _ in range(2):
        assert_same(step_together(grouped, together, PLANS[:2]), step_alone(apart, PLANS[:2]))
    assert_same_runs(together, apart)
    after = together[1].student.state_dict()
    for name in ("classifier.bias", "spare.weight"):
        assert torch.equal(after[name], before[name])


# --- what others do to a run ---


@pytest.mark.parametrize("name", ["ssdkd", "fast5_plain"])
def test_a_diverged_run_changes_no_other(name: str) -> None:
    """In float32, where libraries block the channels; beside a diverged run the others are the same to the last bit."""
    method = method_of(name)
    sound, beside = (make_runs(digits(torch.float32), method, [0, 1, 2]) for _ in range(2))
    groups = GroupedRuns(), GroupedRuns()
    for grouped, runs in zip(groups, (sound, beside), strict=True):
        step_together(grouped, runs, PLANS[:3])
    with torch.no_grad():
        for parameter in beside[1].student.parameters():
            parameter.fill_(math.nan)
        for parameter in beside[1].inversion.lasting_generator().generator.parameters():  # type: ignore[union-attr]
            parameter.fill_(math.nan)
    for _ in range(2):
        reports, expected = (
            step_together(grouped, runs, PLANS[:3]) for grouped, runs in zip(groups, (beside, sound), strict=True)
        )
        assert [report["diverged"] for report in reports] == [False, True, False]
        assert [reports[0], reports[2]] == [expected[0], expected[2]]
    assert same_state(beside[0].state_dict(), sound[0].state_dict())
    assert same_state(beside[2].state_dict(), sound[2].state_dict())


@pytest.mark.usefixtures("float64")
def test_a_diverged_run_is_in_a_group_what_it_is_alone() -> None:
    together, apart = (make_runs(digits(), method_of("ssdkd"), [0, 1]) for _ in range(2))
    for runs in (together, apart):
        with torch.no_grad():
            for parameter in runs[0].student.parameters():
                parameter.fill_(math.nan)
    assert_same(step_together(GroupedRuns(), together, PLANS[:2]), step_alone(apart, PLANS[:2]))
    assert_same_runs(together, apart)


def test_a_refused_step_reaches_the_caller() -> None:
    runs = make_runs(digits(torch.float32), method_of("ssdkd"), [0, 1])
    for _ in range(3):
        runs[0].step(PLANS[0])
    with pytest.raises(RuntimeError, match="budget"):
        step_together(GroupedRuns(), runs, PLANS[:2])


# --- what has no grouped form ---


@pytest.mark.parametrize("name", ["ssdkd", "dafl", "vanilla_kd"])
def test_runs_of_the_plain_backend_are_bit_identical_in_a_group(name: str, alone: Counter[str]) -> None:
    method, seeds = method_of(name), [0, 1]
    together, apart = (make_runs(digits(torch.float32), method, seeds, backend="plain") for _ in range(2))
    grouped = GroupedRuns()
    for _ in range(2):
        alone.clear()
        found = step_together(grouped, together, plans_of(method, seeds))
        in_group = alone.copy()
        alone.clear()
        assert found == step_alone(apart, plans_of(method, seeds))
        assert in_group == alone, "something was done together"
    for run, expected in zip(together, apart, strict=True):
        assert same_state(run.state_dict(), expected.state_dict())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["ssdkd", "dafl"])
def test_a_student_without_grouped_form_studies_by_itself(name: str, alone: Counter[str]) -> None:
    task = digits(student_arch="tests.own_networks:DropoutNet")
    together, apart = (make_runs(task, method_of(name), [0, 1]) for _ in range(2))
    grouped = GroupedRuns()
    alone.clear()
    reports = step_together(grouped, together, PLANS[:2])
    assert alone["TrainingWork"] == 2
    assert alone["LogitsWork"] > 0
    assert_same(reports, step_alone(apart, PLANS[:2]))
    assert_same_runs(together, apart)


def train_alone(run: DistillationRun) -> tuple[Tensor, Tensor]:
    """Training and answers of a student on images of its own."""
    random = torch.Generator().manual_seed(run.seed)
    images = torch.randint(256, (12, 1, 8, 8), generator=random).to(torch.uint8)
    draws = torch.randint(12, (3, 8), generator=random)
    weights = torch.rand(12, generator=random)
    loss = perform(TrainingWork(run.trainer, images, draws, weights, 0, run._layer_random()))
    return loss, run.student_logits(images)


def test_what_a_student_without_grouped_form_does_is_bit_identical() -> None:
    task = digits(torch.float32, student_arch="tests.own_networks:DropoutNet")
    together, apart = (make_runs(task, method_of("ssdkd"), [0, 1]) for _ in range(2))
    found = GroupedRuns().play([partial(train_alone, run) for run in together])
    expected = [GroupedRuns().play([partial(train_alone, run)])[0] for run in apart]
    assert same_state(found, expected)
    for run, other in zip(together, apart, strict=True):
        assert same_state(run.state_dict(), other.state_dict())


@pytest.mark.parametrize("student", ["", "tests.own_networks:DropoutNet"])
def test_no_global_generator_is_touched(student: str) -> None:
    runs = make_runs(digits(torch.float32, student_arch=student), method_of("ssdkd"), [0, 1])
    torch.manual_seed(3)
    before = torch.get_rng_state()
    step_together(GroupedRuns(), runs, PLANS[:2])
    assert torch.equal(torch.get_rng_state(), before)


# --- going on ---


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["ssdkd", "fast5", "fast5_plain"])
def test_a_member_goes_on_alone_from_its_state(name: str) -> None:
    method, grouped = method_of(name), GroupedRuns()
    runs = make_runs(digits(), method, [0, 1, 2])
    step_together(grouped, runs, PLANS[:3])
    lone, again = make_runs(digits(), method, [4, 4])
    lone.load_state_dict(runs[1].state_dict())
    again.load_state_dict(runs[1].state_dict())
    report = plain(lone.step(PLANS[3]))
    assert_same(step_together(grouped, runs, [PLANS[0], PLANS[3], PLANS[2]])[1], report)
    assert_same(lone.state_dict(), runs[1].state_dict())
    assert plain(again.step(PLANS[3])) == report
    assert same_state(again.state_dict(), lone.state_dict())


@pytest.mark.usefixtures("float64")
def test_a_run_enters_a_group_from_its_state() -> None:
    method = method_of("fast5")
    alone_run, other, member = make_runs(digits(), method, [0, 1, 4])
    alone_run.step(PLANS[0])
    member.load_state_dict(alone_run.state_dict())
    found = step_together(GroupedRuns(), [other, member], [PLANS[1], PLANS[2]])[1]
    assert_same(found, plain(alone_run.step(PLANS[2])))
    assert_same(member.state_dict(), alone_run.state_dict())


def test_networks_are_ready_for_use_after_a_grouped_step() -> None:
    """Students answer in evaluation mode, and no member keeps a view of what the group goes on computing with."""
    runs, grouped = make_runs(digits(torch.float32), method_of("ssdkd"), [0, 1]), GroupedRuns()
    step_together(grouped, runs, PLANS[:2])
    assert not any(run.student.training for run in runs)
    state = runs[0].state_dict()
    kept = copy.deepcopy(state)
    live = [run.trainer.state_dict()["optimizer"]["momenta"][0] for run in runs]
    assert live[0].untyped_storage().data_ptr() != live[1].untyped_storage().data_ptr()
    step_together(grouped, runs[1:], PLANS[1:2])
    assert same_state(runs[0].state_dict(), kept)


def test_a_groups_memory_is_measured_in_the_runs_precision() -> None:
    """Which differs from float32 by more than a group does from a run alone."""
    task, method = digits(torch.float32), method_of("ssdkd")
    runs = [DistillationRun(task, method, seed, precision="bfloat16") for seed in (1, 2)]
    step_together(GroupedRuns(), runs, [PLANS[0]] * 2)
    for run in runs:
        residents = run.buffer.residents
        inputs = run._normalize(residents.images)
        with torch.no_grad():
            exact = priority.discrepancy(run.teacher(inputs), run.student(inputs))
            with torch.autocast("cpu", torch.bfloat16):
                logits = run._answering.network(inputs)
            rounded = priority.discrepancy(run.teacher(inputs), logits.float())
        near, far = ((residents.discrepancy - each).abs().mean() for each in (rounded, exact))
        assert near < 0.5 * far
