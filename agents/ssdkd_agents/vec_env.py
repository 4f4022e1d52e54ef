"""The environments of `SubEnvironments` as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from ssdkd_agents.playing import Rest
from ssdkd_agents.seeds import Beginning, in_turn
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.sub_environments import SubEnvironments, one_each
from ssdkd_env.executors import Executor

#: Info of an environment that was not stepped.
RESTING = {"resting": True}


def is_resting(info: Mapping[str, Any]) -> bool:
    """Whether this is the info of an environment that was not stepped."""
    return RESTING.items() <= info.items()


class DistillationVecEnv(VecEnv):
    """Many distillation runs side by side, as Stable-Baselines3 wants them.

    An episode's end resets its environment in the same step; the last observation is `info["terminal_observation"]`.
    After `play_once` it rests instead.

    Args:
        num_envs: number of environments.
        kwargs: arguments of each `SSDKDEnv`.
        backend: `"by_size"`, `"loop"`, `"process"`, `"grouped"` or `"auto"`; see `SubEnvironments`.
        processes: among which the environments are divided; None leaves it to the backend.
        executor: whose workers have the environments; None for processes of this machine.
        more: environments beside them, which are not stepped here: workers that have room for both are one set, because
            on a cluster a second one may wait for ever for what the first has reserved.

    Attributes:
        rest: those.
        choice: backend and processes, and why.
        device: of the environments' networks.
        instances: how many of them a reset chooses from.
        resting: (num_envs,) which environments rest; see `play_once`.

    Raises:
        InvalidInputError: when an argument does not fit.
    """

    def __init__(
        self,
        num_envs: int,
        kwargs: dict[str, Any],
        backend: str = "by_size",
        processes: int | None = None,
        executor: Executor | None = None,
        more: int = 0,
    ) -> None:
        self._environments = SubEnvironments(num_envs + more, kwargs, backend, processes, executor)
        self.rest = Rest(self._environments, num_envs)
        self.choice = self._environments.choice
        self._actions: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        first = self._environments.first
        self.device = first.device
        self.instances = len(first.instances)
        super().__init__(num_envs, first.observation_space, first.action_space)
        self.metadata = SSDKDEnv.metadata  # with the frames per second of a video
        self._once: list[Beginning] | None = None
        self._in_common: int | None = None
        self._begun = 0
        self.resting: NDArray[np.bool_] = np.zeros(num_envs, dtype=bool)
        self._seen: list[NDArray[np.float32]] = [np.zeros(first.observation_space.shape or (), np.float32)] * num_envs
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]

    def reset(self) -> NDArray[np.float32]:
        """Reset all environments with the seeds and options that `seed` and `set_options` gave, if they did."""
        self.resting[:] = False
        if self._once is not None:
            results = self._begin(dict(enumerate(self._once)))
            self.resting[len(self._once) :] = True
        elif self._in_common is not None:
            results = self._begin(self._next_in_common(range(self.num_envs)))
        else:
            results = self._environments.reset(dict(enumerate(self._seeds)), dict(enumerate(self._options)))
        self._reset_seeds()
        self._reset_options()
        return self._take(results)

    def play_once(self, beginnings: Sequence[Beginning] | None) -> None:
        """Let each reset from now on begin one episode in each of the first environments, and none after it.

        Environments whose episode has ended, and those beyond, rest until the next reset: they are not stepped, show
        what they showed last, give no reward, and their info is `RESTING`.

        Args:
            beginnings: of the episodes; None goes back to one episode after the other.
        """
        self._once = None if beginnings is None else list(beginnings)

    def seed_each(self, seed: int, alike: bool, ended: int | None = None) -> None:
        """Give the environments their seeds from the next reset on.

        Args:
            seed: of the first one; of all that is drawn where they are alike.
            alike: as many episodes as there are environments, in the order in which they begin, have one seed and
                play one instance, of which all take turns. Environments whose episodes are of unequal length so remain
                on one instance or two: what they gain differs by what was done, and they are played as a group.
            ended: episodes of a training that goes on, whose environments are in the middle of theirs; None for one
                that begins.
        """
        self.seed(seed)
        self._in_common = seed if alike else None
        self._begun = 0 if ended is None else ended + self.num_envs

    def _next_in_common(self, indices: Iterable[int]) -> dict[int, Beginning]:
        """What the next episodes begin with, of these environments."""
        assert self._in_common is not None
        begun = {}
        for index in indices:
            begun[index] = in_turn(self._in_common, self._begun // self.num_envs, self.instances)
            self._begun += 1
        return begun

    def _begin(self, beginnings: Mapping[int, Beginning]) -> dict[int, tuple[NDArray[np.float32], dict[str, Any]]]:
        seeds = {index: each.seed for index, each in beginnings.items()}
        options = {index: {"instance": each.instance} for index, each in beginnings.items()}
        return self._environments.reset(seeds, options, alike=True)

    def _take(self, results: dict[int, tuple[NDArray[np.float32], dict[str, Any]]]) -> NDArray[np.float32]:
        """Observations of all environments after a reset of some; their infos are kept in `reset_infos`."""
        for index, (observation, info) in results.items():
            self._seen[index], self.reset_infos[index] = observation, info
        return np.stack(self._seen)

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Remember the actions, (num_envs, parts) float32."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards, dones and infos of the step.

        Raises:
            WorkerDied: when a process of the environments has died; all that is left is to `close` them.
        """
        actions = one_each("actions", self._actions, self.num_envs)
        stepped = {index: action for index, action in enumerate(actions) if not self.resting[index]}
        rewards, dones = np.zeros(self.num_envs, dtype=np.float32), np.zeros(self.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = [dict(RESTING) for _ in actions]
        for index, (observation, reward, terminated, _, info) in self._environments.step(stepped).items():
            self._seen[index], rewards[index], dones[index] = observation, reward, terminated
            infos[index] = info | {"TimeLimit.truncated": False}
        ended = np.flatnonzero(dones).tolist()
        for index in ended:
            infos[index]["terminal_observation"] = self._seen[index]
        if self._once is not None:
            self.resting |= dones
        elif ended and self._in_common is not None:
            self._take(self._begin(self._next_in_common(ended)))
        elif ended:
            self._take(self._environments.reset(dict.fromkeys(ended)))
        return np.stack(self._seen), rewards, dones, infos

    def save_episodes(self, folder: Path) -> None:
        """Write every environment's episode into a file of `folder`, between two steps.

        Raises:
            ResetNeeded: before the first reset.
            InvalidInputError: when the folder cannot be written.
        """
        self._environments.call_each("save", self._episode_files(folder))

    def load_episodes(self, folder: Path) -> None:
        """Go on with the episodes that `save_episodes` wrote; no reset is needed, and seeds given before are forgotten.

        On the CPU each goes on bit-identically, its later episodes too, as far as the backend repeats itself.

        Raises:
            InvalidInputError: when a file is missing or belongs to an environment with other arguments.
        """
        self._take(self._environments.call_each("load", self._episode_files(folder)))
        self._reset_seeds()

    def _episode_files(self, folder: Path) -> dict[int, tuple[Path]]:
        return {index: (folder / f"{index}.safetensors",) for index in range(self.num_envs)}

    def close(self) -> None:
        """End all environments."""
        self._environments.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """A picture of every run; None without a render mode."""
        return self._environments.call(range(self.num_envs), "render")

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the environments."""
        return self._environments.get(self._chosen(indices), attr_name)

    def has_attr(self, attr_name: str) -> bool:
        """Whether the environments have an attribute."""
        return self._environments.has(range(self.num_envs), attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environments."""
        self._environments.assign(dict.fromkeys(self._chosen(indices), value), attr_name)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """What a method of the environments gives."""
        return self._environments.call(self._chosen(indices), method_name, *method_args, **method_kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """No environment is wrapped."""
        return [False for _ in self._chosen(indices)]

    def _chosen(self, indices: VecEnvIndices) -> list[int]:
        chosen: Iterable[int] = self._get_indices(indices)
        return [range(self.num_envs)[index] for index in chosen]  # -1 is the last one
