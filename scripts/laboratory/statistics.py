"""Bootstrap intervals (scipy), what groups explain of a variance, and how one score ranks what another one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, spearmanr
from ssdkd_agents.analysis.statistics import FEWEST, Interval

Values = NDArray[np.float64]


def bootstrap_interval(
    samples: Sequence[Any], statistic: Callable[..., Any], vectorized: bool = True, **options: Any
) -> Interval:
    """A statistic of samples that are resampled each by itself, with a 95 % percentile interval of 2000 resamples.

    Where a sample has fewer than `FEWEST` values there is none.

    Args:
        samples: of numbers.
        statistic: of them, along the argument `axis` where it is vectorized.
        vectorized: whether it is.
        **options: of `scipy.stats.bootstrap`.
    """
    if min(map(len, samples)) < FEWEST:
        return Interval.of_few(float(statistic(*samples)))
    defaults = {"n_resamples": 2000, "method": "percentile", "rng": 0}
    low, high = bootstrap(samples, statistic, vectorized=vectorized, **defaults | options).confidence_interval
    return Interval(float(statistic(*samples)), float(low), float(high))


def two_digits(interval: Interval) -> str:
    """An interval as text, with two digits after the point."""
    return interval.shown(2)


def between_group_share(*groups: Values | Sequence[float], axis: int = -1) -> Values:
    """Share of the variance that the group explains (one-way random effects, intraclass correlation), in [0, 1].

    ``σ²_between / (σ²_between + σ²_within)`` with ``σ²_between = (MS_between − MS_within) / n``, so that the scatter
    of group means which is due to noise alone does not count.

    Raises:
        ValueError: when there are fewer than two groups, or values along `axis`, or the groups differ in size.
    """
    values: Values = np.array(groups, dtype=np.float64)
    if values.ndim < 2 or min(len(values), values.shape[axis]) < 2:
        raise ValueError("expected at least two groups of the same size, two values or more each")
    within = values.var(axis=axis, ddof=1).mean(axis=0)
    between = np.maximum(values.mean(axis=axis).var(axis=0, ddof=1) - within / values.shape[axis], 0.0)
    share: Values = between / np.maximum(between + within, np.finfo(np.float64).tiny)
    return share


def share_interval(groups: Values, **options: Any) -> Interval:
    """`between_group_share` of (groups, values), with an interval from resampling the values inside each group.

    The resampled values of a group repeat some, which shrinks their variance by (n − 1)/n; the values are spread by
    the inverse, so that the interval is centred on the estimate.
    """
    means, count = groups.mean(axis=1, keepdims=True), groups.shape[1]
    spread = means + (groups - means) * np.sqrt(count / (count - 1))
    found = bootstrap_interval(list(spread), between_group_share, **options)
    return Interval(float(between_group_share(*groups)), found.low, found.high)


def spearman(values: Values, truth: Values) -> float:
    """Spearman's rank correlation; 0 where all values or all truths are equal, which rank nothing."""
    if np.ptp(values) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(spearmanr(values, truth).statistic)


def rank_correlation(values: Values, truth: Values, **options: Any) -> Interval:
    """Spearman's rank correlation of plan means, with an interval from resampling the seeds, for all plans alike.

    Resampling adds noise to noisy means, so that the interval lies rather too low than too high.

    Args:
        values: (plans, seeds) of the score.
        truth: (plans, seeds) of the real accuracy, in the same episodes.
        **options: of `bootstrap_interval`.
    """

    def of(seeds: NDArray[np.int64]) -> float:
        return spearman(values[:, seeds].mean(axis=1), truth[:, seeds].mean(axis=1))

    return bootstrap_interval([np.arange(values.shape[1])], of, vectorized=False, **options)


def better_half(truth: Values) -> NDArray[np.int64]:
    """Rows of the plans with the higher mean accuracy, of (plans, seeds): among them the choice is hard."""
    return np.argsort(-truth.mean(axis=1), kind="stable")[: (len(truth) + 1) // 2]
