"""`make_probe_set`: what it writes is what a task finds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ssdkd_agents.commands.probe import described

from ssdkd_env.files import load_state
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


@pytest.mark.parametrize("teacher", [None, str(ASSETS / "digits_teacher_narrow.safetensors")], ids=["own", "narrow"])
def test_task_finds_what_was_written(teacher: str | None, tmp_path: Path, cache: Path) -> None:
    result = make(tmp_path / "probes", *(("--teacher", teacher) if teacher else ()))
    assert result.code == 0, result.stderr
    (file,) = (tmp_path / "probes").iterdir()
    task = load_task(TASK, teacher)
    images = synthesize(task, CPU)
    logits = task.teacher_on(CPU)((images / 255 - task.spec.mean[0]) / task.spec.std[0]).detach().double()
    counts = np.bincount(logits.argmax(dim=1), minlength=10)
    confidence = float(torch.softmax(logits, dim=1).amax(dim=1).mean())
    made, classes, sure = result.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(file))}: 24 images of {re.escape(task.spec.probe.sources)}, [\d.]+ s", made)
    assert classes == "classes by the teacher: " + ", ".join(f"{label}: {count}" for label, count in enumerate(counts))
    assert float(sure.removeprefix("mean confidence of the teacher: ")) == pytest.approx(confidence, abs=1e-3)
    probes = ProbeSet(task.with_spec(replace(task.spec, probe_sets=str(tmp_path / "probes"))), CPU)
    assert torch.equal(probes.images, images)
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


def test_out_may_name_the_file(tmp_path: Path) -> None:
    result = make(tmp_path / "folder" / "mine.safetensors", "--probe.steps", 1, "--probe.sources", "pixels")
    assert result.code == 0, result.stderr
    images = load_state(tmp_path / "folder" / "mine.safetensors")["images"]
    task = load_task(TASK, probe={"steps": 1, "sources": "pixels"})
    assert torch.equal(images, synthesize(task, CPU))
    assert f"{len(images)} images of pixels" in result.stdout
    assert_refused(make(tmp_path / "folder" / "mine.safetensors"), "exists; choose another file")


def test_many_classes_are_summed_up() -> None:
    task = load_task(TASK)
    always_the_seventh = torch.eye(30)[7]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "teacher_on", lambda device: lambda images: always_the_seventh.expand(len(images), -1))
        text = described(task, torch.zeros(5, *task.spec.image_shape, dtype=torch.uint8))
    assert text.startswith("classes by the teacher: 1 of 30, 0 to 5 images each\nmean confidence of the teacher: 0.086")


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    assert_refused(make(tmp_path, "--teacher", tmp_path / "none.safetensors"), "none.safetensors")
    assert_refused(in_this_process("make_probe_set", "--task", "digit", "--out", tmp_path), "task='digit' is unknown")
    (tmp_path / "file").touch()
    assert_refused(make(tmp_path / "file" / "folder"), "choose a folder that you may write")
