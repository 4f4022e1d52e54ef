"""Statistics of results over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
