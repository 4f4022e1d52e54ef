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
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from ssdkd_agents.analysis.results import SCORES, common_score, score_of
from ssdkd_agents.analysis.statistics import METHOD, Interval, bootstrap_mean
from ssdkd_agents.analysis.training_curves import moving_average
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically

#: Of the axis on which trainings are compared, whatever the rounds of their steps.
ROUNDS_LABEL = "rounds of training"
#: Episodes of the moving average over a training curve.
SMOOTHING = 20
COLOURS = ("#3d6fb4", "#d1603d", "#3f8f5b", "#8a5fa8", "#b8902f", "#5f6b73")
#: Marks of a benchmark's entries: every colour, then the same colours with other shapes.
ENTRY_COLOURS = ("#3d6fb4", "#d1603d", "#3f8f5b", "#8a5fa8", "#b8902f", "#222222", "#c4528f", "#2a9aa8")
ENTRY_SHAPES = ("o", "s", "^", "D", "v", "P")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, atomically. Its text is text: names out of results may have a `$` in them.

    Raises:
        InvalidInputError: when the name says that it is something else, or the file cannot be written.
    """
    if Path(path).suffix.lower() not in ("", ".png"):
        raise InvalidInputError(
            f"out={str(path)!r}: plots are PNG files; name it {Path(path).with_suffix('.png').name}"
        )
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))


def error_bars(*intervals: Interval) -> list[list[float]]:
    """Lengths below and above the means, as Matplotlib takes them; NaN, which draws none, without an interval."""
    return [[each.mean - each.low for each in intervals], [each.high - each.mean for each in intervals]]


def draw_level(axes: Axes, interval: Interval, colour: str, label: str | None = None, **style: Any) -> None:
    """A horizontal line with a band of the interval, or with thin lines of the values where there is none."""
    axes.axhline(interval.mean, color=colour, label=label, **style)
    if interval.known:
        axes.axhspan(interval.low, interval.high, color=colour, alpha=0.1, linewidth=0)
    for value in interval.values:
        axes.axhline(value, color=colour, alpha=0.4, linewidth=0.6)


def plot_reward_curves(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    results: Sequence[Mapping[str, Any]],
    path: str | Path,
    window: int = SMOOTHING,
) -> None:
    """Training returns over rounds, beside what the baselines reach on held-out seeds.

    Args:
        curves: label → lines of `episodes.jsonl`, whose `timesteps` are rounds.
        results: lines of `ssdkd evaluate`; the mean return of each is a horizontal line with its interval.
        path: PNG to write.
        window: episodes of the moving average.

    Raises:
        InvalidInputError: when there is no training episode.
    """
    curves = {label: lines for label, lines in curves.items() if lines}
    if not curves:
        raise InvalidInputError("there is no finished training episode to plot; let ssdkd train run for longer")
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(curves, cycle(COLOURS), strict=False))
    for label, lines in curves.items():
        steps = [line["timesteps"] for line in lines]
        returns = np.array([line["return"] for line in lines])
        axes.plot(steps, returns, ".", color=colours[label], alpha=0.2, markersize=4)
        smooth = moving_average(steps, returns, window)
        axes.plot(*smooth, color=colours[label], linewidth=2, label=f"{label} in training")
    others = cycle(("#222222", "#8a8a8a", "#b8902f", "#8a5fa8"))
    for sampler in dict.fromkeys(result["sampler"] for result in results):
        interval = bootstrap_mean(result["return"] for result in results if result["sampler"] == sampler)
        name = Path(sampler).name
        colour, style = (colours[name], "--") if name in colours else (next(others), "-")
        draw_level(axes, interval, colour, f"{name}, held-out seeds", linestyle=style)
    axes.set(xlabel=ROUNDS_LABEL, ylabel="episode return (gain on the probe set)")
    title = f"Training returns (mean of the last {window} episodes) and held-out seeds"
    axes.set_title(f"{title} ({METHOD})" if results else title, fontsize=10)
    plain_axes(axes)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    save_figure(figure, path)


#: Height of the class panels, in equal shares.
TALLEST = 4
#: Seconds at which a point is drawn that took less: a logarithmic axis has no zero.
SHORTEST = 1e-3
#: Pixels from a point to its number, the preferred place first.
NUMBER_OFFSETS = np.array(
    [(radius * x, radius * y) for radius in (14, 22, 32) for x, y in ((1, 0.7), (-1, 0.7), (1, -0.7), (-1, -0.7))]
)


def plot_accuracy_seconds(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Mean score with its interval against median seconds of synthesis, of distillation and of all, a point an entry.

    An entry that synthesised nothing is a horizontal line in the panel of synthesis.

    Args:
        results: lines of a benchmark.
        path: PNG to write.
    """
    groups = _by_label(results)
    score = _best_score(results)
    figure = Figure(figsize=(15, max(4.5, 0.27 * len(groups) + 1)), layout="constrained")
    panels = dict(zip(("synthesis", "distillation", "wall"), figure.subplots(1, 3, sharey=True), strict=True))
    points: dict[str, list[tuple[str, float, float]]] = {part: [] for part in panels}
    for index, (label, lines) in enumerate(groups.items()):
        interval = bootstrap_mean(score_of(line, score) for line in lines)
        colour = ENTRY_COLOURS[index % len(ENTRY_COLOURS)]
        shape = ENTRY_SHAPES[index // len(ENTRY_COLOURS) % len(ENTRY_SHAPES)]
        number = str(index + 1)
        for part, axes in panels.items():
            if part == "synthesis" and not any(line["final"]["synthesized"] for line in lines):
                draw_level(axes, interval, colour, linestyle="--", linewidth=1)
                across = axes.get_yaxis_transform()
                axes.text(1.0, interval.mean, number, transform=across, fontsize=9, color=colour, va="center")
                continue
            seconds = max(float(np.median([line["seconds"][part] for line in lines])), SHORTEST)
            drawn = {"fmt": shape, "color": colour, "capsize": 3, "label": f"{number}  {label}"}
            axes.errorbar(seconds, interval.mean, yerr=error_bars(interval), **drawn)
            axes.plot([seconds] * len(interval.values), interval.values, "_", color=colour, alpha=0.6)
            points[part].append((number, seconds, interval.mean))
    titles = ("seconds of synthesis", "seconds of distillation", "seconds of the whole episode")
    for axes, title in zip(panels.values(), titles, strict=True):
        axes.set_xscale("log")
        axes.set_xlabel(f"{title} (median)")
        axes.margins(x=0.1)
        _plain_log(axes)
    panels["synthesis"].set_ylabel(f"{SCORES[score]}\n(mean over seeds, {METHOD})")
    handles, names = panels["wall"].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
    figure.draw_without_rendering()  # the places of the points in pixels are known from here on
    for part, axes in panels.items():
        _number_points(axes, points[part])
    save_figure(figure, path)


def _number_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write a number beside each point (number, x, y), at the first of some places that is clear of the others."""
    taken = [axes.transData.transform((x, y)) for _, x, y in points]
    for number, x, y in points:
        here = axes.transData.transform((x, y))
        places = [here + offset for offset in NUMBER_OFFSETS]
        clear = [min(float(np.abs((place - other) / (12, 9)).max()) for other in taken) for place in places]
        best = next((index for index, value in enumerate(clear) if value >= 1), int(np.argmax(clear)))
        taken.append(places[best])
        points_apart = NUMBER_OFFSETS[best] * 72 / axes.figure.dpi
        axes.annotate(
            number, (x, y), xytext=tuple(points_apart), textcoords="offset points", fontsize=9, ha="center", va="center"
        )


def plot_distributions(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """What each entry synthesised: shares of the classes and of the difficulty, after figure 2 of the SSD-KD paper.

    A row an entry; the bars are means over seeds. `imbalance` is 1 − entropy of a seed's shares over its maximum,
    and `difficulty` the mean of 1 − the teacher's confidence from its bins, both as means over seeds.

    Args:
        results: lines of a benchmark.
        path: PNG to write. It is not written when nothing was synthesised at all.
    """
    groups = {
        label: [line for line in lines if sum(line["distributions"]["class_counts"]) > 0]
        for label, lines in _by_label(results).items()
    }
    groups = {label: lines for label, lines in groups.items() if lines}
    if not groups:
        return
    figure = Figure(figsize=(11, 0.85 * len(groups) + 1.2), layout="constrained")
    panels = figure.subplots(len(groups), 2, sharex="col", sharey="col", squeeze=False)
    for row, (label, lines) in zip(panels, groups.items(), strict=True):
        classes = np.array([_shares(line["distributions"]["class_counts"]) for line in lines])
        difficulty = np.array([_shares(line["distributions"]["difficulty"]) for line in lines])
        imbalance = np.mean([_imbalance(shares) for shares in classes])
        mean = (difficulty @ _centres(difficulty.shape[1])).mean()
        name = f"{label}\nimbalance {imbalance:.3f}\ndifficulty {mean:.2f}"
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        _draw_classes(row[0], classes.mean(axis=0))
        row[1].bar(
            _centres(difficulty.shape[1]), difficulty.mean(axis=0), width=0.85 / difficulty.shape[1], color=COLOURS[1]
        )
        for axes in row:
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_title("classes of what was synthesised (share; dotted: all equal)", fontsize=10)
    panels[0][1].set_title("its difficulty (share)", fontsize=10)
    panels[-1][0].set_xlabel("class (the teacher's)")
    panels[-1][1].set_xlabel("1 − confidence of the teacher")
    save_figure(figure, path)


def _draw_classes(axes: Axes, shares: NDArray[np.float64]) -> None:
    """Bars of the classes' shares; what is above `TALLEST` times the equal share is cut off and has its number."""
    count = len(shares)
    top = TALLEST / count
    axes.stairs(shares, np.arange(count + 1) - 0.5, fill=True, color=COLOURS[0])  # thousands of bars take minutes
    axes.axhline(1 / count, color="#222222", linestyle=":", linewidth=1)
    axes.set_ylim(0, top)
    for index in np.flatnonzero(shares > top):
        axes.text(index + 0.5, top, f"{shares[index]:.2f}", fontsize=8, va="top", color="#222222")


def _centres(bins: int) -> NDArray[np.float64]:
    """Centres of equal bins over [0, 1]."""
    centres: NDArray[np.float64] = (np.arange(bins) + 0.5) / bins
    return centres


def plot_scale(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Mean score with its interval against the size of the buffer, a line for each method and sampler.

    Args:
        results: lines of a benchmark whose `env_kwargs` hold `buffer_scale`.
        path: PNG to write.
    """
    score = _best_score(results)
    groups: dict[str, dict[float, list[Mapping[str, Any]]]] = {}
    for line in results:
        name = f"{line['env_kwargs']['method']}, sampler {line['sampler']}"
        groups.setdefault(name, {}).setdefault(line["env_kwargs"]["buffer_scale"], []).append(line)
    figure = Figure(figsize=(9.5, 5), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, scales) in enumerate(groups.items()):
        places = np.array(sorted(scales)) * 1.03 ** (index - (len(groups) - 1) / 2)  # side by side, not on each other
        intervals = [bootstrap_mean(score_of(line, score) for line in scales[scale]) for scale in sorted(scales)]
        means = [interval.mean for interval in intervals]
        drawn: dict[str, Any] = {"fmt": f"{ENTRY_SHAPES[index]}-", "capsize": 3, "label": name}
        axes.errorbar(places, means, yerr=error_bars(*intervals), color=COLOURS[index], **drawn)
        for place, interval in zip(places, intervals, strict=True):
            axes.plot([place] * len(interval.values), interval.values, "_", color=COLOURS[index], alpha=0.6)
    ticks = {line["env_kwargs"]["buffer_scale"]: line for line in results}
    axes.set_xscale("log")
    axes.set_xticks(
        sorted(ticks),
        [
            f"{100 * scale:g} %\n{ticks[scale]['buffer_images']:,}\n{ticks[scale]['final']['synthesized']:,}"
            for scale in sorted(ticks)
        ],
    )
    axes.minorticks_off()
    axes.set(
        xlabel="scale: buffer as a share of the original training set (images in it; images synthesised)",
        ylabel=f"{SCORES[score]}\n(mean over seeds, {METHOD})",
    )
    plain_axes(axes)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    save_figure(figure, path)


def _by_label(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for line in results:
        groups.setdefault(line["label"], []).append(line)
    return groups


def _best_score(results: Sequence[Mapping[str, Any]]) -> str:
    score = common_score(results)
    assert score is not None, "every episode has an agreement with the teacher on the probe set"
    return score


def _shares(counts: Sequence[float]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.array(counts, dtype=np.float64)
    shares: NDArray[np.float64] = values / values.sum()
    return shares


def _imbalance(shares: NDArray[np.float64]) -> float:
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum()
    return float(1 - entropy / np.log(max(len(shares), 2)))


def _plain_log(axes: Axes) -> None:
    """Plain numbers on a logarithmic axis, enough of them also where it spans less than a decade."""
    low, high = axes.get_xlim()
    wide = high > 10 * low
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if wide else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axes.minorticks_off()
    plain_axes(axes)


def plain_axes(axes: Axes) -> None:
    """A faint grid, and no frame above and to the right."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
