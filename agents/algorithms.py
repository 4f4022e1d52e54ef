"""Stable-Baselines3 algorithms by name, with hyper-parameters in RL Zoo's YAML format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ssdkd_env.errors import InvalidInputError, check_choice, one_line

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "sac": SAC}

#: Keys of RL Zoo's format that describe the training rather than the model.
TRAINING_KEYS = ("n_envs", "n_timesteps", "normalize")


def load_hyperparameters(algorithm: str, env_id: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Hyper-parameters of `algorithm` for `env_id`, from `agents/hyperparameters/<algorithm>.yml`.

    An environment without an entry of its own takes that of `SSDKD/Digits-v0`, because observation and action do
    not depend on the task.

    Args:
        algorithm: key of `ALGORITHMS`.
        env_id: id, with or without the `module:` prefix.
        overrides: values that replace the file's.

    Raises:
        InvalidInputError: when the algorithm is unknown.
    """
    check_choice("algo", algorithm, ALGORITHMS)
    path = Path(__file__).parent / "hyperparameters" / f"{algorithm}.yml"
    table: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())
    chosen = table.get(env_id.rpartition(":")[2], table["SSDKD/Digits-v0"])
    return chosen | (overrides or {})


def build_model(
    algorithm: str, env: VecEnv, hyperparameters: dict[str, Any], seed: int, tensorboard_log: str | None = None
) -> BaseAlgorithm:
    """Make an untrained agent.

    The policy network is small, so it stays on the CPU; teacher and student may use the GPU.

    Raises:
        InvalidInputError: when the algorithm is unknown, or refuses a hyper-parameter.
    """
    check_choice("algo", algorithm, ALGORITHMS)
    options = {key: value for key, value in hyperparameters.items() if key not in TRAINING_KEYS}
    try:
        return ALGORITHMS[algorithm](env=env, seed=seed, tensorboard_log=tensorboard_log, device="cpu", **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise InvalidInputError(f"hyperparameters: {algorithm} refused {options}: {one_line(error)}") from error
