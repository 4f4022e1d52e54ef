"""Pictures of what policies do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ssdkd_agents.analysis.policy_trace import ROUND, ChoiceTrace, NumberTrace, Trace
from ssdkd_agents.analysis.statistics import FEWEST
from ssdkd_agents.plotting.comparison_plots import PAPER_COLOUR, line_style
from ssdkd_agents.plotting.plots import plain_axes, save_figure
from ssdkd_env.envs.work_actions import WORK_RANGES

#: Paul Tol's muted colours, which the colour-blind tell apart, for up to ten choices.
CHOICE_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#BBBBBB",
)  # fmt: skip
#: Titles of the parts that every reader of the paper knows by a letter.
TITLES = {
    "discrepancy_exponent": "exponent of δ",
    "diversity_exponent": "exponent of diversity",
    "difficulty_exponent": "exponent of difficulty",
    "importance_exponent": "importance exponent β",
    "replaced_share": "replaced share ρ",
    "phi_diversity_exponent": "φ: exponent of diversity",
    "phi_difficulty_exponent": "φ: exponent of difficulty",
    "adversarial_scale": "adversarial scale",
    "inversion_steps": "inversion steps, times the own",
    "student_steps": "student minibatches, times the own",
}
#: Factors that are marked where a part is a factor's logarithm.
FACTORS = {1 / 8: "⅛", 1 / 4: "¼", 1 / 2: "½", 1: "1", 2: "2", 4: "4", 8: "8"}
#: Inches of a legend's line with what is around it, and of a character, at most.
LEGEND_HANDLE, LEGEND_CHARACTER = 0.6, 0.085
#: Band of a policy plot, quantiles over episodes.
BAND = (0.1, 0.9)


def plot_policy(traces: Mapping[str, Trace], path: str | Path) -> None:
    """What samplers do in time: mean and band over episodes of each part, or the shares of each choice.

    The band is from the first to the last decile of the episodes; fewer than `FEWEST` are drawn themselves.

    Args:
        traces: row → what it did.
        path: PNG to write.
    """
    numbers = {row: trace for row, trace in traces.items() if isinstance(trace, NumberTrace)}
    choices = {row: trace for row, trace in traces.items() if isinstance(trace, ChoiceTrace)}
    parts = list(dict.fromkeys(part for trace in numbers.values() for part in trace.values))
    count = len(parts) + len(choices)
    columns = min(count, 3 if count <= 9 else 4 if count <= 16 else 6)
    rows = math.ceil(count / columns)
    width, height = (4.0, 2.9) if columns <= 3 else (2.9, 2.1)
    figure = Figure(figsize=(max(width * columns, 6), height * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = list(grid.flat)
    for axes, part in zip(panels, parts, strict=False):
        _draw_part(axes, part, numbers)
    for axes, (row, trace) in zip(panels[len(parts) :], choices.items(), strict=False):
        _draw_choices(axes, row + (f" ({trace.note})" if trace.note else ""), trace)
    for axes in panels[count:]:
        axes.axis("off")
    counted = "/".join(dict.fromkeys(trace.axis for trace in numbers.values())) or ROUND
    for index, axes in enumerate(panels[:count]):
        if index + columns >= count:  # nothing below it
            axes.set_xlabel(counted if index < len(parts) else ROUND)
    if numbers:
        handles = _number_handles(numbers)
        widest = LEGEND_HANDLE + LEGEND_CHARACTER * max(len(str(handle.get_label())) for handle in handles)
        columns = max(min(4, len(handles), int(figure.get_figwidth() / widest)), 1)
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)
    save_figure(figure, path)


def _draw_part(axes: Axes, part: str, traces: Mapping[str, NumberTrace]) -> None:
    ranges = [trace.ranges[part] for trace in traces.values() if part in trace.ranges]
    for index, trace in enumerate(traces.values()):
        if part not in trace.values:
            continue
        values, times = trace.values[part], trace.times
        colour, dashes = line_style(index)
        if len(values) < FEWEST:
            axes.plot(times, values.T, color=colour, linewidth=0.6, alpha=0.6)
        else:
            low, high = np.nanquantile(values, BAND, axis=0)
            axes.fill_between(times, low, high, color=colour, alpha=0.2, linewidth=0)
        # A line of a single round has no length, and is seen by its mark.
        mark = "o" if len(times) == 1 else None
        axes.plot(times, np.nanmean(values, axis=0), color=colour, linestyle=dashes, linewidth=1.8, marker=mark)
    axes.axhline(float(np.mean([span.paper for span in ranges])), color=PAPER_COLOUR, linestyle=(0, (4, 3)), lw=1.2)
    low_end, high_end = min(span.low for span in ranges), max(span.high for span in ranges)
    margin = 0.04 * (high_end - low_end)
    bottom, top = axes.get_ylim()  # a plan may say more than the scheme
    axes.set_ylim(min(low_end - margin, bottom), max(high_end + margin, top))
    if part in WORK_RANGES:
        axes.set_yticks([math.log(factor) for factor in FACTORS], FACTORS.values())
    if all(trace.axis == ROUND for trace in traces.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(TITLES.get(part, part), fontsize=10)
    plain_axes(axes)


def _number_handles(traces: Mapping[str, NumberTrace]) -> list[Line2D]:
    handles = []
    for index, (row, trace) in enumerate(traces.items()):
        colour, dashes = line_style(index)
        label = Path(row).name + (f" ({trace.note})" if trace.note else "")
        style: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.8, "label": label}
        handles.append(Line2D([], [], **style))
    return [*handles, Line2D([], [], color=PAPER_COLOUR, linestyle=(0, (4, 3)), lw=1.2, label="the paper's sampler")]


def _draw_choices(axes: Axes, title: str, trace: ChoiceTrace) -> None:
    base = np.zeros(len(next(iter(trace.shares.values()))))
    rounds = np.arange(1, len(base) + 1)
    for name, share in trace.shares.items():
        colour = CHOICE_COLOURS[trace.names.index(name) % len(CHOICE_COLOURS)]
        axes.bar(rounds, share, width=1.0, bottom=base, color=colour, edgecolor="white", linewidth=0.5, label=name)
        base = base + share
    axes.set_ylim(0, 1)
    axes.set_xlim(0.5, len(base) + 0.5)
    axes.set_title(title, fontsize=10)
    axes.set_ylabel("share of episodes")
    handles, labels = axes.get_legend_handles_labels()
    # In the order of the stack.
    axes.legend(handles[::-1], labels[::-1], fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
