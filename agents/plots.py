"""Pictures of results, from files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from agents.experiments import bootstrap_mean
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
    if not any(curves.values()):
        raise InvalidInputError("there is no finished training episode to plot; let train_sampler run for longer")
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for colour, (label, lines) in zip(COLOURS, curves.items(), strict=False):
        steps = np.array([line["timesteps"] for line in lines])
        returns = np.array([line["return"] for line in lines])
        axes.plot(steps, returns, ".", color=colour, alpha=0.25, markersize=4)
        width = min(SMOOTHING, len(returns))
        smooth = np.convolve(returns, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color=colour, linewidth=2, label=f"{label}, mean of {width} episodes")
    samplers = list(dict.fromkeys(result["sampler"] for result in results))
    styles = ("-", "--", ":", "-.")
    for index, sampler in enumerate(samplers):
        interval = bootstrap_mean(result["return"] for result in results if result["sampler"] == sampler)
        colour = COLOURS[(len(curves) + index) % len(COLOURS)]
        label = f"{Path(sampler).name}, held-out seeds"
        axes.axhline(interval.mean, color=colour, linestyle=styles[index % len(styles)], label=label)
        axes.axhspan(interval.low, interval.high, color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="environment steps", ylabel="episode return", title="Sampler training: gain on the probe set")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    save_figure(figure, path)
