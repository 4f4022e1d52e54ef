"""Pictures of measurements, from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from ssdkd_agents.analysis.statistics import METHOD, Interval, bootstrap_mean
from ssdkd_agents.plotting.plots import COLOURS, ENTRY_SHAPES, error_bars, plain_axes, save_figure


def plot_runs(rates: Mapping[str, Mapping[int, Interval]], path: str | Path) -> None:
    """Environment steps per second in all against the number of environments: way of stepping → number → rate."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for (way, points), shape, colour in zip(rates.items(), cycle(ENTRY_SHAPES), cycle(COLOURS), strict=False):
        means, bars = [rate.mean for rate in points.values()], error_bars(*points.values())
        axes.errorbar(list(points), means, yerr=bars, marker=shape, color=colour, capsize=2, label=way)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(bottom=0)
    axes.set(xlabel="environments", ylabel=f"steps per second in all\n({METHOD}, over blocks)")
    plain_axes(axes)
    axes.legend(frameon=False)
    save_figure(figure, path)


def plot_plans(accuracies: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Accuracy of every seed under each fixed plan, best plan first, with the mean and its interval."""
    figure = Figure(figsize=(9, 0.42 * len(accuracies) + 1.4), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(accuracies, key=lambda name: float(np.mean(accuracies[name])))
    for row, name in enumerate(ordered):
        values, interval = accuracies[name], bootstrap_mean(accuracies[name])
        axes.plot(values, [row] * len(values), "o", color=COLOURS[0], alpha=0.3, markersize=5)
        axes.errorbar(interval.mean, row, xerr=error_bars(interval), fmt="D", color=COLOURS[1], capsize=3, markersize=5)
    axes.set_yticks(range(len(ordered)), ordered)
    axes.set(xlabel=f"accuracy on real images after an episode (each seed; mean, {METHOD})")
    plain_axes(axes)
    save_figure(figure, path)
