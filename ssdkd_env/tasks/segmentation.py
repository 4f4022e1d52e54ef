"""How well a network segments: everything from one confusion matrix over the whole set.

The field's mean IoU (Everingham et al. 2010, section 4.2; Long et al. 2015, section 5) is over the pixels of the set,
not a mean over images, and leaves out classes that occur nowhere. Libraries do otherwise in silence: means over
(image, class) pairs, or an absent class that counts 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssdkd_env.tasks.void import VOID

#: Images whose logits are held at once: a number for each class and pixel.
IMAGES_AT_ONCE = 32


@dataclass(frozen=True)
class SegmentationScores:
    """What a confusion matrix says.

    Attributes:
        mean_iou: mean over the classes that occur, in [0, 1].
        class_iou: intersection over union of each class; NaN where it occurs nowhere.
        pixel_accuracy: share of the pixels that are right.
        mean_class_accuracy: mean share of a class's pixels that are right, over the classes that have any.
        absent: numbers of the classes that occur nowhere, neither in the labels nor in the answers.
    """

    mean_iou: float
    class_iou: tuple[float, ...]
    pixel_accuracy: float
    mean_class_accuracy: float
    absent: tuple[int, ...]


class ConfusionMatrix:
    """Counts pixels by true class and answer; void pixels count nowhere.

    Args:
        num_classes: K.
        device: of what is counted.

    Attributes:
        counts: (K, K) int64, rows are the truth.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros((num_classes, num_classes), dtype=torch.int64, device=device)

    def add(self, answers: Tensor, labels: Tensor) -> None:
        """Count some pixels.

        Args:
            answers: (N, H, W) whole numbers, the arg-max classes.
            labels: (N, H, W) uint8, classes or `VOID`.
        """
        classes = len(self.counts)
        valid = labels != VOID
        pairs = labels[valid].long() * classes + answers[valid].long()
        self.counts += torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def scores(self) -> SegmentationScores:
        """Scores of what was counted; all 0 where nothing was."""
        counts = self.counts.double().cpu()
        right, truth, answered = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
        union = truth + answered - right
        class_iou = right / union  # 0/0 is NaN
        return SegmentationScores(
            mean_iou=_mean(class_iou),
            class_iou=tuple(class_iou.tolist()),
            pixel_accuracy=float(right.sum() / counts.sum().clamp_min(1)),
            mean_class_accuracy=_mean(right / truth),
            absent=tuple((union == 0).nonzero().flatten().tolist()),
        )


def scores_of(
    answer: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, num_classes: int
) -> SegmentationScores:
    """Scores of whoever answers.

    Args:
        answer: images (N, C, H, W) uint8 → logits (N, classes, H, W).
        images: as above, on the device of the labels.
        labels: (N, H, W) uint8, classes or `VOID`.
        num_classes: of the task.
    """
    matrix = ConfusionMatrix(num_classes, images.device)
    for some, maps in zip(images.split(IMAGES_AT_ONCE), labels.split(IMAGES_AT_ONCE), strict=True):
        matrix.add(answer(some).argmax(dim=1), maps)
    return matrix.scores()


def _mean(values: Tensor) -> float:
    """Mean of those that are numbers; 0 without any."""
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else 0.0
