"""Putting saved state back: tensors go where they fit, and nowhere else."""

from __future__ import annotations

from typing import Any

import torch

from ssdkd_env.settings import is_finite_number


def restore(tensor: torch.Tensor, saved: Any, name: str) -> None:
    """Copy what was saved into a tensor, in place; `copy_` alone would stretch and convert what does not fit.

    Raises:
        ValueError: when it is no tensor of this shape and type.
    """
    if not isinstance(saved, torch.Tensor) or (saved.shape, saved.dtype) != (tensor.shape, tensor.dtype):
        raise ValueError(f"{name} is no {tensor.dtype} of shape {tuple(tensor.shape)}")
    with torch.no_grad():
        tensor.copy_(saved)


def restored(like: torch.Tensor, saved: Any, name: str) -> torch.Tensor:
    """What was saved, in a tensor of its own with the layout and on the device of another.

    Raises:
        ValueError: as `restore`.
    """
    made = torch.empty_like(like)
    restore(made, saved, name)
    return made


def permutation(saved: Any, count: int, device: torch.device) -> torch.Tensor:
    """An order of things that was saved, (count,) int64: it is an index, and what it leads to must be there.

    Raises:
        ValueError: when it does not hold each number from 0 to `count` − 1 once.
    """
    ascending = torch.arange(count, device=device)
    order = restored(ascending, saved, "the order")
    if not torch.equal(order.sort().values, ascending):
        raise ValueError(f"the order is none of {count} things")
    return order


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the moments of `optimizer.state_dict()` and give each the memory layout of its parameter.

    The fused CPU kernels walk raw memory: a moment that came back from disk contiguous, beside a channels_last
    parameter, would silently be added to the wrong weights, and one of another size leads them out of it. Of what the
    optimiser was made with (decay, kernels) only the learning rates change, which go with the steps.

    Raises:
        ValueError: when a moment is of another shape or type than its parameter, or is not there.
    """
    made = [
        {name: option for name, option in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, made, strict=True):
        group.update(options)
        if not is_finite_number(group["lr"]):
            raise ValueError(f"an optimiser's learning rate is {group['lr']!r}")
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if name != "step":
                moments[name] = restored(parameter, moment, f"an optimiser's {name}")
            elif not isinstance(moment, torch.Tensor) or moment.shape != () or not moment >= 0:
                raise ValueError(f"an optimiser's step is {moment!r}")
    needed = _moments_of(optimizer)
    if any(moments.keys() != needed for moments in optimizer.state.values()):
        raise ValueError(f"an optimiser's state has other moments than {', '.join(sorted(needed))}")


def _moments_of(optimizer: torch.optim.Optimizer) -> set[str]:
    """What an optimiser of this kind keeps for each parameter."""
    return {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.Adam) else {"momentum_buffer"}
