"""Pictures of results, from files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from agents.statistics import Interval, bootstrap_mean
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically

#: Episodes of the moving average over a training curve.
SMOOTHING = 20
COLOURS = ("#3d6fb4", "#d1603d", "#3f8f5b", "#8a5fa8", "#b8902f", "#5f6b73")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, atomically."""
    FigureCanvasAgg(figure)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))


def plot_reward_curves(
    curves: Mapping[str, Sequence[dict[str, Any]]], results: Sequence[dict[str, Any]], path: str | Path
) -> None:
    """Training returns over environment steps, beside what the controls reach on held-out seeds.

    Args:
        curves: label → lines of `episodes.jsonl`.
        results: lines of `evaluate_sampler`; the mean return of each is a horizontal line with its interval.
        path: PNG to write.

    Raises:
        InvalidInputError: when there is no training episode.
    """
    curves = {label: lines for label, lines in curves.items() if lines}
    if not curves:
        raise InvalidInputError("there is no finished training episode to plot; let train_sampler run for longer")
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(curves, cycle(COLOURS), strict=False))
    for label, lines in curves.items():
        steps = np.array([line["timesteps"] for line in lines])
        returns = np.array([line["return"] for line in lines])
        axes.plot(steps, returns, ".", color=colours[label], alpha=0.2, markersize=4)
        smooth = [returns[max(0, end - SMOOTHING) : end].mean() for end in range(1, len(returns) + 1)]
        axes.plot(steps, smooth, color=colours[label], linewidth=2, label=f"{label} in training")
    others = cycle(("#222222", "#8a8a8a", "#b8902f", "#8a5fa8"))
    for sampler in dict.fromkeys(result["sampler"] for result in results):
        interval = bootstrap_mean(result["return"] for result in results if result["sampler"] == sampler)
        name = Path(sampler).name
        colour, style = (colours[name], "--") if name in colours else (next(others), "-")
        axes.axhline(interval.mean, color=colour, linestyle=style, label=f"{name}, held-out seeds")
        axes.axhspan(interval.low, interval.high, color=colour, alpha=0.1, linewidth=0)
    axes.set(xlabel="environment steps", ylabel="episode return (gain on the probe set)")
    axes.set_title(f"Training returns (mean of the last {SMOOTHING} episodes) and held-out seeds", fontsize=10)
    _plain(axes)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    save_figure(figure, path)


def plot_budgets(points: Sequence[tuple[str, float, Interval]], path: str | Path) -> None:
    """Accuracy with interval against median episode seconds, one point a budget (label, seconds, accuracy)."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for index, (label, seconds, accuracy) in enumerate(sorted(points, key=lambda point: point[1])):
        colour = COLOURS[1] if label.startswith("default") else COLOURS[0]
        bars = [[accuracy.mean - accuracy.low], [accuracy.high - accuracy.mean]]
        axes.errorbar(seconds, accuracy.mean, yerr=bars, fmt="o", color=colour, capsize=3)
        offset, side = (((8, 8), "left"), ((8, -14), "left"), ((-8, 6), "right"))[index % 3]
        axes.annotate(label, (seconds, accuracy.mean), xytext=offset, textcoords="offset points", fontsize=8, ha=side)
    axes.set(xlabel="seconds an episode (median, one core)", ylabel="accuracy on real images (mean, 95 %)")
    axes.set_xlim(0, max(point[1] for point in points) * 1.25)
    _plain(axes)
    save_figure(figure, path)


def plot_plans(accuracies: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Accuracy of every seed under each fixed plan, best plan first, with the mean and its interval."""
    figure = Figure(figsize=(9, 0.42 * len(accuracies) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(accuracies, key=lambda name: float(np.mean(accuracies[name])))
    for row, name in enumerate(ordered):
        values = accuracies[name]
        interval = bootstrap_mean(values)
        axes.plot(values, [row] * len(values), "o", color=COLOURS[0], alpha=0.3, markersize=5)
        bars = [[interval.mean - interval.low], [interval.high - interval.mean]]
        axes.errorbar(interval.mean, row, xerr=bars, fmt="D", color=COLOURS[1], capsize=3, markersize=5)
    axes.set_yticks(range(len(ordered)), ordered)
    axes.set(xlabel="accuracy on real images after an episode (each seed; mean, 95 %)")
    _plain(axes)
    save_figure(figure, path)


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
