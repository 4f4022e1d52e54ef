"""Comparisons of samplers over seeds in the manner of rliable.

Interquartile mean, performance profile and probability of improvement are those of Agarwal et al. 2021 (*Deep
reinforcement learning at the edge of the statistical precipice*).

A sampler's scores are a list of runs, one mapping of evaluation seeds to scores each. A baseline is one run; a trained
sampler has a run for each training seed, and its intervals then cover the noise of training as well: a resample draws
training runs, and evaluation seeds for all of them alike, since equal seeds are equal episodes but for the sampler.
With few training runs such an interval is too short rather than too long, as every percentile bootstrap is; with fewer
than `FEWEST` of several, or fewer seeds, there is none: the value of each run, or else of each seed, takes its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssdkd_agents.analysis.statistics import BOOTSTRAP_RESAMPLES, FEWEST, Interval, resamples_at_once

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
#: Evaluation seed → score, for each training run.
Runs: TypeAlias = Sequence[Mapping[int, float]]
#: Seeds that are resampled one by one; more are in as many groups, each a sample of all of them.
MOST_UNITS = 2000
#: From (n,) ascending values and (B, n) how often each occurs: (B,), NaN where nothing occurs.
Statistic: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class Profile:
    """Share of episodes with a score above each threshold, with pointwise bootstrap intervals.

    Attributes:
        thresholds, share, low, high: (T,) float64; the last two NaN where there are too few scores for an interval.
    """

    thresholds: FloatArray
    share: FloatArray
    low: FloatArray
    high: FloatArray


class _Sample:
    """Scores of one sampler as arrays in ascending order of the score, and how to resample them."""

    def __init__(self, runs: Runs) -> None:
        rows = [(score, run, seed) for run, scores in enumerate(runs) for seed, score in scores.items()]
        if not rows:
            raise ValueError("a comparison needs at least one score")
        rows.sort(key=lambda row: (row[0], row[1], row[2]))
        self.values: FloatArray = np.array([row[0] for row in rows], dtype=np.float64)
        self.run_count = len(runs)
        self.run: IntArray = np.array([row[1] for row in rows], dtype=np.int64)
        self.seed: IntArray = np.array([row[2] for row in rows], dtype=np.int64)

    def resamples(self, random: np.random.Generator, step: int) -> Iterator[FloatArray]:
        """How often each score is in each resample; see `_resamples`."""
        seeds, place = np.unique(self.seed, return_inverse=True)
        yield from _resamples(random, step, (self.run_count, self.run), (len(seeds), place))

    def few(self) -> IntArray | None:
        """The run, or else the seed, of each score, where there are too few of them for an interval."""
        seeds = len(np.unique(self.seed))
        if not _are_few(self.run_count, seeds):
            return None
        return self.run if 1 < self.run_count < FEWEST else self.seed

    def interval(self, statistic: Statistic, confidence: float, seed: int) -> Interval:
        """A statistic of the scores, with its interval, or else with that of each run or seed."""

        def of(values: FloatArray) -> float:
            return float(statistic(values, np.ones((1, len(values))))[0])

        few = self.few()
        if few is not None:
            return Interval.of_few(of(self.values), (of(self.values[few == unit]) for unit in np.unique(few)))
        parts = self.resamples(np.random.default_rng(seed), resamples_at_once(len(self.values)))
        resampled = np.concatenate([statistic(self.values, weights) for weights in parts])
        return _interval(of(self.values), resampled, confidence)


def interquartile_mean(runs: Runs, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean of the middle half of the scores: less noisy than the median, less led by outliers than the mean.

    Raises:
        ValueError: when there is no score.
    """
    return _Sample(runs).interval(weighted_interquartile_mean, confidence, seed)


def weighted_interquartile_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """`scipy.stats.trim_mean(·, 0.25)` of values that occur several times.

    Args:
        values: (n,) ascending.
        weights: (B, n) how often each occurs.

    Returns:
        (B,) NaN where nothing occurs.
    """
    ends = weights.cumsum(axis=1)
    total = ends[:, -1:]
    cut = total // 4
    kept = np.clip(np.minimum(ends, total - cut) - np.maximum(ends - weights, cut), 0.0, None)
    return _share(kept @ values, kept.sum(axis=1))


def mean_score(runs: Runs, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean of the scores, with the same resampling as the other statistics.

    Raises:
        ValueError: when there is no score.
    """
    return _Sample(runs).interval(_weighted_mean, confidence, seed)


def _weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    return _share(weights @ values, weights.sum(axis=1))


def probability_of_improvement(runs: Runs, reference: Runs, confidence: float = 0.95, seed: int = 0) -> Interval:
    """P(X > Y) + ½ P(X = Y) for a score X of `runs` and an independent score Y of `reference`: U / (n m).

    The form of rliable, from all pairs; both are resampled by themselves.

    Raises:
        ValueError: when either has no score.
    """
    first, second = _Sample(runs), _Sample(reference)
    below, through = (np.searchsorted(second.values, first.values, side) for side in ("left", "right"))
    estimate = float((below + through).mean() / (2 * len(second.values)))
    if first.few() is not None or second.few() is not None:
        return Interval.of_few(estimate)
    random, step = np.random.default_rng(seed), resamples_at_once(len(first.values) + len(second.values))
    shares = []
    for ours, theirs in zip(first.resamples(random, step), second.resamples(random, step), strict=True):
        up_to = np.pad(theirs.cumsum(axis=1), ((0, 0), (1, 0)))  # of the reference's scores, how many are lower
        won = (ours * (up_to[:, below] + up_to[:, through])).sum(axis=1) / 2
        shares.append(_share(won, ours.sum(axis=1) * theirs.sum(axis=1)))
    return _interval(estimate, np.concatenate(shares), confidence)


def paired_probability_of_improvement(
    runs: Runs, reference: Runs, confidence: float = 0.95, seed: int = 0
) -> Interval | None:
    """The same for X and Y on the same evaluation seed, so that the seed's own luck does not count.

    Training runs of both are resampled by themselves, seeds for both together. A probability of 0 or 1 has an interval
    without width, which claims more than a few seeds can show.

    Returns:
        None where the two have no seed in common.

    Raises:
        ValueError: when either has no score.
    """
    first, second = _Sample(runs), _Sample(reference)
    here, there = _pairs(first.seed, second.seed)
    if len(here) == 0:
        return None
    random = np.random.default_rng(seed)
    wins = _wins(first.values[here], second.values[there])
    seeds, place = np.unique(first.seed[here], return_inverse=True)
    if _are_few(first.run_count, second.run_count, len(seeds)):
        return Interval.of_few(float(wins.mean()))
    drawn = (first.run_count, first.run[here]), (second.run_count, second.run[there]), (len(seeds), place)
    parts = _resamples(random, resamples_at_once(len(here)), *drawn)
    shares = [_share(weights @ wins, weights.sum(axis=1)) for weights in parts]
    return _interval(float(wins.mean()), np.concatenate(shares), confidence)


def performance_profile(runs: Runs, thresholds: FloatArray, confidence: float = 0.95, seed: int = 0) -> Profile:
    """Share of episodes with a score above each threshold; one profile above another everywhere dominates it.

    Args:
        runs: scores of one sampler.
        thresholds: (T,) scores.
        confidence: of the band, threshold by threshold.
        seed: of the resampling.

    Raises:
        ValueError: when there is no score.
    """
    sample = _Sample(runs)
    above = (sample.values[:, None] > thresholds[None, :]).astype(np.float64)
    if sample.few() is not None:
        unknown = np.full(len(thresholds), math.nan)
        return Profile(thresholds, above.mean(axis=0), unknown, unknown)
    parts = sample.resamples(np.random.default_rng(seed), resamples_at_once(len(sample.values)))
    resampled = np.concatenate([_share(weights @ above, weights.sum(axis=1)[:, None]) for weights in parts])
    low, high = np.nanquantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Profile(thresholds, above.mean(axis=0), low, high)


def _pairs(first: IntArray, second: IntArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of every pair of equal entries, in the order of both, without looking at all pairs."""
    order = np.argsort(second, kind="stable")
    begin, end = (np.searchsorted(second[order], first, side) for side in ("left", "right"))
    counts = end - begin
    here = np.repeat(np.arange(len(first)), counts)
    within = np.arange(len(here)) - np.repeat(counts.cumsum() - counts, counts)
    return here, order[np.repeat(begin, counts) + within]


def _are_few(*counts: int) -> bool:
    """Whether what is resampled is too little for an interval: a single run, or seed, is not resampled (`_draws`)."""
    return any(1 < count < FEWEST for count in counts) or all(count == 1 for count in counts)


def _resamples(
    random: np.random.Generator, step: int, *drawn: tuple[int, IntArray | NDArray[np.intp]]
) -> Iterator[FloatArray]:
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


def _wins(first: FloatArray, second: FloatArray) -> FloatArray:
    wins: FloatArray = (first > second) + 0.5 * (first == second)
    return wins


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Quotient, NaN for a resample of runs that lack all of its seeds."""
    with np.errstate(invalid="ignore"):
        share: FloatArray = part / whole
    return share


def _interval(estimate: float, resampled: FloatArray, confidence: float) -> Interval:
    low, high = np.nanquantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))
