"""`paper_protocol`: teachers and benchmarks in pieces that resume."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.scripts.commands import assert_refused, contents, environment, in_this_process

SMALL = {"budget.preset": "tiny", "probe.generators": 1, "probe.batches": 1, "probe.kept": 1, "probe.batch-size": 4}
ENV = [word for name, value in (SMALL | {"probe.steps": 1}).items() for word in (f"--env.{name}", value)]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of noise that has CIFAR-10's form."""
    root = tmp_path_factory.mktemp("data")
    (root / "cifar10").mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 12)):
        images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        np.savez(root / "cifar10" / f"{split}.npz", images=images, labels=np.arange(count) % 10)
    return root


@pytest.fixture
def arguments(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    pair = ["--pairs", "resnet8:resnet8", "--teacher-epochs", 1, "--methods", "ssdkd", "fast2", "--device", "cpu"]
    return ["--data-root", data_root, *pair, *ENV]


def test_it_ends_in_a_table_and_then_does_nothing_more(arguments: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = in_this_process("paper_protocol", "--out", out, *arguments)
    assert result.code == 0, result.stderr
    assert "everything is finished" in result.stdout
    lines = [json.loads(line) for line in (out / "resnet8-resnet8" / "results.jsonl").read_text().splitlines()]
    assert [line["env_kwargs"]["method"] for line in lines] == ["ssdkd", "fast2"]
    assert all(line["env_kwargs"]["student_arch"] == "resnet8" for line in lines)
    assert all(0 <= line["held_out_accuracy"] <= 1 for line in lines)
    assert "fast2" in (out / "resnet8-resnet8" / "table.md").read_text()
    before = contents(out)
    again = in_this_process("paper_protocol", "--out", out, *arguments)
    assert "everything is finished" in again.stdout
    assert contents(out) == before


def test_a_call_whose_time_is_over_says_so(
    arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock leaps ahead between the pieces, as if the first had taken all the time."""
    import time

    clock = iter([0.0, 1e6])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock, 1e6))
    result = in_this_process("paper_protocol", "--out", tmp_path / "out", *arguments)
    assert result.code == 0, result.stderr
    assert "not finished yet: give the same command again" in result.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pairs"] == ["resnet8:resnet8"]
    other = in_this_process("paper_protocol", "--out", tmp_path / "out", *arguments, "--seeds", 2)
    assert_refused(other, "--seeds is not what")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text('{"task": "cifar10", "settings": {}}')
    foreign = in_this_process("paper_protocol", "--out", tmp_path / "teacher", *arguments)
    assert_refused(foreign, "teacher/config.json is not of this command; give another --out")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (("--pairs", "resnet8"), "--pairs resnet8"),
        (("--pairs", "resnet8:resnet7"), "resnet7"),
        (("--task", "digits"), "--task='digits'"),
        (("--minutes", "0.1"), "--minutes 0.1"),
        (("--env.teacher", "t.safetensors"), "--env.teacher t.safetensors: leave it out"),
        (("--env.device", "cpu"), "--env.device cpu: give --device"),
        (("--env.teacher-arch", "resnet8"), "--env.teacher-arch resnet8: give --pairs"),
    ],
)
def test_bad_arguments_are_refused(wrong: tuple[str, ...], match: str, tmp_path: Path) -> None:
    result = in_this_process("paper_protocol", "--out", tmp_path / "out", *wrong)
    assert_refused(result, match)
    assert not (tmp_path / "out").exists()


def test_scenes_have_a_protocol_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's own teacher has the task's options; its suite is that of scenes."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> SimpleNamespace:
        commands.append(command)
        (tmp_path / "out" / "teacher-deeplab_small32").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "teacher-deeplab_small32" / "teacher.json").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    result = in_this_process("paper_protocol", "--out", tmp_path / "out", "--task", "camvid", "--data-root", "here")
    assert result.code == 0, result.stderr
    teacher, benchmark = (" ".join(command) for command in commands)
    assert "--task camvid" in teacher and "--data-root here" in teacher and "--settings.max-scale 2" in teacher
    assert "--teacher-arch" not in teacher
    assert "--suite scenes --env-id SSDKD/CamVid-v2" in benchmark and "student-arch deeplab_small12" in benchmark
    assert "teacher-deeplab_small32/teacher.safetensors" in benchmark
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert kept["pairs"] == ["deeplab_small32:deeplab_small12"], "whatever the task's are one day"


def test_a_failing_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    root = tmp_path / "nothing"
    result = in_this_process("paper_protocol", "--out", tmp_path / "out", "--data-root", root, "--device", "cpu")
    assert_refused(result, "train_teacher.py ended with code 2")
