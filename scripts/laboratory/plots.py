"""Pictures of measurements, from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from ssdkd_agents.analysis.statistics import METHOD, Interval, bootstrap_mean
from ssdkd_agents.plotting.plots import COLOURS, ENTRY_SHAPES, error_bars, plain_axes, save_figure

from laboratory.decisions import Surfaces


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


def plot_surfaces(
    path: str | Path, surfaces: Surfaces, names: Sequence[str], of_facts: Sequence[tuple[float, ...]]
) -> None:
    """What each plan of two numbers returned on each instance, less what the best constant plan did.

    Args:
        path: of the picture.
        surfaces: of a design over two parts.
        names: of the instances.
        of_facts: the plan that the policy of the facts has for each.
    """
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.9 * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    fine = np.linspace(-1.0, 1.0, 41)
    points = np.array([(x, y) for y in fine for x in fine])
    constant = np.array([surfaces.constant()])
    gains = surfaces.at(points) - surfaces.at(constant)
    # Gains are what is looked for; losses beyond them are all of one colour.
    most = max(float(gains.max()), 1e-6)
    for axes, name, gain, best, told in zip(every, names, gains, surfaces.oracle(), of_facts, strict=False):
        image = axes.pcolormesh(fine, fine, gain.reshape(len(fine), -1), cmap="RdBu", vmin=-most, vmax=most)
        for place, shape, label in ((constant[0], "o", "constant"), (told, "D", "facts"), (best, "*", "oracle")):
            axes.plot(*place, shape, color="black", markerfacecolor="white", markersize=8, label=label, clip_on=False)
        axes.set_title(fill(name, 30), fontsize=8)
        axes.set_xticks((-1, 0, 1), ("1/8", "own", "8"))
        axes.set_yticks((-1, 0, 1), ("1/8", "own", "8"))
    for axes in every[len(names) :]:
        axes.axis("off")
    figure.supxlabel("first number of an action (of division: inversion steps, times the method's own)")
    figure.supylabel("second (of division: student minibatches)")
    figure.colorbar(image, ax=every.tolist(), label="return over the constant plan's", extend="min", aspect=60)
    every[0].legend(fontsize=7, loc="lower left")
    save_figure(figure, path)
