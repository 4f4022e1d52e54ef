"""Environments outlive the workers that have them: whenever one dies, episodes go on as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from ssdkd_env.envs import members
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import WorkerDied
from ssdkd_env.processes import Processes, ProcessWorker
from tests.envs.episodes import BUDGET, assert_same
from tests.fragile import Fragile

KWARGS: dict[str, Any] = {"budget": BUDGET, "action": "exponents"}


def played(pool: SubEnvironments, between: Callable[[int], None] = lambda number: None) -> list[Any]:
    """What two environments show in an episode and a half, with a random stream that goes on and a call in between."""
    assert pool.first.action_space.shape is not None
    size = BUDGET["rounds"] + 2, *pool.first.action_space.shape
    actions = np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)
    with closing(pool):
        shown: list[Any] = [pool.reset({0: 3, 1: 4})]
        for number, action in enumerate(actions[: BUDGET["rounds"]]):
            between(number)
            shown.append(pool.step({0: action, 1: -action}))
        shown.append(pool.call([0, 1], "held_out_accuracy"))
        with pytest.raises(InvalidInputError):
            pool.reset({0: -1})
        shown.append(pool.reset({0: None}))
        for number, action in enumerate(actions[BUDGET["rounds"] :]):
            between(BUDGET["rounds"] + number)
            shown.append(pool.step({0: action}))
        shown.append(pool.get([0, 1], "rounds_per_step"))
    return shown


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, list[Any]]:
    """What they show without any worker, by vector backend."""
    return {backend: played(SubEnvironments(2, KWARGS, backend, 1)) for backend in ("loop", "grouped")}


@pytest.mark.parametrize("copy_every", [0.0, 1e9], ids=["copied each time", "asked again"])
def test_a_death_at_any_answer_changes_nothing(
    copy_every: float, undisturbed: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(members, "COPY_EVERY", copy_every)
    sturdy = Fragile()
    assert_same(played(SubEnvironments(2, KWARGS, "process", 2, sturdy)), undisturbed["loop"])
    assert sturdy.started == 2
    assert capsys.readouterr().err == ""
    for number in range(sturdy.answers):
        fragile = Fragile({number})
        assert_same(played(SubEnvironments(2, KWARGS, "process", 2, fragile)), undisturbed["loop"])
        assert fragile.started == 3
        assert capsys.readouterr().err == "its environments are taken over by another: a worker has died\n"


def test_so_it_is_for_environments_in_one_group_and_for_a_death_while_another_takes_over(
    undisturbed: dict[str, list[Any]],
) -> None:
    fragile = Fragile({2, 4})
    assert_same(played(SubEnvironments(2, KWARGS, "grouped", 1, fragile)), undisturbed["grouped"])
    assert fragile.started == 3


def test_what_kills_every_worker_is_given_up() -> None:
    fragile = Fragile(range(2, 100))
    with pytest.raises(WorkerDied, match=r"^a worker has died$"):
        played(SubEnvironments(2, KWARGS, "process", 2, fragile))
    assert fragile.started == 2 * fragile.tries


def test_so_it_is_for_processes_that_are_killed(undisturbed: dict[str, list[Any]]) -> None:
    pool = SubEnvironments(2, KWARGS, "process", 2, Processes(2))

    def kill(number: int) -> None:
        if number in (1, BUDGET["rounds"]):
            worker = pool._parts[0]._worker  # type: ignore[attr-defined]
            assert isinstance(worker, ProcessWorker)
            assert worker._process.pid is not None
            os.kill(worker._process.pid, signal.SIGKILL)

    assert_same(played(pool, kill), undisturbed["loop"])


def test_workers_are_as_many_as_the_executor_has_and_do_what_fits_the_images() -> None:
    with closing(SubEnvironments(4, KWARGS, "by_size", None, Fragile())) as pool:
        assert (pool.choice.backend, pool.choice.processes) == ("grouped", 2)
    with closing(SubEnvironments(4, KWARGS, "by_size", 4, Fragile())) as pool:
        assert (pool.choice.backend, pool.choice.processes) == ("process", 4)
    with closing(SubEnvironments(1, KWARGS, "loop", None, Fragile())) as pool:
        assert (pool.choice.backend, pool.choice.processes) == ("process", 1)
    with pytest.raises(InvalidInputError, match="vectorization='auto' tries what is fastest on this machine"):
        SubEnvironments(4, KWARGS, "auto", None, Fragile())
