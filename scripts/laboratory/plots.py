"""Pictures of measurements, from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean
from ssdkd_agents.plotting.plots import COLOURS, ENTRY_SHAPES, plain_axes, save_figure

#: Most bars of an importance plot; a stacked history has more entries than fit.
MOST_BARS = 30


def _bars(*intervals: Interval) -> list[list[float]]:
    """Error bars below and above the means."""
    return [[each.mean - each.low for each in intervals], [each.high - each.mean for each in intervals]]


def _row(count: int, size: tuple[float, float], **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels beside each other."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, **options)[0]


def plot_runs(rates: Mapping[str, Mapping[int, Interval]], path: str | Path) -> None:
    """Environment steps per second in all against the number of environments: way of stepping → number → rate."""
    figure, (axes,) = _row(1, (6.4, 4.4))
    for (way, points), shape, colour in zip(rates.items(), cycle(ENTRY_SHAPES), cycle(COLOURS), strict=False):
        means, bars = [rate.mean for rate in points.values()], _bars(*points.values())
        axes.errorbar(list(points), means, yerr=bars, marker=shape, color=colour, capsize=2, label=way)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(bottom=0)
    axes.set(xlabel="environments", ylabel="steps per second in all (95 % interval)")
    plain_axes(axes)
    axes.legend(frameon=False)
    save_figure(figure, path)


def plot_plans(accuracies: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Accuracy of every seed under each fixed plan, best plan first, with the mean and its interval."""
    figure, (axes,) = _row(1, (9, 0.42 * len(accuracies) + 1.4))
    ordered = sorted(accuracies, key=lambda name: float(np.mean(accuracies[name])))
    for row, name in enumerate(ordered):
        values, interval = accuracies[name], bootstrap_mean(accuracies[name])
        axes.plot(values, [row] * len(values), "o", color=COLOURS[0], alpha=0.3, markersize=5)
        axes.errorbar(interval.mean, row, xerr=_bars(interval), fmt="D", color=COLOURS[1], capsize=3, markersize=5)
    axes.set_yticks(range(len(ordered)), ordered)
    axes.set(xlabel="accuracy on real images after an episode (each seed; mean, 95 %)")
    plain_axes(axes)
    save_figure(figure, path)


def plot_importance(
    read: Mapping[str, float], differences: Mapping[str, Mapping[str, Interval]], path: str | Path
) -> None:
    """What a sampler reads, and what it is worth: change of the action by entry, change of the scores by group.

    Args:
        read: entry → the change of the action when it is permuted, the largest first.
        differences: score → group → difference to undisturbed episodes when the group comes from elsewhere.
        path: PNG to write.
    """
    shown = [*read][:MOST_BARS]
    figure, (left, *others) = _row(1 + len(differences), (5.6 + 3 * len(differences), 1.4 + 0.24 * len(shown)))
    left.barh(shown, [read[name] for name in shown], color=COLOURS[0])
    left.set(xlabel="change of the action", title=f"entry permuted ({len(shown)} of {len(read)})")
    for axes, (score, groups) in zip(others, differences.items(), strict=True):
        means = [interval.mean for interval in groups.values()]
        axes.barh([*groups], means, xerr=_bars(*groups.values()), color=COLOURS[1], capsize=2)
        axes.set(xlabel=f"difference of {score} (mean, 95 %)", title="entries of another episode")
    for axes in (left, *others):
        axes.invert_yaxis()
        plain_axes(axes)
    save_figure(figure, path)
