"""Validation of an agent in training, on seeds that neither training nor the final comparison uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from ssdkd_agents.playing import PlayedEpisode, Pool, play_side_by_side
from ssdkd_agents.samplers import State
from ssdkd_agents.seeds import VALIDATION_SEED, shared_out
from ssdkd_agents.training.loop_state import random_streams_kept
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.envs.tuning import Choice


@dataclass(frozen=True)
class Evaluation:
    """Episodes of the deterministic policy.

    Attributes:
        timesteps: of training, so far.
        seeds: one an episode.
        returns: data-free where the reward is; what agents are selected by.
        accuracies: on real data at the end, None where there are none; reported only.
        seconds: that the evaluation took.
        mean_ious: likewise on real data; empty but for dense predictions.
    """

    timesteps: int
    seeds: list[int]
    returns: list[float]
    accuracies: list[float | None]
    seconds: float
    mean_ious: list[float] = field(default_factory=list)

    @property
    def mean_return(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.returns))

    def line(self) -> dict[str, Any]:
        """A line of `evaluations.jsonl`."""
        line = asdict(self) | {"mean_return": self.mean_return}
        return line if self.mean_ious else {name: value for name, value in line.items() if name != "mean_ious"}


class Validation:
    """Environments of their own in which an agent plays the same episodes again and again, side by side.

    The instances of a set take turns.

    Args:
        kwargs: arguments of each `SSDKDEnv`, those of the training.
        episodes: how many, with seeds from `VALIDATION_SEED` on.
        choice: how the training's environments are stepped; these are stepped likewise.
        instances: how many there are.
        pool: to be played in, somebody else's, of at least as many environments; None makes one when it is needed.
    """

    def __init__(
        self, kwargs: dict[str, Any], episodes: int, choice: Choice, instances: int = 1, pool: Pool | None = None
    ) -> None:
        self._kwargs, self._choice, self._instances, self._pool = kwargs, choice, instances, pool
        self._seeds = [VALIDATION_SEED + index for index in range(episodes)]
        self._environments: SubEnvironments | None = None

    def play(self, model: BaseAlgorithm, stop: Callable[[], bool]) -> Evaluation | None:
        """Play one episode a seed. The agent, its statistics and the random streams stay as they are.

        Args:
            model: asked for its deterministic action; observations are normalised by its statistics as they are now.
            stop: asked before every step.

        Returns:
            What came of it; None when it was stopped.
        """
        started = time.perf_counter()
        with random_streams_kept():
            episodes = self._play(model, stop)
        if episodes is None:
            return None
        return Evaluation(
            timesteps=model.num_timesteps,
            seeds=self._seeds,
            returns=[episode.total for episode in episodes],
            accuracies=[episode.final.get("accuracy") for episode in episodes],
            seconds=time.perf_counter() - started,
            mean_ious=[episode.final["mean_iou"] for episode in episodes if "mean_iou" in episode.final],
        )

    def _play(self, model: BaseAlgorithm, stop: Callable[[], bool]) -> list[PlayedEpisode] | None:
        count = len(self._seeds)
        if self._pool is None:  # made when first needed: processes take seconds to start
            backend, processes = self._choice.backend, min(self._choice.processes, count)
            self._pool = self._environments = SubEnvironments(count, self._kwargs, backend, processes)
        state: State = None

        def decide(observations: NDArray[np.float32], step_index: int) -> NDArray[Any]:
            nonlocal state
            starts = np.full(count, step_index == 0)
            actions, state = model.predict(_normalized(model, observations), state, starts, deterministic=True)
            return actions

        instances = shared_out(count, self._instances)
        return play_side_by_side(self._pool, self._seeds, decide, stop, instances=instances)  # type: ignore[arg-type]

    def close(self) -> None:
        """End the environments."""
        if self._environments is not None:
            self._environments.close()


def _normalized(model: BaseAlgorithm, observations: NDArray[np.float32]) -> NDArray[np.float32]:
    normalize = model.get_vec_normalize_env()
    normalized: Any = observations if normalize is None else normalize.normalize_obs(observations)
    return normalized  # type: ignore[no-any-return]
