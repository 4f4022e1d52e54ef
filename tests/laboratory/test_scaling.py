"""What is measured, against arithmetic and the engine's formulas."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from laboratory.scaling import (
    IMAGE_SHAPE,
    MOST_LINEAR,
    BufferRounds,
    Growth,
    Point,
    Sweep,
    check_memory,
    fit_growth,
    make_sweeps,
    measure_point,
    table_of,
)
from ssdkd_agents.analysis.statistics import Interval

from ssdkd_env.errors import InvalidInputError

PARTS = ("weigh", "update", "probabilities", "draw", "gather", "report")


# --- what is measured ---


def test_a_round_takes_every_part_and_the_bytes_agree_with_arithmetic() -> None:
    point = Point(40, images=40, candidates=6, classes=7)
    measured = measure_point(point, repeats=3)
    assert tuple(measured["cpu"]) == PARTS
    for seconds in measured["cpu"].values():
        assert len(seconds) == 3
        assert min(seconds) >= 0
    assert measured["nbytes"] == measured["expected_bytes"] == 40 * (3 * 32 * 32 + 2 * 7 * 4 + 3 * 4 + 8)


def test_a_round_leaves_a_full_buffer_with_the_engines_weights() -> None:
    rounds = BufferRounds(Point(40, images=40, candidates=6))
    residents = rounds.buffer.residents
    assert len(residents) == 40
    delta, weights = residents.discrepancy.clone(), residents.importance_weight.clone()
    rounds.once()
    stayed = residents.discrepancy == delta
    assert 34 <= int(stayed.sum()) < 40, "some candidates enter, no more than there are"
    # w of the plan's β, up to its scale, of those who stayed.
    importance = (weights * delta + 0.01) ** -0.4
    ratio = residents.importance_weight[stayed] / importance[stayed]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))


def test_every_sweep_changes_one_thing() -> None:
    base = Point(0)
    fields = {"buffer": "images", "candidates": "candidates", "classes": "classes"}
    for name, sweep in make_sweeps(1_000_000).items():
        sizes = [point.size for point in sweep.points]
        assert sizes == sorted(set(sizes))
        for point in sweep.points:
            assert getattr(point, fields[name]) == point.size
            assert replace(point, **{"size": 0, fields[name]: getattr(base, fields[name])}) == base
    assert [point.size for point in make_sweeps(5000)["buffer"].points] == [180, 1000, 5000]


def test_a_table_has_a_row_a_size_and_the_growth() -> None:
    sweep = Sweep("things", ("work",), tuple(Point(size) for size in (10, 100, 1000)))
    mebibyte = {"nbytes": 1 << 20, "expected_bytes": 1 << 20}
    measured = [{"point": vars(p), "cpu": {"work": [1e-3 * p.size] * 5}} | mebibyte for p in sweep.points]
    growth = fit_growth({p.size: [1e-3 * p.size] * 5 for p in sweep.points})
    rows = table_of(sweep, measured, {"work": growth}).splitlines()
    assert rows[0].startswith("| things | work ms | MiB |")
    assert rows[3] == "| 100 | 100 | 1.00 | 1.00 |"
    assert rows[-2].startswith("| growth | n^1.00 [1.00, 1.00] |")
    assert rows[-1].startswith("| from the last but one | n^1.00 [1.00, 1.00] |")
    assert len({row.count("|") for row in rows}) == 1


# --- growth ---

SIZES = (100, 1000, 10_000, 100_000, 1_000_000, 10_000_000)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_power_law_gives_its_exponent(exponent: float) -> None:
    growth = fit_growth({size: [3e-6 * size**exponent] * 5 for size in SIZES})
    assert growth.exponent.mean == pytest.approx(exponent, abs=1e-9)
    assert (growth.exponent.low, growth.exponent.high) == pytest.approx((exponent, exponent), abs=1e-9)
    assert growth.last_exponent.mean == pytest.approx(exponent, abs=1e-9)


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
    seconds = {size: [1e-6 * size * factor for factor in (0.98, 0.99, 1, 1.01, 1.02)] for size in SIZES}
    assert fit_growth(seconds).last_exponent.low <= MOST_LINEAR
    seconds[SIZES[-1]] = [2 * value for value in seconds[SIZES[-1]]]
    growth = fit_growth(seconds)
    assert growth.last_exponent.low > MOST_LINEAR
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
    assert math.isfinite(fit_growth({size: [0.0, 0.0, 0.0, 1e-3, 1e-3] for size in SIZES}).exponent.high)


@pytest.mark.parametrize(("low", "high", "linear"), [(0.9, 1.15, True), (1.1, 1.16, False), (1.2, 1.3, False)])
def test_the_whole_interval_decides_what_is_linear(low: float, high: float, linear: bool) -> None:
    growth = Growth(Interval((low + high) / 2, low, high), Interval(1.0, 1.0, 1.0), SIZES)
    assert growth.linear == linear


# --- memory ---


@pytest.mark.parametrize(
    ("available", "largest", "remedy"),
    [
        (
            1_000_000 * math.prod(IMAGE_SHAPE),
            1_000_000,
            "1000000 images of 10 classes need .* give a smaller --largest",
        ),
        (1_000_000 * math.prod(IMAGE_SHAPE), 50_000, ""),
        (2_000_000 * math.prod(IMAGE_SHAPE), 1_000_000, ""),
        (1 << 30, 50_000, "5000 images of 10000 classes need .* or free some"),
    ],
)
def test_what_does_not_fit_is_refused(
    available: int, largest: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    with pytest.raises(InvalidInputError, match=remedy) if remedy else nullcontext():
        check_memory(make_sweeps(largest))
