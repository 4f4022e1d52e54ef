"""Growth against known power laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from laboratory.growth import Growth, fit_growth
from ssdkd_agents.analysis.statistics import Interval

SIZES = (100, 1000, 10_000, 100_000, 1_000_000, 10_000_000)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_power_law_gives_its_exponent_and_scale(exponent: float) -> None:
    growth = fit_growth({size: [3e-6 * size**exponent] * 5 for size in SIZES})
    assert growth.exponent.mean == pytest.approx(exponent, abs=1e-9)
    assert (growth.exponent.low, growth.exponent.high) == pytest.approx((exponent, exponent), abs=1e-9)
    assert growth.last_exponent.mean == pytest.approx(exponent, abs=1e-9)
    assert growth.scale == pytest.approx(3e-6, rel=1e-6)


def test_noise_widens_the_interval_around_the_exponent() -> None:
    random = np.random.default_rng(1)
    widths = []
    for noise in (0.02, 0.2):
        growth = fit_growth({size: 1e-6 * size * random.lognormal(0, noise, 15) for size in SIZES})  # type: ignore[misc]
        assert growth.exponent.low <= 1.0 <= growth.exponent.high
        widths.append(growth.exponent.high - growth.exponent.low)
    assert 0 < widths[0] < widths[1] < 0.3


def test_overhead_of_small_sizes_does_not_count() -> None:
    growth = fit_growth({size: [5e-3 + 1e-6 * size] * 3 for size in SIZES})
    assert growth.sizes == SIZES[3:]
    assert growth.exponent.mean == pytest.approx(1.0, abs=0.02)


def test_a_bend_at_the_end_shows() -> None:
    seconds = {size: [1e-6 * size * 0.99, 1e-6 * size, 1e-6 * size * 1.01] for size in SIZES}
    assert not fit_growth(seconds).bends_upwards
    seconds[SIZES[-1]] = [2 * value for value in seconds[SIZES[-1]]]
    growth = fit_growth(seconds)
    assert growth.bends_upwards
    assert growth.last_exponent.mean == pytest.approx(1 + math.log10(2), abs=1e-9)
    assert growth.exponent.mean == pytest.approx(1 + math.log10(2) / 2, abs=1e-9)


def test_one_slow_repeat_moves_nothing() -> None:
    seconds = {size: [1e-6 * size] * 9 for size in SIZES}
    seconds[SIZES[-1]][4] = 1e6
    assert fit_growth(seconds).exponent.mean == pytest.approx(1.0, abs=1e-9)


def test_sizes_may_come_in_any_order_and_as_few_as_three() -> None:
    growth = fit_growth({size: [1e-6 * size] * 3 for size in (4, 1, 2)})
    assert growth.sizes == (1, 2, 4)
    assert growth.exponent.mean == pytest.approx(1.0, abs=1e-9)
    with pytest.raises(ValueError, match="at least 3 sizes"):
        fit_growth({1: [1.0] * 3, 2: [2.0] * 3})


def test_a_clock_that_says_zero_is_survived() -> None:
    assert math.isfinite(fit_growth({size: [0.0, 0.0, 1e-3] for size in SIZES}).exponent.high)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.9, 1.15, "grows no faster than linearly"),
        (1.1, 1.16, "MAY GROW FASTER than linearly"),
        (1.2, 1.3, "GROWS FASTER than linearly"),
    ],
)
def test_the_whole_interval_decides_the_verdict(low: float, high: float, verdict: str) -> None:
    growth = Growth(1e-6, Interval((low + high) / 2, low, high), Interval(1.0, 1.0, 1.0), SIZES)
    assert growth.verdict == verdict
    assert growth.linear == (verdict == "grows no faster than linearly")
