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
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.plotting import plots
from ssdkd_agents.plotting.plots import (
    COLOURS,
    SMOOTHING,
    plot_accuracy_seconds,
    plot_distributions,
    plot_reward_curves,
    plot_scale,
)

from ssdkd_env.errors import InvalidInputError
from tests.agents.benchmarking.test_report import line as result_line


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


def test_episodes_that_end_together_are_one_point_of_the_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    together = [{"timesteps": 10, "return": value} for value in (0.0, 4.0)] + [{"timesteps": 20, "return": 8.0}]
    line = labelled(drawn(monkeypatch, {"ppo": together}))["ppo in training"]
    assert np.asarray(line.get_xydata()).tolist() == [[10, 2], [20, 4]]


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


@pytest.mark.parametrize(("count", "bands", "values"), [(1, 0, []), (3, 0, [0.0, 0.1, 0.2]), (5, 1, [])])
def test_few_held_out_seeds_are_drawn_themselves(
    count: int, bands: int, values: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A band from the least to the largest of three would look like an interval."""
    results = [{"sampler": "paper", "return": 0.1 * index} for index in range(count)]
    axes = drawn(monkeypatch, {"ppo": curve(30)}, results).axes[0]
    assert len(axes.patches) == bands
    thin = [float(np.asarray(line.get_ydata())[0]) for line in axes.lines if line.get_linewidth() == 0.6]
    assert thin == pytest.approx(values)
    assert "95 % percentile bootstrap, 10,000 resamples" in axes.get_title()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_points_of_few_seeds_have_no_error_bars(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    kwargs = {"method": "ssdkd", "buffer_scale": 0.1}
    lines = [result_line("a", seed, 0.5 + 0.1 * seed, env_kwargs=kwargs) for seed in range(count)]
    plot_accuracy_seconds(lines, "unused.png")
    plot_scale(lines, "unused.png")
    for axes in (figures[0].axes[-1], figures[1].axes[0]):
        (bar,) = axes.containers
        (segment,) = bar.lines[2][0].get_segments()  # type: ignore[attr-defined]
        assert (len(segment) == 2) == (count >= 5)
        marks = [line for line in axes.lines if line.get_marker() == "_" and line.get_alpha() == 0.6]
        shown = [value for line in marks for value in np.asarray(line.get_ydata()).tolist()]
        assert shown == pytest.approx([0.375 + 0.1 * seed for seed in range(count)] if count == 3 else [])


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
    with pytest.raises(InvalidInputError, match="no finished training episode to plot; let ssdkd train run for long"):
        plot_reward_curves(curves, RESULTS, tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "curve.png", tmp_path):
        with pytest.raises(InvalidInputError, match="cannot write"):
            plot_reward_curves({"ppo": curve(30)}, [], path)


# --- benchmarks ---


def benchmark_lines(labels: Sequence[str], seeds: int = 3) -> list[dict[str, Any]]:
    """Entry number i has accuracy about 0.1·i and took 1, 2, 3 … times the seconds of the first."""
    return [
        result_line(
            label,
            seed,
            0.1 + 0.05 * index + 0.01 * seed,
            seconds={"synthesis": 1.0 + index, "distillation": 2.0 * (1 + index), "wall": 4.0 * (1 + index) + seed},
        )
        for seed in range(seeds)
        for index, label in enumerate(labels)
    ]


def figure_of(monkeypatch: pytest.MonkeyPatch, draw: Any, lines: Sequence[dict[str, Any]]) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    draw(lines, "unused.png")
    return figures[0]


def points_of(axes: Any) -> list[tuple[float, float]]:
    """Where the points with intervals are, in the order of the entries."""
    return [(float(bar[0].get_xdata()[0]), float(bar[0].get_ydata()[0])) for bar in axes.containers]


def test_points_are_mean_accuracy_at_median_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = benchmark_lines(["a", "b", "c"])
    figure = figure_of(monkeypatch, plot_accuracy_seconds, lines)
    held_out = [0.1 + 0.05 * index + 0.01 - 0.125 for index in range(3)]
    expected = {0: [1.0, 2.0, 3.0], 1: [2.0, 4.0, 6.0], 2: [5.0, 9.0, 13.0]}
    for panel, axes in enumerate(figure.axes):
        np.testing.assert_allclose(points_of(axes), list(zip(expected[panel], held_out, strict=True)))
        assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    assert "held-out accuracy" in figure.axes[0].get_ylabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1  a", "2  b", "3  c"]


def test_intervals_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = benchmark_lines(["a"], seeds=5)
    figure = figure_of(monkeypatch, plot_accuracy_seconds, lines)
    interval = bootstrap_mean(line["held_out_accuracy"] for line in lines)
    (segment,) = figure.axes[0].containers[0][2][0].get_segments()
    np.testing.assert_allclose(segment[:, 1], [interval.low, interval.high])


def test_entry_that_synthesised_nothing_is_a_line_there(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = benchmark_lines(["a", "real"])
    for line in lines:
        if line["label"] == "real":
            line["final"]["synthesized"], line["seconds"]["synthesis"] = 0, 0.0
    synthesis, distillation, wall = figure_of(monkeypatch, plot_accuracy_seconds, lines).axes
    assert [len(axes.containers) for axes in (synthesis, distillation, wall)] == [1, 2, 2]
    level = bootstrap_mean(line["held_out_accuracy"] for line in lines if line["label"] == "real").mean
    assert any(np.allclose(np.asarray(line.get_ydata(), dtype=float), level) for line in synthesis.lines)


def test_score_is_the_best_that_every_line_has(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = benchmark_lines(["a", "b"])
    del lines[0]["held_out_accuracy"]
    assert "accuracy on real images" in figure_of(monkeypatch, plot_accuracy_seconds, lines).axes[0].get_ylabel()
    del lines[1]["final"]["accuracy"]
    assert "probe agreement" in figure_of(monkeypatch, plot_accuracy_seconds, lines).axes[0].get_ylabel()


def test_fifteen_entries_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two share colour and shape, no number lies on another."""
    figure = figure_of(monkeypatch, plot_accuracy_seconds, benchmark_lines([f"entry {i}" for i in range(15)]))
    axes = figure.axes[2]
    marks = {(bar[0].get_color(), bar[0].get_marker()) for bar in axes.containers}
    assert len(marks) == 15
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_points_on_top_of_each_other_have_their_numbers_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [result_line(label, seed) for label in "abcd" for seed in (1, 2)]
    figure = figure_of(monkeypatch, plot_accuracy_seconds, lines)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def distributed(label: str, seed: int, classes: Sequence[float], difficulty: Sequence[float]) -> dict[str, Any]:
    return result_line(label, seed, distributions={"class_counts": list(classes), "difficulty": list(difficulty)})


def test_distributions_are_mean_shares_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        distributed("a", 1, [30, 10], [40, 0, 0, 0]),
        distributed("a", 2, [0, 80], [0, 0, 0, 80]),
        distributed("b", 1, [10, 10], [5, 5, 5, 5]),
    ]
    axes = figure_of(monkeypatch, plot_distributions, lines).axes
    classes = [panel.patches[0].get_data().values for panel in axes[::2]]  # type: ignore[attr-defined]
    difficulty = [[bar.get_height() for bar in panel.containers[0]] for panel in axes[1::2]]
    heights = [heights for row in zip(classes, difficulty, strict=True) for heights in row]
    np.testing.assert_allclose(heights[0], [0.375, 0.625])
    np.testing.assert_allclose(heights[1], [0.5, 0, 0, 0.5])
    np.testing.assert_allclose(heights[2], [0.5, 0.5])
    # Entropy of (3/4, 1/4) is 0.8113 bits; a single class has imbalance 1.
    assert axes[0].get_ylabel() == f"a\nimbalance {(1 - 0.8113 + 1) / 2:.3f}\ndifficulty 0.50"
    assert axes[2].get_ylabel() == "b\nimbalance 0.000\ndifficulty 0.50"


def test_bar_that_is_cut_off_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [distributed("a", 1, [91] + [1] * 9, [1, 0])]
    panel = figure_of(monkeypatch, plot_distributions, lines).axes[0]
    assert panel.get_ylim()[1] < 0.91
    assert [text.get_text() for text in panel.texts] == ["0.91"]


def test_entry_that_synthesised_nothing_has_no_distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing = distributed("real", 1, [0, 0], [0, 0])
    plot_distributions([nothing], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    figure = figure_of(monkeypatch, plot_distributions, [nothing, distributed("a", 1, [1, 1], [1, 0])])
    assert [axes.get_ylabel().splitlines()[0] for axes in figure.axes[::2]] == ["a"]


def scaled(sampler: str, scale: float, seed: int, accuracy: float) -> dict[str, Any]:
    return result_line(
        f"{sampler} {scale}",
        seed,
        accuracy,
        sampler=sampler,
        env_kwargs={"method": "ssdkd", "buffer_scale": scale},
        buffer_images=round(1300 * scale),
        synthesized=round(2000 * scale),
    )


def test_scale_is_a_line_for_each_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        scaled(sampler, scale, seed, scale + 0.01 * seed + (sampler == "own") / 8)
        for scale in (1.0, 0.01, 0.1)
        for sampler in ("own", "uniform")
        for seed in (1, 2)
    ]
    figure = figure_of(monkeypatch, plot_scale, lines)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    for container, shift in zip(axes.containers, (1 / 8, 0.0), strict=True):
        line = container[0]
        places, means = (np.asarray(values, dtype=float) for values in line.get_data())
        np.testing.assert_allclose(places, [0.01, 0.1, 1.0], rtol=0.05)
        np.testing.assert_allclose(means, np.array([0.01, 0.1, 1.0]) + 0.015 + shift - 0.125)
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks == ["1 %\n13\n20", "10 %\n130\n200", "100 %\n1,300\n2,000"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "ssdkd, sampler own",
        "ssdkd, sampler uniform",
    ]


@pytest.mark.parametrize("draw", [plot_accuracy_seconds, plot_distributions, plot_scale])
def test_pictures_of_a_benchmark_are_written_as_png(draw: Any, tmp_path: Path) -> None:
    draw([scaled("own", scale, seed, scale) for scale in (0.1, 1.0) for seed in (1, 2)], tmp_path / "new" / "x.png")
    assert_picture(tmp_path / "new" / "x.png")


def test_names_in_pictures_are_text_and_no_formulas(tmp_path: Path) -> None:
    """Matplotlib raises where what stands between two `$` is no formula."""
    results = [{"sampler": r"$\frac$ | <b>", "return": 0.1 * i} for i in range(3)]
    plot_reward_curves({r"$\no$": curve(30)}, results, tmp_path / "curve.png")
    assert_picture(tmp_path / "curve.png")


def test_name_that_says_something_other_than_png_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"out='.*a.svg': plots are PNG files; name it a.png"):
        plots.save_figure(Figure(), tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
