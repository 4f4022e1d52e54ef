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

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssdkd_agents.analysis.resampling import (
    Drawn,
    FloatArray,
    IntArray,
    resampled_counts,
    resampled_means,
    resamples,
    share,
)
from ssdkd_agents.analysis.statistics import FEWEST, MOST_UNITS, Interval, resamples_at_once

#: Evaluation seed → score, for each training run.
Runs: TypeAlias = Sequence[Mapping[int, float]]
#: From (n,) ascending values and (B, n) how often each occurs: (B,), NaN where nothing occurs.
Statistic: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]
#: Into which many scores are put in ascending order; within one of them they count as equal.
BINS = 400


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
        seeds, place = np.unique(self.seed, return_inverse=True)
        self.drawn: tuple[Drawn, Drawn] = (self.run_count, self.run), (len(seeds), place)
        self.is_large = len(seeds) > MOST_UNITS

    def resamples(self, random: np.random.Generator, step: int) -> Iterator[FloatArray]:
        """How often each score is in each resample; see `resampling.resamples`."""
        yield from resamples(random, step, *self.drawn)

    def few(self) -> IntArray | None:
        """The run, or else the seed, of each score, where there are too few of them for an interval."""
        if not _are_few(self.run_count, self.drawn[1][0]):
            return None
        return self.run if 1 < self.run_count < FEWEST else self.seed

    def interval(self, statistic: Statistic, confidence: float, seed: int) -> Interval:
        """A statistic of the scores, with its interval, or else with that of each run or seed."""

        def of(values: FloatArray) -> float:
            return float(statistic(values, np.ones((1, len(values))))[0])

        few = self.few()
        if few is not None:
            return Interval.of_few(of(self.values), (of(self.values[few == unit]) for unit in np.unique(few)))
        return _interval(of(self.values), self._resampled(statistic, np.random.default_rng(seed)), confidence)

    def _resampled(self, statistic: Statistic, random: np.random.Generator) -> FloatArray:
        if self.is_large and statistic is _weighted_mean:
            return resampled_means(self.values, random, *self.drawn)
        values, parts = self.values, self.resamples(random, resamples_at_once(len(self.values)))
        if self.is_large:
            place = np.arange(len(values)) * BINS // len(values)
            values = np.bincount(place, values) / np.bincount(place)
            parts = resampled_counts(place, BINS, random, *self.drawn)
        return np.concatenate([statistic(values, weights) for weights in parts])


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
    return share(kept @ values, kept.sum(axis=1))


def mean_score(runs: Runs, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean of the scores, with the same resampling as the other statistics.

    Raises:
        ValueError: when there is no score.
    """
    return _Sample(runs).interval(_weighted_mean, confidence, seed)


def _weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    return share(weights @ values, weights.sum(axis=1))


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
    if first.is_large or second.is_large:
        return _interval(estimate, _resampled_improvement(first, second, estimate, seed), confidence)
    random, step = np.random.default_rng(seed), resamples_at_once(len(first.values) + len(second.values))
    shares = []
    for ours, theirs in zip(first.resamples(random, step), second.resamples(random, step), strict=True):
        up_to = np.pad(theirs.cumsum(axis=1), ((0, 0), (1, 0)))  # of the reference's scores, how many are lower
        won = (ours * (up_to[:, below] + up_to[:, through])).sum(axis=1) / 2
        shares.append(share(won, ours.sum(axis=1) * theirs.sum(axis=1)))
    return _interval(estimate, np.concatenate(shares), confidence)


def _resampled_improvement(first: _Sample, second: _Sample, estimate: float, seed: int) -> FloatArray:
    """The same of many scores. Those of one bin count as equal, which moves all by what it moves the estimate."""
    edges = np.unique(np.quantile(np.concatenate([first.values, second.values]), np.arange(1, BINS) / BINS))
    places = [np.searchsorted(edges, each.values, side="right") for each in (first, second)]

    def won(ours: FloatArray, theirs: FloatArray) -> FloatArray:
        lower = theirs.cumsum(axis=1) - theirs / 2
        return share((ours * lower).sum(axis=1), ours.sum(axis=1) * theirs.sum(axis=1))

    random = np.random.default_rng(seed)
    counts = [
        np.concatenate([*resampled_counts(place, BINS, random, *each.drawn)])
        for place, each in zip(places, (first, second), strict=True)
    ]
    (moved,) = won(*(np.bincount(place, minlength=BINS)[None].astype(np.float64) for place in places))
    shares: FloatArray = np.clip(won(counts[0], counts[1]) + estimate - moved, 0.0, 1.0)
    return shares


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
    return _interval(float(wins.mean()), resampled_means(wins, random, *drawn), confidence)


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
    above = sample.values[:, None] > thresholds[None, :]
    if sample.few() is not None:
        unknown = np.full(len(thresholds), math.nan)
        return Profile(thresholds, above.mean(axis=0), unknown, unknown)
    resampled = resampled_means(above, np.random.default_rng(seed), *sample.drawn)
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


def _wins(first: FloatArray, second: FloatArray) -> FloatArray:
    wins: FloatArray = (first > second) + 0.5 * (first == second)
    return wins


def _interval(estimate: float, resampled: FloatArray, confidence: float) -> Interval:
    low, high = np.nanquantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))
