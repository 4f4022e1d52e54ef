"""Statistics of results over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Resamples of a bootstrap interval.
BOOTSTRAP_RESAMPLES = 10_000
#: Fewer samples have no interval. That of a bootstrap reaches at most from the least to the largest of n samples, which
#: holds the median in 1 − 2^(1−n) of all cases: in 75 % with three of them, in 94 % with five.
FEWEST = 5
#: What intervals are, for tables, pictures and terminals, and what stands in their place.
METHOD = f"95 % percentile bootstrap, {BOOTSTRAP_RESAMPLES:,} resamples"
IN_PLACE = f"fewer than {FEWEST} have no interval: the values themselves stand in brackets"
#: Seeds that are resampled one by one. More are in as many groups, each a sample of all of them: resampling these gives
#: the same width.
MOST_UNITS = 2000

#: Numbers of resamples that are held at once.
_PART = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean, or another statistic, and its bootstrap interval; of fewer than `FEWEST` samples the samples themselves.

    Attributes:
        mean: the statistic.
        low, high: ends of the interval; NaN where there are too few samples for one.
        values: the samples, where they are so few, and more than one, and the statistic has a value for each.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...] = ()

    @classmethod
    def of_few(cls, mean: float, values: Iterable[float] = ()) -> Interval:
        """A statistic of too few samples for an interval."""
        listed = tuple(values)
        return cls(mean, math.nan, math.nan, listed if len(listed) > 1 else ())

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    def __str__(self) -> str:
        return self.shown(4)

    def shown(self, digits: int) -> str:
        """As text, with so many digits after the point."""
        if self.known:
            return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        listed = ", ".join(f"{value:.{digits}f}" for value in self.values)
        return f"{self.mean:.{digits}f}" + (f" ({listed})" if listed else "")


def resamples_at_once(values: int) -> int:
    """Resamples of so many values that are held at once: all of them would take gigabytes for a few thousand."""
    return max(_PART // values, 1)


def bootstrap_mean(values: Iterable[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean over seeds with a percentile bootstrap interval, which fewer than `FEWEST` have not.

    Raises:
        ValueError: for an empty sample.
    """
    sample: NDArray[np.float64] = np.array(list(values), dtype=np.float64)
    if len(sample) == 0:
        raise ValueError("an interval needs at least one value")
    if len(sample) < FEWEST:
        return Interval.of_few(float(sample.mean()), sample.tolist())
    random, step = np.random.default_rng(seed), resamples_at_once(min(len(sample), MOST_UNITS))
    sizes = [min(step, BOOTSTRAP_RESAMPLES - first) for first in range(0, BOOTSTRAP_RESAMPLES, step)]
    if len(sample) > MOST_UNITS:
        group = random.permutation(len(sample)) % MOST_UNITS
        resamples = np.concatenate([_grouped_means(sample, group, size, random) for size in sizes])
    else:
        resamples = np.concatenate([random.choice(sample, (size, len(sample))).mean(axis=1) for size in sizes])
    low, high = np.quantile(resamples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(sample.mean()), float(low), float(high))


def _grouped_means(
    sample: NDArray[np.float64], group: NDArray[np.int64], size: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Means of so many resamples of groups of values."""
    sums, counts = np.bincount(group, sample), np.bincount(group)
    drawn = random.multinomial(MOST_UNITS, np.full(MOST_UNITS, 1 / MOST_UNITS), size=size)
    means: NDArray[np.float64] = (drawn @ sums) / (drawn @ counts)
    return means


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Differences seed by seed, over the seeds that both have: seed noise that both share drops out.

    Args:
        values: seed → value.
        reference: seed → value to subtract.
    """
    return [value - reference[seed] for seed, value in values.items() if seed in reference]
