"""Pictures of comparisons: performance profiles, probabilities of improvement, sample efficiency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssdkd_agents.analysis.comparison import (
    Runs,
    interquartile_mean,
    mean_score,
    paired_probability_of_improvement,
    performance_profile,
    probability_of_improvement,
)
from ssdkd_agents.analysis.results import Result, common_score, paper_lines, runs_of
from ssdkd_agents.analysis.statistics import METHOD, Interval
from ssdkd_agents.analysis.training_curves import Lines, best_constant, episode_curve, evaluation_curve
from ssdkd_agents.plotting.plots import ROUNDS_LABEL, SMOOTHING, draw_level, error_bars, plain_axes, save_figure
from ssdkd_env.errors import InvalidInputError

#: Okabe and Ito's colours, which are told apart by the colour-blind, without the yellow that paper swallows.
SAFE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: The paper's sampler, which the others are compared with.
PAPER_COLOUR = "#000000"
CONSTANT_COLOUR = "#7A7A7A"
#: What tells rows of the same colour apart.
DASHES = ("-", "--", ":", "-.")
#: Thresholds of a profile.
THRESHOLDS = 200
#: Up to so many rows have bands in a profile beside the paper's; more of them would hide each other.
MOST_BANDS = 5


def line_style(index: int) -> tuple[str, str]:
    """Colour and dashes of the row with a number; 24 rows differ."""
    return SAFE_COLOURS[index % len(SAFE_COLOURS)], DASHES[index // len(SAFE_COLOURS) % len(DASHES)]


def plot_profiles(scores: Mapping[str, Mapping[str, Runs]], path: str | Path, paper: str | None = None) -> None:
    """Share of episodes above each threshold, a panel a score and a curve a row, with pointwise 95 % bands.

    A row of too few runs or seeds has no band; its steps are the episodes.

    Args:
        scores: name of the score → row → its runs.
        path: PNG to write.
        paper: row of the paper's sampler, in black.
    """
    figure = Figure(figsize=(4.6 * len(scores) + 2.6, 4.4), layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (score, rows) in zip(panels, scores.items(), strict=True):
        values = [value for runs in rows.values() for run in runs for value in run.values()]
        margin = 0.03 * (max(values) - min(values)) or 0.01
        thresholds = np.linspace(min(values) - margin, max(values) + margin, THRESHOLDS)
        styles = {row: line_style(index) for index, row in enumerate(row for row in rows if row != paper)}
        for row, runs in rows.items():
            colour, dashes = styles.get(row, (PAPER_COLOUR, "-"))
            profile = performance_profile(runs, thresholds)
            width = 2.6 if row == paper else 1.8
            axes.step(thresholds, profile.share, dashes, color=colour, linewidth=width, where="post", label=row)
            if row == paper or len(rows) <= MOST_BANDS:
                axes.fill_between(
                    thresholds, profile.low, profile.high, color=colour, alpha=0.13, linewidth=0, step="post"
                )
        axes.set(xlabel=f"{score}: threshold τ", ylim=(-0.02, 1.02))
        plain_axes(axes)
    panels[0].set_ylabel(f"share of episodes above τ\n({METHOD})")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
    save_figure(figure, path)


def plot_improvement(
    scores: Mapping[str, Mapping[str, Runs]], references: Mapping[str, Runs], path: str | Path
) -> None:
    """Probability of scoring above the paper's sampler, a panel a score and a line a row, the best accuracy on top.

    Args:
        scores: name of the score → row → its runs.
        references: name of the score → runs of the paper's sampler.
        path: PNG to write.
    """
    first = next(iter(scores.values()))
    order = sorted(first, key=lambda row: interquartile_mean(first[row]).mean)
    figure = Figure(figsize=(4.2 * len(scores) + 2.2, 0.5 * len(order) + 1.6), layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (score, rows) in zip(panels, scores.items(), strict=True):
        for place, row in enumerate(order):
            _draw_probability(axes, place + 0.13, paired_probability_of_improvement(rows[row], references[score]), True)
            _draw_probability(axes, place - 0.13, probability_of_improvement(rows[row], references[score]), False)
        axes.axvline(0.5, color="#222222", linestyle=":", linewidth=1)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(order) - 0.4), xlabel=f"P({score} above the paper's sampler)")
        plain_axes(axes)
    panels[0].set_yticks(range(len(order)), order)
    handles, names = panels[0].get_legend_handles_labels()
    labelled = dict(zip(names, handles, strict=True))
    figure.legend(labelled.values(), labelled.keys(), loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_probability(axes: Axes, place: float, interval: Interval | None, paired: bool) -> None:
    if interval is None:
        return
    colour = SAFE_COLOURS[0] if paired else SAFE_COLOURS[1]
    axes.errorbar(
        interval.mean,
        place,
        xerr=error_bars(interval),
        fmt="o" if paired else "s",
        markersize=6 if paired else 5,
        markerfacecolor=colour if paired else "white",
        color=colour,
        capsize=2,
        label=f"same seeds ({METHOD})" if paired else "all pairs (likewise)",
    )


def plot_training_curves(
    groups: Mapping[str, Sequence[tuple[Lines, Lines]]],
    results: Sequence[Result],
    path: str | Path,
    score: str = "return",
    window: int = SMOOTHING,
) -> None:
    """Sample efficiency: mean over the training runs of each algorithm with its band, over rounds.

    The second panel is of the evaluations, where every run has them. Horizontal lines are of `results`: the paper's
    sampler and the best constant plan.

    Args:
        groups: algorithm → training runs → lines of the episodes and of the evaluations.
        results: lines of `ssdkd evaluate` or `ssdkd benchmark`.
        path: PNG to write.
        score: key of `TRAINING_SCORES`.
        window: episodes of the moving average.

    Raises:
        InvalidInputError: when an episode or a result lacks the score.
    """
    training = {name: episode_curve([run for run, _ in runs], score, window) for name, runs in groups.items()}
    evaluated = {name: evaluation_curve([run for _, run in runs], score) for name, runs in groups.items()}
    validation = {name: curve for name, curve in evaluated.items() if curve is not None}
    panels = [(f"training (mean of the last {window} episodes)", training, "")]
    if validation:
        panels.append(("evaluations", validation, "o"))
    figure = Figure(figsize=(4.8 * len(panels) + 3.0, 4.4), layout="constrained")
    axes_of = figure.subplots(1, len(panels), squeeze=False)[0]
    styles = {name: line_style(index) for index, name in enumerate(groups)}
    for axes, (title, curves, mark) in zip(axes_of, panels, strict=True):
        for name, curve in curves.items():
            colour, dashes = styles[name]
            runs = f"{curve.runs} run" + ("s" if curve.runs > 1 else "")
            drawn = {"color": colour, "linestyle": dashes, "linewidth": 2, "label": f"{name} ({runs})"}
            axes.plot(curve.steps, curve.mean, marker=mark, markersize=4, **drawn)
            axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(curve.steps, curve.values, color=colour, linewidth=0.6, alpha=0.5)  # those that have no band
        _draw_references(axes, results, score)
        axes.set(xlabel=ROUNDS_LABEL, ylabel=f"{score}\n(mean over runs, {METHOD})")
        axes.set_title(title, fontsize=10)
        plain_axes(axes)
    handles, names = axes_of[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_references(axes: Axes, results: Sequence[Result], score: str) -> None:
    """Horizontal lines of the paper's sampler and of the best constant plan."""
    if results and common_score(results, [score]) is None:
        raise InvalidInputError(f"score={score!r} is not in every line of the results; choose return")
    paper = paper_lines(results)
    references = [("the paper's sampler", mean_score(runs_of(paper, score)), PAPER_COLOUR, "-")] if paper else []
    constant = best_constant(results, score)
    if constant is not None:
        references.append((*constant, CONSTANT_COLOUR, "--"))
    for name, interval, colour, dashes in references:
        draw_level(axes, interval, colour, name, linestyle=dashes, linewidth=1.3)
