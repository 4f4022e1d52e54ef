"""Making environments by id, with errors that teach."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

import ssdkd_env  # noqa: F401 (registers the environments)
from ssdkd_agents.seeds import HELD_OUT_SEED, shared_out
from ssdkd_agents.vec_env import DistillationVecEnv
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.executors import Executor
from ssdkd_env.registry import has_module


def make_env(env_id: str, env_kwargs: dict[str, Any]) -> SSDKDEnv:
    """Make a distillation environment.

    Raises:
        InvalidInputError: when the id is unknown or is another kind of environment, or an argument is unknown.
    """
    try:
        if ":" in env_id and not has_module(env_id):  # Gymnasium imports whatever stands before the first colon
            raise ValueError("expected 'module:NAMESPACE/Name-v0', or an id without a module")
        env = gym.make(env_id, **env_kwargs)
    except InvalidInputError:
        raise
    except (gym.error.Error, ModuleNotFoundError, ValueError) as error:
        known = ", ".join(sorted(name for name in gym.registry if name.startswith("SSDKD/")))
        raise InvalidInputError(f"env_id={env_id!r} is unknown ({one_line(error)}); choose one of: {known}") from error
    except TypeError as error:
        raise InvalidInputError(f"env_kwargs={env_kwargs}: {one_line(error)}; see the arguments of SSDKDEnv") from error
    if not isinstance(env.unwrapped, SSDKDEnv):
        raise InvalidInputError(f"env_id={env_id!r} is no distillation environment; choose one that begins with SSDKD/")
    return env.unwrapped


def make_vec_env(
    env_id: str,
    env_kwargs: dict[str, Any],
    count: int,
    backend: str = "by_size",
    processes: int | None = None,
    executor: Executor | None = None,
    more: int = 0,
) -> DistillationVecEnv:
    """Make several distillation environments whose work is done side by side; see `DistillationVecEnv`.

    Raises:
        InvalidInputError: as `make_env`, and when backend, count or processes do not fit.
    """
    return DistillationVecEnv(count, env_arguments(env_id, env_kwargs), backend, processes, executor, more)


def env_arguments(env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the `SSDKDEnv` that an id means, those of the id included."""
    spec = make_env(env_id, env_kwargs).spec  # which knows ids with a module before them, or without a version
    return {**(spec.kwargs if spec else {}), **env_kwargs}


def use_one_thread() -> None:
    """One torch thread in this process: side by side, more threads only wait for each other."""
    torch.set_num_threads(1)


def instances_of(env: SSDKDEnv, episodes: int, first_seed: int = HELD_OUT_SEED) -> list[int | None]:
    """The instance of each of some episodes that are compared, in turn; None where there is no choice.

    A seed plays the same one whoever plays it, so that evaluations that were divided by their seeds are one.

    Args:
        env: one of the kind.
        episodes: how many.
        first_seed: seed of the first.
    """
    count = len(env.instances)
    skipped = first_seed - HELD_OUT_SEED if first_seed >= HELD_OUT_SEED else first_seed
    return [*shared_out(episodes, count, skipped)] if count > 1 else [None] * episodes
