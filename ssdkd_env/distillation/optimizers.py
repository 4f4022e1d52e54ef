"""Resuming fused optimisers safely."""

from __future__ import annotations

from typing import Any

import torch


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load `optimizer.state_dict()` and give each moment the memory layout of its parameter.

    The fused CPU kernels walk raw memory: a moment that came back from disk contiguous, beside a channels_last
    parameter, would silently be added to the wrong weights.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, torch.Tensor) and moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(moment)
