"""Copies and pickles of environments: each plays on by itself, with the bits that the original would have given."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET, SMALL_PROBE, actions_of, assert_same, make, reset, samples_of, steps


def through_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


WAYS: dict[str, Callable[[Any], Any]] = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": through_pickle}
any_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@any_way
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"action": "samples", "history": 3},
        {"method": "cmi", "method_options": {"steps": 2}},
        {"method": "dafl", "backend": "plain"},
        {"work_scale": 0.05, "action": "work"},
    ],
    ids=str,
)
def test_a_copy_goes_on_with_an_episode_of_its_own(arguments: dict[str, Any], way: Callable[[Any], Any]) -> None:
    env = make(**arguments)
    actions = samples_of(env, 5, 3)
    reset(env, 3)
    steps(env, actions[:1])
    other = way(env)
    mine = steps(env, actions[1:2])
    assert_same(mine, steps(other, actions[1:2]))
    reset(env, 8)  # of which the copy knows nothing
    alone = make(**arguments)
    reset(alone, 3)
    steps(alone, actions[:2])
    assert_same([*steps(alone, actions[2:]), reset(alone)], [*steps(other, actions[2:]), reset(other)])


@any_way
def test_a_copy_before_the_first_reset_begins_alike(way: Callable[[Any], Any]) -> None:
    env = make()
    env.action_space.seed(4)
    other = way(env)
    assert other.episode is None
    assert_same([reset(env, 3)], [reset(other, 3)])
    np.testing.assert_array_equal(env.action_space.sample(), other.action_space.sample())


@any_way
def test_what_was_set_and_what_gymnasium_put_around_it_is_copied_too(way: Callable[[Any], Any]) -> None:
    env = gym.make("SSDKD/Digits-v2", budget=BUDGET, probe=SMALL_PROBE, reward="probe_discrepancy")
    made: Any = env.unwrapped
    made.rounds_per_step, made.note = 2, ["mine"]
    env.reset(seed=3)
    if way is copy.copy:
        other = copy.copy(made)
    else:
        copied = way(env)
        assert copied.spec == env.spec
        other = copied.unwrapped
    assert (other.rounds_per_step, other.note, other.spec) == (2, ["mine"], made.spec)
    other.note.append("yours")
    assert made.note == ["mine"]
    assert other.step(actions_of(5)[0])[4] == env.step(actions_of(5)[0])[4]


def test_the_teacher_is_shared_and_the_pickle_small() -> None:
    env = make()
    reset(env, 3)
    assert copy.deepcopy(env).task.teacher_on(env.device) is env.task.teacher_on(env.device)
    assert len(pickle.dumps(make())) < 10_000


@any_way
@pytest.mark.parametrize("vectorization", ["loop", "grouped"])
def test_vector_environments_of_this_process_are_copied(vectorization: str, way: Callable[[Any], Any]) -> None:
    envs = SSDKDVectorEnv(2, vectorization=vectorization, processes=1, budget=BUDGET, probe=SMALL_PROBE)
    envs.reset(seed=3)
    envs.step(actions_of(1)[:2])
    other = way(envs)
    for index in range(4):  # through the end of the episodes
        ours, theirs = (each.step(actions_of(index)[:2]) for each in (envs, other))
        for mine, yours in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(mine, yours)
        assert repr(ours[4]) == repr(theirs[4])


def in_processes(tiny_teacher: str) -> SSDKDVectorEnv:
    task: dict[str, Any] = {"task": "tests.envs.own_networks:TINY", "teacher": tiny_teacher}
    return SSDKDVectorEnv(2, vectorization="process", processes=2, budget=BUDGET, probe=SMALL_PROBE, **task)


def test_processes_have_no_copy_and_go_on_after_the_refusal(tiny_teacher: str) -> None:
    """A copy of a pipe would close it when it goes, under the process."""
    envs = in_processes(tiny_teacher)
    envs.reset(seed=3)
    for way in WAYS.values():
        with pytest.raises(InvalidInputError, match=r"neither copied nor pickled.*vectorization='loop'"):
            way(envs)
    envs.step(actions_of(1)[:2])
    envs.close()


def test_processes_end_with_what_nobody_holds_any_more(tiny_teacher: str) -> None:
    """Gymnasium closes nothing by itself since 1.3."""
    before = set(multiprocessing.active_children())
    envs = in_processes(tiny_teacher)
    assert len(set(multiprocessing.active_children()) - before) == 2
    del envs
    deadline = time.monotonic() + 60
    while set(multiprocessing.active_children()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_environments_of_subclasses_are_copied_with_what_is_theirs() -> None:
    class Counted(SSDKDEnv):
        def __init__(self, count: int) -> None:
            super().__init__(budget=BUDGET, probe=SMALL_PROBE)
            self.count = count

    env = Counted(7)
    reset(env, 3)
    other = copy.deepcopy(env)
    assert type(other) is Counted and other.count == 7
    assert_same(steps(env, actions_of(5)), steps(other, actions_of(5)))
