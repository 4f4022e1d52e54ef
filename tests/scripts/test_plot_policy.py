"""`plot_policy`: from the lines of an evaluation to a picture of what samplers do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from ssdkd_agents.environments import make_env
from ssdkd_agents.samplers import write_decision

from ssdkd_env.envs.named_plans import NAMED_PLANS
from tests.agents.analysis.test_policy_trace import DIGITS, SIZES, line
from tests.scripts.commands import Result, assert_refused, in_this_process

ROUNDS = 4


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that are drawn."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **settings: Any) -> None:
        drawn.append(figure)
        save(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", keep)
    return drawn


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent of five numbers, one of choices, a baseline that no action says, and the paper's sampler."""
    env = make_env(DIGITS, {"budget": SIZES})
    discrete = make_env(DIGITS, {"budget": SIZES, "action": "plans"})
    random = np.random.default_rng(0)
    lines = []
    for seed in range(5):
        actions = random.uniform(-1, 1, (ROUNDS, 5)).astype(np.float32)
        lines.append(line("runs/ppo", env, list(actions), seed) | {"group": "ppo"})
        choices = [np.int64(choice) for choice in random.integers(10, size=ROUNDS)]
        lines.append(line("runs/dqn", discrete, choices, seed, action="plans"))
        lines.append(line("fifo", env, [NAMED_PLANS["fifo"]] * ROUNDS, seed))
        lines.append(line("paper", env, [env.paper_action] * ROUNDS, seed))
    assert isinstance(write_decision(env, NAMED_PLANS["fifo"]), dict)
    return write(tmp_path_factory.mktemp("results") / "results.jsonl", lines)


def draw(results: Path, out: Path, *samplers: str) -> Result:
    return in_this_process(
        "plot_policy", "--results", results, "--out", out, *(["--samplers", *samplers] if samplers else [])
    )


def test_panel_for_each_part_and_each_row_of_choices(results: Path, tmp_path: Path, figures: list[Figure]) -> None:
    result = draw(results, tmp_path / "policy.png")
    assert result.code == 0, result.stderr
    assert result.stdout == f"plot: {tmp_path / 'policy.png'}\n"
    assert image.imread(tmp_path / "policy.png").ndim == 3
    titles = [axes.get_title() for axes in figures[0].axes if axes.axison]
    assert titles == [
        "exponent of δ", "exponent of diversity", "exponent of difficulty", "importance exponent β", "replaced share ρ",
        "runs/dqn",
    ]  # fmt: skip
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == ["ppo", "fifo (replaces oldest)", "the paper's sampler"]


def test_lines_are_means_and_bands_quantiles(results: Path, tmp_path: Path, figures: list[Figure]) -> None:
    assert draw(results, tmp_path / "policy.png", "ppo", "paper").code == 0
    lines = [json.loads(text) for text in results.read_text().splitlines()]
    beta = np.array([one["actions"] for one in lines if one["sampler"] == "runs/ppo"])[:, :, 3] / 2 + 0.5
    axes = next(axes for axes in figures[0].axes if "β" in axes.get_title())
    mean, paper = axes.get_lines()
    np.testing.assert_array_equal(np.asarray(mean.get_xdata()), np.arange(1, ROUNDS + 1))
    np.testing.assert_allclose(np.asarray(mean.get_ydata()), beta.mean(axis=0))
    np.testing.assert_allclose(np.asarray(paper.get_ydata()), 0.4, atol=1e-6)
    assert paper.is_dashed()
    (band,) = axes.collections
    corners = np.asarray(band.get_paths()[0].vertices)
    for column, edge in ((0, np.min), (1, np.max)):
        outer = [edge(corners[corners[:, 0] == index + 1, 1]) for index in range(ROUNDS)]
        np.testing.assert_allclose(outer, np.quantile(beta, (0.1, 0.9)[column], axis=0), atol=1e-6)


def test_choices_are_stacked_to_one(results: Path, tmp_path: Path, figures: list[Figure]) -> None:
    assert draw(results, tmp_path / "policy.png", "runs/dqn").code == 0
    (axes,) = (axes for axes in figures[0].axes if axes.axison)
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    heights = np.zeros(ROUNDS)
    for bar in bars:
        place = round(bar.get_x() + bar.get_width() / 2) - 1
        assert bar.get_y() == pytest.approx(heights[place])
        heights[place] += bar.get_height()
    np.testing.assert_allclose(heights, 1.0)
    lines = [json.loads(text) for text in results.read_text().splitlines()]
    made = {choice for one in lines if one["sampler"] == "runs/dqn" for choice in one["actions"]}
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {list(NAMED_PLANS)[choice] for choice in made}


def test_paper_alone_is_drawn(results: Path, tmp_path: Path, figures: list[Figure]) -> None:
    assert draw(results, tmp_path / "policy.png", "paper").code == 0
    assert len(figures[0].axes[0].get_lines()) == 2


def test_scheme_of_many_parts_has_a_panel_each(tmp_path: Path, figures: list[Figure]) -> None:
    env = make_env(DIGITS, {"budget": SIZES, "action": "samples"})
    lines = [line("x", env, [env.paper_action], action="samples")]
    assert draw(write(tmp_path / "r.jsonl", lines), tmp_path / "policy.png").code == 0
    assert [axes.get_title() for axes in figures[0].axes if axes.axison][2:] == list(env.action_names[2:])


def test_bad_input_is_one_clear_line(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.png"
    assert_refused(draw(tmp_path / "none.jsonl", out), "cannot read")
    assert_refused(draw(results, out, "sac"), "samplers='sac' is not in the results; choose from: ppo, runs/dqn, fifo")
    assert_refused(draw(write(tmp_path / "bad.jsonl", [{"sampler": "x"}]), out), "is no result of an episode")
    assert not out.exists()
