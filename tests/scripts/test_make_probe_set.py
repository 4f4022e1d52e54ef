"""`make_probe_set`: what it writes is what a task finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.digits import ASSETS
from ssdkd_env.tasks.probe import ProbeSet, synthesize
from tests.scripts.commands import Result, assert_refused, in_process_of_its_own, in_this_process

TASK = "tests.own_networks:SMALL_PROBE_TASK"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(out: Path, *arguments: object) -> Result:
    return in_this_process("make_probe_set", "--task", TASK, "--out", out, *arguments)


@pytest.mark.parametrize("teacher", [None, str(ASSETS / "digits_teacher_narrow.safetensors")])
def test_task_finds_what_was_written(teacher: str | None, tmp_path: Path, cache: Path) -> None:
    result = make(tmp_path / "probes", *(("--teacher", teacher) if teacher else ()))
    assert result.code == 0, result.stderr
    (file,) = (tmp_path / "probes").iterdir()
    task = load_task(TASK, teacher)
    assert result.stdout == f"{file}: {len(synthesize(task, CPU))} images\n"
    probes = ProbeSet(task.with_spec(replace(task.spec, probe_sets=str(tmp_path / "probes"))), CPU)
    assert torch.equal(probes.images, synthesize(task, CPU))
    assert not cache.exists(), "it was made, not taken from a cache, and is found, not made"


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    assert make(tmp_path / "here").code == 0
    result = in_process_of_its_own("make_probe_set", "--task", TASK, "--out", tmp_path / "there")
    assert result.code == 0, result.stderr
    (here,), (there,) = ((tmp_path / name).iterdir() for name in ("here", "there"))
    assert here.name == there.name
    assert here.read_bytes() == there.read_bytes()


def test_file_that_is_there_is_refused_and_kept(tmp_path: Path) -> None:
    assert make(tmp_path).code == 0
    (file,) = tmp_path.glob("probe-*")
    before = file.read_bytes()
    assert_refused(make(tmp_path), f"--out {file} exists; choose another file, or delete it first")
    assert file.read_bytes() == before


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    assert_refused(make(tmp_path, "--teacher", tmp_path / "none.safetensors"), "none.safetensors")
    assert_refused(in_this_process("make_probe_set", "--task", "digit", "--out", tmp_path), "task='digit' is unknown")
    (tmp_path / "file").touch()
    assert_refused(make(tmp_path / "file" / "folder"), "choose a folder that you may write")
