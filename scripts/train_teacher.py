"""Train a teacher on real images, for a later run without them.

Examples:
  python scripts/train_teacher.py --out runs/teacher --task digits
  python scripts/train_teacher.py --out runs/long --settings.epochs 400 --minutes 9
  python scripts/train_teacher.py --out runs/long --resume
  tensorboard --logdir runs

Writes teacher.safetensors and its card teacher.json, results.jsonl, tensorboard logs, config.json and command.txt into
the folder. The weights are those of the last epoch: test images are measured on, and choose nothing. Ctrl-C and
--minutes save a checkpoint first; --resume continues from the last one.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from _cli import launch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from agents.runs import RunFolder, read_lines, versions
from ssdkd_env.envs.distillation import select_device
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, save_state, write_atomically, write_json
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.tasks.data import load_split
from ssdkd_env.tasks.registry import find_spec, with_real_data
from ssdkd_env.tasks.task import (
    LabelledImages,
    TaskSpec,
    build_teacher,
    check_classifier,
    check_images,
    top1_accuracy,
)
from ssdkd_env.tasks.teacher import TeacherSettings, TeacherTraining

WEIGHTS, CARD, CHECKPOINT, RESULTS = "teacher.safetensors", "teacher.json", "checkpoint.safetensors", "results.jsonl"


@dataclass
class Arguments:
    """Command line of train_teacher."""

    out: Path
    """Folder for the results; must be new or empty, unless --resume."""
    task: str = "digits"
    """Task whose teacher architecture, image size and normalisation apply, or import path of a TaskSpec."""
    teacher_arch: str | None = None
    """Another architecture, by name or import path package.module:factory."""
    data: str | None = None
    """Real data in place of the task's own: image folder, CIFAR batches, tar, .npz or hub:owner/name (load_split)."""
    test_data: str | None = None
    """The same, to measure top-1 on; else the test split of --data. An .npz has no splits and needs it."""
    data_root: str | None = None
    """Folder that holds the task's own data set, such as cifar10; else SSDKD_DATA."""
    device: str = "auto"
    """auto, cpu or cuda."""
    resume: bool = False
    """Continue the run in --out, with its own arguments; but data paths and the next four may be given anew."""
    checkpoint_every: int = 10
    """Epochs between checkpoints."""
    evaluate_every: int = 5
    """Epochs between measurements of top-1 on the test images; 0 measures after the last epoch only."""
    minutes: float = 0.0
    """Stop with a checkpoint and exit code 0 once the command has run for so long; 0 for no limit."""
    progress_bar: bool = True
    """Show a progress bar."""
    settings: TeacherSettings = field(default_factory=TeacherSettings)
    """The optimiser."""


def main(args: Arguments) -> None:
    started = time.monotonic()
    folder = None
    if args.resume:
        folder = RunFolder(args.out, None)
        args = _arguments_of_run(folder)
        if (folder.path / CARD).is_file():
            print(f"this run is finished; weights: {folder.path / WEIGHTS}")
            return
    for name, low in (("checkpoint_every", 1), ("evaluate_every", 0), ("minutes", 0)):
        if not getattr(args, name) >= low:
            argument = name.replace("_", "-")
            raise InvalidInputError(f"--{argument}={getattr(args, name)}: expected a number of at least {low}")
    spec = find_spec(args.task)
    if args.teacher_arch is not None:
        spec = replace(spec, teacher_arch=args.teacher_arch, teacher_options={})
    data = _real_data(args, spec)
    label_dims = check_classifier("teacher", build_teacher(spec, seed=0).eval(), spec) - 1
    check_images("--data", *data.train, spec, label_dims)
    check_images("--test-data", *data.test, spec, label_dims)
    training = TeacherTraining(spec, data.train, args.settings, select_device(args.device))
    run = _Run(args, folder or RunFolder(args.out, _config(args, data)), spec, data, training)
    if args.resume:
        run.load()
    print(f"curves: tensorboard --logdir {args.out}")
    with _Stop(args.minutes, started) as stop:
        finished = run.train(stop)
    if not finished:
        print(f"stopped in epoch {training.epochs_done + 1} of {args.settings.epochs}; checkpoint: {run.checkpoint}")
        print(f"continue with: python scripts/train_teacher.py --out {shlex.quote(str(args.out))} --resume")
        sys.exit(130 if stop.interrupted else 0)


@dataclass(frozen=True)
class _RealData:
    """Images to train on and to measure on.

    Attributes:
        source: name for the teacher's card.
        train, test: images (N, C, H, W) uint8 and labels.
    """

    source: str
    train: LabelledImages
    test: LabelledImages

    def digests(self) -> dict[str, str]:
        """Hashes of both parts, by which a resumed run knows its data."""
        return {name: _digest(part) for name, part in (("train", self.train), ("test", self.test))}


def _real_data(args: Arguments, spec: TaskSpec) -> _RealData:
    """The images that the arguments name, or else the task's own.

    Raises:
        InvalidInputError: when there are none, the arguments contradict each other, or a file is unusable.
    """
    if args.data is not None:
        if args.test_data is None and args.data.endswith(".npz"):
            raise InvalidInputError(
                "--data and --test-data go together when --data is an .npz, which has no splits: top-1 is measured on "
                "images not trained on"
            )
        if args.data_root is not None:
            raise InvalidInputError("--data and --data-root both say what to train on; give one of them")
        source = Path(args.data).resolve().name if Path(args.data).exists() else args.data
        test = ("--data", args.data) if args.test_data is None else ("--test-data", args.test_data)
        channels = spec.image_shape[0]
        return _RealData(
            source, load_split("--data", args.data, "train", channels), load_split(*test, "test", channels)
        )
    if args.test_data is not None:
        raise InvalidInputError("--test-data without --data: top-1 of a teacher is measured on the same data set")
    if args.data_root is not None and not spec.dataset:
        raise InvalidInputError(f"--data-root: task {spec.name!r} names no data set to be found there; give --data")
    teacher_data = with_real_data(spec, args.data_root).teacher_data
    if teacher_data is None:
        raise InvalidInputError(
            f"task {spec.name!r} brings no real data; give "
            + (f"--data-root, the folder with {spec.dataset} (or set SSDKD_DATA), or " if spec.dataset else "")
            + "--data and --test-data"
        )
    return _RealData(spec.dataset or spec.name, *teacher_data())


def _digest(part: LabelledImages) -> str:
    digest = hashlib.sha256()
    for tensor in part:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def _config(args: Arguments, data: _RealData) -> dict[str, Any]:
    """What `_arguments_of_run` and a reader need to know of the run, as JSON values."""
    values = {name: value for name, value in asdict(args).items() if name not in ("out", "resume")}
    return values | {"digests": data.digests()}


def _arguments_of_run(folder: RunFolder) -> Arguments:
    """The arguments of an earlier run, except for those that this command gives anew.

    Raises:
        InvalidInputError: when the run was not made by this script, or what it depends on is given anew.
    """
    names = {argument.name for argument in fields(Arguments)} - {"out", "resume"}
    values = {name: value for name, value in folder.config.items() if name in names}
    if set(folder.config) != names | {"digests", "versions"}:
        raise InvalidInputError(f"--resume: {folder.path} was not made by train_teacher; give the folder of such a run")
    settings = values.pop("settings")
    settings = TeacherSettings(**settings | {"milestones": tuple(settings["milestones"])})
    saved = Arguments(out=folder.path, resume=True, settings=settings, **values)
    # Parsed again, so that what the command line does not name is the run's, not this script's default.
    given = tyro.cli(Arguments, default=saved)
    for name in ("task", "teacher_arch", "device"):
        if getattr(given, name) != getattr(saved, name):
            raise InvalidInputError(
                f"--resume with {name}={getattr(given, name)!r}: the run in {folder.path} has "
                f"{name}={getattr(saved, name)!r}; leave the argument out, or start a new run"
            )
    return given


class _Stop:
    """Tells a training when to pause: after Ctrl-C inside its `with` block (a second one ends at once), or in time.

    Args:
        minutes: the time; 0 for no limit.
        started: reading of `time.monotonic` from which they count.
    """

    def __init__(self, minutes: float, started: float) -> None:
        self.interrupted = False
        self._deadline = started + 60 * minutes if minutes else float("inf")
        self._previous: Any = None

    def __call__(self) -> bool:
        return self.interrupted or time.monotonic() >= self._deadline

    def __enter__(self) -> _Stop:
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, *_: object) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


class _Run:
    """A training with its folder: checkpoints, curves, measurements and the finished teacher."""

    def __init__(
        self, args: Arguments, folder: RunFolder, spec: TaskSpec, data: _RealData, training: TeacherTraining
    ) -> None:
        self.checkpoint = folder.path / CHECKPOINT
        self._args, self._folder, self._spec, self._data, self._training = args, folder, spec, data, training
        self._test = data.test[0].to(training.device), data.test[1].to(training.device)
        self._started = time.perf_counter()

    def load(self) -> None:
        """Continue from the checkpoint; measurements made after it are forgotten, for they will be made again.

        Raises:
            InvalidInputError: when there is no checkpoint, or it belongs to other data or settings.
        """
        if not self.checkpoint.is_file():
            raise InvalidInputError(
                f"--resume: {self._folder.path} holds no {CHECKPOINT}; start anew in another folder, or delete this "
                "one first"
            )
        for part, digest in self._data.digests().items():
            if digest != self._folder.config["digests"][part]:
                raise InvalidInputError(f"--resume: the {part} images are not those of the run; give the same data")
        saved = load_state(self.checkpoint)
        self._training.load_state_dict(saved["training"])
        self._started -= saved["seconds"]
        results = self._folder.path / RESULTS
        if results.is_file():
            lines = [line for line in read_lines(results, ("epoch",)) if line["epoch"] <= self._training.epochs_done]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            write_atomically(results, lambda temporary: temporary.write_text(text))

    def train(self, stop: _Stop) -> bool:
        """Train to the end, or until `stop` says so with a checkpoint; returns whether this is the end."""
        training = self._training
        purge_step = training.epochs_done + 1 if self._args.resume else None
        with (
            closing(SummaryWriter(str(self._folder.path / "tensorboard"), purge_step=purge_step)) as curves,
            tqdm(
                total=self._args.settings.epochs,
                initial=training.epochs_done,
                unit="epoch",
                disable=not self._args.progress_bar,
            ) as bar,
        ):
            while not training.done:
                loss = training.epoch(stop)
                if loss is None:
                    break
                self._log_epoch(loss, curves)
                bar.set_postfix(loss=f"{loss:.3f}")
                bar.update()
                if stop():
                    break
                if training.epochs_done % self._args.checkpoint_every == 0:
                    self._save_checkpoint()
            self._save_checkpoint()
            if training.done:
                self._finish(curves)
        return training.done

    def _log_epoch(self, loss: float, curves: SummaryWriter) -> None:
        training, every = self._training, self._args.evaluate_every
        curves.add_scalar("train/loss", loss, training.epochs_done)
        curves.add_scalar("train/learning_rate", training.learning_rate, training.epochs_done)
        if every and training.epochs_done % every == 0 and not training.done:
            measured = {"train_loss": loss, "learning_rate": training.learning_rate} | self._measure(curves)
            self._folder.append(measured)
        curves.flush()

    def _measure(self, curves: SummaryWriter) -> dict[str, Any]:
        training = self._training
        top1 = top1_accuracy(training.network, self._test, self._spec)
        curves.add_scalar("test/top1", top1, training.epochs_done)
        return {
            "epoch": training.epochs_done,
            "test_top1": top1,
            "test_images": len(self._test[0]),
            "seconds": self._seconds(),
        }

    def _seconds(self) -> float:
        """Spent on this training by all commands that worked on it, from the moment the images were loaded."""
        return time.perf_counter() - self._started

    def _save_checkpoint(self) -> None:
        save_state(self.checkpoint, {"training": self._training.state_dict(), "seconds": self._seconds()})

    def _finish(self, curves: SummaryWriter) -> None:
        """Write weights, card and the last line of results; a finished run needs its checkpoint no more."""
        training, path = self._training, self._folder.path
        result = self._measure(curves) | {
            "train_top1": top1_accuracy(training.network, training.data, self._spec),
            "train_images": len(training.data[0]),
            "torch_threads": torch.get_num_threads(),
        }
        save_weights(path / WEIGHTS, training.network)
        self._folder.append(result)
        write_json(path / CARD, self._card(result))
        self.checkpoint.unlink()
        print(f"top-1 on {result['test_images']} held-out images: {result['test_top1']:.4f}")
        print(f"weights: {path / WEIGHTS}; card: {path / CARD}")

    def _card(self, result: dict[str, Any]) -> dict[str, Any]:
        """What a user of the weights needs to know, as JSON values."""
        spec, training = self._spec, self._training
        on_cuda = training.device.type == "cuda"
        return {
            "weights": WEIGHTS,
            "task": spec.name,
            "arch": spec.teacher_arch,
            "options": spec.teacher_options,
            "parameters": sum(parameter.numel() for parameter in training.network.parameters()),
            "num_classes": spec.num_classes,
            "image_shape": spec.image_shape,
            "normalization": {"mean": spec.mean, "std": spec.std},
            "data": self._data.source,
            "top1": {
                "test": result["test_top1"],
                "test_images": result["test_images"],
                "train": result["train_top1"],
                "train_images": result["train_images"],
            },
            "epoch": training.epochs_done,
            "settings": asdict(training.settings),
            "precision": training.precision,
            "command": (self._folder.path / "command.txt").read_text().strip(),
            "versions": versions(),
            "seconds": result["seconds"],
            "device": torch.cuda.get_device_name(training.device) if on_cuda else "cpu",
            "torch_threads": result["torch_threads"],
        }


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
