"""Seconds with the device's work, and what the kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from laboratory.machine import kernel_bytes, timed


def test_a_call_gives_its_result_and_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert timed(torch.device("cpu"), lambda: "done") == ("done", 2.5)


def test_kilobytes_of_the_named_line_are_read(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("Name:\tpython\nVmRSSx:\t1 kB\nVmRSS:\t   12 kB\nThreads:\t3\n")
    assert kernel_bytes(str(path), "VmRSS") == 12 * 1024
    assert kernel_bytes(str(path), "VmHWM") is None
    assert kernel_bytes(str(tmp_path / "gone"), "VmRSS") is None
