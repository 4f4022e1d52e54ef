"""Sample efficiency: means over training runs, against independent calculations."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from ssdkd_agents.analysis.comparison import mean_score
from ssdkd_agents.analysis.training_curves import (
    algorithm_of,
    best_constant,
    episode_curve,
    evaluation_curve,
    read_training,
)
from ssdkd_agents.plotting import comparison_plots
from ssdkd_agents.plotting.comparison_plots import plot_training_curves

from ssdkd_env.errors import InvalidInputError
from tests.agents.benchmarking.test_sampler_report import line as result


def episodes(values: list[float], every: int = 10) -> list[dict[str, Any]]:
    return [{"timesteps": every * (index + 1), "return": value} for index, value in enumerate(values)]


def evaluations(values: dict[int, list[float]]) -> list[dict[str, Any]]:
    return [
        {"timesteps": steps, "seeds": [7, 8], "returns": scores, "accuracies": [None, None]}
        for steps, scores in values.items()
    ]


def test_episodes_are_smoothed_by_a_window_and_averaged_over_runs() -> None:
    first, second = [0.0, 1.0, 2.0, 6.0], [1.0, 1.0, 1.0, 1.0]
    curve = episode_curve([episodes(first), episodes(second)], "return", window=2)
    assert (curve.steps[0], curve.steps[-1], curve.runs) == (10, 40, 2)
    assert curve.mean[[0, -1]] == pytest.approx([0.5, fmean([fmean([2.0, 6.0]), 1.0])])
    assert np.isnan(curve.low).all() and np.isnan(curve.high).all(), "two runs have no band"
    assert curve.values[[0, -1]].tolist() == [[0.0, 1.0], [4.0, 1.0]]
    many = episode_curve([episodes([level]) for level in (0.0, 1.0, 2.0, 3.0, 4.0)], "return", window=2)
    assert many.low[0] < 2.0 == many.mean[0] < many.high[0]
    assert many.values.size == 0


def test_runs_are_compared_where_all_of_them_have_steps() -> None:
    curve = episode_curve([episodes([0.0] * 9), episodes([1.0] * 3, every=20)], "return", window=1)
    assert (curve.steps[0], curve.steps[-1]) == (20, 60)
    with pytest.raises(InvalidInputError, match="no steps in common"):
        episode_curve([episodes([0.0]), episodes([0.0], every=20)], "return", 1)


def test_episodes_that_end_together_count_together() -> None:
    lines = [{"timesteps": 10, "return": value} for value in (0.0, 4.0)] + [{"timesteps": 20, "return": 8.0}]
    curve = episode_curve([lines], "return", window=20)
    assert curve.mean[[0, -1]].tolist() == [2.0, 4.0]
    assert np.isnan(curve.low).all(), "a single run has no band"
    assert curve.values.size == 0, "and is the mean itself"


def test_evaluations_are_averaged_over_runs_and_seeds() -> None:
    first, second = evaluations({10: [0.0, 1.0], 30: [2.0, 3.0]}), evaluations({20: [0.0, 2.0], 30: [1.0, 5.0]})
    curve = evaluation_curve([first, second], "return")
    assert curve is not None
    assert curve.steps.tolist() == [20, 30]
    at_20 = mean_score([{7: 1.0, 8: 2.0}, {7: 0.0, 8: 2.0}])  # the first run is between its evaluations
    assert tuple(curve.values[0]) == at_20.values == (1.5, 1.0)
    assert curve.mean.tolist() == [at_20.mean, fmean([2.0, 3.0, 1.0, 5.0])]


def test_what_was_not_evaluated_has_no_curve() -> None:
    whole = evaluations({10: [0.0, 1.0]})
    assert evaluation_curve([whole, []], "return") is None
    assert evaluation_curve([whole], "accuracy") is None
    assert evaluation_curve([whole], "probe_agreement") is None


def test_best_constant_is_found_by_its_actions_not_by_its_name() -> None:
    fixed, other = [[0.5, 0.5]] * 3, [[0.5, 0.25]] * 3
    lines = [result("paper", 1, gain=0.9, actions=fixed), result("a", 1, gain=0.3, actions=fixed)]
    lines += [result("b", 1, gain=0.4, actions=other), result("moving", 1, gain=0.8, actions=fixed[:1] + other)]
    found = best_constant(lines, "return")
    assert found is not None
    assert found[0] == "best of 2 constant plans:\nb"
    assert found[1].mean == 0.4
    assert best_constant(lines[:1], "return") is None
    searches = [result(f"runs/{run}", 1, gain=0.5 + 0.1 * run, actions=[[run]] * 3, group="search") for run in range(2)]
    found = best_constant([*lines, *searches], "return")
    assert found is not None
    assert found[0] == "best of 3 constant plans:\nsearch"
    assert found[1].mean == pytest.approx(0.55)


def training(folder: Path, algorithm: str | None, *lines: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if algorithm:
        (folder / "config.json").write_text(json.dumps({"algorithm": algorithm}))
    return folder


def test_folder_of_a_training_is_read(tmp_path: Path) -> None:
    folder = training(tmp_path / "a", "ppo", *episodes([0.5]))
    assert read_training(folder) == (episodes([0.5]), [])
    (folder / "evaluations.jsonl").write_text(json.dumps(evaluations({1: [0.0, 1.0]})[0]) + "\n")
    assert read_training(folder)[1] == evaluations({1: [0.0, 1.0]})
    assert algorithm_of(folder) == "ppo"
    assert algorithm_of(training(tmp_path / "b", None)) == "b"
    with pytest.raises(InvalidInputError, match="no finished training episode"):
        read_training(tmp_path / "b")


def test_steps_of_several_rounds_are_counted_in_rounds(tmp_path: Path) -> None:
    settings = {"algorithm": "ppo", "env_kwargs": {"rounds_per_step": 4}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    ends = [(4, 7), (4, 6), (6, 2), (8, 7)]  # steps of up to 4 rounds: two episodes end together, one diverges
    lines = [json.dumps({"timesteps": end, "rounds": rounds, "return": 0.5}) for end, rounds in ends]
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "evaluations.jsonl").write_text('{"timesteps": 2, "returns": [1]}\n{"timesteps": 6, "returns": [1]}\n')
    episodes, evaluations = read_training(tmp_path)
    assert [line["timesteps"] for line in episodes] == [13, 13, 15, 22]
    assert [line["timesteps"] for line in evaluations] == [6.5, 15]


def test_steps_of_trainings_that_did_not_note_rounds_are_whole(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"algorithm": "ppo", "env_kwargs": {"rounds_per_step": 4}}')
    (tmp_path / "episodes.jsonl").write_text('{"timesteps": 4, "return": 0.5}\n')
    assert read_training(tmp_path)[0][0]["timesteps"] == 16


def test_picture_has_a_line_a_group_and_the_references(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(comparison_plots, "save_figure", lambda figure, path: figures.append(figure))
    run = (episodes([0.0, 1.0]), evaluations({10: [0.0, 1.0], 20: [1.0, 2.0]}))
    lines = [result("paper", 1, gain=0.9), result("uniform", 1, gain=0.3)]
    for entry in lines:
        entry["actions"] = [[0.0], [0.0]]
    plot_training_curves({"ppo": [run, run], "sac": [run]}, lines, tmp_path / "x.png", window=3)
    left, right = figures[0].axes
    named = {label: line for line in left.lines if not (label := str(line.get_label())).startswith("_")}
    assert list(named) == ["ppo (2 runs)", "sac (1 run)", "the paper's sampler", "constant plan: uniform"]
    assert [float(np.asarray(line.get_ydata())[0]) for line in list(named.values())[2:]] == [0.9, 0.3]
    assert "last 3 episodes" in left.get_title()
    assert np.asarray(right.lines[0].get_ydata()).tolist() == [0.5, 1.5]
    plot_training_curves({"ppo": [(run[0], [])]}, [], tmp_path / "x.png")
    assert len(figures[1].axes) == 1
    with pytest.raises(InvalidInputError, match="'accuracy' is not in every line of episodes"):
        plot_training_curves({"ppo": [run]}, [], tmp_path / "x.png", "accuracy")
    del lines[0]["return"]
    with pytest.raises(InvalidInputError, match="'return' is not in every line of the results"):
        plot_training_curves({"ppo": [run]}, lines, tmp_path / "x.png")
