"""Seconds with the device's work, memory of a family of processes, and numbers that are too small."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from laboratory.common import check_least, in_turn, memory_mib, timed

from ssdkd_env.errors import InvalidInputError


def test_a_call_gives_its_result_and_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert timed(torch.device("cpu"), lambda: "done") == ("done", 2.5)


def test_memory_is_that_of_this_process_and_its_children() -> None:
    before = memory_mib()
    hold = "held = bytearray(b'1') * (100 << 20); print(len(held), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 100 <= memory_mib() - before < 150
        child.communicate(b"\n")


def test_the_first_number_that_is_too_small_is_named() -> None:
    args = SimpleNamespace(seeds=2, num_envs=0)
    check_least(args, seeds=2, num_envs=0)
    with pytest.raises(InvalidInputError, match=r"^--num-envs 0: expected at least 1$"):
        check_least(args, seeds=2, num_envs=1)


def test_every_side_takes_every_turn() -> None:
    orders = [in_turn("abc", index) for index in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]
