"""Environments in several threads of one process: the episodes are those of one after the other, to the last bit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Barrier, Thread
from typing import Any, TypeVar

import numpy as np
import pytest

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv
from ssdkd_env.envs.references import References
from ssdkd_env.recent import Recent
from ssdkd_env.tasks import Task, registry
from ssdkd_env.tasks.probe import ProbeSet, probe_set
from ssdkd_env.tasks.teacher import TeacherTraining
from tests.envs.conftest import forget_tasks
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, Moment, actions_of, assert_same, episode, make

ResultT = TypeVar("ResultT")
#: What an episode gave, and the weights of its student at its end.
Played = tuple[list[Moment], bytes]
#: Two threads take turns: even seeds and odd ones.
SEEDS = (range(0, 4, 2), range(1, 4, 2))


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """Threads take turns a hundred times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


def in_threads(calls: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """What the calls give, each made in a thread of its own; they begin at once. The first error is raised."""
    results: dict[int, ResultT] = {}
    errors: list[BaseException] = []
    barrier = Barrier(len(calls))

    def make_call(index: int) -> None:
        barrier.wait()
        try:
            results[index] = calls[index]()
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=make_call, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(calls))]


def weights_of(env: SSDKDEnv) -> bytes:
    assert env.run is not None
    return b"".join(tensor.numpy().tobytes() for tensor in env.run.student.state_dict().values())


def play(seeds: Sequence[int], **arguments: Any) -> list[Played]:
    """Episodes of one environment."""
    env = make(**arguments)
    return [(episode(env, seed, actions_of(seed)), weights_of(env)) for seed in seeds]


def assert_same_episodes(first: Sequence[Played], second: Sequence[Played]) -> None:
    for (moments, weights), (others, other_weights) in zip(first, second, strict=True):
        assert_same(moments, others)
        assert weights == other_weights


def test_two_threads_play_what_one_plays_after_the_other() -> None:
    apart = [play(seeds) for seeds in SEEDS]
    together = in_threads([partial(play, seeds) for seeds in SEEDS])
    for here, there in zip(apart, together, strict=True):
        assert_same_episodes(here, there)


@pytest.mark.usefixtures("empty_caches")
def test_threads_that_begin_with_nothing_load_one_teacher_and_make_one_probe_set() -> None:
    first, second = in_threads([make, lambda: make(budget={"rounds": 2})])
    assert first.task.teacher_on(first.device) is second.task.teacher_on(first.device)
    made = in_threads([lambda: probe_set(first.task, first.device), lambda: probe_set(second.task, second.device)])
    assert made[0] is made[1]


def play_grouped(seed: int) -> list[bytes]:
    """Everything that a vector environment of three gives in an episode, and the weights of its students."""
    envs = SSDKDVectorEnv(3, vectorization="grouped", processes=1, budget=BUDGET, probe=SMALL_PROBE)
    given = [envs.reset(seed=seed)[0].tobytes()]
    for action in actions_of(seed, ROUNDS):
        observations, rewards, *_ = envs.step(np.stack([action] * 3))
        given += [observations.tobytes(), rewards.tobytes()]
    for run in envs.get_attr("run"):
        given += [tensor.numpy().tobytes() for tensor in run.student.state_dict().values()]
    return given


def test_grouped_environments_of_two_threads_do_not_disturb_each_other() -> None:
    apart = [play_grouped(seed) for seed in (1, 9)]
    assert in_threads([partial(play_grouped, 1), partial(play_grouped, 9)]) == apart


def test_a_grouped_and_a_single_environment_in_two_threads() -> None:
    """The one holds the lock in several greenlets at once."""
    grouped, single = play_grouped(1), play([2])
    calls: list[Callable[[], Any]] = [partial(play_grouped, 1), partial(play, [2])]
    grouped_too, single_too = in_threads(calls)
    assert grouped_too == grouped
    assert_same_episodes(single_too, single)


@pytest.mark.parametrize(
    "kind", [SSDKDEnv, DistillationRun, GroupedRuns, Task, ProbeSet, References, TeacherTraining, Recent]
)
def test_whatever_a_user_calls_computes_alone(kind: type) -> None:
    public = [member for name, member in vars(kind).items() if callable(member) and not name.startswith("_")]
    assert public
    assert all(hasattr(member, "__wrapped__") for member in public)


def test_environments_of_changing_budgets_leave_one_task_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_tasks(monkeypatch)
    probes = []
    for rounds in range(1, 12):
        env = make(budget={"rounds": rounds})
        probes.append(probe_set(env.task, env.device))
    assert len(registry._loaded) == 1
    assert all(probe is probes[0] for probe in probes)
