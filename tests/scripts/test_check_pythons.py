"""`check_pythons`: what it takes for an interpreter; what it does with one is what `tests/test_packaging.py` does."""

from __future__ import annotations

import sys
from pathlib import Path

from check_pythons import Arguments, Row, version_of

from tests.scripts.commands import assert_refused, in_this_process


def test_folder_that_exists_is_refused(tmp_path: Path) -> None:
    assert_refused(in_this_process("check_pythons", "--out", tmp_path), f"--out {tmp_path} exists")


def test_interpreter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    result = in_this_process("check_pythons", "--out", tmp_path / "out", "--pythons", tmp_path / "python3.14")
    assert_refused(result, "python3.14: there is no such interpreter")
    assert not (tmp_path / "out").exists()


def test_what_does_not_answer_or_is_too_old_is_no_interpreter(tmp_path: Path) -> None:
    paths = []
    for name, code in (("shim", "exit 127"), ("old", "echo 3.9"), ("new", "echo 3.14")):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
        paths.append(str(path))
    this = f"3.{sys.version_info.minor}"
    assert list(version_of((*paths, sys.executable))) == [("3.14", paths[2]), (this, sys.executable)]


def test_default_takes_no_build_of_pytorch_that_brings_cuda(tmp_path: Path) -> None:
    """A local version such as `+cpu` is on no index that has the CUDA builds under the plain number."""
    assert Arguments(tmp_path).torch.endswith("+cpu")


def test_python_that_is_not_here_has_a_row() -> None:
    assert Row("3.12").line() == "| 3.12 | not found | - | - | - | - |"
