"""What fails in the middle leaves the episode as it was, and it goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv
from ssdkd_env.envs.judging import Judge
from tests.envs.episodes import BUDGET, SMALL_PROBE, actions_of, assert_same, episode, make, reset, steps


def failing(features: Any) -> Any:
    """A scorer of somebody's, which is asked in the middle of a round."""
    raise ArithmeticError("no score")


def fail(*args: Any, **kwargs: Any) -> Any:
    raise MemoryError("no memory left")


@pytest.mark.parametrize("rounds_per_step", [1, 2])
def test_a_step_that_fails_is_as_if_not_asked_for(rounds_per_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the round, in a later round of the step, and where the student is judged after it."""
    arguments: dict[str, Any] = {"rounds_per_step": rounds_per_step, "budget": {"rounds": 4}, "history": 2}
    env, actions = make(**arguments), actions_of(5, 4 // rounds_per_step)
    moments = [reset(env, 3), *steps(env, actions[:1])]
    with pytest.raises(ArithmeticError):
        env.step(SamplingPlan(scorer=failing))
    for kind, name in ((Judge, "look"), (DistillationRun, "_refresh")):
        with monkeypatch.context() as patch:
            patch.setattr(kind, name, fail)
            with pytest.raises(MemoryError):
                env.step(actions[1])
    moments += steps(env, actions[1:])
    assert_same(moments, episode(make(**arguments), 3, actions))


def test_a_reset_that_fails_leaves_the_episode_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    env, actions = make(), actions_of(5)
    moments = [reset(env, 3), *steps(env, actions[:1])]
    with monkeypatch.context() as patch:
        patch.setattr(DistillationRun, "warm_up", fail)
        with pytest.raises(MemoryError):
            env.reset(seed=4)
    assert_same(moments + steps(env, actions[1:]), episode(make(), 3, actions))


def test_an_instance_that_cannot_begin_is_not_played(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"instances": "digits-train", "probe": SMALL_PROBE}
    env = SSDKDEnv(**arguments)
    env.reset(seed=3, options={"instance": 1})
    with monkeypatch.context() as patch:
        patch.setattr(DistillationRun, "warm_up", fail)
        with pytest.raises(MemoryError):
            env.reset(options={"instance": 2})
    assert env.instances.index == 1
    assert env.task is env.instances.tasks[1]
    assert env.budget == env.task.spec.budget


def test_no_environment_of_a_group_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> SSDKDVectorEnv:
        envs = SSDKDVectorEnv(3, vectorization="grouped", processes=1, budget=BUDGET, probe=SMALL_PROBE)
        envs.reset(seed=3)
        return envs

    envs, expected, actions = made(), made(), actions_of(5, 3)
    with monkeypatch.context() as patch:
        patch.setattr(DistillationRun, "_refresh", fail)
        with pytest.raises(MemoryError):
            envs.step(actions)
    for _ in range(2):
        np.testing.assert_array_equal(envs.step(actions)[0], expected.step(actions)[0])
