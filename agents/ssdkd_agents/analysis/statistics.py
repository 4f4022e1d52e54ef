"""Statistics of results over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Resamples of a bootstrap interval.
BOOTSTRAP_RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap_mean(values: Iterable[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean over seeds with a percentile bootstrap interval.

    Raises:
        ValueError: for an empty sample.
    """
    sample: NDArray[np.float64] = np.array(list(values), dtype=np.float64)
    if len(sample) == 0:
        raise ValueError("an interval needs at least one value")
    resamples = np.random.default_rng(seed).choice(sample, (BOOTSTRAP_RESAMPLES, len(sample))).mean(axis=1)
    low, high = np.quantile(resamples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(sample.mean()), float(low), float(high))


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Differences seed by seed, over the seeds that both have: seed noise that both share drops out.

    Args:
        values: seed → value.
        reference: seed → value to subtract.
    """
    return [value - reference[seed] for seed, value in values.items() if seed in reference]


def between_group_share(groups: Sequence[Sequence[float]]) -> float:
    """Share of the variance that the group explains (one-way random effects, intraclass correlation).

    ``σ²_between / (σ²_between + σ²_within)`` with ``σ²_between = (MS_between − MS_within) / n``, so that the scatter
    of group means which is due to noise alone does not count.

    Args:
        groups: k ≥ 2 groups of n ≥ 2 values each.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: when there are too few groups or values, or the groups differ in size.
    """
    values: NDArray[np.float64] = np.array(groups, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError("expected at least two groups of the same size, two values or more each")
    count = values.shape[1]
    within = values.var(axis=1, ddof=1).mean()
    between = max(values.mean(axis=1).var(ddof=1) - within / count, 0.0)
    return float(between / (between + within)) if between + within > 0 else 0.0


def bootstrap_between_group_share(
    groups: Sequence[Sequence[float]], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """`between_group_share` with a percentile interval from resampling the seeds inside each group.

    The resampled values of a group repeat some seeds, which shrinks their variance by (n − 1)/n; the values are
    spread by the inverse, so that the interval is centred on the estimate.
    """
    values: NDArray[np.float64] = np.array(groups, dtype=np.float64)
    means = values.mean(axis=1, keepdims=True)
    count = values.shape[1]
    spread = means + (values - means) * np.sqrt(count / (count - 1))
    random = np.random.default_rng(seed)
    shares = [
        between_group_share([random.choice(group, len(group)).tolist() for group in spread]) for _ in range(resamples)
    ]
    low, high = np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(between_group_share(groups), float(low), float(high))


def spearman(values: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; 0 where all values or all truths are equal, which rank nothing."""
    if np.ptp(values) == 0 or np.ptp(truth) == 0:
        return 0.0
    from scipy.stats import spearmanr  # of measurements alone

    return float(spearmanr(values, truth).statistic)
