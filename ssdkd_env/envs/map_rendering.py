"""Pictures of dense predictions: synthetic image, teacher's map and student's map, as in the paper's figure 5. Ours."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.forward import logits_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What stands beside the rows.
ROWS = ("image", "teacher", "student")
#: Pixels between images, and their shade.
GAP, PAPER = 2, 255
#: Width of a legend's entry and height of its row, in pixels; the square in it.
ENTRY, LINE, SQUARE = 110, 16, 9
#: Turn of the hue from class to class, which keeps neighbours far apart: the golden ratio's.
_TURN = 0.618034


def palette(num_classes: int) -> NDArray[np.uint8]:
    """A colour for each class, (num_classes, 3) uint8, light and dark in turns."""
    shades = ((0.62, 0.95), (0.80, 0.62), (0.38, 0.80))
    colors = [colorsys.hsv_to_rgb((index * _TURN) % 1.0, *shades[index % len(shades)]) for index in range(num_classes)]
    return (np.array(colors) * 255).round().astype(np.uint8)


def visible(images: Tensor) -> Tensor:
    """What is shown of (N, C, H, W) images: the first three channels as red, green and blue, or the first one as grey.

    Returns:
        (N, 3 or 1, H, W) on the CPU.
    """
    return images[:, : 3 if images.shape[1] >= 3 else 1].cpu()


@torch.no_grad()
def triptych(run: DistillationRun, width: int, height: int) -> NDArray[np.uint8]:
    """Images of the buffer on which the student is furthest from the teacher, and what both see: three rows.

    Args:
        run: with images in its buffer. It goes on as if not asked.
        width: of the picture, in pixels, at most; as many images as it holds are shown, at most all.
        height: likewise, which their size follows from.

    Returns:
        (H, W, 3) uint8.
    """
    spec, residents = run.task.spec, run.buffer.residents
    tall = max((height + GAP) // len(ROWS) - GAP, 1)
    wide = min(max(round(tall * spec.image_shape[2] / spec.image_shape[1]), 1), width)
    columns = min((width + GAP) // (wide + GAP), len(residents))
    hardest = residents.discrepancy.nan_to_num(nan=0.0).argsort(descending=True, stable=True)[:columns]
    images = residents.images[hardest]
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        teacher = logits_of(run.teacher, images, Normalize(spec.mean, spec.std, run.device))
    colors = torch.from_numpy(palette(spec.num_classes))
    maps = [colors[logits.argmax(dim=1).cpu()].permute(0, 3, 1, 2) for logits in (teacher, run.student_logits(images))]
    size = tall, wide
    shown = F.interpolate(visible(images).float(), size, mode="area").round().to(torch.uint8).expand(-1, 3, -1, -1)
    rows = [shown, *(F.interpolate(each.float(), size, mode="nearest").to(torch.uint8) for each in maps)]
    return _grid(rows, columns)


def _grid(rows: list[Tensor], columns: int) -> NDArray[np.uint8]:
    """Rows of (N, 3, H, W) as one picture; free places stay white."""
    height, width = rows[0].shape[2:]
    picture = torch.full((3, len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP), PAPER, dtype=torch.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + GAP), column * (width + GAP)
            picture[:, top : top + height, left : left + width] = image
    return picture.permute(1, 2, 0).numpy().copy()


def legend_rows(classes: int, width: int, room: int) -> int:
    """Rows of a legend: as many as the classes need, and at most half of the room, in pixels."""
    return min(-(-classes // max(width // ENTRY, 1)), room // 2 // LINE)


def draw_legend(
    figure: Figure, names: tuple[str, ...], left: int, top: int, width: int, size: float, rows: int
) -> None:
    """Draw a square, a number and a name for each class, row by row; if they are too many, how many more there are.

    Args:
        figure: whose pixels are counted from the upper left corner.
        names: of the classes; numbers where they have none.
        left: of the first square, in pixels.
        top: of it.
        width: that the rows may take.
        size: of the letters, in points.
        rows: at most.
    """
    from matplotlib.patches import Rectangle

    full, height = (float(length) for length in figure.bbox.size)
    columns, colors = max(width // ENTRY, 1), palette(len(names)) / 255
    shown = len(names) if len(names) <= rows * columns else rows * columns - 1
    for index, name in enumerate(names[: shown + 1]):
        x, y = left + index % columns * ENTRY, top + index // columns * LINE
        place = (x / full, 1 - (y + SQUARE) / height)
        if index == shown:
            figure.text(
                x / full, 1 - (y + SQUARE / 2) / height, f"{len(names) - shown} more", fontsize=size, va="center"
            )
            break
        figure.add_artist(
            Rectangle(place, SQUARE / full, SQUARE / height, color=tuple(colors[index]), transform=figure.transFigure)
        )
        label = name if name == str(index) else f"{index} {name}"
        figure.text((x + SQUARE + 4) / full, 1 - (y + SQUARE / 2) / height, label, fontsize=size, va="center")
