"""Pictures from files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from agents import plots
from agents.plots import COLOURS, SMOOTHING, plot_budgets, plot_plans, plot_reward_curves
from agents.statistics import Interval, bootstrap_mean
from ssdkd_env.errors import InvalidInputError


def curve(count: int, slope: float = 0.01) -> list[dict[str, Any]]:
    return [{"timesteps": 20 * (i + 1), "return": slope * i + 0.1 * (-1) ** i} for i in range(count)]


RESULTS: list[dict[str, Any]] = [
    {"sampler": s, "return": r + 0.1 * i} for s, r in (("paper", 0.2), ("runs/ppo", 0.4)) for i in range(5)
]


def assert_picture(path: Path) -> None:
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = image.imread(path)
    assert min(pixels.shape[:2]) > 100
    colours = np.unique((pixels[..., :3] * 255).astype(int).reshape(-1, 3), axis=0)
    assert len(colours) > 10, "the picture is blank"


def drawn(
    monkeypatch: pytest.MonkeyPatch, curves: dict[str, list[dict[str, Any]]], results: Sequence[dict[str, Any]] = ()
) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    plot_reward_curves(curves, results, "unused.png")
    return figures[0]


def labelled(figure: Figure) -> dict[str, Line2D]:
    return {
        str(line.get_label()): line for line in figure.axes[0].lines if not str(line.get_label()).startswith("_child")
    }


def test_reward_curves_are_written_as_png(tmp_path: Path) -> None:
    plot_reward_curves({"ppo": curve(60), "sac": curve(3)}, RESULTS, tmp_path / "new" / "curve.png")
    assert_picture(tmp_path / "new" / "curve.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curve.png"]


@pytest.mark.parametrize("count", [1, 2, SMOOTHING - 1, SMOOTHING, SMOOTHING + 1, 100])
def test_line_is_the_moving_mean_at_its_last_step(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = curve(count)
    (mean,) = [line for label, line in labelled(drawn(monkeypatch, {"ppo": lines})).items() if label.startswith("ppo")]
    returns = [line["return"] for line in lines]
    windows = [returns[max(end - SMOOTHING, 0) : end] for end in range(1, count + 1)]
    expected = [sum(window) / len(window) for window in windows]
    np.testing.assert_allclose(np.asarray(mean.get_ydata(), dtype=float), expected, atol=1e-12)
    np.testing.assert_array_equal(mean.get_xdata(), [line["timesteps"] for line in lines])


def test_every_episode_is_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = curve(30)
    points = next(line for line in drawn(monkeypatch, {"ppo": lines}).axes[0].lines if line.get_marker() == ".")
    np.testing.assert_array_equal(points.get_xdata(), [line["timesteps"] for line in lines])
    np.testing.assert_array_equal(points.get_ydata(), [line["return"] for line in lines])


def test_samplers_are_lines_at_their_mean_return(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(monkeypatch, {"ppo": curve(30)}, RESULTS)
    lines = labelled(figure)
    for sampler, name in (("paper", "paper"), ("runs/ppo", "ppo")):
        line = lines[f"{name}, held-out seeds"]
        expected = bootstrap_mean(float(result["return"]) for result in RESULTS if result["sampler"] == sampler)
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), expected.mean)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3


def test_curves_have_colours_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(monkeypatch, {f"run {i}": curve(5) for i in range(len(COLOURS))})
    assert {to_hex(line.get_color()) for line in figure.axes[0].lines} == set(COLOURS)


def test_no_run_is_left_out_when_colours_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"run {i}" for i in range(len(COLOURS) + 2)]
    labels = labelled(drawn(monkeypatch, {name: curve(5) for name in names}))
    assert [label.removesuffix(" in training") for label in labels] == names


def test_run_without_an_episode_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labelled(drawn(monkeypatch, {"just started": [], "ppo": curve(30)}))
    assert any(label.startswith("ppo") for label in labels)


@pytest.mark.parametrize("curves", [{}, {"ppo": []}, {"ppo": [], "sac": []}], ids=str)
def test_nothing_to_draw_is_refused(curves: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no finished training episode to plot; let train_sampler run for long"):
        plot_reward_curves(curves, RESULTS, tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "curve.png", tmp_path):
        with pytest.raises(InvalidInputError, match="cannot write"):
            plot_reward_curves({"ppo": curve(30)}, [], path)


def test_budgets_and_plans_are_written_as_png(tmp_path: Path) -> None:
    points = [("default (20 rounds)", 8.0, Interval(0.95, 0.94, 0.96)), ("short", 2.0, Interval(0.9, 0.85, 0.92))]
    plot_budgets(points, tmp_path / "budgets.png")
    plot_plans({"paper": [0.94, 0.95, 0.96], "uniform": [0.93, 0.94, 0.92]}, tmp_path / "plans.png")
    assert_picture(tmp_path / "budgets.png")
    assert_picture(tmp_path / "plans.png")
