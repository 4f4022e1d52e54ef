"""`train_teacher`: a teacher for a later run without data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.runs import read_lines
from ssdkd_env.networks.checkpoints import load_weights
from ssdkd_env.tasks.data import load_npz
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.task import build_teacher, top1_accuracy
from tests.scripts.bad_files import BAD_DATA, marker, real_images
from tests.scripts.commands import Result, assert_refused, contents, in_process_of_its_own, in_this_process

SHORT = ("--settings.epochs", "2", "--settings.batch-size", "16")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_images(tmp_path_factory.mktemp("data") / "real.npz")


def train(out: Path, train_data: Path, test_data: Path, *arguments: object) -> Result:
    return in_this_process(
        "train_teacher", "--out", out, "--data", train_data, "--test-data", test_data, *SHORT, *arguments
    )


def test_teacher_is_trained_on_own_data(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "teacher"
    result = in_process_of_its_own("train_teacher", "--out", out, "--data", data, "--test-data", data, *SHORT)
    assert result.code == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {
        "teacher.safetensors",
        "config.json",
        "command.txt",
        "results.jsonl",
    }
    teacher = build_teacher(DIGITS, seed=1)
    load_weights("teacher", out / "teacher.safetensors", teacher)
    (line,) = read_lines(out / "results.jsonl")
    assert line["test_top1"] == pytest.approx(top1_accuracy(teacher.eval(), load_npz("data", data), DIGITS))
    assert line["test_images"] == 40
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["epochs"] == 2
    assert f"top-1 on 40 held-out images: {line['test_top1']:.4f}" in result.stdout
    assert "2/2" in result.stderr


def test_same_seed_gives_the_same_teacher(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert train(tmp_path / name, data, data, "--settings.seed", seed).code == 0
    a, b, c = ((tmp_path / name / "teacher.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_second_run_into_the_folder_is_refused_and_changes_nothing(data: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "out", data, data).code == 0
    before = contents(tmp_path / "out")
    assert_refused(train(tmp_path / "out", data, data), "is not empty")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--task", "nope"), "task='nope' is unknown"),
        (("--task", "no_such_package:spec"), "task='no_such_package:spec'"),
        (("--teacher-arch", "nope"), "teacher_arch='nope'"),
        (("--device", "abacus"), "device='abacus'"),
        (("--settings.epochs", "0"), "epochs=0"),
        (("--settings.batch-size", "0"), "batch_size=0"),
        (("--settings.lr", "-1"), "lr=-1"),
        (("--settings.momentum", "-1"), "momentum=-1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_argument_is_refused_before_anything_is_written(
    arguments: tuple[str, ...], match: str, data: Path, tmp_path: Path
) -> None:
    if arguments[0] == "--settings.epochs":
        result = in_this_process("train_teacher", "--out", tmp_path / "out", *arguments)
    else:
        result = in_this_process(
            "train_teacher", "--out", tmp_path / "out", "--data", data, "--test-data", data, *arguments
        )
    if arguments[0].startswith("--settings"):  # the parser may refuse these itself, in a box of its own
        assert result.code == 2, result.stderr
        assert "Traceback" not in result.stderr
        assert match.split("=")[0].replace("_", "-") in result.stderr.replace("_", "-")
    else:
        assert_refused(result, match)
    assert not (tmp_path / "out").exists()


def test_data_without_test_data_is_refused(data: Path, tmp_path: Path) -> None:
    result = in_this_process("train_teacher", "--out", tmp_path / "out", "--data", data)
    assert_refused(result, "--data and --test-data go together")
    assert not (tmp_path / "out").exists()


def test_test_data_without_data_is_refused(data: Path, tmp_path: Path) -> None:
    """Silently measuring on the task's own images would report a wrong number."""
    result = in_this_process("train_teacher", "--out", tmp_path / "out", "--test-data", data, "--settings.epochs", "1")
    assert_refused(result, "--test-data")


@pytest.mark.parametrize("make", BAD_DATA.values(), ids=BAD_DATA)
def test_bad_training_data_is_refused_before_anything_is_written(
    make: Callable[[Path], Path], data: Path, tmp_path: Path
) -> None:
    path = make(tmp_path / "real.npz")
    assert_refused(train(tmp_path / "out", path, data), "data")
    assert not marker(tmp_path).exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", BAD_DATA.values(), ids=BAD_DATA)
def test_bad_test_data_is_refused_before_anything_is_written(
    make: Callable[[Path], Path], data: Path, tmp_path: Path
) -> None:
    """Not after the training, whose result would be lost."""
    path = make(tmp_path / "real.npz")
    assert_refused(train(tmp_path / "out", data, path), "test")
    assert not marker(tmp_path).exists()
    assert not (tmp_path / "out").exists()


def test_diverging_training_is_one_clear_line(data: Path, tmp_path: Path) -> None:
    assert_refused(train(tmp_path / "out", data, data, "--settings.lr", "1e30"), "lr=1e+30: the loss is not finite")


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_place_that_cannot_be_written_is_refused(out: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(train(tmp_path / out, data, data), str(tmp_path / out))
    assert contents(tmp_path) == {"file": b"mine"}
