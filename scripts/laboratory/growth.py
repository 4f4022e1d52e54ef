"""Power laws fitted to repeated measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ssdkd_agents.analysis.statistics import Interval

from laboratory.statistics import percentile_interval

#: An exponent whose interval ends here or below counts as linear; caches and page faults take their share of time.
MOST_LINEAR = 1.15
#: Growth is fitted to the larger half of the sizes, and to at least so many.
FEWEST_SIZES = 3
#: Resamples of the repeats for an exponent's interval.
RESAMPLES = 2000


@dataclass(frozen=True)
class Growth:
    """Power law ``seconds = scale · size^exponent`` over the larger sizes.

    Attributes:
        scale: in seconds.
        exponent: with the interval that comes of resampling the repeats.
        last_exponent: between the two largest sizes alone: a fit through a curve that bends upwards hides its end.
        sizes: that it is fitted to.
    """

    scale: float
    exponent: Interval
    last_exponent: Interval
    sizes: tuple[int, ...]

    @property
    def linear(self) -> bool:
        """Whether the interval leaves no room above `MOST_LINEAR`."""
        return self.exponent.high <= MOST_LINEAR

    @property
    def verdict(self) -> str:
        """What may be said of it."""
        if self.linear:
            return "grows no faster than linearly"
        return "GROWS FASTER than linearly" if self.exponent.low > MOST_LINEAR else "MAY GROW FASTER than linearly"

    @property
    def bends_upwards(self) -> bool:
        """Whether the two largest sizes alone are for certain further apart than linear growth would have them."""
        return self.last_exponent.low > MOST_LINEAR


def fit_growth(seconds: Mapping[int, Sequence[float]]) -> Growth:
    """Fit a power law to the medians over repeats, by least squares on logarithms.

    Only the larger half of the sizes counts, where what does not grow no longer dominates. The intervals come of
    resampling the repeats of each size.

    Args:
        seconds: size → seconds of each repeat, equally many.

    Raises:
        ValueError: when there are fewer than `FEWEST_SIZES` sizes.
    """
    if len(seconds) < FEWEST_SIZES:
        raise ValueError(f"a growth needs at least {FEWEST_SIZES} sizes")
    sizes = sorted(seconds)[-max(FEWEST_SIZES, math.ceil(len(seconds) / 2)) :]
    repeats: NDArray[np.float64] = np.array([seconds[size] for size in sizes], dtype=np.float64)
    places = np.random.default_rng(0).integers(0, repeats.shape[1], (RESAMPLES, *repeats.shape))
    resampled = np.take_along_axis(repeats[None], places, axis=2)
    medians = np.concatenate([np.median(repeats, axis=1)[None], np.median(resampled, axis=2)])
    x, y = np.log(sizes), np.log(np.maximum(medians, 1e-9))  # a coarse clock can say 0
    slopes, offsets = np.polyfit(x, y.T, 1)
    last_slopes, _ = np.polyfit(x[-2:], y[:, -2:].T, 1)
    fitted, last = (percentile_interval(float(slope[0]), slope[1:]) for slope in (slopes, last_slopes))
    return Growth(float(np.exp(offsets[0])), fitted, last, tuple(sizes))


def power(exponent: Interval) -> str:
    """A power of the size, with its interval."""
    return f"n^{exponent.mean:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]"
