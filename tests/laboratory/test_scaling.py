"""What is measured, against arithmetic and the engine's formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from laboratory import scaling
from laboratory.scaling import (
    IMAGE_SHAPE,
    BufferRounds,
    Measurement,
    Point,
    Stopwatch,
    Sweep,
    check_memory,
    growths_of,
    make_sweeps,
    measure_point,
    multiply_adds,
    table_of,
)
from torch import nn

from ssdkd_env.errors import InvalidInputError

PARTS = ("weigh", "update", "probabilities", "draw", "gather", "report")


# --- what is measured ---


def test_a_round_takes_every_part_and_the_bytes_agree_with_arithmetic() -> None:
    point = Point(40, images=40, candidates=6, classes=7)
    measured = measure_point(point, repeats=3, batch_size=4)
    assert tuple(measured.cpu) == tuple(measured.wall) == PARTS
    for seconds in (*measured.cpu.values(), *measured.wall.values()):
        assert len(seconds) == 3
        assert min(seconds) >= 0
    assert measured.nbytes == measured.expected_bytes == 40 * (3 * 32 * 32 + 2 * 7 * 4 + 4 * 4 + 8)
    assert measured.peak_memory_mib > 0


def test_a_round_leaves_a_full_buffer_with_the_engines_weights() -> None:
    rounds = BufferRounds(Point(40, images=40, candidates=6), batch_size=4)
    residents = rounds.buffer.residents
    assert len(residents) == 40
    delta, weights = residents.discrepancy.clone(), residents.importance_weight.clone()
    rounds.once(Stopwatch())
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
            if name == "student":
                assert replace(point, size=0, student="") == base
            else:
                assert getattr(point, fields[name]) == point.size
                assert replace(point, **{"size": 0, fields[name]: getattr(base, fields[name])}) == base
    assert [point.size for point in make_sweeps(5000)["buffer"].points] == [180, 1000, 5000]


def test_multiply_adds_are_those_of_convolutions_and_classifier() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.Flatten()
    )
    network.append(nn.Linear(4 * 16 * 16, 5))
    assert multiply_adds(network) == 16 * 16 * 8 * 27 + 16 * 16 * 4 * 8 + 4 * 16 * 16 * 5


def test_a_students_step_counts_parameters_gradients_and_momenta() -> None:
    measured = measure_point(Point(1, student="resnet8"), repeats=1, batch_size=2)
    assert tuple(measured.cpu) == ("step",)
    stem, stages, classifier = 3 * 16 * 9 + 32, 0, 64 * 10 + 10
    for before, width in ((16, 16), (16, 32), (32, 64)):
        stages += 9 * (before * width + width * width) + 4 * width
    assert measured.nbytes == measured.expected_bytes == 3 * 4 * (stem + stages + classifier)


def test_a_table_has_a_row_a_size_and_the_growth() -> None:
    sweep = Sweep("things", ("work",), tuple(Point(size) for size in (10, 100, 1000)))
    measurements = [
        Measurement(p, {"work": [1e-3 * p.size] * 3}, {"work": [2e-3 * p.size] * 3}, 1 << 20, 1 << 20, 5.0, 3.0)
        for p in sweep.points
    ]
    rows = table_of(sweep, measurements, growths_of(sweep, measurements)).splitlines()
    assert rows[0].startswith("| things | work ms | clock / processor |")
    assert rows[3] == "| 100 | 100 | 2.00 | 1.00 | 1.00 | 3 |"
    assert rows[-2].startswith("| growth | n^1.00 [1.00, 1.00] |")
    assert rows[-1].startswith("| from the last but one | n^1.00 [1.00, 1.00] |")
    assert len({row.count("|") for row in rows}) == 1


# --- memory ---


def test_a_sweep_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = make_sweeps(1_000_000)
    images = 1_000_000 * math.prod(IMAGE_SHAPE)
    monkeypatch.setattr(scaling, "available_bytes", lambda: images)
    with pytest.raises(InvalidInputError, match=r"--largest 1000000 needs .* give a smaller --largest"):
        check_memory("buffer", sweeps["buffer"])
    check_memory("classes", sweeps["classes"])
    monkeypatch.setattr(scaling, "available_bytes", lambda: 1 << 30)
    with pytest.raises(InvalidInputError, match="leave it out of --sweeps"):
        check_memory("classes", sweeps["classes"])
    for enough in (2 * images, None):
        monkeypatch.setattr(scaling, "available_bytes", lambda enough=enough: enough)
        check_memory("buffer", sweeps["buffer"])


def test_available_memory_is_what_the_system_says() -> None:
    available = scaling.available_bytes()
    assert available is None or available > 1 << 20
