"""`SSDKDVectorEnv`: many distillation runs at once as a Gymnasium vector environment."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ssdkd_env.envs.distillation import SSDKDEnv
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.envs.sub_environments import SubEnvironments, one_each
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.settings import check_seed

BoolArray = NDArray[np.bool_]
#: What `step` returns: observations, rewards, terminations, truncations, infos.
VectorStep = tuple[FloatArray, NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]


class SSDKDVectorEnv(VectorEnv[FloatArray, FloatArray, NDArray[Any]]):
    """`num_envs` environments like `SSDKDEnv`, whose runs are done side by side.

    ```python
    envs = gymnasium.make_vec("SSDKD/Digits-v2", num_envs=16)
    ```

    It is the ids' `vector_entry_point`, which `make_vec` takes where no `vectorization_mode` is given.

    Spaces, rewards and infos are those of `SSDKDEnv`, batched as in Gymnasium's own vector environments. Environment i
    gives what it gives alone, whatever the number of environments: bit-identically on the CPU with the backend
    `"loop"`, and with `"process"` what it gives alone with one torch thread; with `"grouped"` but for rounding, which a
    run's many steps amplify, so that in float32 the episode of a seed is another one, of the same distribution (in
    float64 it is the same).

    Args:
        num_envs: number of environments.
        vectorization: `"by_size"`, `"loop"`, `"process"`, `"grouped"` or `"auto"`, which tries in a second or two what
            is fastest, so that it depends on what else the machine does; see `SubEnvironments`. `choice` says what was
            taken, and why.
        processes: among which the environments are divided; None leaves it to the backend.
        autoreset_mode: `"NextStep"`, `"SameStep"` or `"Disabled"`, or the member of Gymnasium's `AutoresetMode`.
        kwargs: arguments of each `SSDKDEnv`.

    Raises:
        InvalidInputError: when an argument does not fit.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        vectorization: str = "by_size",
        processes: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> None:
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            known = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise InvalidInputError(f"autoreset_mode={autoreset_mode!r} is unknown; choose one of: {known}") from error
        self._environments = SubEnvironments(num_envs, kwargs, vectorization, processes)
        self.choice = self._environments.choice
        first = self._environments.first
        self.num_envs = num_envs = self._environments.count
        self.metadata = SSDKDEnv.metadata | {"autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(first.observation_space, num_envs)
        self.action_space = batch_space(first.action_space, num_envs)
        self.observation_names, self.action_names = first.observation_names, first.action_names
        self._observations = np.zeros(self.observation_space.shape or (), dtype=np.float32)
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        self._begun = np.zeros(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Reset all environments, or those of `options["reset_mask"]`.

        Args:
            seed: of the first environment, the others have the next ones; or a list; or None.
            options: `reset_mask`, (num_envs,) bool, chooses which environments are reset. All others are those of
                `SSDKDEnv.reset`, for every environment.

        Raises:
            InvalidInputError: when a list of seeds or a mask has another length, a seed is out of range, or an option
                is refused; no environment has been reset then.
        """
        self._environments.first.instances.wanted(options)  # refuses what is none, before the mask is looked for
        mask = self._mask(options)
        chosen = dict(enumerate(self._seeds(seed)))
        seeds = {index: chosen[index] for index in np.flatnonzero(mask).tolist()}
        results = self._environments.reset(seeds, dict.fromkeys(seeds, options or {}))
        infos: dict[str, Any] = {}
        for index, (observation, info) in results.items():
            self._observations[index] = observation
            infos = self._add_info(infos, info, index)
        self._ended &= ~mask
        self._begun |= mask
        return self._observations.copy(), infos

    def _seeds(self, seed: int | list[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, Iterable):
            return one_each("seed", seed, self.num_envs)
        first = check_seed("seed", seed)
        return [first + index for index in range(self.num_envs)]

    def _mask(self, options: dict[str, Any] | None) -> BoolArray:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            shown = " ".join(str(mask).split())[:100]
            raise InvalidInputError(
                f"options['reset_mask']={shown}: expected {self.num_envs} booleans of which at least one is true"
            )
        return mask

    def step(self, actions: FloatArray) -> VectorStep:
        """Step every environment.

        Where an episode has ended, `"NextStep"` resets in the next call (reward 0, the action is ignored), `"SameStep"`
        at once (the last observation and info are `infos["final_obs"]` and `infos["final_info"]`), `"Disabled"` never.

        Args:
            actions: (num_envs, parts) float32 in [−1, 1].

        Raises:
            InvalidInputError: when an action is unusable; no environment has moved then.
            WorkerDied: when a process of the environments has died; all that is left is to `close` them.
            ResetNeeded: before the first reset, and after an episode's end with `"Disabled"`.
        """
        if not self._begun.all():
            raise gym.error.ResetNeeded("Cannot call step() before calling reset()")
        by_member = one_each("actions", actions, self.num_envs)
        fresh = np.flatnonzero(self._ended).tolist() if self.autoreset_mode == AutoresetMode.NEXT_STEP else []
        if self._ended.any() and self.autoreset_mode == AutoresetMode.DISABLED:
            over = np.flatnonzero(self._ended).tolist()
            raise gym.error.ResetNeeded(f"the episodes of environments {over} have ended; reset them with reset_mask")
        moving = [index for index in range(self.num_envs) if index not in fresh]
        rewards = np.zeros(self.num_envs)
        ended = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        results = self._environments.step({index: by_member[index] for index in moving}) if moving else {}
        for index, (observation, reward, terminated, _, info) in results.items():
            self._observations[index], rewards[index], ended[index] = observation, reward, terminated
            if terminated and self.autoreset_mode == AutoresetMode.SAME_STEP:
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, index)
                fresh.append(index)
            else:
                infos = self._add_info(infos, info, index)
        for index, (observation, info) in (self._environments.reset(dict.fromkeys(fresh)) if fresh else {}).items():
            self._observations[index] = observation
            infos = self._add_info(infos, info, index)
        self._ended = ended.copy()
        return self._observations.copy(), rewards, ended, np.zeros_like(ended), infos

    def render(self) -> tuple[Any, ...] | None:
        """A picture of every run, (H, W, 3) uint8 each; None without a render mode."""
        return None if self.render_mode is None else tuple(self.call("render"))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What a method of every environment gives, or an attribute of each."""
        return tuple(self._environments.call(range(self.num_envs), name, *args, **kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every environment."""
        return tuple(self._environments.get(range(self.num_envs), name))

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment: to the items of a list or tuple, or all to one value."""
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        self._environments.assign(dict(enumerate(one_each("values", each, self.num_envs))), name)

    def __copy__(self) -> SSDKDVectorEnv:
        """A copy with episodes of its own, as `copy.deepcopy` gives it.

        Raises:
            InvalidInputError: when the environments are in processes of their own.
        """
        return copy.deepcopy(self)

    def close_extras(self, **kwargs: Any) -> None:
        """End processes."""
        self._environments.close()
