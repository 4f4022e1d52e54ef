"""What groups explain of a variance, and how one score ranks what another one does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from ssdkd_agents.analysis.statistics import Interval


def percentile_interval(
    estimate: float, resampled: NDArray[np.float64] | Sequence[float], confidence: float = 0.95
) -> Interval:
    """An estimate between the percentiles of what resamples gave."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


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


def bootstrap_between_group_share(groups: Sequence[Sequence[float]], resamples: int = 2000) -> Interval:
    """`between_group_share` with a percentile interval from resampling the seeds inside each group.

    The resampled values of a group repeat some seeds, which shrinks their variance by (n − 1)/n; the values are
    spread by the inverse, so that the interval is centred on the estimate.
    """
    values: NDArray[np.float64] = np.array(groups, dtype=np.float64)
    means = values.mean(axis=1, keepdims=True)
    count = values.shape[1]
    spread = means + (values - means) * np.sqrt(count / (count - 1))
    random = np.random.default_rng(0)
    shares = [
        between_group_share([random.choice(group, len(group)).tolist() for group in spread]) for _ in range(resamples)
    ]
    return percentile_interval(between_group_share(groups), shares)


def spearman(values: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; 0 where all values or all truths are equal, which rank nothing."""
    if np.ptp(values) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(spearmanr(values, truth).statistic)
