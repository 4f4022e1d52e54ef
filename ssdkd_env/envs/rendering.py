"""Pictures of a run: what `SSDKDEnv.render` shows, and the buffer alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.envs.actions import ActionScheme
from ssdkd_env.envs.episode import Episode
from ssdkd_env.envs.exponent_actions import FloatArray
from ssdkd_env.envs.map_rendering import LINE, ROWS, draw_legend, legend_rows, palette, triptych, visible
from ssdkd_env.extras import load_extra
from ssdkd_env.tasks.scores import class_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Picture = NDArray[np.uint8]

#: Size of `draw_run`'s picture in pixels; both even, as video codecs want.
WIDTH, HEIGHT = 960, 640
#: Images of the buffer that a picture shows.
GRID_ROWS, GRID_COLUMNS = 10, 16
#: Longer side of one image in the run's picture and in the picture of the buffer alone, in pixels.
RUN_TILE, BUFFER_TILE = 32, 48
#: Pixels between images, and their shade.
GAP, PAPER = 2, 255
#: Most labels along an axis of names and along one of numbers; ticks cost most of the drawing time.
MOST_NAMES, MOST_NUMBERS = 12, 6
#: With more classes the class histogram goes from frequent to rare instead of by label.
MOST_CLASSES = 40

_INK, _FAINT, _WARNING = "#2f3640", "#c8ced6", "#c0392b"
_BLUE, _ORANGE, _GREEN, _PURPLE = "#2f6db5", "#d9762b", "#3d9a8b", "#8b6bb1"
#: What the learning curve shows: key of `episode.curve`, name, colour, where its last value stands.
_CURVES: tuple[tuple[str, str, str, Literal["left", "right"]], ...] = (
    ("probe_agreement", "probe agreement", _BLUE, "left"),
    ("accuracy", "real accuracy", _ORANGE, "right"),
    ("mean_iou", "real mIoU", _GREEN, "right"),
)
#: Size of the picture of label maps alone, in pixels.
MAPS_WIDTH, MAPS_HEIGHT = 640, 480
_TINY, _SMALL, _MEDIUM, _NORMAL, _LARGE = 7.0, 8.0, 9.0, 9.5, 13.0


def draw_run(episode: Episode, scheme: ActionScheme, last_action: FloatArray) -> Picture:
    """Draw the run so far: buffer, class and difficulty histograms, learning curve, last action.

    Args:
        episode: begun. Neither its state nor any random state changes.
        scheme: of the actions.
        last_action: as the observation repeats it.

    Returns:
        (`HEIGHT`, `WIDTH`, 3) uint8.
    """
    load_extra("matplotlib", "a picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    report = episode.snapshot.report
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    _draw_title(figure, episode)
    draw_images = _draw_maps if episode.task.dense else _draw_buffer
    draw_images(figure, episode, left=44, top=92)
    _draw_curve(_axes(figure, 636, 92, 294, 308), episode)
    _draw_classes(_axes(figure, 44, 490, 250, 106), _finite(report.class_counts))
    lower_middle = _axes(figure, 354, 490, 232, 106)
    if episode.snapshot.class_iou:
        _draw_class_iou(lower_middle, episode.snapshot.class_iou)
    else:
        _draw_difficulty(lower_middle, _finite(report.difficulty_histogram))
    _draw_action(_axes(figure, 764, 490, 166, 106), scheme, last_action)
    _write(figure, 636, 480, "Last action (◆ paper's)", _NORMAL, fontweight="bold")
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[:, :, :3].copy()  # type: ignore[no-untyped-call]


def draw_buffer(episode: Episode) -> Picture:
    """Draw the buffer alone, arranged as in `draw_run`; (H, W, 3) uint8, of one size for one task."""
    if not episode.task.dense:
        return _buffer_grid(episode.run, BUFFER_TILE)
    load_extra("matplotlib", "a picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(MAPS_WIDTH / 100, MAPS_HEIGHT / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    _draw_maps(figure, episode, left=34, top=30, width=MAPS_WIDTH - 40, room=MAPS_HEIGHT - 36)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[:, :, :3].copy()  # type: ignore[no-untyped-call]


def image_grid(images: Tensor, columns: int, tile: int = BUFFER_TILE) -> Picture:
    """Arrange images row by row.

    Args:
        images: (N, C, H, W) uint8; N at least 1. One channel is shown grey, of several the first three as red, green
            and blue, and of two the first one.
        columns: images a row. Free places of the last row stay white.
        tile: longer side of an image in the picture, in pixels: larger images shrink to it, smaller ones grow by
            the largest whole factor that fits.

    Returns:
        (H, W, 3) uint8.
    """
    total, _, height, width = images.shape
    images = visible(images)
    side = max(height, width)
    if side > tile:
        height, width = max(1, round(height * tile / side)), max(1, round(width * tile / side))
        images = F.interpolate(images.float(), size=(height, width), mode="area").round().to(torch.uint8)
    else:
        factor = tile // side
        height, width = height * factor, width * factor
        images = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    rows = -(-total // columns)
    cells = torch.full((rows * columns, 3, height + GAP, width + GAP), PAPER, dtype=torch.uint8)
    cells[:total, :, :height, :width] = images  # one channel becomes three
    grid = cells.view(rows, columns, 3, height + GAP, width + GAP).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return grid[:-GAP, :-GAP].numpy().copy()


def arrange(classes: Tensor, discrepancy: Tensor, num_classes: int, rows: int, columns: int) -> Tensor:
    """Choose and order the images of a buffer for a grid.

    By class, then by discrepancy, largest first: one row a class where the rows suffice, otherwise row after row.
    Of too many images every k-th is taken.

    Args:
        classes: (N,) int64, the teacher's class of each image.
        discrepancy: (N,) float; NaN counts as largest.
        num_classes: number of classes.
        rows: of the grid.
        columns: of the grid.

    Returns:
        (rows · columns,) int64 indices of the images, −1 for a free place.
    """
    by_discrepancy = discrepancy.argsort(descending=True, stable=True)  # NaN comes first
    order = by_discrepancy[classes[by_discrepancy].argsort(stable=True)]
    if num_classes <= rows:
        room, groups = columns, [order[classes[order] == label] for label in range(num_classes)]
    else:
        room, groups = rows * columns, [order]
    places = torch.full((rows * columns,), -1, dtype=torch.int64)
    for index, group in enumerate(groups):
        shown = min(len(group), room)
        places[index * room : index * room + shown] = group[torch.arange(shown) * len(group) // max(shown, 1)]
    return places


def _buffer_grid(run: DistillationRun, tile: int) -> Picture:
    residents = run.buffer.residents
    places = arrange(
        residents.class_share.argmax(dim=1).cpu(),
        residents.discrepancy.cpu(),
        run.task.spec.num_classes,
        GRID_ROWS,
        GRID_COLUMNS,
    )
    images = residents.images[places.clamp_min(0).to(residents.images.device)].cpu()
    images[places < 0] = PAPER
    return image_grid(images, GRID_COLUMNS, tile)


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes in a box given in pixels from the upper left corner."""
    axes = figure.add_axes((left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT))
    axes.set_facecolor("white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.set_axisbelow(True)
    return axes


def _label(axes: Axes, head: str, foot: str = "") -> None:
    """Write above and below. A given y spares the search for a free place, a tenth of the drawing time."""
    if head:
        axes.set_title(head, loc="left", y=1.0, pad=7, fontsize=_NORMAL, fontweight="bold", color=_INK)
    axes.set_xlabel(foot, fontsize=_SMALL, color=_INK, labelpad=3)


def _ticks(axes: Axes, x: ArrayLike, y: ArrayLike, names: Sequence[str] | None = None) -> None:
    axes.set_xticks(x)
    axes.set_yticks(y, names)
    axes.tick_params(labelsize=_SMALL, color=_FAINT, labelcolor=_INK, length=3)


def _write(figure: Figure, left: float, top: float, text: str, size: float, **style: Any) -> None:
    figure.text(left / WIDTH, 1 - top / HEIGHT, text, fontsize=size, **({"color": _INK} | style))


def _draw_title(figure: Figure, episode: Episode) -> None:
    run, spec = episode.run, episode.task.spec
    done = f", {100 * run.allowance.progress:.0f} % of the work" if spec.budget.work else f"/{spec.budget.rounds}"
    title = f"{spec.name} · {run.method.name} · round {run.round}{done}"
    _write(figure, 44, 40, title, _LARGE, fontweight="bold")
    if episode.snapshot.report.diverged:
        _write(figure, 930, 40, "diverged", _LARGE, fontweight="bold", color=_WARNING, ha="right")


def _draw_buffer(figure: Figure, episode: Episode, left: int, top: int) -> None:
    run = episode.run
    grid = _buffer_grid(run, RUN_TILE)
    figure.figimage(grid, left, HEIGHT - top - len(grid), origin="upper")  # pixel by pixel: small images stay crisp
    classes, order = run.task.spec.num_classes, "by class"
    if classes <= GRID_ROWS:
        order = "a row for each class"
        for label in range(classes):
            middle = top + (label + 0.5) * (len(grid) + GAP) / GRID_ROWS - GAP / 2
            _write(figure, left - 7, middle, str(label), _SMALL, ha="right", va="center")
    head = f"Buffer: {len(run.buffer)} images, {order}, hardest for the student first"
    _write(figure, left, top - 10, head, _NORMAL, fontweight="bold")


def _draw_maps(figure: Figure, episode: Episode, left: int, top: int, width: int = 542, room: int = 376) -> None:
    """Images, teacher's maps and student's maps, and what the colours mean.

    Args:
        figure: to draw on.
        episode: whose buffer.
        left: of the pictures, in pixels.
        top: likewise.
        width: that they may take.
        room: height that they and the legend below may take.
    """
    run, height = episode.run, round(figure.bbox.size[1])
    names = class_names(episode.task.spec)
    rows = legend_rows(len(names), width, room)
    picture = triptych(run, width, room - 8 - LINE * max(rows, 4))
    figure.figimage(picture, left, height - top - len(picture), origin="upper")

    def write(x: float, y: float, text: str, size: float, **style: Any) -> None:
        figure.text(x / float(figure.bbox.size[0]), 1 - y / height, text, fontsize=size, **({"color": _INK} | style))

    for row, name in enumerate(ROWS):
        write(left - 7, top + (row + 0.5) * len(picture) / len(ROWS), name, _TINY, ha="right", va="center", rotation=90)
    head = f"Buffer: {len(run.buffer)} images, hardest for the student first"
    write(left, top - 10, head, _NORMAL, fontweight="bold")
    draw_legend(figure, names, left, top + len(picture) + 8, width, _TINY, rows)


def _draw_class_iou(axes: Axes, class_iou: Sequence[float]) -> None:
    """Draw a bar for each class in its colour; a class that occurs nowhere has a cross."""
    places, absent = np.arange(len(class_iou)), np.isnan(class_iou)
    axes.bar(places, np.nan_to_num(class_iou), width=0.8, color=palette(len(class_iou)) / 255)
    axes.plot(places[absent], np.full(absent.sum(), 0.06), "x", color=_FAINT, markersize=4)
    axes.set_xlim(-0.6, len(class_iou) - 0.4)
    axes.set_ylim(0, 1)
    _ticks(axes, np.arange(0, len(class_iou), _step(len(class_iou) - 1, MOST_NAMES)), (0, 0.5, 1))
    _label(axes, "IoU of each class", "class (×: occurs nowhere)" if absent.any() else "class")


def _draw_curve(axes: Axes, episode: Episode) -> None:
    budget = episode.task.spec.budget
    end, foot, place = (1, "share of the work", "progress") if budget.work else (budget.rounds, "round", "round")
    axes.set_xlim(0, end)
    axes.set_ylim(0, 1)
    marks = (0, 0.25, 0.5, 0.75, 1) if budget.work else range(0, end + 1, _step(end, MOST_NUMBERS))
    _ticks(axes, marks, (0, 0.25, 0.5, 0.75, 1))
    axes.grid(color=_FAINT, alpha=0.5, linewidth=0.6)
    _label(axes, "", foot)
    # Of dense predictions the mean IoU is what counts, and there is room for one.
    hidden = "accuracy" if "mean_iou" in episode.curve[0] else ""
    for key, name, color, side in _CURVES:
        if key in episode.curve[0] and key != hidden:
            values = [point[key] for point in episode.curve]
            done = [point.get(place, index) for index, point in enumerate(episode.curve)]  # older files lack it
            axes.plot(
                done, values, color=color, linewidth=1.8, marker="o", markersize=4.5, markevery=[-1], clip_on=False
            )
            head = f"{name} {values[-1]:.3f}"
            axes.set_title(head, loc=side, y=1.0, pad=7, fontsize=_MEDIUM, color=color)


def _draw_classes(axes: Axes, counts: NDArray[np.float64]) -> None:
    """Draw a bar for each class; many classes go from frequent to rare, because no one can read that many labels."""
    classes, foot = len(counts), "class"
    if classes > MOST_CLASSES:
        foot = "classes, from frequent to rare"
        axes.stairs(np.sort(counts)[::-1], np.arange(classes + 1) - 0.5, fill=True, facecolor=_GREEN, edgecolor=_GREEN)
    else:
        axes.bar(np.arange(classes), counts, width=0.8, color=_GREEN)
    balanced = counts.sum() / classes
    axes.axhline(balanced, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
    top = max(2.2 * balanced, 1.05 * counts.max(), 1.0)
    axes.set_xlim(-0.6, classes - 0.4)
    axes.set_ylim(0, top)
    most = MOST_NAMES if classes <= MOST_CLASSES else MOST_NUMBERS
    _ticks(axes, np.arange(0, classes, _step(classes - 1, most)), np.arange(0, top, _step(int(top), MOST_NUMBERS)))
    _label(axes, "Images a class (dashed: balanced)", foot)


def _draw_difficulty(axes: Axes, histogram: NDArray[np.float64]) -> None:
    share = histogram / max(histogram.sum(), 1.0)
    bins, top = len(share), 0.5 if share.max() <= 0.5 else 1.0
    axes.bar(np.arange(bins) / bins, share, width=0.9 / bins, align="edge", color=_PURPLE)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top)
    _ticks(axes, (0, 0.5, 1), (0, top / 2, top))
    _label(axes, "Difficulty (share of images)", "1 − teacher's confidence")


def _draw_action(axes: Axes, scheme: ActionScheme, last_action: FloatArray) -> None:
    """Draw a bar for each number of the last action that the observation repeats, or for the choice made."""
    names, paper = scheme.observed_names, scheme.observed(scheme.from_plan(SamplingPlan()))
    places, choice = np.arange(len(names)), isinstance(scheme.space, gym.spaces.Discrete)
    marked = places[paper > 0] if choice else places
    axes.axvline(0, color=_FAINT, linewidth=0.9)
    axes.barh(places, last_action, height=0.6, color=_BLUE)
    axes.plot(paper[marked], marked, linestyle="none", marker="D", markersize=4.5, color=_INK, clip_on=False)
    axes.set_xlim(0 if choice else -1, 1)
    axes.set_ylim(len(names) - 0.4, -0.6)
    named = places[:: _step(len(names) - 1, MOST_NAMES)]
    _ticks(axes, () if choice else (-1, 0, 1), named, [names[place].replace("_", " ") for place in named])
    axes.tick_params(axis="y", length=0, labelsize=_SMALL if len(named) < 9 else _TINY)


def _step(last: int, most: int) -> int:
    """Smallest of 1, 2, 5, 10, 20, … so that 0, step, 2 · step, … up to `last` are at most `most` numbers."""
    step = 1
    while last // step >= most:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return step


def _finite(values: tuple[float, ...]) -> NDArray[np.float64]:
    """Put 0 in place of what a diverged run made NaN."""
    return np.nan_to_num(np.array(values, dtype=np.float64), posinf=0.0, neginf=0.0)
