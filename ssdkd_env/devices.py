"""Choosing the device that everything happens on."""

from __future__ import annotations

import torch

from ssdkd_env.errors import InvalidInputError, one_line


def select_device(device: str) -> torch.device:
    """The torch device that `device` names; `"auto"` is CUDA where present.

    Raises:
        InvalidInputError: when it does not exist on this machine.
    """
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(
            f"device={device!r} is not usable here ({one_line(error)}); choose 'auto' or 'cpu'"
        ) from error
    return chosen
