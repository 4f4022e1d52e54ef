"""Saving and safe loading of trained samplers: one file, nothing pickled.

The file holds the agent's tensors as safetensors, and everything else (algorithm, hyper-parameters, counters,
normalisation statistics) as JSON in its header, so that the statistics cannot be separated from the weights.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.algorithms import build_model
from agents.environments import make_env
from agents.samplers import CONSTANT_PREFIX, SAMPLERS, Sampler, make_sampler
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.files import load_state, save_state

FloatArray = NDArray[np.float32]

FORMAT = "ssdkd sampler 1"
#: Arrays of Stable-Baselines3's replay buffer.
REPLAY_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def save_sampler(path: str | Path, model: BaseAlgorithm, config: dict[str, Any], with_replay: bool = False) -> None:
    """Write a trained agent as one safetensors file, atomically.

    Args:
        path: the file.
        model: agent on a vector environment, inside `VecNormalize` or not.
        config: JSON-able; needs `algorithm`, `hyperparameters` and `env_id`.
        with_replay: keep an off-policy agent's replay buffer too, for resuming.
    """
    names, variables = model._get_torch_save_params()
    # A fresh environment, not the model's: after Ctrl-C a worker may be in the middle of a step.
    env = make_env(config["env_id"], config.get("env_kwargs", {}))
    environment = model.get_vec_normalize_env()
    state: dict[str, Any] = {
        "format": FORMAT,
        "config": config,
        "names": {
            "observation": list(env.observation_names),
            "action": list(env.action_names),
        },
        "counters": {"num_timesteps": model.num_timesteps, "n_updates": model._n_updates},
        "parameters": {name: recursive_getattr(model, name).state_dict() for name in names},
        "variables": {name: recursive_getattr(model, name) for name in variables},
        "normalization": None if environment is None else _normalization_state(environment),
        "replay": _replay_state(model) if with_replay else None,
    }
    save_state(path, state)


def read_sampler(path: str | Path) -> dict[str, Any]:
    """Read a sampler file without building anything.

    Raises:
        InvalidInputError: when it is missing, cut short, or no sampler.
    """
    state = load_state(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InvalidInputError(f"{path} holds no trained sampler; expected a file that train_sampler wrote")
    parts = {"config", "names", "counters", "parameters", "variables", "normalization", "replay"}
    settings = {"algorithm", "hyperparameters", "env_id"}
    if not parts <= state.keys() or not settings <= state["config"].keys():
        raise InvalidInputError(f"{path} is damaged: a part of the sampler is missing; train or copy it again")
    return state


def restore_model(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    """Put a saved state into a model that `build_model` made with the same hyper-parameters.

    Raises:
        InvalidInputError: when the saved weights do not fit the model.
    """
    try:
        model.set_parameters(state["parameters"], device="cpu")
        for name, value in state["variables"].items():
            recursive_getattr(model, name).data.copy_(value)
        model.num_timesteps = state["counters"]["num_timesteps"]
        model._n_updates = state["counters"]["n_updates"]
        environment = model.get_vec_normalize_env()
        if environment is not None and state["normalization"] is not None:
            _load_normalization(environment, state["normalization"])
        if state["replay"] is not None:
            _load_replay(model, state["replay"])
    except (RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidInputError(
            f"the saved sampler does not fit this agent and environment ({one_line(error)}); use the observation and "
            "action scheme and the hyper-parameters that it was trained with"
        ) from error


class TrainedSampler:
    """A trained agent as a sampler: normalises observations as in training, then asks the policy.

    Args:
        path: file that `save_sampler` wrote.
        env: environment that it will drive; its spaces must be those of the training.

    Raises:
        InvalidInputError: when the file is unusable or the environment has other observations or actions.
    """

    def __init__(self, path: str | Path, env: SSDKDEnv) -> None:
        state = read_sampler(path)
        for what, names in (("observation", env.observation_names), ("action", env.action_names)):
            if list(names) != state["names"][what]:
                raise InvalidInputError(
                    f"{path} was trained with other {what} entries than this environment has; make the environment "
                    "with the scheme that it was trained with"
                )
        config = state["config"]
        venv = DummyVecEnv([lambda: _Spaces(env.observation_space, env.action_space)])
        with warnings.catch_warnings():  # it trains no more, so the mini-batch need not fit one environment's rollout
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
            self._model = build_model(config["algorithm"], venv, config["hyperparameters"], seed=0)
        restore_model(self._model, state | {"replay": None})
        self._normalize: VecNormalize | None = None
        if state["normalization"] is not None:
            self._normalize = VecNormalize(venv, training=False)
            _load_normalization(self._normalize, state["normalization"])

    def predict(
        self,
        observation: FloatArray,
        state: tuple[FloatArray, ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[FloatArray, tuple[FloatArray, ...] | None]:
        """The policy's action for raw observations."""
        if self._normalize is not None:
            observation = self._normalize.normalize_obs(observation)  # type: ignore[assignment]
        return self._model.predict(observation, state, episode_start, deterministic)


class _Spaces(gym.Env[FloatArray, FloatArray]):
    """Stands in for the environment where a model only needs to know its spaces."""

    def __init__(self, observation_space: spaces.Space[FloatArray], action_space: spaces.Space[FloatArray]) -> None:
        self.observation_space, self.action_space = observation_space, action_space


def find_sampler_file(path: Path) -> Path:
    """The sampler file meant by a file, or by a run folder: its last checkpoint.

    Raises:
        InvalidInputError: when there is none.
    """
    if path.is_dir():
        checkpoints = [file for file in (path / "checkpoints").glob("*.safetensors") if file.stem.isdigit()]
        if not checkpoints:
            raise InvalidInputError(f"{path} holds no checkpoint yet; let train_sampler run for longer")
        return max(checkpoints, key=lambda file: int(file.stem))
    return path


def load_sampler(name: str, env: SSDKDEnv, seed: int = 0) -> Sampler:
    """A control by its name, or a trained sampler by its file or run folder.

    Raises:
        InvalidInputError: when there is no such control, file or folder.
    """
    if name in SAMPLERS or name.startswith(CONSTANT_PREFIX):
        return make_sampler(name, env, seed)
    path = Path(name)
    if not path.exists():
        raise InvalidInputError(
            f"sampler={name!r} is neither a file, a run folder, constant:[...], nor one of: "
            f"{', '.join(sorted(SAMPLERS))}; "
            "scripts/train_sampler.py makes run folders"
        )
    return TrainedSampler(find_sampler_file(path), env)


def _normalization_state(environment: VecNormalize) -> dict[str, dict[str, Any]]:
    statistics = {"observation": environment.obs_rms, "return": environment.ret_rms}
    state: dict[str, dict[str, Any]] = {}
    for name, value in statistics.items():
        assert isinstance(value, RunningMeanStd)
        state[name] = {
            "mean": torch.as_tensor(value.mean),
            "var": torch.as_tensor(value.var),
            "count": float(value.count),
        }
    return state


def _load_normalization(environment: VecNormalize, state: dict[str, dict[str, Any]]) -> None:
    for name, target in (("observation", environment.obs_rms), ("return", environment.ret_rms)):
        assert isinstance(target, RunningMeanStd)
        saved = state.get(name, {})
        if not {"mean", "var", "count"} <= saved.keys() or saved["mean"].shape != target.mean.shape:
            raise InvalidInputError(
                f"the saved sampler's {name} statistics are missing or of another shape than this environment's "
                f"{target.mean.shape}; use the observation scheme that it was trained with"
            )
        target.mean, target.var, target.count = saved["mean"].numpy(), saved["var"].numpy(), saved["count"]


def _replay_state(model: BaseAlgorithm) -> dict[str, Any] | None:
    if not isinstance(model, OffPolicyAlgorithm):
        return None
    buffer = model.replay_buffer
    assert isinstance(buffer, ReplayBuffer)
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: torch.from_numpy(getattr(buffer, name)[:filled].copy()) for name in REPLAY_ARRAYS}
    return arrays | {"pos": buffer.pos, "full": buffer.full}


def _load_replay(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    assert isinstance(model, OffPolicyAlgorithm)
    buffer = model.replay_buffer
    assert isinstance(buffer, ReplayBuffer)
    for name in REPLAY_ARRAYS:
        saved = state[name].numpy()
        getattr(buffer, name)[: len(saved)] = saved
    buffer.pos, buffer.full = state["pos"], state["full"]
