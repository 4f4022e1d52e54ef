"""A small world to train agents of every kind in: no network, four steps an episode."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from ssdkd_agents.policies.algorithms import ALGORITHMS, DISCRETE, build_model, load_hyperparameters
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

DIGITS = "SSDKD/Digits-v2"
STEPS = 4
#: Hyper-parameters with which every algorithm has learnt after a few episodes of two environments.
SMALL: dict[str, dict[str, Any]] = {
    "a2c": {"n_steps": 4},
    "ars": {"n_delta": 2, "n_top": 1},
    "cma_es": {"population": 4},
    "crossq": {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [8]}}},
    "dqn": {"target_update_interval": 6},
    "grpo": {"groups": 1, "batch_size": 4, "n_epochs": 2},
    "ppo": {"n_steps": 4, "batch_size": 4, "n_epochs": 2},
    "recurrent_ppo": {"n_steps": 4, "batch_size": 4, "n_epochs": 2},
    "sac": {},
    "td3": {},
    "tqc": {},
    "trpo": {"n_steps": 4, "batch_size": 4},
}
OFF_POLICY = ("crossq", "dqn", "sac", "td3", "tqc")
OFF_POLICY_SMALL = {"learning_starts": 6, "batch_size": 4, "buffer_size": 60, "gradient_steps": 2}
assert set(SMALL) == set(ALGORITHMS)

#: What follows an observation is a fixed mixture of it, and of the action.
MIXTURE = np.random.default_rng(0).normal(size=(3, 3)) * 0.5


class StandIn(gym.Env[NDArray[np.float32], Any]):
    """Three numbers that an action moves. Nothing is drawn, so that equal actions give equal episodes."""

    observation_names = ("x", "y", "z")
    face = {"action": "stand-in", "rounds_per_step": 1}  # noqa: RUF012 (the environment declares it on the instance)

    def __init__(self, discrete: bool = False) -> None:
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space: spaces.Space[Any] = spaces.Discrete(3) if discrete else spaces.Box(-1, 1, (2,), np.float32)
        self.action_names = ("plan",) if discrete else ("a", "b")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self._round = 0
        self._state = np.array([0.1, -0.2, 0.3])
        return self._state.astype(np.float32), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self._round += 1
        effect = np.resize(np.asarray(action, dtype=np.float64), 3)
        self._state = np.tanh(MIXTURE @ self._state + 0.5 * effect)
        reward = float(self._state.sum())
        return self._state.astype(np.float32), reward, self._round == STEPS, False, {"round": self._round}


def config_of(algorithm: str, **overrides: Any) -> dict[str, Any]:
    small = (OFF_POLICY_SMALL if algorithm in OFF_POLICY else {}) | SMALL[algorithm] | {"n_envs": 2}
    return {
        "algorithm": algorithm,
        "hyperparameters": load_hyperparameters(algorithm, DIGITS, small | overrides),
        "env_id": DIGITS,
    }


def stand_in(algorithm: str) -> StandIn:
    """With the kind of action that the algorithm knows."""
    return StandIn(discrete=algorithm in DISCRETE)


def environments(algorithm: str, count: int = 2) -> VecEnv:
    return VecMonitor(DummyVecEnv([lambda: stand_in(algorithm)] * count))


def agent(config: dict[str, Any], seed: int = 0, normalize: bool = True) -> Any:
    """An untrained agent in stand-ins."""
    venv = environments(config["algorithm"], config["hyperparameters"]["n_envs"])
    return build_model(
        config["algorithm"], VecNormalize(venv) if normalize else venv, config["hyperparameters"], seed=seed
    )
