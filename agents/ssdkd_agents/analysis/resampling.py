"""Resamples of what scores belong to: training runs and evaluation seeds, each drawn by itself with replacement.

More than `MOST_UNITS` seeds are in as many groups, each a sample of all of them, whose resampling has the same width. A
mean then needs the sums of the groups alone, so that a million scores cost what a few thousand do; statistics that are
no means are linearised (see `comparison`).
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


def resampled_means(values: FloatArray | NDArray[np.bool_], random: np.random.Generator, *drawn: Drawn) -> FloatArray:
    """Means of values (n,) or (n, T) in each resample: (B,) or (B, T), NaN where nothing occurs.

    Args:
        values: of each score.
        random: what is drawn from.
        drawn: as of `resamples`.
    """
    shape = tuple(min(count, MOST_UNITS) for count, _ in drawn)
    key = np.ravel_multi_index([place % MOST_UNITS for _, place in drawn], shape)
    cells, cell = np.unique(key, return_inverse=True)  # scores that are always there together
    counts = np.bincount(cell).astype(np.float64)
    columns = values.reshape(len(values), -1).T
    sums = np.stack([np.bincount(cell, column) for column in columns], axis=1)
    places = zip((count for count, _ in drawn), np.unravel_index(cells, shape), strict=True)
    parts = resamples(random, resamples_at_once(len(cells)), *places)
    means = np.concatenate([share(weights @ sums, (weights @ counts)[:, None]) for weights in parts])
    return means if values.ndim > 1 else means[:, 0]


def resamples(random: np.random.Generator, step: int, *drawn: Drawn) -> Iterator[FloatArray]:
    """How often each score is in each resample, (`step`, scores) float64, until there were `BOOTSTRAP_RESAMPLES`.

    Args:
        random: what is drawn from.
        step: resamples at once.
        drawn: how many things are drawn from, and to which of them each score belongs; a score is there as often as
            all of its things together.
    """
    draws = [(_draws(random, min(count, MOST_UNITS)), place % MOST_UNITS) for count, place in drawn]
    for first in range(0, BOOTSTRAP_RESAMPLES, step):
        weights = [counts[first : first + step][:, place].astype(np.float64) for counts, place in draws]
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
