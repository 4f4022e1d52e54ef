"""The table of a comparison of samplers and its pictures, against independent calculations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import trim_mean
from ssdkd_agents.analysis.comparison import (
    interquartile_mean,
    mean_score,
    paired_probability_of_improvement,
    probability_of_improvement,
)
from ssdkd_agents.benchmarking.experiments import run_episodes
from ssdkd_agents.benchmarking.sampler_report import make_sampler_table, write_sampler_pictures
from ssdkd_agents.plotting import comparison_plots

from ssdkd_env.processes import Processes
from tests.agents.benchmarking.test_experiments import CONFIG
from tests.agents.benchmarking.test_report import line as result_line

COLUMNS = ("episodes", "IQM", "mean", "− paper's", "P, same seeds", "P, all pairs", "s/episode")


def line(sampler: str, seed: int, accuracy: float | None = 0.5, gain: float = 0.25, **changes: Any) -> dict[str, Any]:
    return result_line(sampler, seed, accuracy, sampler=sampler, **{"return": gain}, **changes)


def tables(lines: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """Score → row → cell by column."""
    found = {}
    for table in make_sampler_table(lines).split("\n\n"):
        cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()]
        assert set(cells[1]) == {"---"}
        assert {len(row) for row in cells} == {1 + len(COLUMNS)}
        assert cells[0][0] == "sampler"
        found[cells[0][2].removesuffix(", IQM")] = {
            row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in cells[2:]
        }
    return found


def three(value: str) -> str:
    """Three equal values, too few for an interval."""
    return f"{value} ({', '.join([value] * 3)})"


def test_table_by_hand() -> None:
    lines = [line("runs/ppo", seed, 0.75, 0.5) for seed in (1, 2, 3)] + [line("paper", seed) for seed in (3, 1, 2)]
    lines[0]["seconds"]["wall"] = 9.0
    found = tables(lines)
    assert found == {
        "held-out accuracy": {
            "runs/ppo": dict(
                zip(COLUMNS, ("3", *[three("0.6250")] * 2, three("0.2500"), *["1.0000"] * 2, "4.0"), strict=True)
            ),
            "paper": dict(zip(COLUMNS, ("3", *[three("0.3750")] * 2, "–", "–", "–", "4.0"), strict=True)),
        },
        "return": {
            "runs/ppo": dict(
                zip(COLUMNS, ("3", *[three("0.5000")] * 2, three("0.2500"), *["1.0000"] * 2, "4.0"), strict=True)
            ),
            "paper": dict(zip(COLUMNS, ("3", *[three("0.2500")] * 2, "–", "–", "–", "4.0"), strict=True)),
        },
    }  # fmt: skip


def test_training_runs_of_a_group_are_one_row() -> None:
    paper = {seed: 0.1 * seed for seed in range(1, 9)}
    runs = [{seed: 0.1 * seed + shift for seed in range(1, 9)} for shift in (0.05, -0.02, 0.11)]
    lines = [line("paper", seed, None, value) for seed, value in paper.items()]
    lines += [
        line(f"runs/{index}", seed, None, value, group="ppo")
        for index, run in enumerate(runs)
        for seed, value in run.items()
    ]
    found = tables(json.loads(json.dumps(lines)))
    assert list(found) == ["return"], "no accuracy without real data"
    row = found["return"]["ppo"]
    values = [value for run in runs for value in run.values()]
    assert row["episodes"] == "24 (3 training runs)"
    assert row["IQM"] == str(interquartile_mean(runs))
    assert row["IQM"].startswith(f"{trim_mean(values, 0.25):.4f} ")
    assert row["mean"] == str(mean_score(runs))
    assert row["P, same seeds"] == str(paired_probability_of_improvement(runs, [paper]))
    assert row["P, same seeds"] == f"{2 / 3:.4f}", "three runs have no interval"
    assert row["P, all pairs"] == str(probability_of_improvement(runs, [paper]))
    assert row["− paper's"].startswith("0.0467 (0.0500, -0.0200, 0.1100)")


def test_seeds_without_a_partner_enter_all_pairs_alone() -> None:
    lines = [line("paper", 1, None, 0.1), line("paper", 9, None, 5.0)]
    lines += [line("a", 1, None, 0.4), line("a", 2, None, 7.0), line("b", 7, None, 0.2)]
    rows = tables(lines)["return"]
    assert rows["a"]["− paper's"] == "0.3000"
    assert rows["a"]["P, same seeds"] == "1.0000"
    assert rows["a"]["P, all pairs"] == "0.7500"
    assert rows["b"]["− paper's"] == rows["b"]["P, same seeds"] == "–"


def test_without_the_papers_sampler_nothing_is_compared() -> None:
    rows = tables([line("a", 1), line("b", 1, diverged=True)])["return"]
    assert {row[name] for row in rows.values() for name in COLUMNS[3:6]} == {"–"}
    assert rows["b"]["episodes"] == "1 (1 diverged)"


def test_own_sampler_of_ssdkd_is_the_papers_and_that_of_others_is_not() -> None:
    assert tables([line("own", 1), line("a", 1)])["return"]["a"]["P, same seeds"].startswith("0.5000")
    other: dict[str, Any] = {"env_kwargs": {"method": "dfq"}}
    assert tables([line("own", 1, **other), line("a", 1, **other)])["return"]["a"]["P, same seeds"] == "–"
    both = tables([line("paper", 1, gain=0.2), line("own", 1, gain=0.2), line("a", 1)])["return"]
    assert both["a"]["P, same seeds"].startswith("1.0000"), "played under both names, it is compared with one of them"


def test_accuracy_is_one_that_every_line_has() -> None:
    lines = [line("a", 1), line("b", 1)]
    del lines[0]["held_out_accuracy"]
    assert list(tables(lines)) == ["accuracy on real images", "return"]


def test_table_takes_lines_that_were_played() -> None:
    lines = list(run_episodes([CONFIG, replace(CONFIG, sampler="uniform")], Processes(1)))
    rows = tables(json.loads(json.dumps(lines)))["held-out accuracy"]
    assert rows["uniform"]["mean"] == f"{lines[1]['held_out_accuracy']:.4f}"


# --- pictures ---


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """What would have been written, by the file's name."""
    caught: dict[str, Figure] = {}
    monkeypatch.setattr(comparison_plots, "save_figure", lambda figure, path: caught.update({path.name: figure}))
    return caught


def test_profiles_step_down_from_one_to_zero(figures: dict[str, Figure], tmp_path: Path) -> None:
    lines = [line(name, seed, 0.2 + 0.1 * seed) for name in ("paper", "a", "b") for seed in range(4)]
    write_sampler_pictures(lines, tmp_path)
    accuracy, gain = figures["profiles.png"].axes
    assert (accuracy.get_xlabel(), gain.get_xlabel()) == ("held-out accuracy: threshold τ", "return: threshold τ")
    assert [curve.get_label() for curve in accuracy.lines] == ["paper", "a", "b"]
    assert [curve.get_color() for curve in accuracy.lines] == [comparison_plots.PAPER_COLOUR, "#0072B2", "#D55E00"]
    for curve in accuracy.lines:
        shares = np.asarray(curve.get_ydata()).tolist()
        assert sorted(set(shares), reverse=True) == [1.0, 0.75, 0.5, 0.25, 0.0]
        assert shares == sorted(shares, reverse=True)
    assert len(accuracy.collections) == 3


def test_many_profiles_have_a_band_for_the_paper_alone(figures: dict[str, Figure], tmp_path: Path) -> None:
    names = ["paper", *(f"s{index}" for index in range(9))]
    write_sampler_pictures([line(name, seed, 0.1 * seed) for name in names for seed in range(3)], tmp_path)
    curves = figures["profiles.png"].axes[0].lines
    assert len({(curve.get_color(), curve.get_linestyle()) for curve in curves}) == 10
    assert len(figures["profiles.png"].axes[0].collections) == 1


def test_improvement_shows_both_probabilities_best_accuracy_on_top(figures: dict[str, Figure], tmp_path: Path) -> None:
    lines = [line("paper", seed, 0.5 + 0.01 * seed) for seed in range(6)]
    lines += [line("best", seed, 0.6 + 0.01 * seed, 0.1) for seed in range(6)]
    lines += [line("worst", seed, 0.505 + 0.01 * seed - 0.02 * (seed > 2), 0.3) for seed in range(6)]
    write_sampler_pictures(lines, tmp_path)
    accuracy, gain = figures["improvement.png"].axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["worst", "best"]
    drawn = {
        axes: [float(bar.lines[0].get_xdata()[0]) for bar in axes.containers]  # type: ignore[attr-defined]
        for axes in (accuracy, gain)
    }
    assert drawn[accuracy] == pytest.approx([0.5, 15 / 36, 1.0, 1.0])
    assert drawn[gain] == [1.0, 1.0, 0.0, 0.0]


def test_pictures_are_written_where_there_is_something_to_compare(tmp_path: Path) -> None:
    write_sampler_pictures([line("a", seed) for seed in range(3)], tmp_path / "alone")
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {"profiles.png"}
    write_sampler_pictures([line(name, 1) for name in ("paper", "a")], tmp_path / "two")
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"profiles.png", "improvement.png"}
    assert all(path.stat().st_size > 5000 for path in (tmp_path / "two").iterdir())
