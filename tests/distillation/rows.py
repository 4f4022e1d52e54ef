"""Entries with numbers of chance, as buffer and candidates have them."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdkd_env.distillation.buffer import Entries
from ssdkd_env.distillation.priority import class_share, confidence, discrepancy

CLASSES = 5


def make_entries(count: int, seed: int, born: int = 0, dense: bool = False) -> Entries:
    """Images of which teacher and student have an opinion; those of dense prediction have several classes."""
    random = torch.Generator().manual_seed(seed)
    shape = (count, CLASSES, 3, 2) if dense else (count, CLASSES)
    teacher, student = (2.0 * torch.randn(shape, generator=random) for _ in range(2))
    return Entries(
        images=torch.randint(256, (count, 1, 2, 2), generator=random).to(torch.uint8),
        teacher_logits=teacher[:, :0].flatten(1) if dense else teacher,
        class_share=class_share(teacher),
        confidence=confidence(teacher),
        discrepancy=discrepancy(teacher, student),
        importance_weight=torch.rand(count, generator=random) + 0.1,
        born=torch.randint(born - 3, born + 1, (count,), generator=random),
    )


def distribution(log_weights: Tensor) -> Tensor:
    """P of unnormalised log-weights, (N,) float64."""
    weights = (log_weights.double() - log_weights.max()).exp()
    return weights / weights.sum()
