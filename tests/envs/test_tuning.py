"""Which way of doing many environments' work is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.distillation.methods import Method
from ssdkd_env.envs import tuning
from ssdkd_env.envs.tuning import AFFORDABLE, MARGIN, MOST_TRIED, REPEATS, TRIED_INVERSIONS, TRIED_STEPS, Choice, choose
from ssdkd_env.tasks import Task
from tests.envs.episodes import BUDGET, make


def env_on(device: str) -> Any:
    """All that `choose` asks of an environment before it tries anything."""
    return SimpleNamespace(device=torch.device(device))


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], list[int]]:
    """Sets the seconds of both sides; returns a list to which every trial adds how many runs it was given."""

    def set_seconds(alone: float, together: float) -> list[int]:
        tried: list[int] = []

        def run(env: Any, count: int) -> tuple[int, float, float]:
            tried.append(count)
            return count, alone, together

        monkeypatch.setattr(tuning, "_race", run)
        return tried

    return set_seconds


@pytest.mark.parametrize(("alone", "backend"), [(MARGIN * 1.01, "grouped"), (MARGIN * 0.99, "loop"), (0.5, "loop")])
def test_group_has_to_be_faster_by_a_margin(alone: float, backend: str, race: Any) -> None:
    race(alone, 1.0)
    choice = choose(env_on("cpu"), 4, cores=1, processes=None)
    assert (choice.backend, choice.processes) == (backend, 1)
    assert choice.reason == f"4 short rounds took {alone:.3f} s one by one, 1.000 s grouped"


@pytest.mark.parametrize(("alone", "backend"), [(2.0, "grouped"), (1.0, "process")])
def test_environments_are_divided_among_the_cores(alone: float, backend: str, race: Any) -> None:
    tried = race(alone, 1.0)
    choice = choose(env_on("cpu"), 10, cores=4, processes=None)
    assert (choice.backend, choice.processes) == (backend, 4)
    assert tried == [3], "the most that a process gets"


@pytest.mark.parametrize(
    ("count", "cores", "processes", "expected"),
    [
        (1, 1, None, ("loop", 1)),
        (1, 8, None, ("loop", 1)),
        (1, 8, 1, ("loop", 1)),
        (4, 8, None, ("process", 4)),
        (8, 8, None, ("process", 8)),
        (4, 1, 4, ("process", 4)),
    ],
)
def test_one_environment_in_a_process_needs_no_trial(
    count: int, cores: int, processes: int | None, expected: tuple[str, int], race: Any
) -> None:
    tried = race(2.0, 1.0)
    choice = choose(env_on("cpu"), count, cores, processes)
    assert (choice.backend, choice.processes) == expected
    assert tried == []


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_number_of_processes_that_is_asked_for_is_kept(device: str, processes: int, race: Any) -> None:
    tried = race(2.0, 1.0)
    assert choose(env_on(device), 6, cores=4, processes=processes).processes == processes
    assert tried == [6 // processes]


@pytest.mark.parametrize(("alone", "backend"), [(2.0, "grouped"), (1.0, "loop")])
def test_a_gpu_is_used_by_one_process(alone: float, backend: str, race: Any) -> None:
    tried = race(alone, 1.0)
    choice = choose(env_on("cuda"), 32, cores=16, processes=None)
    assert (choice.backend, choice.processes) == (backend, 1)
    assert tried == [MOST_TRIED]


@pytest.fixture
def three_threads() -> Iterator[None]:
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(("processes", "threads"), [(1, 3), (2, 1)])
def test_trial_has_the_threads_that_the_work_will_have(
    processes: int, threads: int, three_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(env: Any, count: int) -> Any:
        assert torch.get_num_threads() == threads
        raise MemoryError("out of memory")

    monkeypatch.setattr(tuning, "_race", run)
    with pytest.raises(MemoryError):
        choose(env_on("cpu"), 4, cores=4, processes=processes)
    assert torch.get_num_threads() == 3, "put back, even after an error"


@pytest.mark.parametrize(
    ("once", "count", "tried"),
    [
        (0.001, 3, 3),
        (0.001, 2, 2),
        (AFFORDABLE / (2 * (REPEATS + 1) * 4.5), 8, 4),
        (10 * AFFORDABLE, 8, 2),
    ],
)
def test_trial_is_as_long_as_can_be_afforded_and_the_fastest_time_counts(
    once: float, count: int, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it does, the environment and the global random numbers stay as they are."""
    seconds = iter([once, 3.0, 7.0, 2.0, 9.0, 4.0, 6.0])

    def timed(work: Callable[[], Any]) -> float:
        work()
        return next(seconds)

    monkeypatch.setattr(tuning, "_seconds", timed)
    env = make()
    before = torch.get_rng_state()
    assert tuning._race(env, count) == (tried, 2.0, 6.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert env.run is None
    assert env.budget.rounds == env.task.spec.budget.rounds == BUDGET["rounds"]
    assert next(seconds, None) is None


@pytest.mark.parametrize("method", ["deepinversion", "fast5_plain", "nayer", "vanilla_kd"])
def test_trial_is_short_for_methods_of_every_kind(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes few steps a round, and no more rounds than it has."""
    runs: list[tuple[Task, Method, DistillationRun]] = []
    env = make(
        method=method,
        backend="plain",
        precision="bfloat16",
        budget={"inversion_steps": 500, "student_steps": 500, "warmup_rounds": 9},
    )

    def make_run(task: Task, method: Method, seed: int, *arguments: Any) -> DistillationRun:
        assert arguments == (env.device, env.backend, env.precision)
        run = DistillationRun(task, method, seed, *arguments)
        runs.append((task, method, run))
        return run

    monkeypatch.setattr(tuning, "DistillationRun", make_run)
    tried, alone, together = tuning._race(env, 2)
    assert tried == 2
    assert alone > 0
    assert together > 0
    assert len(runs) == 1 + 2 * tried
    for task, settings, run in runs:
        assert not run.done
        budget = task.spec.budget
        assert (budget.student_steps, budget.inversion_steps) == (TRIED_STEPS, TRIED_INVERSIONS)
        assert (budget.warmup_rounds, budget.candidates) == (1, BUDGET["candidates"])
        assert settings.steps <= TRIED_INVERSIONS


def test_seconds_are_those_of_the_work() -> None:
    assert 0.0 <= tuning._seconds(lambda: None) < 0.05 <= tuning._seconds(lambda: time.sleep(0.05))


def test_choice_is_for_people_to_read() -> None:
    assert str(Choice("loop", 1, "as asked for")) == "loop: as asked for"
    assert str(Choice("grouped", 3, "why")) == "grouped in 3 processes: why"
