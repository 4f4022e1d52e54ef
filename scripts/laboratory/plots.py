"""Pictures of measurements, from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter
from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean
from ssdkd_agents.plotting.comparison_plots import PAPER_COLOUR, SAFE_COLOURS
from ssdkd_agents.plotting.plots import COLOURS, ENTRY_COLOURS, ENTRY_SHAPES, plain_axes, save_figure

from laboratory.statistics import spearman

#: Most bars of an importance plot; a stacked history has more entries than fit.
MOST_BARS = 30


def _bars(*intervals: Interval) -> list[list[float]]:
    """Error bars below and above the means."""
    return [[each.mean - each.low for each in intervals], [each.high - each.mean for each in intervals]]


def _row(count: int, size: tuple[float, float], **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels beside each other."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, **options)[0]


def plot_growth(points: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Milliseconds of each part against size on logarithmic axes, a panel a sweep, with the fitted power laws.

    Args:
        points: lines of `measure_scaling` with the `cpu` seconds of each repeat; the bars span all of them.
        fits: lines of `measure_scaling` with a `scale` and an `exponent`; drawn over the `sizes` fitted to.
        path: PNG to write.
    """
    units = {fit["sweep"]: fit["unit"] for fit in fits}
    figure, panels = _row(len(units), (5.2 * len(units), 4.8))
    for axes, (sweep, unit) in zip(panels, units.items(), strict=True):
        measured = [line for line in points if line["sweep"] == sweep]
        sizes = np.array([line["point"]["size"] for line in measured], dtype=np.float64)
        marks = zip((fit for fit in fits if fit["sweep"] == sweep), cycle(COLOURS), cycle(ENTRY_SHAPES), strict=False)
        for fit, colour, shape in marks:
            exponent, repeats = fit["exponent"], 1000 * np.array([line["cpu"][fit["part"]] for line in measured])
            middle = np.median(repeats, axis=1)
            bars = [middle - repeats.min(axis=1), repeats.max(axis=1) - middle]
            label = f"{fit['part']}: n^{exponent['mean']:.2f} [{exponent['low']:.2f}, {exponent['high']:.2f}]"
            axes.errorbar(sizes, middle, yerr=bars, fmt=shape, color=colour, markersize=5, capsize=2, label=label)
            ends = np.array([fit["sizes"][0], fit["sizes"][-1]], dtype=np.float64)
            axes.plot(ends, 1000 * fit["scale"] * ends ** exponent["mean"], color=colour, linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel=unit)
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
            axis.set_major_formatter(EngFormatter(sep="") if axis is axes.xaxis else StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
        plain_axes(axes)
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    panels[0].set_ylabel("milliseconds of processor time (median; all repeats)")
    save_figure(figure, path)


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


def plot_budgets(points: Sequence[tuple[str, float, Interval]], path: str | Path) -> None:
    """Accuracy with interval against median episode seconds, one point a budget (label, seconds, accuracy)."""
    figure, (axes,) = _row(1, (9, 5))
    places = cycle((((8, 8), "left"), ((8, -14), "left"), ((-8, 6), "right")))
    for (label, seconds, accuracy), (offset, side) in zip(sorted(points, key=itemgetter(1)), places, strict=False):
        colour = COLOURS[1] if label.startswith("default") else COLOURS[0]
        axes.errorbar(seconds, accuracy.mean, yerr=_bars(accuracy), fmt="o", color=colour, capsize=3)
        axes.annotate(label, (seconds, accuracy.mean), xytext=offset, textcoords="offset points", fontsize=8, ha=side)
    axes.set(xlabel="seconds an episode (median, one core)", ylabel="accuracy on real images (mean, 95 %)")
    axes.set_xlim(0, max(point[1] for point in points) * 1.25)
    plain_axes(axes)
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
        truth = np.array([np.mean(accuracies[plan]) for plan in plans])
        for axes, (reward, returns) in zip(row, gains.items(), strict=True):
            for plan in sorted(plans, key=named.count):  # the named ones on top
                colour, shape = marks.get(plan, ("#a8b0b6", "."))
                x, y = (bootstrap_mean(values[plan]) for values in (returns, accuracies))
                label = plan if plan in marks else "random plans"
                bars = {"yerr": _bars(y), "xerr": _bars(x), "elinewidth": 0.7}
                axes.errorbar(x.mean, y.mean, fmt=shape, color=colour, ms=6, label=label, **bars)
            correlation = spearman(np.array([np.mean(returns[plan]) for plan in plans]), truth)
            axes.set_title(f"{which}, rank correlation {correlation:.2f}", fontsize=9)
            axes.set_xlabel(f"return, {reward}")
            plain_axes(axes)
        row[0].set_ylabel("accuracy on real images (mean, 95 %)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    order = [*named, *sorted(set(entries) - set(named))]
    figure.legend([entries[name] for name in order], order, loc="outside right upper", frameon=False, fontsize=9)
    save_figure(figure, path)


def plot_importance(
    entries: Mapping[str, tuple[str, Interval]],
    differences: Mapping[str, Mapping[str, Interval]],
    path: str | Path,
    unit: str,
) -> None:
    """What a sampler reads, and what it is worth: change of the action by entry, change of the scores by group.

    Args:
        entries: entry → its group, and the change of the action when it is permuted.
        differences: score → group → difference to undisturbed episodes when the group comes from elsewhere.
        path: PNG to write.
        unit: of the change.
    """
    shown = sorted(entries, key=lambda entry: -entries[entry][1].mean)[:MOST_BARS]
    size = 5.6 + 3.0 * len(differences), max(4.2, 0.24 * len(shown) + 1.4)
    figure, (left, *others) = _row(1 + len(differences), size, width_ratios=[1.5] + [1.0] * len(differences))
    groups = dict.fromkeys(group for group, _ in entries.values())
    colours = dict(zip(groups, cycle((*SAFE_COLOURS, "#999999", "#444444")), strict=False))
    _draw_bars(left, [(name, entries[name][1], colours[entries[name][0]]) for name in shown], unit)
    left_out = f" ({len(shown)} of {len(entries)})" if len(shown) < len(entries) else ""
    left.set_title(f"entry permuted{left_out}", fontsize=10)
    for axes, (score, by_group) in zip(others, differences.items(), strict=True):
        first = axes is others[0]
        bars = [(name if first else "", it, colours.get(name, PAPER_COLOUR)) for name, it in by_group.items()]
        _draw_bars(axes, bars, f"difference of {score}")
        axes.axvline(0, color="#222222", linewidth=0.8)
        axes.set_title("entries of another episode" if first else "", fontsize=10)
    save_figure(figure, path)


def _draw_bars(axes: Axes, bars: Sequence[tuple[str, Interval, str]], xlabel: str) -> None:
    """A bar a row, the first on top: name, interval and colour."""
    for row, (_, interval, colour) in enumerate(bars):
        axes.barh(row, interval.mean, color=colour, height=0.75)
        axes.errorbar(interval.mean, row, xerr=_bars(interval), color="#222222", capsize=2, linewidth=1)
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars], fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlabel(f"{xlabel}\n(mean, 95 %)", fontsize=9)
    plain_axes(axes)
