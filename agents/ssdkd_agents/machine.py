"""What a measurement ran on, and how much memory it took."""

from __future__ import annotations

import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch

MIB = 1024.0 * 1024.0


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, system, PyTorch's device and its threads, as JSON."""
    cpu, cores = platform.processor() or platform.machine(), 0
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu, cores = (names[0] if names else cpu), len(names)
    return {
        "cpu": cpu,
        "cores": cores,
        "system": platform.system(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch_threads": torch.get_num_threads(),
    }


def forget_peak_memory(device: torch.device) -> None:
    """Start the measurement of the peak anew, where the system can do so (Linux), so that it is of one episode."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB, since `forget_peak_memory` or else since its start."""
    peak = high_water_mib("self")
    if peak is not None:
        return peak
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / MIB if sys.platform == "darwin" else used * 1024 / MIB


def high_water_mib(process: int | str) -> float | None:
    """Peak resident memory of a process by its number in MiB, or "self"; None where the system does not tell it.

    Not so what the system counts until a process ends (`ru_maxrss`), which begins with the memory of its parent.
    """
    status = Path(f"/proc/{process}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024 / MIB
    return None


def peak_device_memory_mib(device: torch.device) -> float | None:
    """Peak memory of PyTorch's tensors on a CUDA device in MiB; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else None
