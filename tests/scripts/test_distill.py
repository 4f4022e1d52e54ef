"""`distill`: a student out of a teacher whose data are gone."""

from __future__ import annotations

import json
import re
import resource
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import image
from ssdkd_agents.distilling.episode import DistillationEpisode
from ssdkd_agents.lines import read_lines
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.stopping import Stopper
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import plugin_data_pb2  # type: ignore[import-untyped]

from ssdkd_env.networks.checkpoints import load_weights
from ssdkd_env.tasks import SyntheticImages, load_task
from ssdkd_env.tasks.digits import DIGITS
from tests.agents.trainings import curves, interrupt_after
from tests.scripts.bad_files import BAD_DATA, BAD_TEACHERS, SHIPPED_TEACHER, marker, real_images
from tests.scripts.commands import (
    BUDGET,
    SIZES,
    Result,
    assert_refused,
    assert_resumes,
    contents,
    in_process_of_its_own,
    in_this_process,
)


def distill(out: Path, *arguments: object) -> Result:
    return in_this_process("distill", "--out", out, *BUDGET, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A student, made by a process of its own. Tests leave its folder as it is."""
    out = tmp_path_factory.mktemp("distill") / "student"
    result = in_process_of_its_own("distill", "--out", out, *BUDGET, "--seed", "5")
    assert result.code == 0, result.stderr
    return out, result


def test_folder_holds_student_picture_results_and_settings(finished: tuple[Path, Result]) -> None:
    out, result = finished
    names = {
        "student.safetensors",
        "student.json",
        "picture.png",
        "results.jsonl",
        "config.json",
        "command.txt",
        "tensorboard",
        ".lock",
    }
    assert {path.name for path in out.iterdir()} == names
    assert str(out / "student.safetensors") in result.stdout
    assert str(out / "picture.png") in result.stdout


def test_student_loads_and_is_as_good_as_reported(finished: tuple[Path, Result]) -> None:
    out, result = finished
    task = load_task("digits")
    student = task.build_student(seed=1)
    load_weights("student", out / "student.safetensors", student)
    (line,) = read_lines(out / "results.jsonl")
    accuracy = task.accuracy(student.eval(), "cpu")
    assert accuracy == pytest.approx(line["final"]["accuracy"], abs=1e-6)
    assert f"accuracy on real images: {accuracy:.4f}" in result.stdout
    assert f"probe set: {line['final']['probe_agreement']:.4f}" in result.stdout


def test_results_hold_config_actions_seconds_and_versions(finished: tuple[Path, Result]) -> None:
    (line,) = read_lines(finished[0] / "results.jsonl")
    assert len(line["actions"]) == 3 == line["final"]["round"]
    assert all(seconds > 0 for seconds in line["seconds"].values())
    assert set(line["seconds"]) == {"synthesis", "distillation"}
    assert line["seed"] == 5
    assert "torch" in line["versions"]


def test_config_and_command_are_those_that_were_given(finished: tuple[Path, Result]) -> None:
    config = json.loads((finished[0] / "config.json").read_text())
    assert config["budget"] == {name.replace("-", "_"): size for name, size in SIZES.items()}
    assert config["seed"] == 5
    command = shlex.split((finished[0] / "command.txt").read_text())
    assert command[1:] == ["scripts/distill.py", "--out", str(finished[0]), *BUDGET, "--seed", "5"]


def test_picture_is_not_blank(finished: tuple[Path, Result]) -> None:
    pixels = image.imread(finished[0] / "picture.png")
    assert len(np.unique(pixels)) > 10


def test_progress_bar_goes_to_stderr(finished: tuple[Path, Result]) -> None:
    assert "3/3" in finished[1].stderr
    assert "3/3" not in finished[1].stdout


def test_second_run_into_the_folder_is_refused_and_changes_nothing(finished: tuple[Path, Result]) -> None:
    out, _ = finished
    before = contents(out)
    result = in_process_of_its_own("distill", "--out", out, *BUDGET)
    assert_refused(result, f"out={str(out)!r} is not empty")
    assert len(result.stderr.strip().splitlines()) == 1
    assert contents(out) == before


def test_same_seed_gives_the_same_student(finished: tuple[Path, Result], tmp_path: Path) -> None:
    assert distill(tmp_path / "again", "--seed", 5).code == 0
    assert distill(tmp_path / "other", "--seed", 6).code == 0
    student = (finished[0] / "student.safetensors").read_bytes()
    assert (tmp_path / "again" / "student.safetensors").read_bytes() == student
    assert (tmp_path / "other" / "student.safetensors").read_bytes() != student


@pytest.mark.parametrize("rounds", [0, 1])
def test_interrupted_run_goes_on_to_the_same_student(
    rounds: int, finished: tuple[Path, Result], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with interrupt_after(rounds):
        result = distill(out, "--seed", 5)
    assert result.code == 130, result.stderr
    assert f"stopped after {rounds + 1} rounds" in result.stdout
    assert_resumes(result, "distill", out)
    assert {path.name for path in out.iterdir()} == {
        "config.json", "command.txt", "checkpoint.json", f"checkpoint.{rounds + 1}.safetensors",
        f"recent.{rounds + 1}.safetensors", "student.safetensors", "student.json", "tensorboard", ".lock",
    }  # fmt: skip
    result = in_this_process("distill", "--out", out, "--resume")
    assert result.code == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {path.name for path in finished[0].iterdir()}
    for name in ("student.safetensors", "picture.png"):
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes()
    lines = [read_lines(folder / "results.jsonl")[0] for folder in (out, finished[0])]
    assert lines[0]["final"] == lines[1]["final"] and lines[0]["actions"] == lines[1]["actions"]
    assert curves(out) == curves(finished[0])


def test_interrupted_run_keeps_the_student_so_far(tmp_path: Path) -> None:
    """With its card, and its scores said."""
    out = tmp_path / "out"
    with interrupt_after(1):
        result = distill(out, "--seed", 5)
    task = load_task("digits")
    student = task.build_student(seed=1)
    load_weights("student", out / "student.safetensors", student)
    accuracy = task.accuracy(student.eval(), "cpu")
    assert accuracy == pytest.approx(curves(out)["student/accuracy"][-1][1], abs=1e-6)
    assert f"accuracy on real images: {accuracy:.4f}" in result.stdout
    card = json.loads((out / "student.json").read_text())
    assert card["rounds"] == {"done": 2, "progress": pytest.approx(2 / 3)}
    assert card["top1"]["evaluation"] == pytest.approx(accuracy, abs=1e-6)


def test_run_interrupted_before_the_first_round_has_no_student(tmp_path: Path) -> None:
    """One that has learned nothing is of no use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stopper, "__call__", lambda self: True)
        result = distill(tmp_path / "out", "--seed", 5)
    assert result.code == 130 and "stopped after 0 rounds" in result.stdout
    assert not (tmp_path / "out" / "student.safetensors").exists()


def test_curves_of_a_killed_run_have_every_step_once(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its second round, whose checkpoint was of the first; and before any checkpoint."""
    for every, first in ((0.0, 1), (1e9, 0)):
        out = tmp_path / str(first)
        saved: list[int] = []
        monkeypatch.setattr("ssdkd_agents.benchmarking.experiments.SAVE_EVERY", every)
        with pytest.MonkeyPatch.context() as patch:
            original = DistillationEpisode.save

            def save(self: DistillationEpisode, path: Path, original: Any = original, saved: Any = saved) -> None:
                saved.append(1)
                if len(saved) == 2:
                    raise SystemExit(9)
                original(self, path)

            patch.setattr(DistillationEpisode, "save", save)
            if every:
                patch.setattr(DistillationEpisode, "advance", _dies_in_the_second_round())
            assert distill(out, "--seed", 5).code == 9
        assert {step for step, _ in curves(out)["student/probe_agreement"]} == set(range(first + 2))
        assert (out / "checkpoint.json").exists() == bool(first)
        assert in_this_process("distill", "--out", out, "--resume").code == 0
        assert curves(out) == curves(finished[0])


def _dies_in_the_second_round() -> Callable[[DistillationEpisode], None]:
    original, played = DistillationEpisode.advance, []

    def advance(self: DistillationEpisode) -> None:
        played.append(1)
        if len(played) == 2:
            raise SystemExit(9)
        original(self)

    return advance


def test_what_is_kept_is_what_an_interrupted_run_keeps(tmp_path: Path) -> None:
    """Images, the teacher's answers and the generator, whenever it was interrupted."""
    keep = ("--keep-images", 30, "--keep-logits", "float16", "--keep-generator")
    assert distill(tmp_path / "whole", *keep).code == 0
    with interrupt_after(1):
        assert distill(tmp_path / "halves", *keep).code == 130
    result = in_this_process("distill", "--out", tmp_path / "halves", "--resume")
    assert result.code == 0, result.stderr
    whole, halves = (SyntheticImages(tmp_path / name / "images.safetensors") for name in ("whole", "halves"))
    assert len(whole) == 30 and whole.logits is not None and whole.logits.dtype == torch.float16
    for name in ("images", "labels", "rounds", "logits"):
        assert torch.equal(getattr(whole, name), getattr(halves, name))
    generators = [(tmp_path / name / "generator.safetensors").read_bytes() for name in ("whole", "halves")]
    assert generators[0] == generators[1]
    assert f"images: {tmp_path / 'halves' / 'images.safetensors'} (30, " in result.stdout
    assert not list((tmp_path / "halves").glob("recent*")) and not list((tmp_path / "halves").glob("checkpoint*"))
    assert whole.card["seed"] == 0 and whole.card["method"] == "ssdkd" and whole.card["round"] == 3
    assert whole.card["taught_by"]["digest"] == load_task("digits").teacher_digest()


def test_another_student_learns_from_the_images(tmp_path: Path) -> None:
    """In plain PyTorch, without the engine, which would ask the teacher about augmented images, too."""
    result = in_this_process("distill", "--out", tmp_path / "out", "--keep-images", 1000)
    assert result.code == 0, result.stderr
    data, temperature = SyntheticImages(tmp_path / "out" / "images.safetensors"), 4.0
    torch.manual_seed(0)
    student = load_task("digits").build_student(0).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.005)
    for _ in range(30):
        for inputs, _, logits in torch.utils.data.DataLoader(data, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            targets = (logits / temperature).softmax(dim=1)
            (temperature**2 * torch.nn.functional.cross_entropy(student(inputs) / temperature, targets)).backward()
            optimizer.step()
    accuracy = load_task("digits").accuracy(student.eval(), "cpu")
    assert accuracy is not None and accuracy > 0.6, "of ten classes"


def test_full_disk_is_a_line_and_keeps_the_student(tmp_path: Path) -> None:
    """One that is full for the images, which are larger; --resume writes them once there is room."""
    out = tmp_path / "out"
    many = ("--budget.candidates", 3000, "--budget.buffer-capacity", 3000, "--budget.inversion-steps", 1)
    with file_size_limited_to(250_000):
        result = distill(out, "--keep-images", "buffer", *many)
    assert_refused(result, f"cannot write {out / 'images.safetensors'}: File too large; free some space")
    assert f"student: {out / 'student.safetensors'}" in result.stdout
    student = (out / "student.safetensors").read_bytes()
    assert not (out / "results.jsonl").exists()
    result = in_this_process("distill", "--out", out, "--resume")
    assert result.code == 0, result.stderr
    assert len(SyntheticImages(out / "images.safetensors")) == 3000
    assert (out / "student.safetensors").read_bytes() == student


def test_full_disk_is_a_line_where_the_curves_meet_it(tmp_path: Path) -> None:
    with file_size_limited_to(4_000):
        assert_refused(distill(tmp_path / "out"), "tfevents")


@contextmanager
def file_size_limited_to(most: int) -> Iterator[None]:
    """As on a full disk, a larger file is not written to its end."""
    usual, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)


def test_images_of_few_classes_are_said_on_a_line_of_their_own(tmp_path: Path) -> None:
    """Not behind the progress bar, and once."""
    result = in_process_of_its_own("distill", "--out", tmp_path / "out", "--method", "dafl", "--budget.rounds", 3)
    assert result.code == 0
    (line,) = (line for line in re.split("[\r\n]", result.stderr) if "few classes" in line)
    assert line.startswith("warning: round 1: the images are of few classes, effectively ")


def test_page_of_a_distillation_begins_with_its_results(finished: tuple[Path, Result]) -> None:
    assert f"curves: tensorboard --logdir {finished[0]}" in finished[1].stdout
    (folder,) = (path for path in finished[0].iterdir() if path.name == "tensorboard")
    events = EventAccumulator(str(folder)).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    categories = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    assert [chart.multiline.tag[0] for chart in categories[0].chart] == ["student/accuracy", "student/probe_agreement"]
    charts = {chart.multiline.tag[0] for category in categories for chart in category.chart}
    assert charts <= curves(finished[0]).keys() and "inversion/effective_classes" in charts
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    row = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
    assert row["algorithm"].string_value == "distill: ssdkd, own" and row["seed"].number_value == 5
    assert row["env_id"].string_value == "digits" and "'rounds': 3" in row["env_kwargs"].string_value


def test_finished_run_stays_as_it_is(finished: tuple[Path, Result]) -> None:
    before = contents(finished[0])
    for name in (
        "checkpoint.json",
        "checkpoint.2.safetensors",
        "recent.2.safetensors",
    ):  # of a process that was killed at its very end
        (finished[0] / name).touch()
    result = in_this_process("distill", "--out", finished[0], "--resume")
    assert result.code == 0, result.stderr
    assert f"this run is finished; student: {finished[0] / 'student.safetensors'}" in result.stdout
    assert contents(finished[0]) == before


def test_folder_of_another_command_is_not_resumed(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", {"sampler": "paper", "seed": 0})
    result = in_this_process("distill", "--out", tmp_path / "run", "--resume")
    assert_refused(result, "was not made by ssdkd distill")
    assert_refused(in_this_process("distill", "--out", tmp_path / "none", "--resume"), "holds no run")


def test_own_teacher_and_evaluation_data(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """The shipped teacher under another name gives the same student; evaluation data influence nothing."""
    teacher = tmp_path / "mine.safetensors"
    teacher.write_bytes(SHIPPED_TEACHER.read_bytes())
    data = real_images(tmp_path / "real.npz")
    result = distill(tmp_path / "out", "--seed", 5, "--teacher", teacher, "--evaluation", data)
    assert result.code == 0, result.stderr
    student = (finished[0] / "student.safetensors").read_bytes()
    assert (tmp_path / "out" / "student.safetensors").read_bytes() == student
    (first,), (second,) = read_lines(finished[0] / "results.jsonl"), read_lines(tmp_path / "out" / "results.jsonl")
    assert first["final"]["accuracy"] != second["final"]["accuracy"]
    assert first["final"]["probe_agreement"] == second["final"]["probe_agreement"]


def test_teacher_is_introduced(finished: tuple[Path, Result]) -> None:
    """What it is, what its inputs were normalised with and who says so, and how good it is on real images."""
    said = finished[1].stdout
    assert "teacher: digits_teacher.safetensors (convnet); inputs normalised with mean " in said
    assert "as the task has it" in said
    accuracy = load_task("digits").accuracy(load_task("digits").teacher_on(torch.device("cpu")), "cpu")
    assert f"its accuracy on real images: {accuracy:.4f}" in said and "warning" not in said


def test_student_is_a_teacher_with_its_card(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """Read back it is the network that it was, normalised as it was."""
    student = finished[0] / "student.safetensors"
    card = json.loads(student.with_suffix(".json").read_text())
    assert card["arch"] == DIGITS.student_arch and card["normalization"]["mean"] == list(DIGITS.mean)
    result = distill(tmp_path / "next", "--teacher", student)
    assert result.code == 0, result.stderr
    (line,) = read_lines(finished[0] / "results.jsonl")
    assert f"its accuracy on real images: {line['final']['accuracy']:.4f}" in result.stdout
    assert "as its card says" in result.stdout
    assert card["top1"]["evaluation"] == pytest.approx(line["final"]["accuracy"], abs=1e-6)
    assert card["taught_by"]["digest"] == load_task("digits").teacher_digest()


def test_teacher_far_below_its_card_is_said(tmp_path: Path) -> None:
    teacher = tmp_path / "mine.safetensors"
    teacher.write_bytes(SHIPPED_TEACHER.read_bytes())
    teacher.with_suffix(".json").write_text(json.dumps({"top1": {"test": 0.98}}))
    result = distill(tmp_path / "out", "--teacher", teacher, "--mean", "0.9", "--std", "0.1")
    assert result.code == 0, result.stderr
    assert "inputs normalised with mean 0.9, std 0.1, as given" in result.stdout
    assert "warning: its card says 0.9800: is it the right file" in result.stdout
    result = distill(tmp_path / "right", "--teacher", teacher)
    assert "as the task has it; was it trained so? else give --mean and --std" in result.stdout
    assert "warning" not in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mean", "0.5", "0.5"), "mean=(0.5, 0.5): expected 1 finite numbers, one a channel"),
        (("--std", "0"), "std=(0.0,): expected 1 finite numbers above 0"),
        (("--mean", "125.3"), "divide those of pixels from 0 to 255 by 255"),
        (("--teacher-weights", "ema"), "teacher_weights='ema' needs weights of its own"),
    ],
)
def test_normalisation_that_cannot_be_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert_refused(distill(tmp_path / "out", *words), said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sampler", ["uniform", "random", "constant:[0, 0, 0, 0, 1]"])
def test_other_samplers(sampler: str, tmp_path: Path) -> None:
    assert distill(tmp_path / "out", "--sampler", sampler).code == 0
    (line,) = read_lines(tmp_path / "out" / "results.jsonl")
    assert line["sampler"] == sampler
    assert len({str(action) for action in line["actions"]}) == (3 if sampler == "random" else 1)


def test_diverged_student_is_announced(tmp_path: Path) -> None:
    result = distill(tmp_path / "out", "--student.lr", "1e30")
    assert result.code == 0, result.stderr
    assert "the student diverged (NaN)" in result.stdout
    (line,) = read_lines(tmp_path / "out" / "results.jsonl")
    assert line["final"]["diverged"] is True


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--task", "nope"), "task='nope' is unknown; choose one of: "),
        (("--task", "no_such_package:spec"), "task='no_such_package:spec'"),
        (("--task", "ssdkd_env.tasks:nope"), "task='ssdkd_env.tasks:nope'"),
        (("--method", "nope"), "nope"),
        (("--sampler", "nope"), "sampler='nope'"),
        (("--sampler", "constant:[1]"), "sampler='constant:[1]'"),
        (("--student-arch", "nope"), "student_arch='nope'"),
        (("--student-arch", "no_such_package:make"), "student_arch='no_such_package:make'"),
        (("--generator-arch", "nope"), "generator_arch='nope'"),
        (("--teacher-arch", "convnet"), "teacher_arch='convnet' needs weights"),
        (("--teacher-arch", "nope", "--teacher", SHIPPED_TEACHER), "teacher_arch='nope'"),
        (("--budget", "rounds=3"), "--budget is an option of an earlier version; give --budget.rounds 3"),
        (("--budget.rounds", "0"), "budget['rounds']=0"),
        (("--budget.rounds", "-3"), "budget['rounds']=-3"),
        (("--student", "lr"), "give --student.NAME VALUE"),
        (("--student.lr", "NaN"), "student['lr']=nan"),
        (("--student.lr", "-1"), "lr"),
        (("--method-options.temperature", "-1"), "temperature"),
        (("--method-options.memory", "nope"), "method_options['memory']='nope'"),
        (("--device", "abacus"), "device='abacus'"),
        (("--seed", "-1"), "seed=-1: expected a whole number from 0 to 2**63 - 1"),
        (("--seed", str(2**63)), f"seed={2**63}: expected a whole number from 0 to 2**63 - 1"),
        (("--keep-images", "0"), "--keep-images 0: expected buffer, or a number from 1 to"),
        (("--keep-logits", "float16"), "--keep-logits float16 needs images"),
        (("--keep-generator", "--method", "deepinversion"), "--keep-generator: method 'deepinversion' has none"),
        (("--keep-images", "buffer", "--method", "vanilla_kd"), "--keep-images: method 'vanilla_kd' synthesises none"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_bad_argument_is_refused_before_anything_is_written(
    arguments: tuple[object, ...], match: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert_refused(in_this_process("distill", "--out", out, *arguments), match)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--budget.rounds", "many"), "--budget.rounds"),
        (("--budget.rounds", "1.5"), "--budget.rounds"),
        (("--student.lr", "fast"), "--student.lr"),
        (("--method-options.bogus", "1"), "--method-options.bogus"),
        (("--method-options.name", "mine"), "--method-options.name"),
        (("--reward", "probe_agreement"), "--reward"),
        (("--teacher", "None"), "teacher='None'"),
        (("--keep-images", "some"), "--keep-images"),
        (("--keep-logits", "int8"), "--keep-logits"),
    ],
)
def test_what_no_setting_takes_is_refused_by_its_option(arguments: tuple[str, str], named: str, tmp_path: Path) -> None:
    result = in_this_process("distill", "--out", tmp_path / "out", *arguments)
    assert result.code == 2
    assert named in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", BAD_TEACHERS)
def test_bad_teacher_is_refused_and_never_executed(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    assert_refused(distill(tmp_path / "out", "--teacher", path), f"teacher={str(path)!r}")
    assert not marker(tmp_path).exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", BAD_DATA.values(), ids=BAD_DATA)
def test_bad_evaluation_data_is_refused_before_anything_is_written(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "real.npz")
    assert_refused(distill(tmp_path / "out", "--evaluation", path), "evaluation")
    assert not marker(tmp_path).exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_place_that_cannot_be_written_is_refused(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(distill(tmp_path / out), str(tmp_path / out))
    assert contents(tmp_path) == {"file": b"mine"}
