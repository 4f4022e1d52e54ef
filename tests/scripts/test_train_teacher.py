"""`train_teacher`: a teacher for a later run without data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from ssdkd_agents.lines import read_lines
from ssdkd_agents.runs import versions
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from ssdkd_env.files import load_state
from ssdkd_env.networks.checkpoints import load_weights
from ssdkd_env.tasks.data import load_npz
from ssdkd_env.tasks.data.imbalance import ImbalanceSettings, with_imbalance
from ssdkd_env.tasks.digits import DIGITS
from ssdkd_env.tasks.task import build_teacher, top1_accuracy
from tests.agents.test_curves import table_of
from tests.scripts.bad_files import BAD_DATA, marker, real_images
from tests.scripts.commands import (
    Result,
    assert_refused,
    assert_resumes,
    contents,
    in_process_of_its_own,
    in_this_process,
    press_ctrl_c,
)

#: Two minibatches an epoch on the 40 images of `data`, so four in all.
SHORT = ("--settings.epochs", "2", "--settings.batch-size", "16")
#: Colour images become grey ones.
UNUSABLE = {name: make for name, make in BAD_DATA.items() if name != "wrong channels"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_images(tmp_path_factory.mktemp("data") / "real.npz")


def train(out: Path, train_data: Path, test_data: Path, *arguments: object) -> Result:
    return in_this_process(
        "train_teacher", "--out", out, "--data", train_data, "--test-data", test_data, *SHORT, *arguments
    )


def resume(out: Path, *arguments: object) -> Result:
    return in_this_process("train_teacher", "--out", out, "--resume", *arguments)


def scalars(out: Path, tag: str) -> list[tuple[int, float]]:
    """Step and value of what TensorBoard shows of a run."""
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def results(out: Path) -> list[dict[str, Any]]:
    """Lines of results.jsonl without what the clock adds."""
    return [{name: line[name] for name in line if name != "seconds"} for line in read_lines(out / "results.jsonl")]


def minibatches(checkpoint: dict[str, Any]) -> int:
    """Minibatches done in all, at two an epoch."""
    training = checkpoint["training"]
    return int(2 * training["epochs_done"] + training["batch"])


# --- training ---


def test_teacher_is_trained_on_own_data(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "teacher"
    result = in_process_of_its_own("train_teacher", "--out", out, "--data", data, "--test-data", data, *SHORT)
    assert result.code == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {
        "teacher.safetensors",
        "teacher.json",
        "config.json",
        "command.txt",
        "results.jsonl",
        "tensorboard",
        ".lock",
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


def test_card_says_what_the_weights_are(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    test_data = real_images(tmp_path / "test.npz", count=30)
    result = train(out, data, test_data, "--settings.ema-decay", 0.9)
    assert result.code == 0, result.stderr
    card = json.loads((out / "teacher.json").read_text())
    teacher = build_teacher(DIGITS, seed=1).eval()
    load_weights("teacher", out / card["weights"], teacher)
    assert card["task"] == "digits"
    assert (card["arch"], card["options"]) == ("convnet", {"channels": [16, 32, 64]})
    assert card["parameters"] == 24058
    assert (card["num_classes"], card["image_shape"]) == (10, [1, 8, 8])
    assert card["normalization"] == {"mean": [0.305], "std": [0.376]}
    assert card["data"] == "real.npz"
    assert card["top1"] == {
        "test": top1_accuracy(teacher, load_npz("data", test_data), DIGITS),
        "test_images": 30,
        "train": top1_accuracy(teacher, load_npz("data", data), DIGITS),
        "train_images": 40,
    }
    assert card["epoch"] == card["settings"]["epochs"] == 2
    assert card["settings"]["ema_decay"] == 0.9
    assert (card["precision"], card["device"]) == ("float32", "cpu")
    assert card["versions"] == versions()
    assert card["command"] == (out / "command.txt").read_text().strip()
    assert "--settings.ema-decay 0.9" in card["command"]
    assert 0 < card["seconds"] < 100


def test_curves_and_results_follow_the_epochs(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = train(out, data, data, "--settings.epochs", 5, "--evaluate-every-epochs", 2)
    assert result.code == 0, result.stderr
    assert f"curves: tensorboard --logdir {out}" in result.stdout
    lines = results(out)
    assert [line["epoch"] for line in lines] == [2, 4, 5]
    assert [step for step, _ in scalars(out, "train/loss")] == [1, 2, 3, 4, 5]
    assert [step for step, _ in scalars(out, "train/learning_rate")] == [1, 2, 3, 4, 5]
    assert [step for step, _ in scalars(out, "test/top1")] == [2, 4, 5]
    _, rows = table_of(out)
    (row,) = rows.values()
    assert row.hparams["algorithm"].string_value == "teacher: convnet" and row.hparams["seed"].number_value == 0
    metrics = {metric.name.tag: metric.value for metric in row.metric_values}
    assert metrics["test/top1"] == pytest.approx(lines[-1]["test_top1"])
    assert [top1 for _, top1 in scalars(out, "test/top1")] == pytest.approx([line["test_top1"] for line in lines])
    assert scalars(out, "train/loss")[3][1] == pytest.approx(lines[1]["train_loss"])
    assert not (out / "checkpoint.safetensors").exists()


def test_measuring_changes_nothing(data: Path, tmp_path: Path) -> None:
    for name, every in (("a", 1), ("b", 0)):
        assert train(tmp_path / name, data, data, "--evaluate-every-epochs", every).code == 0
    a, b = (tmp_path / name for name in "ab")
    assert (a / "teacher.safetensors").read_bytes() == (b / "teacher.safetensors").read_bytes()
    assert results(a)[-1] == results(b)[-1]
    assert (len(results(a)), len(results(b))) == (2, 1)


def test_folder_with_both_splits_needs_no_test_data(data: Path, tmp_path: Path) -> None:
    shutil.copy(data, tmp_path / "train.npz")
    real_images(tmp_path / "test.npz", count=30)
    result = in_this_process("train_teacher", "--out", tmp_path / "out", "--data", tmp_path, *SHORT)
    assert result.code == 0, result.stderr
    card = json.loads((tmp_path / "out" / "teacher.json").read_text())
    assert (card["top1"]["train_images"], card["top1"]["test_images"]) == (40, 30)
    assert card["data"] == tmp_path.name


def test_classes_are_as_unequal_as_asked_for_in_training_alone(data: Path, tmp_path: Path) -> None:
    options = ("--imbalance.profile", "step", "--imbalance.ratio", 4, "--settings.epochs", 3)
    whole = train(tmp_path / "out", data, data, *options)
    assert whole.code == 0, whole.stderr
    card = json.loads((tmp_path / "out" / "teacher.json").read_text())
    kept = with_imbalance(load_npz("data", data), ImbalanceSettings("step", ratio=4.0), DIGITS.num_classes)
    assert len(kept[0]) < 40
    assert (card["top1"]["train_images"], card["top1"]["test_images"]) == (len(kept[0]), 40)
    assert card["imbalance"] == {"profile": "step", "ratio": 4.0, "majority": 0.3, "seed": 0}


def test_run_of_unequal_classes_is_resumed_with_them(data: Path, tmp_path: Path) -> None:
    options = ("--imbalance.profile", "step", "--imbalance.ratio", 4)
    assert train(tmp_path / "whole", data, data, *options).code == 0
    assert train(tmp_path / "out", data, data, *options, "--minutes", 1e-9).code == 0
    result = resume(tmp_path / "out", "--minutes", 0)
    assert result.code == 0, result.stderr
    weights = [(tmp_path / name / "teacher.safetensors").read_bytes() for name in ("whole", "out")]
    assert weights[0] == weights[1]


def test_run_from_before_unequal_classes_is_resumed(data: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "out", data, data, "--minutes", 1e-9).code == 0
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    del config["imbalance"]
    path.write_text(json.dumps(config))
    result = resume(tmp_path / "out", "--minutes", 0)
    assert result.code == 0, result.stderr
    assert (tmp_path / "out" / "teacher.json").is_file()


def test_task_finds_its_own_data_below_the_data_root(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "cifar10").mkdir(exist_ok=True)
        real_images(tmp_path / "cifar10" / f"{split}.npz", count=20 + len(split), shape=(3, 32, 32))
    arguments = ("--task", "cifar10", "--teacher-arch", "convnet", *SHORT, "--data-root", tmp_path)
    result = in_this_process("train_teacher", "--out", tmp_path / "out", *arguments)
    assert result.code == 0, result.stderr
    card = json.loads((tmp_path / "out" / "teacher.json").read_text())
    assert (card["task"], card["data"], card["arch"], card["options"]) == ("cifar10", "cifar10", "convnet", {})


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


# --- pause and resume ---


def test_run_cut_into_pieces_ends_as_the_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    """A minibatch a command, without end of an epoch in between: the time is over at once."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    options = ("--settings.ema-decay", 0.8, "--settings.schedule", "step", "--evaluate-every-epochs", 1)
    assert train(whole, data, data, *options).code == 0
    result = train(pieces, data, data, *options, "--minutes", 1e-9)
    for minibatch in (1, 2, 3):
        assert result.code == 0, result.stderr
        assert f"stopped in epoch {minibatch // 2 + 1} of 2" in result.stdout
        assert_resumes(result, "train_teacher", pieces)
        assert not (pieces / "teacher.safetensors").exists()
        assert minibatches(load_state(pieces / "checkpoint.safetensors")) == minibatch
        result = resume(pieces)
    assert result.code == 0, result.stderr
    assert "top-1 on 40 held-out images" in result.stdout
    assert (pieces / "teacher.safetensors").read_bytes() == (whole / "teacher.safetensors").read_bytes()
    assert results(pieces) == results(whole)
    for tag in ("train/loss", "train/learning_rate", "test/top1"):
        assert scalars(pieces, tag) == scalars(whole, tag)
    cards = [json.loads((out / "teacher.json").read_text()) for out in (whole, pieces)]
    assert cards[0]["settings"] == cards[1]["settings"] and cards[0]["top1"] == cards[1]["top1"]
    assert "--minutes" in cards[1]["command"] and "--resume" not in cards[1]["command"]


def test_ctrl_c_leaves_a_run_that_goes_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--out", out, "--data", data, "--test-data", data, "--settings.epochs", 100_000)
    result = press_ctrl_c(out / "results.jsonl", "train_teacher", *arguments, "--settings.batch-size", 16)
    assert result.code == 130, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    assert "--resume" in result.stdout
    first = load_state(out / "checkpoint.safetensors")
    assert first["training"]["epochs_done"] >= results(out)[-1]["epoch"] >= 5

    result = resume(out, "--minutes", 1e-9)  # one more minibatch
    assert result.code == 0, result.stderr
    second = load_state(out / "checkpoint.safetensors")
    assert minibatches(second) == minibatches(first) + 1
    assert second["seconds"] > first["seconds"]


def test_what_was_measured_after_the_checkpoint_is_measured_again(data: Path, tmp_path: Path) -> None:
    """As after a crash between two checkpoints."""
    out = tmp_path / "out"
    assert train(out, data, data, "--minutes", 1e-9, "--evaluate-every-epochs", 1).code == 0
    shutil.copytree(out, tmp_path / "earlier")
    assert resume(out).code == 0  # the end of epoch 1
    assert [line["epoch"] for line in results(out)] == [1]
    shutil.copy(tmp_path / "earlier" / "checkpoint.safetensors", out)
    assert resume(out, "--minutes", 0).code == 0
    assert [line["epoch"] for line in results(out)] == [1, 2]
    assert [step for step, _ in scalars(out, "train/loss")] == [1, 2]


def test_checkpoints_are_written_on_the_way(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss fails to be finite in the third epoch; the second's checkpoint is there."""
    losses = iter([torch.tensor(0.0)] * 4 + [torch.tensor(torch.nan)] * 2)
    real = torch.nn.functional.cross_entropy
    monkeypatch.setattr(
        torch.nn.functional, "cross_entropy", lambda *values, **options: real(*values, **options) + next(losses)
    )
    result = train(tmp_path / "out", data, data, "--settings.epochs", 4, "--checkpoint-every-epochs", 2)
    assert_refused(result, "lr=0.1: the loss is not finite in epoch 3")
    assert load_state(tmp_path / "out" / "checkpoint.safetensors")["training"]["epochs_done"] == 2


def test_finished_run_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "out", data, data).code == 0
    before = contents(tmp_path / "out")
    for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):  # of one killed at its very end
        (tmp_path / "out" / name).touch()
    result = resume(tmp_path / "out")
    assert result.code == 0, result.stderr
    assert f"this run is finished; weights: {tmp_path / 'out' / 'teacher.safetensors'}" in result.stdout
    assert contents(tmp_path / "out") == before


@pytest.fixture(scope="module")
def paused(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paused") / "out"
    assert train(out, data, data, "--minutes", 1e-9, "--settings.lr", 0.2).code == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--settings.lr", "0.1"), "lr=0.1: the training to be resumed has lr=0.2"),  # the script's default
        (("--settings.epochs", "3"), "epochs=3: the training to be resumed has epochs=2"),
        (("--settings.milestones", "0.3"), "milestones=(0.3,): the training to be resumed has milestones=(0.5, 0.75)"),
        (("--task", "cifar10"), "--resume with task='cifar10': the run in"),
        (("--teacher-arch", "convnet"), "--resume with teacher_arch='convnet': the run in"),
        (("--device", "cpu"), "--resume with device='cpu': the run in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_resuming_with_another_setting_is_refused(arguments: tuple[str, ...], match: str, paused: Path) -> None:
    before = contents(paused)
    assert_refused(resume(paused, *arguments), match)
    assert contents(paused) == before


def test_resuming_needs_the_same_images_not_the_same_path(data: Path, paused: Path, tmp_path: Path) -> None:
    before = contents(paused)
    other = real_images(tmp_path / "other.npz", count=41)
    assert_refused(resume(paused, "--data", other), "--resume: the train images are not those of the run")
    assert_refused(resume(paused, "--test-data", other), "--resume: the test images are not those of the run")
    assert contents(paused) == before
    shutil.copytree(paused, tmp_path / "out")
    moved = shutil.copy(data, tmp_path / "moved.npz")
    assert resume(tmp_path / "out", "--data", moved).code == 0


def test_resuming_without_a_run_is_refused(tmp_path: Path) -> None:
    assert_refused(resume(tmp_path / "none"), "holds no run")
    assert not (tmp_path / "none").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"algorithm": "ppo"}')
    assert_refused(resume(tmp_path / "other"), "was not made by ssdkd teacher")


@pytest.mark.parametrize("how", ["none", "damaged", "finished"])
def test_run_killed_anywhere_gives_the_teacher_of_one_that_was_not(how: str, data: Path, tmp_path: Path) -> None:
    """Before the first checkpoint, while one was written, and between the last line of results and the card."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = ("--checkpoint-every-epochs", 1, "--evaluate-every-epochs", 1)
    assert train(whole, data, data, *options).code == 0
    assert train(out, data, data, *options, "--minutes", 1e-9).code == 0
    checkpoint = out / "checkpoint.safetensors"
    if how == "none":
        checkpoint.unlink()
        (out / "results.jsonl").write_bytes((whole / "results.jsonl").read_bytes()[:-9])
        said: Any = pytest.warns(UserWarning, match="line 2 is cut short")
    elif how == "damaged":
        assert resume(out).code == 0
        content = bytearray(checkpoint.read_bytes())
        content[-5] ^= 1
        checkpoint.write_bytes(content)
        said = pytest.warns(UserWarning, match="was damaged since .*going on from the checkpoint before")
    else:
        (out / "results.jsonl").write_bytes((whole / "results.jsonl").read_bytes())
        (out / "teacher.safetensors").touch()
        said = nullcontext()
    with said:
        result = resume(out, "--minutes", 0)
    assert result.code == 0, result.stderr
    assert ("has no checkpoint yet: it begins anew" in result.stdout) == (how == "none")
    assert (out / "teacher.safetensors").read_bytes() == (whole / "teacher.safetensors").read_bytes()
    assert results(out) == results(whole)
    assert not [*out.glob("checkpoint*")]


# --- bad input ---


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
        (("--settings.schedule", "linear"), "schedule='linear'"),
        (("--settings.precision", "fp16"), "precision='fp16'"),
        (("--checkpoint-every-epochs", "0"), "--checkpoint-every-epochs=0"),
        (("--evaluate-every-epochs", "-1"), "--evaluate-every-epochs=-1"),
        (("--minutes", "-1"), "--minutes=-1"),
        (("--minutes", "nan"), "--minutes=nan"),
        (("--data-root", "elsewhere"), "--data and --data-root"),
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
    assert_refused(result, "has no splits: its images to learn from are those to measure on; give")
    assert not (tmp_path / "out").exists()


def test_test_data_without_data_is_refused(data: Path, tmp_path: Path) -> None:
    """Silently measuring on the task's own images would report a wrong number."""
    result = in_this_process("train_teacher", "--out", tmp_path / "out", "--test-data", data, "--settings.epochs", "1")
    assert_refused(result, "--test-data")


def test_task_without_data_says_where_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSDKD_DATA", raising=False)
    result = in_this_process("train_teacher", "--out", tmp_path / "out", "--task", "cifar10")
    assert_refused(result, "task 'cifar10' brings no real data; give --data-root, the folder with cifar10")
    result = in_this_process("train_teacher", "--out", tmp_path / "out", "--data-root", tmp_path)
    assert_refused(result, "--data-root: task 'digits' names no data set")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE)
def test_bad_training_data_is_refused_before_anything_is_written(
    make: Callable[[Path], Path], data: Path, tmp_path: Path
) -> None:
    path = make(tmp_path / "real.npz")
    assert_refused(train(tmp_path / "out", path, data), "data")
    assert not marker(tmp_path).exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE)
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
