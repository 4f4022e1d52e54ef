"""What was saved goes where it fits; fused optimisers keep their results, whatever the memory layout."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ssdkd_env.distillation.restoring import load_optimizer_state, restore

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


def stepped() -> tuple[torch.optim.Optimizer, list[Tensor]]:
    parameters = start("channels_last")
    optimizer = torch.optim.Adam(parameters, lr=0.1, fused=True)
    steps(optimizer, parameters, seed=1)
    return optimizer, parameters


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda moments: moments.update(exp_avg=torch.ones(3)),
            r"exp_avg is no torch\.float32 of shape \(4, 3, 3, 3\)",
        ),
        (lambda moments: moments.update(exp_avg_sq=None), "exp_avg_sq is no"),
        (lambda moments: moments.update(step=torch.ones(2)), "step is"),
        (lambda moments: moments.update(step=torch.tensor(float("nan"))), "step is"),
        (lambda moments: moments.pop("exp_avg"), "other moments than exp_avg, exp_avg_sq, step"),
        (lambda moments: moments.update(max_exp_avg_sq=moments["exp_avg"]), "other moments than"),
    ],
)
def test_moments_of_another_kind_are_refused(change: Callable[[dict[str, Any]], object], said: str) -> None:
    """Fused kernels do not look: a moment that is too short has others' memory overwritten."""
    optimizer, parameters = stepped()
    state = copy.deepcopy(optimizer.state_dict())
    change(state["state"][0])
    with pytest.raises(ValueError, match=said):
        load_optimizer_state(torch.optim.Adam(parameters, lr=0.1, fused=True), state)


def test_what_an_optimizer_was_made_with_stays() -> None:
    optimizer, parameters = stepped()
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0].update(lr=0.5, betas=(2.0, 2.0), fused=False, capturable=True)
    resumed = torch.optim.Adam(parameters, lr=0.1, fused=True)
    made = {name: option for name, option in resumed.param_groups[0].items() if name != "params"}
    load_optimizer_state(resumed, state)
    kept = {name: option for name, option in resumed.param_groups[0].items() if name != "params"}
    assert kept == made | {"lr": 0.5}
    state["param_groups"][0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="learning rate is nan"):
        load_optimizer_state(torch.optim.Adam(parameters, lr=0.1, fused=True), state)
    torch.testing.assert_close(resumed.state[parameters[0]]["exp_avg"], optimizer.state[parameters[0]]["exp_avg"])


@pytest.mark.parametrize("saved", [torch.ones(1), torch.ones(2, 3), torch.ones(2, dtype=torch.float64), [1.0, 1.0]])
def test_what_would_be_stretched_or_converted_is_refused(saved: Any) -> None:
    target = torch.zeros(2)
    with pytest.raises(ValueError, match=r"past is no torch\.float32 of shape \(2,\)"):
        restore(target, saved, "past")
    assert target.tolist() == [0.0, 0.0]
