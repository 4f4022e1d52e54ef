"""Whole episodes side by side, an episode a seed: the one loop of validation, search and measurement."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssdkd_env.envs.distillation import Action, ResetResult, StepResult
from ssdkd_env.envs.sub_environments import SubEnvironments

FloatArray = NDArray[np.float32]
#: From the (episodes, entries) observations and the number of the step: what each episode does next.
Decide = Callable[[FloatArray, int], Sequence[Action]]
ValueT = TypeVar("ValueT")
#: Of a reset, by number of the environment; see `SSDKDEnv.reset`.
Options = Mapping[int, dict[str, Any]]


class Pool(Protocol):
    """Environments by number, such as `SubEnvironments`, as far as they are played here."""

    def reset(self, seeds: Mapping[int, int | None], options: Options | None = None) -> dict[int, ResetResult]:
        """Reset some of them."""
        ...

    def step(self, actions: Mapping[int, Any]) -> dict[int, StepResult]:
        """Step some of them."""
        ...

    def call(self, indices: Sequence[int], name: str) -> list[Any]:
        """What a method of some of them gives."""
        ...


@dataclass(frozen=True)
class Rest:
    """Those environments of a pool that come after the first so many: a `Pool`.

    Attributes:
        pool: of all.
        first: number in it of the first of these.
    """

    pool: SubEnvironments
    first: int

    def reset(self, seeds: Mapping[int, int | None], options: Options | None = None) -> dict[int, ResetResult]:
        """Reset some of them."""
        return self._own(self.pool.reset(self._all(seeds), self._all(options or {})))

    def step(self, actions: Mapping[int, Any]) -> dict[int, StepResult]:
        """Step some of them."""
        return self._own(self.pool.step(self._all(actions)))

    def call(self, indices: Sequence[int], name: str) -> list[Any]:
        """What a method of some of them gives."""
        return self.pool.call([index + self.first for index in indices], name)

    def _all(self, values: Mapping[int, ValueT]) -> dict[int, ValueT]:
        return {index + self.first: value for index, value in values.items()}

    def _own(self, results: Mapping[int, ValueT]) -> dict[int, ValueT]:
        return {index - self.first: result for index, result in results.items()}


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode from its reset to its end; a diverged student ends its own early.

    Attributes:
        seed: of the episode.
        begun: info of the reset.
        observations: (steps, entries) float32, what the environment showed before each step.
        rewards: one a step.
        final: the last info.
        held_out_accuracy: see `SSDKDEnv.held_out_accuracy`; None too where it was not asked for.
    """

    seed: int
    begun: Mapping[str, Any]
    observations: FloatArray
    rewards: Sequence[float]
    final: Mapping[str, Any]
    held_out_accuracy: float | None = None

    @property
    def total(self) -> float:
        """The return."""
        return float(sum(self.rewards))


def play_side_by_side(
    pool: Pool,
    seeds: Sequence[int],
    decide: Decide,
    stop: Callable[[], bool] = lambda: False,
    held_out: bool = False,
    instances: Sequence[int] | None = None,
) -> list[PlayedEpisode] | None:
    """Play one episode a seed in the first environments of a pool.

    Args:
        pool: of at least as many environments as there are seeds.
        seeds: of the episodes.
        decide: asked once a step for all episodes; for those that have ended too, with what they showed last, because
            a recurrent sampler's state has a row for each.
        stop: asked before every step.
        held_out: measure the held-out accuracy at the end.
        instances: of a set, of each episode; None draws them.

    Returns:
        The episodes in the order of the seeds; None when stopped.
    """
    count = len(seeds)
    options = {index: {"instance": instance} for index, instance in enumerate(instances or ())}
    begun = pool.reset(dict(enumerate(seeds)), options)
    observations = np.stack([begun[index][0] for index in range(count)])
    seen: list[list[FloatArray]] = [[] for _ in seeds]
    rewards: list[list[float]] = [[] for _ in seeds]
    final: dict[int, Mapping[str, Any]] = {}
    for step_index in itertools.count():
        active = [index for index in range(count) if index not in final]
        if not active:
            break
        if stop():
            return None
        decisions = decide(observations, step_index)
        for index in active:
            seen[index].append(observations[index])
        observations = observations.copy()
        for index, step in pool.step({index: decisions[index] for index in active}).items():
            observations[index], reward, terminated, truncated, info = step
            rewards[index].append(float(reward))
            if terminated or truncated:
                final[index] = info
    accuracies = pool.call(range(count), "held_out_accuracy") if held_out else [None] * count
    return [
        PlayedEpisode(seed, begun[index][1], np.stack(seen[index]), rewards[index], final[index], accuracies[index])
        for index, seed in enumerate(seeds)
    ]
