"""Pictures of measurements from numbers alone."""

from __future__ import annotations

from pathlib import Path

from laboratory.plots import plot_plans

from tests.agents.plotting.test_plots import assert_picture


def test_plans_are_written_as_png(tmp_path: Path) -> None:
    plot_plans({"paper": [0.94, 0.95, 0.96], "uniform": [0.93, 0.94, 0.92]}, tmp_path / "plans.png")
    assert_picture(tmp_path / "plans.png")
