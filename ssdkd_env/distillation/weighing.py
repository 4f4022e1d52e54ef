"""A sampling plan put into numbers: log P of the images that compete in a round."""

from __future__ import annotations

from torch import Tensor

from ssdkd_env.distillation import priority
from ssdkd_env.distillation.buffer import Entries
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.scoring import sample_features
from ssdkd_env.errors import InvalidInputError


def weigh(plan: SamplingPlan, buffer_share: Tensor, *competing: Entries) -> None:
    """Write log P(x) of the plan, unnormalised, into the entries.

    Args:
        plan: by its logits, its scorer, or its exponents.
        buffer_share: (classes,) mean class share of the buffer.
        competing: the residents, and the candidates where there are any.

    Raises:
        InvalidInputError: when a scorer gives another number of log-weights.
    """
    if plan.logits is None and plan.scorer is None:
        for entries in competing:
            entries.log_weight.copy_(log_weights(entries, plan, buffer_share))
        return
    scores = plan.logits if plan.scorer is None else plan.scorer(sample_features(competing, buffer_share))
    assert scores is not None
    sizes = [len(entries) for entries in competing]
    if tuple(scores.shape) != (sum(sizes),):
        raise InvalidInputError(
            f"SamplingPlan.scorer gave shape {tuple(scores.shape)}, expected {(sum(sizes),)}: one log-weight for each "
            "resident of the buffer, then one for each candidate"
        )
    for entries, own in zip(competing, scores.detach().split(sizes), strict=True):
        entries.log_weight.copy_(own)


def log_weights(entries: Entries, plan: SamplingPlan, buffer_share: Tensor) -> Tensor:
    """Log P(x) of entries by a plan's exponents, unnormalised, (N,).

    Args:
        entries: residents or candidates.
        plan: whose exponents; its logits do not count here.
        buffer_share: (classes,) mean class share of the buffer.
    """
    return priority.log_sampling_weights(
        priority.priority(entries.importance_weight, entries.discrepancy),
        priority.diversity(entries.class_share, buffer_share),
        priority.difficulty(entries.confidence, gamma=1.0),
        plan.discrepancy_exponent,
        plan.diversity_exponent,
        plan.difficulty_exponent,
    )
