"""`measure_durability`: tiny runs are disturbed, and are as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scripts.commands import (
    ROOT,
    Result,
    assert_refused,
    command,
    environment,
    in_process_of_its_own,
    in_this_process,
)


def measure(kind: str, out: Path, *arguments: object) -> tuple[Result, list[dict[str, object]]]:
    """In a process of its own, because runs are forked from it."""
    result = in_process_of_its_own("measure_durability", kind, "--out", out, *arguments)
    return result, [json.loads(line) for line in out.read_text().splitlines()]


def test_killed_runs_go_on_as_if_they_had_not_been(tmp_path: Path) -> None:
    result, lines = measure("kills", tmp_path / "k.jsonl", "--commands", "distill", "--every", 17, "--moments", 1)
    assert result.code == 0, result.stderr
    *tried, last = lines
    assert {line["kind"] for line in tried} == {"SIGKILL at an event", "SIGKILL at a moment"}
    assert all(line["as_it_must_be"] for line in tried)
    assert "machine" in last
    assert f"| distill | SIGKILL at an event | {len(tried) - 1} | {len(tried) - 1} |" in result.stdout


def test_one_of_two_owners_is_refused(tmp_path: Path) -> None:
    result, lines = measure("owners", tmp_path / "o.jsonl", "--starts", 2, "--resumes", 1)
    assert result.code == 0, result.stderr
    assert [line["codes"] for line in lines[:2]] == [[0, 2], [0, 2]]


def test_what_is_not_as_it_must_be_is_told(tmp_path: Path) -> None:
    """A package whose trainings forget their random streams when they are resumed."""
    package = tmp_path / "broken"
    shutil.copytree(ROOT / "agents" / "ssdkd_agents", package / "ssdkd_agents")
    file = package / "ssdkd_agents" / "training" / "loop_state.py"
    text = file.read_text()
    assert text.count('    set_random_state(state["random"])\n') == 1
    file.write_text(text.replace('    set_random_state(state["random"])\n', ""))
    out = tmp_path / "k.jsonl"
    options = ("--out", out, "--commands", "train", "--every", 140, "--moments", 0)
    broken = environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(package)])}
    words = command("measure_durability", "kills", *options)
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=broken)
    assert done.returncode == 1, done.stderr
    assert "not as it must be" in done.stderr
    assert any("checkpoints" in str(line.get("differs")) for line in map(json.loads, out.read_text().splitlines()))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("kills", "--commands", "evaluate"), "--commands='evaluate' is unknown"),
        (("kills", "--every", 0), "--every 0: expected at least 1"),
        (("disk", "--disk", "/"), "--disk /: expected a file system of less than 1 GiB"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: tuple[object, ...], match: str, tmp_path: Path) -> None:
    assert_refused(in_this_process("measure_durability", *arguments, "--out", tmp_path / "x.jsonl"), match)
