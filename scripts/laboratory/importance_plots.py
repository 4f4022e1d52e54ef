"""Picture of what a sampler looks at, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from ssdkd_agents.analysis.statistics import Interval
from ssdkd_agents.plotting.comparison_plots import PAPER_COLOUR, SAFE_COLOURS
from ssdkd_agents.plotting.plots import plain_axes, save_figure

#: Most bars of an importance plot; a stacked history has more entries than fit.
MOST_BARS = 30


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
    figure = Figure(figsize=(5.6 + 3.0 * len(differences), max(4.2, 0.24 * len(shown) + 1.4)), layout="constrained")
    widths = [1.5] + [1.0] * len(differences)
    panels = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    groups = list(dict.fromkeys(group for group, _ in entries.values()))
    colours = {group: (*SAFE_COLOURS, "#999999", "#444444")[index % 8] for index, group in enumerate(groups)}
    for row, entry in enumerate(shown):
        group, interval = entries[entry]
        _draw_bar(panels[0], row, interval, colours[group])
    left_out = f" ({len(shown)} of {len(entries)})" if len(shown) < len(entries) else ""
    panels[0].set_title(f"entry permuted{left_out}", fontsize=10)
    _name_bars(panels[0], shown, unit)
    for index, (axes, (score, by_group)) in enumerate(zip(panels[1:], differences.items(), strict=True)):
        for row, (group, interval) in enumerate(by_group.items()):
            _draw_bar(axes, row, interval, colours.get(group, PAPER_COLOUR))
        axes.axvline(0, color="#222222", linewidth=0.8)
        axes.set_title("entries of another episode" if index == 0 else "", fontsize=10)
        _name_bars(axes, list(by_group) if index == 0 else [""] * len(by_group), f"difference of {score}")
    save_figure(figure, path)


def _draw_bar(axes: Axes, row: int, interval: Interval, colour: str) -> None:
    error = [[interval.mean - interval.low], [interval.high - interval.mean]]
    axes.barh(row, interval.mean, color=colour, height=0.75)
    axes.errorbar(interval.mean, row, xerr=error, color="#222222", capsize=2, linewidth=1)


def _name_bars(axes: Axes, names: Sequence[str], xlabel: str) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    axes.set_xlabel(f"{xlabel}\n(mean, 95 %)", fontsize=9)
    plain_axes(axes)
