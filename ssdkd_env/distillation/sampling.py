"""A sampling plan put into numbers: log P of the images that compete, and the student's draws with their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssdkd_env import ranges
from ssdkd_env.distillation import priority
from ssdkd_env.distillation.buffer import Entries
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.scoring import sample_features
from ssdkd_env.errors import InvalidInputError


def check_logits(logits: Tensor | None, expected: int, turns: int, method: str) -> None:
    """Refuse a plan's logits before anything of the run has moved.

    Args:
        logits: of the plan.
        expected: how many log-weights, of residents and candidates.
        turns: how many times the round changes its images.
        method: its name.

    Raises:
        InvalidInputError: when they do not fit.
    """
    if logits is None:
        return
    if turns > 1:
        raise InvalidInputError(
            f"SamplingPlan.logits: method {method!r} changes its images several times a round; use the exponents, or a "
            "method with one batch a round"
        )
    if tuple(logits.shape) != (expected,):
        raise InvalidInputError(
            f"SamplingPlan.logits has shape {tuple(logits.shape)}, expected {(expected,)}: one log-weight for each "
            "resident of the buffer, then one for each candidate"
        )
    if not bool(logits.isfinite().all()):
        raise InvalidInputError("SamplingPlan.logits holds NaN or infinite values: expected finite log-weights")


def log_weights(plan: SamplingPlan, buffer_share: Tensor, *competing: Entries) -> Tensor:
    """Log P(x) of the plan, unnormalised.

    Args:
        plan: by its logits, its scorer, or its exponents.
        buffer_share: (classes,) mean class share of the buffer.
        competing: the residents, and the candidates where there are any.

    Returns:
        (N,) float32 of all that compete, one group after the other; without gradient.

    Raises:
        InvalidInputError: when a scorer gives another number of log-weights.
    """
    if plan.logits is None and plan.scorer is None:
        return torch.cat([_by_exponents(entries, plan, buffer_share) for entries in competing])
    scores = plan.logits if plan.scorer is None else plan.scorer(sample_features(competing, buffer_share))
    assert scores is not None
    count = sum(map(len, competing))
    if tuple(scores.shape) != (count,):
        raise InvalidInputError(
            f"SamplingPlan.scorer gave shape {tuple(scores.shape)}, expected {(count,)}: one log-weight for each "
            "resident of the buffer, then one for each candidate"
        )
    return scores.detach().to(competing[0].discrepancy)


def _by_exponents(entries: Entries, plan: SamplingPlan, buffer_share: Tensor) -> Tensor:
    return priority.log_sampling_weights(
        priority.priority(entries.importance_weight, entries.discrepancy),
        priority.diversity(entries.class_share, buffer_share),
        priority.difficulty(entries.confidence, gamma=1.0),
        plan.discrepancy_exponent,
        plan.diversity_exponent,
        plan.difficulty_exponent,
    )


@dataclass(frozen=True, eq=False)
class Draws:
    """What the student studies in a round.

    Attributes:
        probabilities: (N,) float64, P over the buffer.
        importance_weights: (N,) float32, w of each resident under P.
        rows: (minibatches, batch_size) int64, the images that are drawn.
        loss_weights: (N,) float32, what the loss of each resident is multiplied by.
    """

    probabilities: Tensor
    importance_weights: Tensor
    rows: Tensor
    loss_weights: Tensor


@ranges.phase("sampling")
def draw(
    plan: SamplingPlan,
    log_weights: Tensor,
    normalization: str,
    shape: tuple[int, int],
    random: torch.Generator,
) -> Draws:
    """Draw the student's minibatches with replacement ∝ P, or uniformly with weights that make up for it.

    Args:
        plan: its β, and whether P enters the draws or the loss.
        log_weights: (N,) unnormalised log P of the residents.
        normalization: of the importance weights; a key of `priority.IMPORTANCE_NORMALIZATIONS`.
        shape: minibatches, and images a minibatch.
        random: source of randomness, on the buffer's device.
    """
    probabilities = priority.sampling_probabilities(log_weights)
    weights = priority.importance_weights(probabilities, plan.importance_exponent, normalization).to(log_weights.dtype)
    drawn_from, loss_weights = probabilities, weights
    if plan.reweighted:
        loss_weights = (weights * len(probabilities) * probabilities).to(log_weights.dtype)
        drawn_from = torch.full_like(probabilities, 1 / len(probabilities))
    rows = priority.draw_with_replacement(drawn_from, shape[0] * shape[1], random).view(shape)
    return Draws(probabilities, weights, rows, loss_weights)


def replacement_keys(log_weights: Tensor, random: torch.Generator) -> Tensor:
    """Keys (N,) float64 whose top k are a draw of k images without replacement ∝ P (Gumbel top-k)."""
    return log_weights.double() + priority.gumbel(len(log_weights), random, log_weights.device)
