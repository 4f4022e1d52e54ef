"""Shares of variances and rank correlations, against independent calculations."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
from laboratory.statistics import between_group_share, share_interval, spearman
from scipy.stats import spearmanr


def test_share_agrees_with_the_analysis_of_variance() -> None:
    groups = [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [9.0, 8.0, 10.0]]
    grand = fmean(value for group in groups for value in group)
    between = 3 * sum((fmean(group) - grand) ** 2 for group in groups) / 2
    within = sum((value - fmean(group)) ** 2 for group in groups for value in group) / 6
    variance = (between - within) / 3
    assert between_group_share(*groups) == pytest.approx(variance / (variance + within))


def test_share_is_zero_without_and_one_with_nothing_but_groups() -> None:
    assert between_group_share([1.0, 3.0], [2.0, 2.0]) == 0.0
    assert between_group_share([1.0, 1.0], [2.0, 2.0]) == 1.0
    assert between_group_share([1.0, 1.0], [1.0, 1.0]) == 0.0


def test_share_is_found_again_in_drawn_data() -> None:
    generator = np.random.default_rng(0)
    groups = generator.normal(0, 1.0, (300, 1)) + generator.normal(0, 2.0, (300, 6))
    assert between_group_share(*groups) == pytest.approx(1 / (1 + 4), abs=0.05)


@pytest.mark.parametrize("groups", [[], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0], [1.0]]])
def test_too_little_for_a_share_is_refused(groups: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"."):
        between_group_share(*groups)


def test_share_lies_inside_its_interval() -> None:
    generator = np.random.default_rng(3)
    groups = generator.normal(0, 1.0, (12, 1)) + generator.normal(0, 1.0, (12, 8))
    interval = share_interval(groups, n_resamples=300)
    assert interval.mean == between_group_share(*groups)
    assert 0 <= interval.low < interval.mean < interval.high <= 1
    assert interval.high - interval.low < 0.5
    assert share_interval(groups, n_resamples=300) == interval


def test_spearman_is_scipys_and_0_where_nothing_is_ranked() -> None:
    random = np.random.default_rng(0)
    values, truth = random.normal(size=(2, 9))
    ranks = [np.argsort(np.argsort(each)) for each in (values, truth)]
    by_hand = 1 - 6 * ((ranks[0] - ranks[1]) ** 2).sum() / (9 * (81 - 1))
    assert spearman(values, truth) == pytest.approx(by_hand) == pytest.approx(spearmanr(values, truth).statistic)
    assert spearman(np.ones(9), truth) == spearman(values, np.ones(9)) == 0.0
