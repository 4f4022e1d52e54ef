"""Statistics of `VecNormalize` as tensors and JSON, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from ssdkd_agents.vec_env import DistillationVecEnv, is_resting
from ssdkd_env.errors import InvalidInputError

#: Settings of `VecNormalize` that change what a policy sees.
OPTIONS = ("norm_obs", "norm_reward", "clip_obs", "epsilon")


def normalization_options(hyperparameters: dict[str, Any]) -> dict[str, Any] | None:
    """Arguments of `VecNormalize` that the hyper-parameters mean; None for no normalisation.

    As in RL Zoo, `normalize` is true, false or a mapping such as `{norm_obs: true, norm_reward: false}`, and the
    returns are discounted by the algorithm's `gamma`. RL Zoo's third form, Python source in a string, is refused.

    Raises:
        InvalidInputError: when `normalize` is none of these.
    """
    given = hyperparameters.get("normalize", False)
    if not isinstance(given, bool | dict):
        raise InvalidInputError(
            f"hyperparameters['normalize']={given!r}: expected true, false or a mapping of VecNormalize's arguments, "
            'such as {"norm_obs": true, "norm_reward": false}'
        )
    if given is False:
        return None
    return {"gamma": float(hyperparameters.get("gamma", 0.99))} | (given if isinstance(given, dict) else {})


class MovedNormalize(VecNormalize):
    """`VecNormalize` of a `DistillationVecEnv` without environments that rest, which show the same again and again."""

    def reset(self) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Reset the environments, and normalise what they show, after the statistics have taken note of it."""
        observations = self.venv.reset()
        assert isinstance(observations, np.ndarray)
        made = self.unwrapped
        assert isinstance(made, DistillationVecEnv)
        self.old_obs, self.returns = observations, np.zeros(self.num_envs)
        if self.training and self.norm_obs:
            assert isinstance(self.obs_rms, RunningMeanStd)
            self.obs_rms.update(observations[~made.resting])
        return self.normalize_obs(observations)

    def step_wait(self) -> VecEnvStepReturn:
        """Normalise a step, after the statistics have taken note of it."""
        observations, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(observations, np.ndarray)
        moved = [not is_resting(info) for info in infos]
        self.old_obs, self.old_reward = observations, rewards
        if self.training and self.norm_obs:
            assert isinstance(self.obs_rms, RunningMeanStd)
            self.obs_rms.update(observations[moved])
        if self.training:
            self._update_reward(rewards)
        for info, done in zip(infos, dones, strict=True):
            if done and "terminal_observation" in info:
                info["terminal_observation"] = self.normalize_obs(info["terminal_observation"])
        self.returns[dones] = 0
        return self.normalize_obs(observations), self.normalize_reward(rewards), dones, infos


def normalization_state(environment: VecNormalize) -> dict[str, Any]:
    """Settings and statistics: `options`, and mean, variance (float64 tensors) and count of observation and return."""
    statistics: dict[str, Any] = {"observation": None, "return": _statistics(environment.ret_rms)}
    if environment.norm_obs:
        assert isinstance(environment.obs_rms, RunningMeanStd)
        statistics["observation"] = _statistics(environment.obs_rms)
    return statistics | {"options": {name: getattr(environment, name) for name in OPTIONS}}


def load_normalization(environment: VecNormalize, state: dict[str, Any]) -> None:
    """Put statistics into an environment that normalises.

    Raises:
        InvalidInputError: when a part is missing, or is of another shape than the environment's.
    """
    targets = {"observation": environment.obs_rms} if environment.norm_obs else {}
    for name, target in (targets | {"return": environment.ret_rms}).items():
        assert isinstance(target, RunningMeanStd)
        saved = state.get(name) or {}
        mean, var, count = (saved.get(part) for part in ("mean", "var", "count"))
        shape = target.mean.shape
        if (
            not (isinstance(mean, torch.Tensor) and isinstance(var, torch.Tensor) and isinstance(count, int | float))
            or not mean.shape == var.shape == shape
        ):
            raise InvalidInputError(
                f"the saved sampler's {name} statistics are missing or of another shape than this environment's "
                f"{shape}; use the observation scheme that it was trained with"
            )
        if not (mean.isfinite().all() and var.isfinite().all() and (var >= 0).all() and math.isfinite(count)):
            raise InvalidInputError(f"the saved sampler's {name} statistics are no numbers; train or copy it again")
        target.mean, target.var, target.count = mean.double().numpy().copy(), var.double().numpy().copy(), count


def frozen_normalization(venv: VecEnv, state: dict[str, Any]) -> VecNormalize:
    """A `VecNormalize` that normalises as at the end of the training, and learns no more.

    Raises:
        InvalidInputError: as `load_normalization`.
    """
    options = state.get("options", {})
    if not isinstance(options, dict) or not set(options) <= set(OPTIONS):
        raise InvalidInputError(f"the saved sampler's normalisation has unknown settings; expected {list(OPTIONS)}")
    environment = VecNormalize(venv, training=False, **options)
    load_normalization(environment, state)
    return environment


def _statistics(value: RunningMeanStd) -> dict[str, Any]:
    return {
        "mean": torch.as_tensor(value.mean, dtype=torch.float64),
        "var": torch.as_tensor(value.var, dtype=torch.float64),
        "count": float(value.count),
    }
