"""What a teacher is trained with: cross-entropy, in which rare classes may weigh more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdkd_env.tasks.void import VOID


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over the images, or over the pixels that have a class; 0 where none has.

    Args:
        logits: (N, classes) or (N, classes, H, W) float.
        labels: (N,) int64, or (N, H, W) with `VOID`.
        label_smoothing: share of a label's mass that is spread over all classes.
        weights: (classes,) of which the mean is a weighted one; None for equal ones.
    """
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing)
    targets = labels.long()
    total = F.cross_entropy(
        logits, targets, weights, ignore_index=VOID, label_smoothing=label_smoothing, reduction="sum"
    )
    known = targets != VOID
    counted = known.sum() if weights is None else (weights[targets * known] * known).sum()
    return total / counted.clamp_min(torch.finfo(total.dtype).tiny)


def class_weights(labels: Tensor, num_classes: int, exponent: float) -> Tensor | None:
    """Median frequency balancing (Eigen & Fergus 2015, section 4.4): (median f / f_c) to the power `exponent`.

    f_c is the share of class c among the pixels of the images in which it occurs, or among all labels where each image
    has one. A class that occurs nowhere weighs 1.

    Args:
        labels: (N,) int64, or (N, H, W) uint8 with `VOID`.
        num_classes: K.
        exponent: 1 for the authors' weights; 0 for none.

    Returns:
        (K,) float32, or None where the exponent is 0.
    """
    if exponent == 0:
        return None
    rows = labels.flatten(1) if labels.dim() > 1 else labels[None]
    counts = torch.stack([(rows == number).sum(dim=1) for number in range(num_classes)], dim=1).double()
    known = (
        (rows != VOID).sum(dim=1, keepdim=True) if labels.dim() > 1 else torch.full_like(counts[:, :1], rows.numel())
    )
    share = counts.sum(dim=0) / (known * (counts > 0)).sum(dim=0)  # 0/0, NaN, where a class occurs nowhere
    median = share.nanquantile(0.5)
    return torch.nan_to_num((median / share) ** exponent, nan=1.0).float()
