"""Pictures of what things cost, from files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter
from ssdkd_agents.analysis.statistics import Interval
from ssdkd_agents.plotting.plots import COLOURS, ENTRY_SHAPES, plain_axes, save_figure


def plot_growth(points: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Milliseconds of each part against size on logarithmic axes, a panel a sweep, with the fitted power laws.

    Args:
        points: lines of `measure_scaling` with the `cpu` seconds of each repeat; the bars span all of them.
        fits: lines of `measure_scaling` with a `scale` and an `exponent`; drawn over the `sizes` fitted to.
        path: PNG to write.
    """
    units = {fit["sweep"]: fit["unit"] for fit in fits}
    figure = Figure(figsize=(5.2 * len(units), 4.8), layout="constrained")
    for axes, (sweep, unit) in zip(figure.subplots(1, len(units), squeeze=False)[0], units.items(), strict=True):
        measured = [line for line in points if line["sweep"] == sweep]
        sizes = np.array([line["point"]["size"] for line in measured], dtype=np.float64)
        for index, fit in enumerate(fit for fit in fits if fit["sweep"] == sweep):
            colour, exponent = COLOURS[index % len(COLOURS)], fit["exponent"]
            repeats = 1000 * np.array([line["cpu"][fit["part"]] for line in measured])
            middle = np.median(repeats, axis=1)
            bars = [middle - repeats.min(axis=1), repeats.max(axis=1) - middle]
            label = f"{fit['part']}: n^{exponent['mean']:.2f} [{exponent['low']:.2f}, {exponent['high']:.2f}]"
            shape = ENTRY_SHAPES[index % len(ENTRY_SHAPES)]
            axes.errorbar(sizes, middle, yerr=bars, fmt=shape, color=colour, markersize=5, capsize=2, label=label)
            ends = np.array([fit["sizes"][0], fit["sizes"][-1]], dtype=np.float64)
            axes.plot(ends, 1000 * fit["scale"] * ends ** exponent["mean"], color=colour, linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
            axis.set_major_formatter(EngFormatter(sep="") if axis is axes.xaxis else StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
        axes.set_xlabel(unit)
        plain_axes(axes)
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.axes[0].set_ylabel("milliseconds of processor time (median; all repeats)")
    save_figure(figure, path)


def plot_runs(rates: Mapping[str, Mapping[int, Interval]], path: str | Path) -> None:
    """Environment steps per second in all against the number of environments, a line for each way of stepping them.

    Args:
        rates: way → number of environments → steps per second, with its interval as bars.
        path: PNG to write.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for index, (way, points) in enumerate(rates.items()):
        counts, values = list(points), list(points.values())
        bars = [[v.mean - v.low for v in values], [v.high - v.mean for v in values]]
        shape, colour = ENTRY_SHAPES[index % len(ENTRY_SHAPES)], COLOURS[index % len(COLOURS)]
        axes.errorbar(counts, [v.mean for v in values], yerr=bars, marker=shape, color=colour, capsize=2, label=way)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("environments")
    axes.set_ylabel("steps per second in all (95 % interval)")
    plain_axes(axes)
    axes.legend(frameon=False)
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
    plain_axes(axes)
    save_figure(figure, path)
