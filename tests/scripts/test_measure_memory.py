"""`measure_memory`: a process that grows is told from one that does not."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import pytest

from ssdkd_env.envs import SSDKDEnv
from tests.scripts.commands import assert_refused, in_this_process


def test_readings_are_told_with_the_growth(tmp_path: Path) -> None:
    result = in_this_process("measure_memory", "--out", tmp_path / "m.jsonl", "--episodes", 40, "--readings", 10)
    assert result.code in (0, 1), result.stderr  # forty episodes are few: the first caches may still fill
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [line["stepped"] for line in lines[:-1]] == ["single"] * 10 + ["grouped"] * 10
    assert all(line["rss_kib"] > 1e5 and line["descriptors"] > 2 for line in lines[:-1])
    assert "machine" in lines[-1]
    assert "| single | 40 |" in result.stdout and "| grouped | 40 |" in result.stdout


def test_episodes_that_leave_memory_behind_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[mmap.mmap] = []
    reset = SSDKDEnv.reset

    def leaking(self: SSDKDEnv, **options: object) -> object:
        kept.append(mmap.mmap(-1, 2**20))  # pages of its own: what earlier tests have freed is not used again
        kept[-1].write(b"x" * 2**20)
        return reset(self, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(SSDKDEnv, "reset", leaking)
    result = in_this_process("measure_memory", "--out", tmp_path / "m.jsonl", "--episodes", 40, "--readings", 10)
    assert result.code == 1
    (row,) = (line for line in result.stdout.splitlines() if "single" in line)
    assert float(row.split("|")[3].split()[0]) == pytest.approx(1024, rel=0.3)  # KiB an episode


def test_too_few_readings_are_refused(tmp_path: Path) -> None:
    result = in_this_process("measure_memory", "--out", tmp_path / "m.jsonl", "--readings", 3)
    assert_refused(result, "--readings 3: expected at least 10")
