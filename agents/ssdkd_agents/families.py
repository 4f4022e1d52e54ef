"""Families of simple policies: each member is a list of numbers in [−1, 1], which a search can look through. Ours.

| family     | numbers             | its action                                                            |
|------------|---------------------|-----------------------------------------------------------------------|
| `constant` | parts               | the same in every step                                                |
| `schedule` | 2 · parts           | from one at the start to another at the end, linear in the progress    |
| `linear`   | parts · (1 + seen)  | a constant, and a weighted sum of what the environment shows          |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, TypeGuard

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.observations import OBSERVATIONS
from ssdkd_env.errors import InvalidInputError, check_choice

FloatArray = NDArray[np.float32]


def is_unit_box(space: gym.Space[Any]) -> TypeGuard[gym.spaces.Box]:
    """Whether actions are lists of numbers in [−1, 1]."""
    flat = isinstance(space, gym.spaces.Box) and len(space.shape) == 1
    return flat and bool((space.low == -1.0).all() and (space.high == 1.0).all())  # type: ignore[attr-defined]


class Family(ABC):
    """Policies for an environment.

    Args:
        env: whose actions they give, and whose observations they may read.

    Attributes:
        size: numbers of a member.

    Raises:
        InvalidInputError: when the environment has other actions than numbers in [−1, 1].
    """

    def __init__(self, env: SSDKDEnv) -> None:
        space: gym.Space[Any] = env.action_space
        if not is_unit_box(space):
            raise InvalidInputError(
                f"family={self.name!r}: action={env.settings.action!r} has {space}, expected a Box(-1, 1); choose the "
                "family constant, or another action"
            )
        self.parts = space.shape[0]

    #: Key of `FAMILIES`.
    name: str
    size: int

    @abstractmethod
    def actions(self, parameters: FloatArray, observations: FloatArray) -> FloatArray:
        """What a member does.

        Args:
            parameters: (size,) float32, of the member.
            observations: (N, entries) float32.

        Returns:
            (N, parts) float32 in [−1, 1].
        """

    @abstractmethod
    def around(self, action: FloatArray) -> FloatArray:
        """The member that gives this action (parts,) whatever it sees, (size,) float32."""


class Constants(Family):
    """One action."""

    name = "constant"

    def __init__(self, env: SSDKDEnv) -> None:
        super().__init__(env)
        self.size = self.parts

    def actions(self, parameters: FloatArray, observations: FloatArray) -> FloatArray:
        """The member, for each observation."""
        return np.broadcast_to(parameters, (len(observations), self.parts)).copy()

    def around(self, action: FloatArray) -> FloatArray:
        """The action."""
        return action


class Schedules(Family):
    """(1 − t) · first + t · last, with t the progress of the episode.

    Raises:
        InvalidInputError: when the observation does not show the progress.
    """

    name = "schedule"

    def __init__(self, env: SSDKDEnv) -> None:
        super().__init__(env)
        self.size = 2 * self.parts
        if "progress" not in env.observation_names:
            raise InvalidInputError("family='schedule': the observation does not show 'progress'; choose another")
        self._entry = env.observation_names.index("progress")
        observation = OBSERVATIONS.find(env.settings.observation)
        shown = observation.entries["progress"]
        self._mean, self._deviation = (shown.mean, shown.deviation) if observation.scaled else (0.0, 1.0)

    def actions(self, parameters: FloatArray, observations: FloatArray) -> FloatArray:
        """Between the member's two actions."""
        progress = np.clip(observations[:, [self._entry]] * self._deviation + self._mean, 0.0, 1.0)
        first, last = parameters[: self.parts], parameters[self.parts :]
        between: FloatArray = ((1.0 - progress) * first + progress * last).astype(np.float32)
        return between

    def around(self, action: FloatArray) -> FloatArray:
        """From the action to itself."""
        return np.concatenate([action, action])


class Linears(Family):
    """b + W·o / √entries, clipped, with o the observation as it is shown."""

    name = "linear"

    def __init__(self, env: SSDKDEnv) -> None:
        super().__init__(env)
        self._entries = len(env.observation_names)
        self.size = self.parts * (1 + self._entries)

    def actions(self, parameters: FloatArray, observations: FloatArray) -> FloatArray:
        """The weighted sum."""
        constant, weights = parameters[: self.parts], parameters[self.parts :].reshape(self.parts, self._entries)
        sums = constant + observations @ weights.T / math.sqrt(self._entries)
        clipped: FloatArray = np.clip(sums, -1.0, 1.0).astype(np.float32)
        return clipped

    def around(self, action: FloatArray) -> FloatArray:
        """The action, and no weight on anything that is seen."""
        return np.concatenate([action, np.zeros(self.parts * self._entries, dtype=np.float32)])


FAMILIES: dict[str, type[Family]] = {family.name: family for family in (Constants, Schedules, Linears)}


def make_family(name: str, env: SSDKDEnv) -> Family:
    """A family for an environment.

    Raises:
        InvalidInputError: when there is none of the name, or it does not fit the environment.
    """
    return FAMILIES[check_choice("family", name, FAMILIES)](env)


class FamilySampler:
    """A member of a family, in the manner of Stable-Baselines3.

    Args:
        family: whose.
        parameters: (size,) float32, of the member.
    """

    def __init__(self, family: Family, parameters: FloatArray) -> None:
        self.family, self.parameters = family, parameters

    def predict(
        self,
        observation: FloatArray,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[FloatArray, Any]:
        """The member's action, one for each observation."""
        rows = observation.reshape(-1, observation.shape[-1])
        return self.family.actions(self.parameters, rows).reshape(*observation.shape[:-1], -1), state
