"""Train a teacher on real images, for a later run without them.

Examples:
  ssdkd teacher --out runs/teacher --task digits
  ssdkd teacher --out runs/long --settings.epochs 400 --minutes 9
  ssdkd teacher --out runs/long --resume
  ssdkd teacher --out runs/uneven --imbalance.profile long_tailed --imbalance.ratio 50
  tensorboard --logdir runs

Writes teacher.safetensors and its card teacher.json, results.jsonl, tensorboard logs, config.json and command.txt into
the folder. The weights are those of the last epoch: test images are measured on, and choose nothing. Ctrl-C and
--minutes save a checkpoint first; --resume continues from the last one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import tyro

from ssdkd_agents.commands.command_line import Plugins, launch, resuming
from ssdkd_agents.inputs import absolute
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.schemas import config_of
from ssdkd_agents.stopping import Stopper
from ssdkd_agents.teachers import CARD, WEIGHTS, RealData, TeacherRun, forget_checkpoint
from ssdkd_env.devices import select_device
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import Count, Text, check_bounds, conform
from ssdkd_env.tasks.data.imbalance import ImbalanceSettings, with_imbalance
from ssdkd_env.tasks.data.readers import read_both, read_split
from ssdkd_env.tasks.registry import TASKS, with_real_data
from ssdkd_env.tasks.task import TaskSpec, build_teacher, check_classifier, check_images
from ssdkd_env.tasks.teacher import TeacherSettings, TeacherTraining


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd teacher`."""

    out: Path
    """Folder for the results; must be new or empty, unless --resume."""
    task: str = "digits"
    """Task whose teacher architecture, image size and normalisation apply, or import path of a TaskSpec."""
    teacher_arch: str | None = None
    """Another architecture, by name or import path package.module:factory."""
    data: str | None = None
    """Real data in place of the task's own: folder, CIFAR batches, tar, zip, .npz or hub:owner/name (load_split)."""
    test_data: str | None = None
    """The same, to measure top-1 on; else the test split of --data. Data without splits need it."""
    data_root: str | None = None
    """Folder that holds the task's own data set, such as cifar10; else SSDKD_DATA."""
    device: str = "auto"
    """auto, cpu or cuda."""
    resume: bool = False
    """Continue the run in --out, with its own arguments; but data paths and the next four may be given anew."""
    checkpoint_every_epochs: int = 10
    """Epochs between checkpoints."""
    evaluate_every_epochs: int = 5
    """Epochs between measurements of top-1 on the test images; 0 measures after the last epoch only."""
    minutes: float = 0.0
    """Stop with a checkpoint and exit code 0 once the command has run for so long; 0 for no limit."""
    progress_bar: bool = True
    """Show a progress bar."""
    settings: TeacherSettings = field(default_factory=TeacherSettings)
    """The optimiser."""
    imbalance: ImbalanceSettings = field(default_factory=ImbalanceSettings)
    """Images of each class to train on; those that are measured on stay as they are."""


def main(args: Arguments, words: Sequence[str] | None = None) -> None:
    """Do what the command line says.

    Args:
        args: of the command line.
        words: that they were parsed from; `sys.argv` where None.
    """
    started = time.monotonic()
    folder = None
    if args.resume:
        folder = RunFolder.resume(args.out)
        args = _arguments_of_run(folder, words)
        if (folder.path / CARD).is_file():
            forget_checkpoint(folder.path)  # of a process that was killed right before it did so
            print(f"this run is finished; weights: {folder.path / WEIGHTS}")
            return
    for name, low in (("checkpoint_every_epochs", 1), ("evaluate_every_epochs", 0), ("minutes", 0)):
        if not getattr(args, name) >= low:
            argument = name.replace("_", "-")
            raise InvalidInputError(f"--{argument}={getattr(args, name)}: expected a number of at least {low}")
    spec = TASKS.find(args.task)
    if args.teacher_arch is not None:
        spec = replace(spec, teacher_arch=args.teacher_arch, teacher_options={})
    data = _real_data(args, spec)
    label_dims = check_classifier("teacher", build_teacher(spec, seed=0).eval(), spec) - 1
    check_images("--data", *data.train, spec, label_dims)
    check_images("--test-data", *data.test, spec, label_dims)
    train = with_imbalance(data.train, args.imbalance, spec.num_classes, "--imbalance.profile")
    data = replace(data, train=train, imbalance=args.imbalance)
    training = TeacherTraining(spec, data.train, args.settings, select_device(args.device))
    folder = folder or RunFolder(args.out, _config(args, data))
    run = TeacherRun(
        folder, spec, data, training, args.checkpoint_every_epochs, args.evaluate_every_epochs, args.progress_bar
    )
    if args.resume:
        run.load()
    print(f"curves: tensorboard --logdir {args.out}")
    with Stopper(60 * args.minutes - (time.monotonic() - started) if args.minutes else None) as stop:
        finished = run.train(stop)
    if not finished:
        print(f"stopped in epoch {training.epochs_done + 1} of {args.settings.epochs}; checkpoint: {run.checkpoint}")
        print(f"continue with: {resuming(args.out)}")
        sys.exit(130 if stop.interrupted else 0)


def _real_data(args: Arguments, spec: TaskSpec) -> RealData:
    """The images that the arguments name, or else the task's own.

    Raises:
        InvalidInputError: when there are none, the arguments contradict each other, or a file is unusable.
    """
    if args.data is not None:
        if args.data_root is not None:
            raise InvalidInputError("--data and --data-root both say what to train on; give one of them")
        source = Path(args.data).resolve().name if Path(args.data).exists() else args.data
        if args.test_data is None:
            return RealData(source, *read_both("--data", args.data, spec, "or --test-data beside it"))
        test = read_split("--test-data", args.test_data, "test", spec)
        return RealData(source, read_split("--data", args.data, "train", spec), test)
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
    return RealData(spec.dataset or spec.name, *teacher_data())


#: Arguments of a command rather than of the run: they are not kept with it.
OF_THE_COMMAND = {"out", "resume", "plugins"}


def _config(args: Arguments, data: RealData) -> dict[str, Any]:
    """What `_arguments_of_run` and a reader need to know of the run, as JSON values."""
    values = {name: value for name, value in asdict(args).items() if name not in OF_THE_COMMAND}
    values |= {name: absolute(values[name]) for name in ("data", "test_data", "data_root") if values[name] is not None}
    return values | {"digests": data.digests()}


class _Saved(TypedDict):
    """`config.json` of a run, but for what is checked as `TeacherSettings` and `ImbalanceSettings`."""

    task: Text
    teacher_arch: Text | None
    data: Text | None
    test_data: Text | None
    data_root: Text | None
    device: Text
    checkpoint_every_epochs: Count
    evaluate_every_epochs: Count
    minutes: float
    progress_bar: bool
    settings: dict[str, Any]
    imbalance: dict[str, Any]
    digests: dict[str, Text]


def _arguments_of_run(folder: RunFolder, words: Sequence[str] | None) -> Arguments:
    """The arguments of an earlier run, except for those that this command gives anew.

    Raises:
        InvalidInputError: when the run was not made by this script, or what it depends on is given anew.
    """
    names = {argument.name for argument in fields(Arguments)} - OF_THE_COMMAND
    config = {"imbalance": {}} | folder.config  # which the oldest runs do not have
    values = {name: value for name, value in config.items() if name in names}
    if set(config) != names | {"digests", "versions"}:
        raise InvalidInputError(f"--resume: {folder.path} was not made by ssdkd teacher; give the folder of such a run")
    check_bounds(config, folder.path)
    conform(config, _Saved, folder.path, "start anew in another folder")
    settings = config_of(values.pop("settings"), TeacherSettings, folder.path, "ssdkd teacher")
    imbalance = config_of(values.pop("imbalance"), ImbalanceSettings, folder.path, "ssdkd teacher")
    saved = Arguments(out=folder.path, resume=True, settings=settings, imbalance=imbalance, **values)
    # Parsed again, so that what the command line does not name is the run's, not this script's default.
    given = tyro.cli(Arguments, default=saved, prog="ssdkd teacher", args=words)
    for name in ("task", "teacher_arch", "device"):
        if getattr(given, name) != getattr(saved, name):
            raise InvalidInputError(
                f"--resume with {name}={getattr(given, name)!r}: the run in {folder.path} has "
                f"{name}={getattr(saved, name)!r}; leave the argument out, or start a new run"
            )
    return given


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, partial(main, words=arguments), __doc__, "ssdkd teacher", arguments)
