"""Reading clock and memory of the machine that is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

ResultT = TypeVar("ResultT")


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, call: Callable[[], ResultT]) -> tuple[ResultT, float]:
    """What a call returns, and its seconds with all the work that it gives to the device."""
    wait_for(device)
    started = time.perf_counter()
    result = call()
    wait_for(device)
    return result, time.perf_counter() - started


def kernel_bytes(path: str, name: str) -> int | None:
    """What Linux says in a file of /proc, such as `VmRSS` in `/proc/self/status`; None where it says no such thing."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
