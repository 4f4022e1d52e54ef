"""Comparisons of samplers, against brute force, scipy and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from statistics import NormalDist, fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, trim_mean
from ssdkd_agents.analysis import comparison, resampling, statistics
from ssdkd_agents.analysis.comparison import (
    Runs,
    interquartile_mean,
    mean_score,
    paired_probability_of_improvement,
    performance_profile,
    probability_of_improvement,
    weighted_interquartile_mean,
)
from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean

#: Few different values, so that there are ties.
RUN = st.dictionaries(st.integers(0, 9), st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1)
RUNS = st.lists(RUN, min_size=1, max_size=3)


def drawn(seed: int, count: int, mean: float = 0.0, spread: float = 1.0) -> dict[int, float]:
    return dict(enumerate(np.random.default_rng(seed).normal(mean, spread, count).tolist()))


def pooled(runs: Runs) -> list[float]:
    return [value for run in runs for value in run.values()]


# --- estimates ---


def test_middle_half_by_hand() -> None:
    """Of eight, the four in the middle; of three, all."""
    assert interquartile_mean([dict(enumerate([9.0, 1, 2, 3, 4, -50, 5, 100]))]).mean == fmean([2, 3, 4, 5])
    assert interquartile_mean([{1: 0.0, 2: 1.0, 3: 5.0}]).mean == 2.0


@given(RUNS)
def test_estimates_are_those_of_scipy(runs: Runs) -> None:
    assert interquartile_mean(runs).mean == pytest.approx(trim_mean(pooled(runs), 0.25))
    assert mean_score(runs).mean == pytest.approx(fmean(pooled(runs)))


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 5)), min_size=1).filter(lambda rows: any(w for _, w in rows))
)
def test_weighted_middle_half_is_that_of_the_repeated_values(rows: list[tuple[float, int]]) -> None:
    values, weights = (np.array(column, dtype=np.float64) for column in zip(*sorted(rows), strict=True))
    repeated = np.repeat(values, weights.astype(int))
    (found,) = weighted_interquartile_mean(values, weights[None])
    assert found == pytest.approx(trim_mean(repeated, 0.25), abs=1e-12)


def test_nothing_drawn_is_no_number() -> None:
    assert np.isnan(weighted_interquartile_mean(np.array([1.0]), np.array([[0.0]]))).all()


@given(RUNS, RUNS)
def test_unpaired_probability_is_that_of_all_pairs_and_of_mann_whitney(first: Runs, second: Runs) -> None:
    x, y = pooled(first), pooled(second)
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(x, y)]
    found = probability_of_improvement(first, second).mean
    assert found == pytest.approx(fmean(pairs))
    assert found == pytest.approx(mannwhitneyu(x, y).statistic / (len(x) * len(y)))


@given(RUNS, RUNS)
def test_paired_probability_is_that_of_pairs_on_one_seed(first: Runs, second: Runs) -> None:
    pairs = [
        1.0 if a[seed] > b[seed] else 0.5 if a[seed] == b[seed] else 0.0
        for a, b in product(first, second)
        for seed in a
        if seed in b
    ]
    found = paired_probability_of_improvement(first, second)
    assert found is None if not pairs else found is not None and found.mean == pytest.approx(fmean(pairs))


def test_pairing_takes_the_luck_of_the_seed_out() -> None:
    """Always a little better on the same seed, while the seeds differ a lot."""
    reference = drawn(0, 40, spread=10.0)
    better = [{seed: value + 0.1 for seed, value in reference.items()}]
    assert paired_probability_of_improvement(better, [reference]) == Interval(1.0, 1.0, 1.0)
    unpaired = probability_of_improvement(better, [reference])
    assert unpaired.low < 0.5 < unpaired.mean < 0.55 < unpaired.high


@given(RUNS, RUNS)
def test_improvement_and_its_reverse_add_up_to_one(first: Runs, second: Runs) -> None:
    there, back = probability_of_improvement(first, second), probability_of_improvement(second, first)
    assert there.mean + back.mean == pytest.approx(1)
    assert probability_of_improvement(first, first).mean == pytest.approx(0.5)


@given(RUNS)
def test_profile_is_the_share_of_scores_above(runs: Runs) -> None:
    thresholds = np.array([-1.0, 0.0, 0.3, 0.5, 1.0])
    found = performance_profile(runs, thresholds)
    values = pooled(runs)
    assert found.share == pytest.approx([fmean(value > threshold for value in values) for threshold in thresholds])
    assert found.share[0] == 1.0
    assert found.share[-1] == 0.0, "above means strictly above"


def test_band_of_a_profile_holds_it() -> None:
    found = performance_profile([drawn(0, 20)], np.array([-9.0, 0.0, 9.0]))
    assert (found.low <= found.share).all() and (found.share <= found.high).all()
    assert found.low[0] == found.share[0] == 1.0 and found.share[2] == found.high[2] == 0.0
    assert found.low[1] < found.share[1] < found.high[1]


# --- intervals ---


def test_mean_of_one_run_has_the_interval_of_the_plain_bootstrap() -> None:
    run = drawn(1, 30)
    plain, found = bootstrap_mean(run.values()), mean_score([run])
    assert (found.mean, found.low, found.high) == pytest.approx((plain.mean, plain.low, plain.high), abs=0.02)


def test_interval_of_a_probability_is_that_of_a_binomial() -> None:
    """30 of 50 seeds won: the bootstrap of a share has the binomial's spread."""
    reference = dict.fromkeys(range(50), 0.0)
    found = paired_probability_of_improvement([{seed: 1.0 if seed < 30 else -1.0 for seed in range(50)}], [reference])
    half = 1.96 * (0.6 * 0.4 / 50) ** 0.5
    assert found is not None
    assert (found.low, found.mean, found.high) == pytest.approx((0.6 - half, 0.6, 0.6 + half), abs=0.02)


def test_noise_of_training_widens_the_interval() -> None:
    """Runs that differ by far more than seeds do: the spread is that of the means of the runs."""
    levels = np.random.default_rng(0).normal(0.0, 5.0, 12)
    runs = [drawn(index, 40, level, 0.1) for index, level in enumerate(levels)]
    found = mean_score(runs)
    half = NormalDist().inv_cdf(0.975) * stdev([fmean(run.values()) for run in runs]) * (11 / 12) ** 0.5 / 12**0.5
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert interquartile_mean(runs).high - interquartile_mean(runs).low > 10 * (mean_score(runs[:1]).high - levels[0])


def test_shared_seeds_are_resampled_together() -> None:
    """Five equal runs know no more than one of them."""
    run = drawn(3, 20)
    one, five = mean_score([run]), mean_score([run] * 5)
    assert (five.low, five.high) == pytest.approx((one.low, one.high), abs=0.03)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Of a normal sample, whose interquartile mean is its mean."""
    intervals = [interquartile_mean([drawn(seed, 25, 2.0)], seed=seed) for seed in range(120)]
    assert 0.87 <= fmean(interval.low <= 2.0 <= interval.high for interval in intervals) <= 0.99


def test_runs_that_lack_seeds_are_resampled_all_the_same() -> None:
    """Five runs without a common seed: some resamples hold nothing, and do not count."""
    found = mean_score([{seed: float(seed > 2)} for seed in range(5)])
    assert (found.low, found.mean, found.high) == (0.0, 0.4, 1.0)


@pytest.mark.parametrize("statistic", [mean_score, interquartile_mean])
def test_few_samples_are_shown_themselves(statistic: Callable[[Runs], Interval]) -> None:
    """The runs where these are few, else the seeds; of three, "95 %" would cover three cases in four."""
    seeds = dict(enumerate((0.1, 0.5, 0.3)))
    assert statistic([seeds]).values == (0.1, 0.5, 0.3)
    assert str(statistic([seeds])) == "0.3000 (0.1000, 0.5000, 0.3000)"
    runs = [dict.fromkeys(range(30), level) for level in (0.1, 0.5, 0.3)]
    assert statistic(runs).values == pytest.approx((0.1, 0.5, 0.3))
    assert not statistic(runs).known and statistic(runs[:1]).known and statistic(runs + runs).known
    assert statistic(runs + runs).values == ()
    assert str(statistic([{7: 0.25}])) == "0.2500", "a single sample is the mean itself"
    few_seeds = [dict.fromkeys((1, 2), level) for level in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert statistic(few_seeds).values == pytest.approx((0.3, 0.3)), "five runs on two seeds: the seeds are few"
    assert statistic([{7: level} for level in (0.1, 0.2, 0.3, 0.4, 0.5)]).known, "five runs on one seed"


def test_probabilities_and_profiles_of_few_samples_have_no_interval() -> None:
    """One pair of episodes gave P = 0.0000 [0.0000, 0.0000]."""
    many, few = drawn(0, 30), drawn(1, 4)
    for first, second in (([many], [few]), ([few], [many]), ([few] * 3, [many]), ([many], [{0: 0.5}])):
        found = probability_of_improvement(first, second)
        paired = paired_probability_of_improvement(first, second)
        assert paired is not None
        assert not found.known and not paired.known
        assert str(found) == f"{found.mean:.4f}"
    assert np.isnan(performance_profile([few], np.zeros(2)).low).all()
    shared = {seed: value for seed, value in many.items() if seed < 3} | dict.fromkeys(range(50, 60), 0.0)
    overlap = paired_probability_of_improvement([many], [shared])
    assert overlap is not None and not overlap.known, "three seeds in common"


def test_equal_scores_have_no_width_and_everything_repeats() -> None:
    assert interquartile_mean([dict.fromkeys(range(9), 0.25)]) == Interval(0.25, 0.25, 0.25)
    first, second = [drawn(index, 9) for index in range(5)], [drawn(9, 9)]
    assert interquartile_mean(first) == interquartile_mean([dict(reversed(run.items())) for run in first])
    assert probability_of_improvement(first, second) == probability_of_improvement(first, second)
    assert interquartile_mean(first, seed=1) != interquartile_mean(first)


@pytest.mark.parametrize("runs", [[], [{}]])
def test_nothing_is_no_sample(runs: Runs) -> None:
    with pytest.raises(ValueError, match="at least one score"):
        interquartile_mean(runs)
    with pytest.raises(ValueError, match="at least one score"):
        probability_of_improvement([{1: 0.0}], runs)
    assert paired_probability_of_improvement([{1: 0.0}], [{2: 0.0}]) is None


def test_how_many_resamples_are_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, others = [drawn(number, 6) for number in range(5)], [drawn(number, 7, 0.5) for number in range(9, 15)]
    thresholds = np.linspace(-2, 2, 5)

    def everything() -> list[object]:
        profile = performance_profile(runs, thresholds)
        return [
            *(statistic(runs) for statistic in (mean_score, interquartile_mean)),
            *(compare(runs, others) for compare in (probability_of_improvement, paired_probability_of_improvement)),
            bootstrap_mean(runs[0].values()),
            profile.low.tolist(),
            profile.high.tolist(),
        ]

    together = everything()
    monkeypatch.setattr(statistics, "_PART", 1_000)
    assert everything() == together
    monkeypatch.setattr(statistics, "BOOTSTRAP_RESAMPLES", 9_000)
    assert everything() != together


def test_more_seeds_than_are_resampled_one_by_one_have_the_interval_of_their_number() -> None:
    """In groups of seeds, an interval has the width that theory gives the mean of independent scores."""
    values = np.random.default_rng(0).normal(0.5, 0.1, 2 * statistics.MOST_UNITS + 500)
    interval = mean_score([dict(enumerate(values.tolist()))])
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    for end, expected in ((interval.low, values.mean() - half), (interval.high, values.mean() + half)):
        assert end == pytest.approx(expected, abs=0.1 * half)


@pytest.mark.parametrize(
    ("levels", "noise"),
    [([0.0], 0.5), ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 0.5), ([0.0, 0.0, 0.0, 0.0, 8.0], 0.01)],
    ids=["one run", "six runs", "one run far off"],
)
def test_many_seeds_have_the_intervals_that_resampling_one_by_one_gives(
    levels: list[float], noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skewed scores with many ties, and runs that differ; the reference has half of the seeds."""
    random = np.random.default_rng(1)
    luck = random.exponential(2 * noise, 1_600).round(1)
    runs = [dict(enumerate((luck + random.exponential(noise, 1_600).round(1) + level).tolist())) for level in levels]
    reference = [{seed: value * 1.5 for seed, value in run.items() if seed % 2} for run in reversed(runs)]
    thresholds = np.array([1.0, 1.5, 2.0])

    def everything() -> list[Interval]:
        paired, profile = paired_probability_of_improvement(runs, reference), performance_profile(runs, thresholds)
        assert paired is not None
        shares = [Interval(*numbers) for numbers in zip(profile.share, profile.low, profile.high, strict=True)]
        others = (mean_score(runs), interquartile_mean(runs), probability_of_improvement(runs, reference))
        return [*others, bootstrap_mean(runs[0].values()), paired, *shares]

    one_by_one = everything()
    for module in (statistics, resampling, comparison):
        monkeypatch.setattr(module, "MOST_UNITS", 400)
    made = everything()
    assert made != one_by_one
    for many, expected in zip(made, one_by_one, strict=True):
        width = expected.high - expected.low
        assert many.mean == expected.mean
        assert (many.low, many.high) == pytest.approx((expected.low, expected.high), abs=0.08 * width + 1e-9)


def test_a_gap_at_a_quarter_of_many_scores_is_seen() -> None:
    """A few more of the zeros, and the middle half begins with them."""
    random = np.random.default_rng(0)
    values = np.concatenate([np.zeros(1_000), 1 + random.normal(0, 0.001, 3_000)])
    interval = interquartile_mean([dict(enumerate(random.permutation(values).tolist()))])
    assert interval.mean == pytest.approx(1.0, abs=0.001)
    assert 0.9 < interval.low < 0.99


@pytest.mark.parametrize("order", ["shuffled", "sorted", "in turn"])
def test_order_of_many_values_does_not_matter(order: str) -> None:
    values = np.repeat([0.0, 1.0], 10_000)
    if order == "in turn":
        values = values.reshape(2, -1).T.flatten()
    elif order == "shuffled":
        values = np.random.default_rng(5).permutation(values)
    half = 1.96 * 0.5 / math.sqrt(20_000)
    for found in (bootstrap_mean(values), mean_score([dict(enumerate(values.tolist()))])):
        assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.1 * half)


def test_pairs_of_equal_seeds_are_those_of_looking_at_all() -> None:
    random = np.random.default_rng(0)
    for sizes in ((0, 3), (1, 1), (40, 60)):
        first, second = (random.integers(0, 20, size) for size in sizes)
        made, expected = comparison._pairs(first, second), np.nonzero(first[:, None] == second[None, :])
        assert [part.tolist() for part in made] == [part.tolist() for part in expected]
