"""`measure_strangers`: files that a stranger might send are refused, and one that is not is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.scripts.commands import (
    ROOT,
    assert_refused,
    command,
    environment,
    in_process_of_its_own,
    in_this_process,
)


def test_strangers_files_are_refused(tmp_path: Path) -> None:
    """In a process of its own, because commands are forked from it."""
    out = tmp_path / "s.jsonl"
    result = in_process_of_its_own("measure_strangers", "--out", out, "--only", "exported sampler: a")
    assert result.code == 0, result.stderr
    *lines, about = (json.loads(line) for line in out.read_text().splitlines())
    assert len(lines) > 10 and "machine" in about
    for line in lines:
        assert line["code"] == 2 and line["reached"] == [] and "error: " in line["said"]
    assert f"| exported sampler | {len(lines)} | {len(lines)} |" in result.stdout


def test_package_that_imports_what_a_file_names_is_told(tmp_path: Path) -> None:
    package = tmp_path / "broken"
    shutil.copytree(ROOT / "ssdkd_env", package / "ssdkd_env")
    file = package / "ssdkd_env" / "registry.py"
    text = file.read_text()
    assert text.count("names_something_outside(_inner(content))") == 1
    file.write_text(text.replace("names_something_outside(_inner(content))", "False"))
    out = tmp_path / "s.jsonl"
    broken = environment() | {"PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])}
    words = command("measure_strangers", "--out", out, "--only", "train run: an import path in env_kwargs")
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=broken)
    assert done.returncode == 1, done.stderr
    assert "not as it must be" in done.stderr
    (line, _) = (json.loads(line) for line in out.read_text().splitlines())
    assert line["reached"] == ["import:stranger"]


def test_no_file_of_a_description_is_said(tmp_path: Path) -> None:
    result = in_this_process("measure_strangers", "--out", tmp_path / "s.jsonl", "--only", "nothing")
    assert_refused(result, "--only 'nothing': no file is described so")
