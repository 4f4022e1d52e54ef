"""Resamples of what scores belong to: training runs and evaluation seeds, each drawn by itself with replacement.

More than `MOST_UNITS` seeds are in as many groups at random, each a sample of all of them, whose resampling has the
same width. Scores of one run and group are then there equally often, so that a million scores cost little more than a
few thousand: a mean needs their sums alone, and a statistic of ranks how many of them are in each of some bins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssdkd_agents.analysis.statistics import BOOTSTRAP_RESAMPLES, MOST_UNITS, resamples_at_once

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
#: Number of things that are drawn from, and to which of them each score belongs.
Drawn: TypeAlias = tuple[int, "IntArray | NDArray[np.intp]"]


def share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Quotient, NaN for a resample of runs that lack all of its seeds."""
    with np.errstate(invalid="ignore"):
        quotient: FloatArray = part / whole
    return quotient


def in_cells(random: np.random.Generator, *drawn: Drawn) -> tuple[NDArray[np.intp], list[Drawn]]:
    """Scores that are always there together are of one cell.

    Args:
        random: what groups are drawn from.
        drawn: as of `resamples`, but of any count.

    Returns:
        The cell of each score, and what is drawn, with what each cell belongs to.
    """
    counts = tuple(min(count, MOST_UNITS) for count, _ in drawn)
    units = [random.permutation(count)[place] % MOST_UNITS if count > MOST_UNITS else place for count, place in drawn]
    cells, cell = np.unique(np.ravel_multi_index(units, counts), return_inverse=True)
    return cell, list(zip(counts, np.unravel_index(cells, counts), strict=True))


def resampled_means(values: FloatArray | NDArray[np.bool_], random: np.random.Generator, *drawn: Drawn) -> FloatArray:
    """Means of values (n,) or (n, T) in each resample: (B,) or (B, T), NaN where nothing occurs.

    Args:
        values: of each score.
        random: what is drawn from.
        drawn: as of `in_cells`.
    """
    cell, cells = in_cells(random, *drawn)
    counts = np.bincount(cell).astype(np.float64)
    sums = np.stack([np.bincount(cell, column) for column in values.reshape(len(values), -1).T], axis=1)
    parts = resamples(random, resamples_at_once(len(counts)), *cells)
    means = np.concatenate([share(weights @ sums, (weights @ counts)[:, None]) for weights in parts])
    return means if values.ndim > 1 else means[:, 0]


def resampled_counts(
    places: NDArray[np.intp], bins: int, random: np.random.Generator, *drawn: Drawn
) -> Iterator[FloatArray]:
    """How many scores are in each bin in each resample: (part of B, `bins`) at a time.

    Args:
        places: (n,) the bin of each score, below `bins`.
        bins: how many there are.
        random: what is drawn from.
        drawn: as of `in_cells`.
    """
    cell, cells = in_cells(random, *drawn)
    shape = cell.max() + 1, bins
    at = np.ravel_multi_index((cell, places), shape)
    # Counts are exact in float32, and products twice as fast.
    table = np.bincount(at, minlength=math.prod(shape)).reshape(shape).astype(np.float32)
    for weights in resamples(random, resamples_at_once(len(table)), *cells, dtype=np.float32):
        yield (weights @ table).astype(np.float64)


def resamples(
    random: np.random.Generator, step: int, *drawn: Drawn, dtype: type[np.floating[Any]] = np.float64
) -> Iterator[NDArray[Any]]:
    """How often each score is in each resample, (`step`, scores) `dtype`, until there were `BOOTSTRAP_RESAMPLES`.

    Args:
        random: what is drawn from.
        step: resamples at once.
        drawn: how many things are drawn from, at most `MOST_UNITS`, and to which of them each score belongs; a score
            is there as often as all of its things together.
        dtype: of the result, in which numbers below 65,536 are exact.
    """
    several = [each for each in drawn if each[0] > 1] or drawn[:1]  # what there is one of is there once
    draws = [
        (_draws(random, count), slice(None) if np.array_equal(place, np.arange(count)) else place)
        for count, place in several
    ]
    for first in range(0, BOOTSTRAP_RESAMPLES, step):
        weights = [counts[first : first + step][:, place].astype(dtype) for counts, place in draws]
        yield math.prod(weights[1:], start=weights[0])


def _draws(random: np.random.Generator, count: int) -> NDArray[np.uint16]:
    """How often each of `count` things is drawn in `count` draws with replacement, for each resample."""
    if count == 1:  # a single training run says nothing of the noise between them
        return np.ones((BOOTSTRAP_RESAMPLES, 1), dtype=np.uint16)
    draws, random.bit_generator.state = _drawn(json.dumps(random.bit_generator.state), count)
    return draws


@lru_cache(maxsize=4)  # a table asks again and again: rows of as many seeds, with one seed of the resampling
def _drawn(state: str, count: int) -> tuple[NDArray[np.uint16], Mapping[str, Any]]:
    """The same from the state of a generator, as JSON, and its state after that."""
    random = np.random.default_rng(0)
    random.bit_generator.state = json.loads(state)
    draws = np.empty((BOOTSTRAP_RESAMPLES, count), dtype=np.uint16)
    step = resamples_at_once(count)
    for first in range(0, BOOTSTRAP_RESAMPLES, step):
        part = draws[first : first + step]
        part[:] = random.multinomial(count, np.full(count, 1 / count), size=len(part))
    draws.setflags(write=False)
    return draws, random.bit_generator.state
