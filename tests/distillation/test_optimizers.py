"""Fused optimisers keep their results when they resume, whatever the memory layout."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssdkd_env.distillation.optimizers import load_optimizer_state

Build = Callable[[list[Tensor], bool], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Build] = {
    "adam": lambda parameters, fused: torch.optim.Adam(parameters, lr=0.1, fused=fused),
    "sgd": lambda parameters, fused: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=fused),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def start(layout: str) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, generator=random).to(memory_format=LAYOUTS[layout])
    return [weight.requires_grad_(), torch.randn(4, generator=random).requires_grad_()]


def steps(optimizer: torch.optim.Optimizer, parameters: list[Tensor], seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    for _ in range(3):
        for parameter in parameters:
            gradient = torch.randn(parameter.shape, generator=random)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize("after", LAYOUTS)
def test_resuming_in_another_memory_layout_equals_going_on(kind: str, before: str, after: str) -> None:
    build = OPTIMIZERS[kind]
    reference = start("contiguous")
    plain = build(reference, False)
    first = start(before)
    original = build(first, True)
    for parameters, optimizer in ((reference, plain), (first, original)):
        steps(optimizer, parameters, seed=1)

    second = start(after)
    with torch.no_grad():
        for parameter, value in zip(second, first, strict=True):
            parameter.copy_(value)
    resumed = build(second, True)
    load_optimizer_state(resumed, copy.deepcopy(original.state_dict()))
    steps(plain, reference, seed=2)
    steps(resumed, second, seed=2)
    for parameter, expected in zip(second, reference, strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)
