"""Choosing the device that everything happens on."""

from __future__ import annotations

import os

import torch

from ssdkd_env.errors import InvalidInputError, one_line


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware: CUDA from capability 8.0 on, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # an older PyTorch does not say
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory that a device has, of a CPU the machine's; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
