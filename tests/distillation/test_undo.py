"""A step that stops in the middle, wherever that is, has not moved the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ssdkd_env import ranges
from ssdkd_env.distillation import DistillationRun, SamplingPlan, make_method
from ssdkd_env.distillation.buffer import ReplayBuffer
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.distillation.undo import undone_by_errors
from ssdkd_env.tasks import Task, load_task

BUDGET = {
    "rounds": 4,
    "warmup_rounds": 1,
    "candidates": 8,
    "inversion_steps": 2,
    "student_steps": 2,
    "batch_size": 4,
    "buffer_capacity": 12,
}
#: One of each kind of memory, source of images and objective that has a state of its own.
METHODS: dict[str, dict[str, Any]] = {
    "ssdkd": {},
    "fast5": {"steps": 2},
    "cmi": {"steps": 2},
    "nayer": {"steps": 2},
    "dafl": {},
    "dfad": {"student_steps_per_batch": 1},
    "deepinversion": {"steps": 2},
    "vanilla_kd": {},
}
PLANS = [SamplingPlan(), SamplingPlan(replaced_share=0.5, importance_exponent=1.0), SamplingPlan()]


class Stop(BaseException):
    """As Ctrl-C, it is no `Exception`."""


@contextmanager
def stopped_at(number: int) -> Iterator[list[int]]:
    """Stop where the range with a number begins; the list has one entry, how many have begun."""
    begun, enter = [0], ranges.Range.__enter__

    def count(self: ranges.Range) -> None:
        begun[0] += 1
        if begun[0] == number:
            raise Stop
        enter(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges.Range, "__enter__", count)
        yield begun


def task() -> Task:
    return load_task("digits", budget=BUDGET)


def make_run(method: str, backend: str = "fast", seed: int = 3) -> DistillationRun:
    return DistillationRun(task(), make_method(method, METHODS[method]), seed, backend=backend)


def numbers(run: DistillationRun) -> str:
    """Everything that goes on, to the last bit; of the buffer what is in it."""

    def exact(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            return part.detach().numpy().tobytes()
        if isinstance(part, dict):
            return {name: exact(value) for name, value in part.items()}
        return [exact(value) for value in part] if isinstance(part, list | tuple) else part

    return repr(exact(run.state_beside_buffer() | {"residents": vars(run.buffer.residents)}))


def play(run: DistillationRun, count: int = 3) -> list[str]:
    return [repr(run.step(plan)).split("seconds_")[0] for plan in PLANS[:count]]


@pytest.mark.parametrize("backend", ["fast", "plain"])
@pytest.mark.parametrize("method", METHODS)
def test_wherever_a_step_stops_the_run_is_as_it_was(method: str, backend: str) -> None:
    """Through the warm-up, and through the first and the second step, each time a little later."""
    expected = play(make_run(method, backend))
    run = make_run(method, backend)
    reports, stops = [], 0
    for plan in PLANS:
        before, at = numbers(run), 1
        while True:
            try:
                with stopped_at(at):
                    report = run.step(plan)
                break
            except Stop:
                stops, at = stops + 1, at + 7
            assert numbers(run) == before
            assert not run.student.training
        reports.append(repr(report).split("seconds_")[0])
    assert stops > 5
    assert reports == expected


def test_errors_that_a_plan_makes_are_undone() -> None:
    """A scorer is asked when the candidates have been made."""

    def fails(features: Any) -> Any:
        raise ArithmeticError("a scorer of somebody's")

    expected, run = play(make_run("ssdkd")), make_run("ssdkd")
    run.warm_up()
    before = numbers(run)
    for scorer, kind in ((fails, ArithmeticError), (lambda features: torch.zeros(3), ValueError)):
        with pytest.raises(kind):
            run.step(SamplingPlan(scorer=scorer))
        assert numbers(run) == before
    assert play(run) == expected


def test_several_steps_are_undone_together() -> None:
    run = make_run("ssdkd")
    run.warm_up()
    before = numbers(run)

    def play_two_and_stop() -> None:
        with undone_by_errors(run):
            play(run, 2)
            raise Stop

    with pytest.raises(Stop):
        play_two_and_stop()
    assert numbers(run) == before
    play(run, 1)
    after = numbers(run)
    with pytest.raises(RuntimeError, match="already called"):
        run.warm_up()
    assert numbers(run) == after != before


@pytest.mark.parametrize("at", [2, 15, 40, 70])
def test_all_runs_of_a_group_undo_the_step_in_which_one_stops(at: int) -> None:
    def step(runs: list[DistillationRun], group: GroupedRuns, plan: SamplingPlan) -> list[str]:
        reports = group.play([lambda run=run: run.step(plan) for run in runs])  # type: ignore[misc]
        return [repr(report).split("seconds_")[0] for report in reports]

    expected = [step(runs, group, plan) for runs, group in [(three(), GroupedRuns())] for plan in PLANS[:2]]
    runs, group = three(), GroupedRuns()
    given = [step(runs, group, PLANS[0])]
    before = [numbers(run) for run in runs]
    with stopped_at(at), pytest.raises(Stop):
        step(runs, group, PLANS[1])
    assert [numbers(run) for run in runs] == before
    given.append(step(runs, group, PLANS[1]))
    assert given == expected


def three() -> list[DistillationRun]:
    return [make_run("ssdkd", seed=seed) for seed in range(3)]


def test_a_buffer_keeps_what_is_overwritten_and_not_itself() -> None:
    run = make_run("ssdkd")
    run.warm_up()
    run.step(PLANS[0])
    buffer: ReplayBuffer = run.buffer
    before, size = buffer.state_dict(), len(buffer)

    def update_and_stop() -> None:
        with buffer.undone_by_errors():
            assert buffer.is_undoable
            for _ in range(3):
                candidates = buffer.residents.rows(torch.tensor([1, 0, 2]))
                candidates.images.fill_(7)
                keys = torch.cat([torch.arange(size), torch.full((3,), 100)]).float()
                buffer.update(candidates, keys, most_replaced=2)
            assert buffer._overwritten is not None
            assert [len(rows) for rows, _ in buffer._overwritten] == [2, 2, 2]
            for _ in range(buffer.capacity):
                buffer.update(candidates, keys, most_replaced=2)
            assert [len(rows) for rows, _ in buffer._overwritten] == [buffer.capacity]
            raise Stop

    with pytest.raises(Stop):
        update_and_stop()
    assert not buffer.is_undoable
    for name, tensor in buffer.state_dict().items():
        assert torch.equal(torch.as_tensor(tensor), torch.as_tensor(before[name])), name
