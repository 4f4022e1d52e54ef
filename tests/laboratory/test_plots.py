"""Pictures of measurements from numbers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from laboratory import plots
from laboratory.plots import plot_budgets, plot_growth, plot_plans
from matplotlib.figure import Figure
from ssdkd_agents.analysis.statistics import Interval

from tests.agents.plotting.test_plots import assert_picture

POINTS: list[dict[str, Any]] = [
    {"sweep": sweep, "point": {"size": size}, "cpu": {"work": [1e-6 * size, 2e-6 * size, 3e-6 * size]}}
    for sweep in ("buffer", "classes")
    for size in (10, 100, 1000)
]
FITS: list[dict[str, Any]] = [
    {
        "sweep": sweep,
        "unit": f"things in the {sweep}",
        "part": "work",
        "scale": 2e-6,
        "exponent": {"mean": 1.0, "low": 0.9, "high": 1.1},
        "sizes": [10, 100, 1000],
    }
    for sweep in ("buffer", "classes")
]


def test_growth_is_drawn(tmp_path: Path) -> None:
    plot_growth(POINTS, FITS, tmp_path / "growth.png")
    assert_picture(tmp_path / "growth.png")


def test_each_sweep_has_a_panel_whose_line_goes_through_the_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    plot_growth(POINTS, FITS, "unused.png")
    assert [axes.get_xlabel() for axes in figures[0].axes] == ["things in the buffer", "things in the classes"]
    for axes in figures[0].axes:
        medians = next(line for line in axes.lines if len(line.get_xdata()) == 3)  # type: ignore[arg-type]
        fit = next(line for line in axes.lines if len(line.get_xdata()) == 2)  # type: ignore[arg-type]
        assert list(medians.get_ydata()) == pytest.approx([0.02, 0.2, 2.0])  # type: ignore[arg-type]
        assert list(fit.get_ydata()) == pytest.approx([0.02, 2.0])  # type: ignore[arg-type]
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["work: n^1.00 [0.90, 1.10]"]


def test_budgets_and_plans_are_written_as_png(tmp_path: Path) -> None:
    points = [("default (20 rounds)", 8.0, Interval(0.95, 0.94, 0.96)), ("short", 2.0, Interval(0.9, 0.85, 0.92))]
    plot_budgets(points, tmp_path / "budgets.png")
    assert_picture(tmp_path / "budgets.png")
    plot_plans({"paper": [0.94, 0.95, 0.96], "uniform": [0.93, 0.94, 0.92]}, tmp_path / "plans.png")
    assert_picture(tmp_path / "plans.png")
