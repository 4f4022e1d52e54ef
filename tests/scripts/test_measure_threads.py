"""`measure_threads`: episodes in threads against those of one thread, from the command line."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ssdkd_env.envs import SSDKDEnv
from tests.scripts.commands import assert_refused, in_process_of_its_own, in_this_process


def test_a_small_run_finds_every_episode_the_same(tmp_path: Path) -> None:
    out = tmp_path / "threads.jsonl"
    result = in_process_of_its_own("measure_threads", "--out", out, "--episodes", 2)
    assert result.code == 0, result.stderr
    assert "4 of 4 episodes in 2 threads are those of one thread, to the last bit." in result.stdout
    *episodes, about = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["thread"] for line in episodes] == [0, 0, 1, 1]
    assert len({line["seed"] for line in episodes}) == len({line["alone"]["sha256"] for line in episodes}) == 4
    assert all(line["identical"] and line["alone"] == line["in_threads"] for line in episodes)
    assert about["machine"]["torch_threads"] == 1


def change_steps(monkeypatch: pytest.MonkeyPatch, failing: bool) -> None:
    """Steps of which each pays a little more than the one before, or of which one fails."""
    whole, number = SSDKDEnv.step, count()

    def step(self: SSDKDEnv, action: Any) -> Any:
        observation, reward, terminated, truncated, info = whole(self, action)
        if failing and next(number) == 0:
            raise RuntimeError("used twice")
        return observation, reward if failing else reward + next(number), terminated, truncated, info

    monkeypatch.setattr(SSDKDEnv, "step", step)


@pytest.mark.parametrize(("failing", "same"), [(False, 0), (True, 1)])
def test_another_episode_and_an_error_are_counted(
    failing: bool, same: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "threads.jsonl"
    change_steps(monkeypatch, failing)
    result = in_this_process("measure_threads", "--out", out, "--episodes", 1)
    assert result.code == 1, result.stderr
    assert f"{same} of 2 episodes" in result.stdout
    lines = [json.loads(line) for line in out.read_text().splitlines()][:-1]
    assert sum(line["identical"] for line in lines) == same
    errors = [line["in_threads"]["error"] for line in lines if "error" in line["in_threads"]]
    assert errors == (["RuntimeError: used twice"] if failing else [])


def test_no_episodes_and_a_file_that_exists_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "threads.jsonl"
    assert_refused(
        in_this_process("measure_threads", "--out", out, "--episodes", 0), "--episodes 0: expected at least 1"
    )
    out.write_text("mine\n")
    assert_refused(in_this_process("measure_threads", "--out", out), "exists; choose another file")
    assert out.read_text() == "mine\n"
