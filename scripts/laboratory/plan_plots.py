"""Pictures of fixed plans: what they reach, and how the rewards rank them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.plotting.plots import COLOURS, ENTRY_COLOURS, ENTRY_SHAPES, plain_axes, save_figure

from laboratory.statistics import spearman


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
    plain_axes(axes)
    save_figure(figure, path)


def plot_validity(
    accuracies: Mapping[str, Sequence[float]], gains: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path
) -> None:
    """Mean accuracy of each plan against its mean return, a panel for each reward; below, the better half alone.

    Args:
        accuracies: plan → accuracy of every seed. Plans named `random` and a number are one entry of the legend.
        gains: reward → plan → return of every seed.
        path: PNG to write.
    """
    figure = Figure(figsize=(3.3 * len(gains) + 1.8, 6.4), layout="constrained")
    panels = figure.subplots(2, len(gains), squeeze=False, sharey="row")
    better = sorted(accuracies, key=lambda plan: -float(np.mean(accuracies[plan])))[: (len(accuracies) + 1) // 2]
    named = [plan for plan in accuracies if not plan.startswith("random ")]
    marks = dict(zip(named, zip(cycle(ENTRY_COLOURS), cycle(ENTRY_SHAPES)), strict=False))
    for which, row, plans in zip(("all plans", "better half"), panels, (list(accuracies), better), strict=True):
        truth = [float(np.mean(accuracies[plan])) for plan in plans]
        for axes, (reward, returns) in zip(row, gains.items(), strict=True):
            for plan in sorted(plans, key=named.count):  # the named ones on top
                colour, shape = marks.get(plan, ("#a8b0b6", "."))
                x, y = (bootstrap_mean(values[plan]) for values in (returns, accuracies))
                yerr, xerr = ([[z.mean - z.low], [z.high - z.mean]] for z in (y, x))
                label = plan if plan in marks else "random plans"
                axes.errorbar(x.mean, y.mean, yerr, xerr, shape, color=colour, ms=6, elinewidth=0.7, label=label)
            correlation = spearman(np.array([float(np.mean(returns[plan])) for plan in plans]), np.array(truth))
            axes.set_title(f"{which}, rank correlation {correlation:.2f}", fontsize=9)
            axes.set_xlabel(f"return, {reward}")
            plain_axes(axes)
        row[0].set_ylabel("accuracy on real images (mean, 95 %)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    order = [*named, *sorted(set(entries) - set(named))]
    figure.legend([entries[name] for name in order], order, loc="outside right upper", frameon=False, fontsize=9)
    save_figure(figure, path)
