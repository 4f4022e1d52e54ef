"""A network's scores on real images, by the names that the field has for them."""

from __future__ import annotations

from torch import nn

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.tasks.segmentation import SegmentationScores, scores_of
from ssdkd_env.tasks.task import LabelledImages, TaskSpec, top1_accuracy


def real_scores(network: nn.Module, data: LabelledImages, spec: TaskSpec) -> dict[str, float]:
    """`top1`, or of label maps `mean_iou`, `pixel_accuracy` and `mean_class_accuracy`; the first is the one to report.

    Args:
        network: in evaluation mode.
        data: real images and labels, on the network's device.
        spec: of the task.
    """
    if data[1].dim() == 1:
        return {"top1": top1_accuracy(network, data, spec)}
    scores = segmentation_scores(network, data, spec)
    return {name: getattr(scores, name) for name in ("mean_iou", "pixel_accuracy", "mean_class_accuracy")}


def segmentation_scores(network: nn.Module, data: LabelledImages, spec: TaskSpec) -> SegmentationScores:
    """Scores on label maps; see `real_scores`."""
    images, labels = data
    normalize = Normalize(spec.mean, spec.std, images.device)
    return scores_of(lambda some: logits_of(network, some, normalize), images, labels, spec.num_classes)


def class_names(spec: TaskSpec) -> tuple[str, ...]:
    """The task's names of its classes, or their numbers."""
    return spec.classes or tuple(map(str, range(spec.num_classes)))
