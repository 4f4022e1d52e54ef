"""Statistics over seeds, against independent calculations."""

from __future__ import annotations

import random
from statistics import NormalDist, fmean, quantiles, stdev

import numpy as np
import pytest
from ssdkd_agents.analysis.statistics import (
    FEWEST,
    Interval,
    bootstrap_mean,
    paired_differences,
)

SAMPLE = [0.31, 0.28, 0.35, 0.22, 0.4, 0.33, 0.29, 0.18]


def test_interval_agrees_with_a_bootstrap_written_out() -> None:
    """Python's own generator and quantiles, one resample at a time."""
    generator = random.Random(1)
    means = [fmean(generator.choices(SAMPLE, k=len(SAMPLE))) for _ in range(20_000)]
    cuts = quantiles(means, n=40)
    interval = bootstrap_mean(SAMPLE)
    assert interval.mean == pytest.approx(fmean(SAMPLE), abs=1e-12)
    assert interval.low == pytest.approx(cuts[0], abs=0.003)
    assert interval.high == pytest.approx(cuts[-1], abs=0.003)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_interval_of_a_large_sample_is_the_normal_one(confidence: float) -> None:
    sample = np.random.default_rng(0).normal(3.0, 2.0, 400).tolist()
    interval = bootstrap_mean(sample, confidence)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * stdev(sample) / 20
    assert interval.low == pytest.approx(fmean(sample) - half, abs=0.05 * half + 0.005)
    assert interval.high == pytest.approx(fmean(sample) + half, abs=0.05 * half + 0.005)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    """Percentile intervals of 20 values are a little short: around 93 % instead of 95 %."""
    generator = np.random.default_rng(7)
    intervals = [bootstrap_mean(generator.normal(1.0, 0.5, 20)) for _ in range(150)]
    covered = fmean(interval.low <= 1.0 <= interval.high for interval in intervals)
    assert 0.87 <= covered <= 0.99


@pytest.mark.parametrize("count", range(1, FEWEST))
def test_few_values_are_shown_and_have_no_interval(count: int) -> None:
    """Of n values the interval would lie within the least and the largest: of 3 it covers 1 − 2^(1−3) at most."""
    found = bootstrap_mean(SAMPLE[:count])
    assert found.mean == pytest.approx(fmean(SAMPLE[:count]))
    assert not found.known and np.isnan([found.low, found.high]).all()
    assert found.values == (tuple(SAMPLE[:count]) if count > 1 else ())
    listed = f" ({', '.join(f'{value:.4f}' for value in SAMPLE[:count])})" if count > 1 else ""
    assert str(found) == f"{fmean(SAMPLE[:count]):.4f}{listed}"
    assert bootstrap_mean(SAMPLE[:FEWEST]).known


def test_equal_values_have_no_width() -> None:
    assert bootstrap_mean([0.25] * 9) == Interval(0.25, 0.25, 0.25)


def test_interval_repeats_and_depends_on_nothing_global() -> None:
    np.random.seed(0)
    first = bootstrap_mean(SAMPLE)
    np.random.seed(1)
    assert bootstrap_mean(value for value in SAMPLE) == first
    assert bootstrap_mean(SAMPLE, seed=1) != first


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_mean([])


def test_interval_is_written_with_four_digits() -> None:
    assert str(Interval(0.12345, -0.5, 1.0)) == "0.1235 [-0.5000, 1.0000]"


def test_differences_are_of_the_seeds_that_both_have() -> None:
    assert paired_differences({3: 0.5, 1: 0.25, 7: 9.0}, {1: 1.0, 2: 8.0, 3: 0.25}) == [0.25, -0.75]
    assert paired_differences({1: 0.5}, {2: 0.5}) == []
    assert paired_differences({}, {}) == []
