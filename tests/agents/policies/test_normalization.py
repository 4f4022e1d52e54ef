"""Statistics that a policy sees its observations by."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from ssdkd_agents.policies.normalization import (
    MovedNormalize,
    frozen_normalization,
    load_normalization,
    normalization_state,
)
from ssdkd_agents.seeds import Beginning
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.envs.episodes import BUDGET, SMALL_PROBE


class Counting(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Observes how many steps were taken, and is paid as much."""

    observation_space = spaces.Box(-1e3, 1e3, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, **_: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.full(2, self.steps, np.float32), float(self.steps), False, False, {}


def stepped(environment: VecNormalize, steps: int = 20) -> VecNormalize:
    environment.reset()
    for _ in range(steps):
        environment.step(np.zeros((1, 1), np.float32))
    return environment


def numbers(environment: VecNormalize) -> list[float]:
    state = normalization_state(environment)
    parts = [state[name][part] for name in ("observation", "return") for part in ("mean", "var", "count")]
    return [float(number) for part in parts for number in np.ravel(part)]


def test_statistics_that_are_frozen_learn_no_more() -> None:
    trained = stepped(VecNormalize(DummyVecEnv([Counting]), clip_obs=5.0))
    frozen = frozen_normalization(DummyVecEnv([Counting]), normalization_state(trained))
    assert numbers(frozen) == numbers(trained)
    assert frozen.clip_obs == 5.0
    before = numbers(frozen)
    assert numbers(stepped(frozen)) == before


def test_statistics_that_are_put_back_go_on_learning() -> None:
    trained = stepped(VecNormalize(DummyVecEnv([Counting])))
    resumed = VecNormalize(DummyVecEnv([Counting]))
    load_normalization(resumed, normalization_state(trained))
    before = numbers(trained)
    assert numbers(resumed) == before
    assert numbers(stepped(resumed)) != before
    assert numbers(trained) == before, "not shared"


def statistics(venv: VecNormalize) -> RunningMeanStd:
    assert isinstance(venv.obs_rms, RunningMeanStd)
    return venv.obs_rms


def test_environments_that_rest_leave_no_trace_in_the_statistics() -> None:
    """And where none rests, everything is as with `VecNormalize`."""
    venv = DistillationVecEnv(2, {"budget": BUDGET, "probe": SMALL_PROBE}, "loop")
    own, plain = MovedNormalize(venv, gamma=0.9), VecNormalize(venv, gamma=0.9)
    actions = np.zeros((2, 5), np.float32)
    try:
        steps = []
        for environment in (own, plain):
            venv.play_once([Beginning(3, 0), Beginning(4, 0)])
            environment.reset()
            steps.append([environment.step(actions) for _ in range(3)])
        for mine, theirs in zip(*steps, strict=True):
            for part in range(3):
                assert np.array_equal(np.asarray(mine[part]), np.asarray(theirs[part]))
        before = statistics(own).count
        venv.play_once([Beginning(3, 0)])
        own.reset()
        own.step(actions)
        assert statistics(own).count == pytest.approx(before + 1 + 1)  # the reset of one, and its step
    finally:
        venv.close()
