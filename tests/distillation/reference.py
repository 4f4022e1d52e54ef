"""Independent float64 calculations in NumPy, one image and one pixel at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

#: Logits of a classifier and of a dense predictor, by their shape.
LOGIT_SHAPES = [(7, 5), (1, 5), (4, 5, 3, 2)]


def make_logits(shape: tuple[int, ...], seed: int, scale: float = 3.0) -> Tensor:
    """Random float32 logits."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def pixels(logits: Tensor) -> list[list[list[float]]]:
    """Image → pixel → class scores, as Python floats; a classifier's answer counts as one pixel."""
    array = logits.double().numpy()
    if array.ndim == 2:
        array = array[:, :, None, None]
    return [
        [array[i, :, y, x].tolist() for y in range(array.shape[2]) for x in range(array.shape[3])]
        for i in range(array.shape[0])
    ]


def softmax(scores: list[float], temperature: float = 1.0) -> list[float]:
    """Softmax of one pixel."""
    top = max(scores)
    exponentials = [math.exp((s - top) / temperature) for s in scores]
    return [e / math.fsum(exponentials) for e in exponentials]


def argmax(scores: list[float]) -> int:
    """Index of the largest score."""
    return max(range(len(scores)), key=scores.__getitem__)


def kl(teacher: list[float], student: list[float], temperature: float = 1.0) -> float:
    """KL(teacher ‖ student) of one pixel's logits, in nats."""
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)


def close(actual: Tensor, expected: object, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Assert near equality, NaN never allowed."""
    np.testing.assert_allclose(actual.detach().double().numpy(), np.asarray(expected), rtol=rtol, atol=atol)
    assert actual.isfinite().all()
