"""Stable-Baselines3 algorithms by name, with hyper-parameters in RL Zoo's YAML format."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import VecEnv

from ssdkd_agents.policies.grpo import GRPO
from ssdkd_agents.policies.hyperparameters import check_hyperparameters
from ssdkd_env.errors import InvalidInputError, check_choice, one_line
from ssdkd_env.extras import load_extra

_OWN: dict[str, type[BaseAlgorithm]] = {"a2c": A2C, "dqn": DQN, "grpo": GRPO, "ppo": PPO, "sac": SAC, "td3": TD3}
#: Those of sb3-contrib, by the name of their class there.
_CONTRIB = {"crossq": "CrossQ", "recurrent_ppo": "RecurrentPPO", "tqc": "TQC", "trpo": "TRPO"}
#: Ours on top of sb3-contrib's, which search a policy's weights by whole returns: module and class.
OF_WEIGHTS = {"ars": ("ars", "VectorARS"), "cma_es": ("cma_es", "CMAES")}
#: Names of all algorithms.
ALGORITHMS = tuple(sorted([*_OWN, *_CONTRIB, *OF_WEIGHTS]))
#: Algorithms that know one kind of action only; the others take both.
CONTINUOUS = ("crossq", "sac", "td3", "tqc")
DISCRETE = ("dqn",)

#: Where the hyper-parameter files lie.
HYPERPARAMETERS = Path(__file__).parents[1] / "hyperparameters"
#: Keys of RL Zoo's format that describe the training rather than the model.
TRAINING_KEYS = ("n_envs", "n_timesteps", "normalize")
#: Hyper-parameters that RL Zoo lets fall linearly to 0 where they are written as `lin_0.001`.
SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "delta_std")
NOISES: dict[str, type[ActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}


def algorithm_class(algorithm: str) -> type[BaseAlgorithm]:
    """The class of an algorithm.

    Raises:
        InvalidInputError: when it is unknown, or of sb3-contrib and that is not installed.
    """
    check_choice("algo", algorithm, ALGORITHMS)
    if algorithm in _OWN:
        return _OWN[algorithm]
    contrib = load_extra("sb3_contrib", f"algo={algorithm!r}")
    if algorithm in OF_WEIGHTS:
        module, name = OF_WEIGHTS[algorithm]
        contrib = importlib.import_module(f"ssdkd_agents.policies.{module}")
    else:
        name = _CONTRIB[algorithm]
    found: type[BaseAlgorithm] = getattr(contrib, name)
    return found


def load_hyperparameters(algorithm: str, env_id: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Hyper-parameters of `algorithm` for `env_id`, from `hyperparameters/<algorithm>.yml`.

    An environment without an entry of its own takes the file's first one, that of the digits, because observation and
    action do not depend on the task.

    Args:
        algorithm: one of `ALGORITHMS`.
        env_id: id, with or without the `module:` prefix.
        overrides: values that replace the file's.

    Raises:
        InvalidInputError: when the algorithm is unknown.
    """
    check_choice("algo", algorithm, ALGORITHMS)
    table: dict[str, dict[str, Any]] = yaml.safe_load((HYPERPARAMETERS / f"{algorithm}.yml").read_text())
    chosen = table.get(env_id.rpartition(":")[2]) or next(iter(table.values()))
    return chosen | (overrides or {})


def build_model(
    algorithm: str, env: VecEnv, hyperparameters: dict[str, Any], seed: int, tensorboard_log: str | None = None
) -> BaseAlgorithm:
    """Make an untrained agent.

    The policy network is small, so it stays on the CPU; teacher and student may use the GPU.

    Raises:
        InvalidInputError: when the algorithm is unknown, not installed, does not know this kind of action, or refuses
            a hyper-parameter.
    """
    chosen = algorithm_class(algorithm)
    check_action_space(algorithm, env.action_space)
    given = {key: value for key, value in hyperparameters.items() if key not in TRAINING_KEYS}
    if algorithm in OF_WEIGHTS:
        given.pop("gamma", None)  # of the normalisation; the search compares whole returns
    try:
        options = _with_objects(given, env.action_space)
        check_hyperparameters(chosen, options, env.num_envs)
        model = chosen(env=env, seed=seed, tensorboard_log=tensorboard_log, device="cpu", **options)
    except InvalidInputError:
        raise
    except (TypeError, ValueError, AssertionError, MemoryError, RuntimeError) as error:
        raise InvalidInputError(f"hyperparameters: {algorithm} refused {given}: {one_line(error)}") from error
    if not all(weights.numel() for weights in model.policy.parameters()):  # PyTorch makes such a layer, and it is blind
        raise InvalidInputError(
            f"hyperparameters['policy_kwargs']={given.get('policy_kwargs')!r}: a layer of the policy has no unit; "
            "choose widths of at least 1"
        )
    return model


def check_action_space(algorithm: str, space: spaces.Space[Any]) -> None:
    """Refuse an algorithm that does not know the environment's kind of action.

    Raises:
        InvalidInputError: with the setting that mends it.
    """
    if algorithm in DISCRETE and not isinstance(space, spaces.Discrete):
        raise InvalidInputError(
            f"algo={algorithm!r} chooses among a few actions, but this environment's action is {space}; "
            "add --env.action plans, or choose another algorithm such as ppo"
        )
    if algorithm in CONTINUOUS and not isinstance(space, spaces.Box):
        raise InvalidInputError(
            f"algo={algorithm!r} needs a continuous action (Box), but this environment's is {space}; choose another "
            "scheme, such as --env.action exponents, or another algorithm, such as ppo or dqn"
        )


def _with_objects(given: dict[str, Any], space: spaces.Space[Any]) -> dict[str, Any]:
    """Hyper-parameters with RL Zoo's spellings of schedules, noise and pairs replaced by what they mean."""
    options = copy.deepcopy(given)  # because algorithms add to policy_kwargs what JSON cannot hold
    for name in SCHEDULES:
        if name in options:
            options[name] = _schedule(name, options[name])
    if isinstance(options.get("train_freq"), list):
        options["train_freq"] = tuple(options["train_freq"])
    if ("noise_type" in options) != ("noise_std" in options):
        there, missing = sorted(("noise_type", "noise_std"), key=options.__contains__, reverse=True)
        raise InvalidInputError(f"hyperparameters[{there!r}] does nothing without {missing!r}; give both, or neither")
    kind, scale = options.pop("noise_type", None), options.pop("noise_std", None)
    if kind is not None:
        assert isinstance(space, spaces.Box), "noise_type needs a continuous action"
        noise: Any = NOISES[check_choice("hyperparameters['noise_type']", kind, NOISES)]
        options["action_noise"] = noise(mean=np.zeros(space.shape), sigma=np.full(space.shape, float(scale)))
    return options


def _schedule(name: str, value: Any) -> Any:
    """A schedule in place of its spelling; a plain number, and what is none, as they are."""
    spelt = isinstance(value, str) and value.startswith("lin_")
    start = _number(value.removeprefix("lin_")) if spelt else value
    if isinstance(start, int | float) and (start < 0 or (spelt and not math.isfinite(start))):
        raise InvalidInputError(
            f"hyperparameters[{name!r}]={value!r}: expected a number of at least 0, or lin_ before it, as lin_0.001"
        )
    return _linear(start) if spelt else value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _linear(start: float) -> Callable[[float], float]:
    # What is left falls below 0 where the last rollout has more steps than were asked for.
    return lambda progress_remaining: max(progress_remaining, 0.0) * start
