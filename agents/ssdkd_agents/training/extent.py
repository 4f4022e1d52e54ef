"""How far a training really goes, and whether anything is learnt on the way: said or refused before the first step."""

from __future__ import annotations

import math

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from ssdkd_agents.policies.grpo import GRPO
from ssdkd_agents.training.recording import EpisodeLog
from ssdkd_env.errors import InvalidInputError

#: Steps of a training whose end episodes decide.
UNLIMITED = 10**9


def iteration_steps(model: BaseAlgorithm) -> int | None:
    """Environment steps of one iteration of the algorithm's loop; None where episodes decide how many."""
    if isinstance(model, GRPO):
        return None
    if isinstance(model, OnPolicyAlgorithm):
        return model.n_steps * model.n_envs
    if isinstance(model, OffPolicyAlgorithm):
        frequency = model.train_freq
        assert isinstance(frequency, TrainFreq)
        return frequency.frequency * model.n_envs if frequency.unit is TrainFrequencyUnit.STEP else None
    return None


def last_step(model: BaseAlgorithm, asked: int, done: int = 0) -> int | None:
    """Steps after which the loop ends: as many as are asked for, in whole iterations; None where nobody knows before.

    Args:
        model: of any algorithm.
        asked: steps in all.
        done: steps that are done already.
    """
    length = iteration_steps(model)
    return None if length is None else done + max(math.ceil((asked - done) / length), 0) * length


def follow_episodes(model: BaseAlgorithm, log: EpisodeLog, asked: int) -> None:
    """Let what falls with the training, such as a learning rate, follow its episodes.

    Args:
        model: of any algorithm.
        log: counts the episodes that have ended.
        asked: episodes in all.
    """

    def update(num_timesteps: int, total_timesteps: int) -> None:
        model._current_progress_remaining = 1.0 - log.episodes / asked

    model._update_current_progress_remaining = update  # type: ignore[method-assign]


def check_learns(model: BaseAlgorithm, asked: int) -> None:
    """Refuse a training in which an off-policy algorithm would not make a single update, or no whole batch.

    Raises:
        InvalidInputError: when learning starts after the end, or the replay is smaller than a batch.
    """
    if not isinstance(model, OffPolicyAlgorithm):
        return
    end = last_step(model, asked) or asked
    if model.learning_starts >= end:
        raise InvalidInputError(
            f"hyperparameters['learning_starts']={model.learning_starts}: the training ends after {end} steps, without "
            "an update; choose fewer, or more timesteps"
        )
    if model.batch_size > model.buffer_size:
        raise InvalidInputError(
            f"hyperparameters['batch_size']={model.batch_size}: the replay holds no more than "
            f"buffer_size={model.buffer_size} transitions; choose a smaller batch, or a larger replay"
        )


def announce(model: BaseAlgorithm, asked: int, done: int, evaluate_every_steps: int) -> list[str]:
    """Lines about what a training does that is other than its numbers say.

    Args:
        model: of any algorithm.
        asked: steps in all.
        done: steps that are done already.
        evaluate_every_steps: of the training's config.
    """
    end = last_step(model, asked, done)
    lines = []
    if end is None:
        lines.append(f"steps: {asked} at least; the episodes that are then under way are played to their end")
    elif end != asked:
        rollouts = f"rollouts of {iteration_steps(model)} (n_envs={model.n_envs})"
        lines.append(f"steps: {end}, because {asked} are no whole number of {rollouts}")
    end = end or asked
    if end < evaluate_every_steps:
        lines.append(f"one validation, of the last agent: evaluate_every_steps={evaluate_every_steps}")
    if isinstance(model, OffPolicyAlgorithm) and model.batch_size > end:
        lines.append(f"batch_size={model.batch_size} is more than all {end} steps: batches hold some more than once")
    return lines
