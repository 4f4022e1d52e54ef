"""The paper's protocols: train the teachers, then compare SSD-KD with others, in pieces that resume.

Examples:
  python scripts/paper_protocol.py --out runs/protocol --data-root data --minutes 9
  python scripts/paper_protocol.py --out runs/nyuv2 --task nyuv2 --data-root data --minutes 9
  python scripts/paper_protocol.py --out runs/smoke --data-root data --pairs resnet8:resnet8 --teacher-epochs 1 \
      --env.budget.preset tiny --methods ssdkd fast2

On CIFAR against Fast, on scenes against Fast, DFAD and KD on real images. How teachers of scenes are trained is ours.
Give the same command again until it says that everything is finished: each call goes on where the last one stopped and
ends after about --minutes (a round that has begun is finished; a killed call loses two minutes at most).
It only calls train_teacher.py and benchmark.py, whose folders it leaves below --out.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from laboratory.common import begun_with
from ssdkd_agents.benchmarking.benchmark import Benchmark
from ssdkd_agents.commands.command_line import Plugins, as_settings, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.executing import WHERE, Where
from ssdkd_agents.commands.given import as_words, refuse_settings

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.networks.registry import NETWORKS
from ssdkd_env.tasks.registry import TASKS

SCRIPTS = Path(__file__).parent
#: Less time than this is not worth another start of Python and another look at the data, in minutes.
SHORTEST_PIECE = 0.25


@dataclass(frozen=True)
class Protocol:
    """What belongs to a task.

    Attributes:
        env_id: its environment.
        pairs: teacher and student networks, unless others are asked for.
        suite: what is compared; that of some teachers is in `SUITES`.
        teacher: how teachers are trained.
    """

    env_id: str
    pairs: tuple[str, ...]
    suite: str
    teacher: tuple[str, ...]


_CIFAR_PAIRS = "wrn40_2:wrn16_1", "resnet34:resnet18"
_CIFAR_TEACHER = "--settings.batch-size", "256", "--settings.weight-decay", "5e-4"
_SCENES_TEACHER = (
    *("--settings.batch-size", "16", "--settings.max-scale", "2", "--settings.colour-jitter", "0.4"),
    *("--settings.class-balance", "0.5"),
)
PROTOCOLS = {
    "cifar10": Protocol("SSDKD/CIFAR10-v2", _CIFAR_PAIRS, "protocol", _CIFAR_TEACHER),
    "cifar100": Protocol("SSDKD/CIFAR100-v2", _CIFAR_PAIRS, "protocol", _CIFAR_TEACHER),
    "nyuv2": Protocol("SSDKD/NYUv2-v2", ("deeplabv3_resnet50:deeplabv3_mobilenet_v2",), "scenes", _SCENES_TEACHER),
    "camvid": Protocol("SSDKD/CamVid-v2", ("deeplab_small32:deeplab_small12",), "scenes", _SCENES_TEACHER),
}
#: Fast's authors weigh their losses by the teacher: adversarial and one-hot (the presets have ResNet-34's).
SUITES = {"wrn40_2": "protocol-wrn40_2", "vgg11": "protocol-vgg11"}


@dataclass
class Arguments(Where, Plugins):
    """Command line of paper_protocol."""

    out: Path
    """Folder for teachers and benchmarks; the same in every call."""
    data_root: str | None = None
    """Folder with the data; else SSDKD_DATA."""
    task: str = "cifar10"
    """cifar10, cifar100, nyuv2 or camvid."""
    pairs: tuple[str, ...] = ()
    """Teacher and student networks, in place of the task's: wrn40_2:wrn16_1 and resnet34:resnet18 on CIFAR."""
    methods: tuple[str, ...] = ()
    """Methods in place of the task's suite."""
    seeds: int = 1
    """Runs of each method."""
    teacher_epochs: int = 200
    """Epochs of each teacher."""
    device: str = "auto"
    """auto, cpu or cuda."""
    minutes: float = 9.0
    """Length of this call."""
    env: EnvOptions = field(default_factory=ENV)
    """Further arguments of the environment; task, teacher, student_arch, device and data_root are the command's own."""


def main(args: Arguments) -> None:
    check_choice("--task", args.task, PROTOCOLS)
    args.pairs = args.pairs or PROTOCOLS[args.task].pairs
    pairs = [read_pair(pair) for pair in args.pairs]
    if not args.minutes > SHORTEST_PIECE:
        raise InvalidInputError(f"--minutes {args.minutes}: expected more than {SHORTEST_PIECE}")
    refuse_settings(
        args.env,
        {
            "task": "give --task",
            "teacher": "leave it out: it is trained here",
            "teacher_arch": "give --pairs",
            "student_arch": "give --pairs",
            "device": "give --device",
            "data_root": "give --data-root",
        },
    )
    check_same_work(args)
    end = time.monotonic() + 60 * args.minutes
    for teacher, student in pairs:
        weights = args.out / f"teacher-{teacher}" / "teacher.safetensors"
        benchmark = args.out / f"{teacher}-{student}"
        for done, command in (
            (weights.with_suffix(".json").exists, teacher_command(args, teacher, weights.parent)),
            (partial(is_finished, benchmark), benchmark_command(args, teacher, student, weights, benchmark)),
        ):
            if not run_piece(command, done, end):
                print("not finished yet: give the same command again")
                return
    print(f"everything is finished: {', '.join(str(args.out / f'{t}-{s}' / 'table.md') for t, s in pairs)}")


def check_same_work(args: Arguments) -> None:
    """Keep what the first call was asked to do, and refuse a later call that asks for something else.

    Raises:
        InvalidInputError: when it does.
    """
    work = {name: value for name, value in as_settings(args).items() if name not in ("out", "minutes", *WHERE)}
    differing = begun_with(args.out / "config.json", work)
    if differing:
        name = "env." if differing[0] == "env_kwargs" else differing[0].replace("_", "-")
        raise InvalidInputError(f"--{name} is not what {args.out} was begun with; give it as then, or another --out")


def read_pair(pair: str) -> tuple[str, str]:
    teacher, _, student = pair.partition(":")
    for name in (teacher, student):
        check_choice(f"--pairs {pair}", name, NETWORKS)
    return teacher, student


def teacher_command(args: Arguments, teacher: str, folder: Path) -> list[str]:
    command = ["train_teacher.py", "--out", str(folder), "--no-progress-bar"]
    if (folder / "config.json").exists():
        return [*command, "--resume"]
    command += ["--task", args.task, "--device", args.device]
    # The task's own has options of the task.
    command += ["--teacher-arch", teacher] if teacher != TASKS[args.task].teacher_arch else []
    command += ["--data-root", args.data_root] if args.data_root else []
    return [*command, "--settings.epochs", str(args.teacher_epochs), *PROTOCOLS[args.task].teacher]


def benchmark_command(args: Arguments, teacher: str, student: str, weights: Path, folder: Path) -> list[str]:
    command = ["benchmark.py", "--out", str(folder), *where_words(args)]
    if (folder / "config.json").exists():
        return [*command, "--resume"]
    own = {"teacher": weights, "student_arch": student, "device": args.device, "data_root": args.data_root}
    protocol = PROTOCOLS[args.task]
    command += ["--methods", *args.methods] if args.methods else ["--suite", SUITES.get(teacher, protocol.suite)]
    command += ["--env-id", protocol.env_id]
    return [*command, "--seeds", str(args.seeds), *as_words(ENV.prefix, own | args.env.settings())]


def where_words(args: Arguments) -> list[str]:
    """Words that say where a benchmark is played: on this machine one episode after the other."""
    if args.executor == "local":
        return ["--processes", "1"]
    return as_words("--", {name.replace("_", "-"): getattr(args, name) for name in WHERE})


def is_finished(folder: Path) -> bool:
    """Whether the benchmark in a folder has played all of its episodes."""
    if not (folder / "config.json").exists():
        return False
    benchmark = Benchmark.open(folder)
    return len(benchmark.results()) == len(benchmark.jobs)


def run_piece(command: list[str], done: Callable[[], bool], end: float) -> bool:
    """Work on one command until it is done or time is over; returns whether it is done.

    Raises:
        InvalidInputError: when the command fails; it has said why.
    """
    if done():
        return True
    minutes = (end - time.monotonic()) / 60
    if minutes < SHORTEST_PIECE:
        return False
    result = subprocess.run([sys.executable, str(SCRIPTS / command[0]), *command[1:], "--minutes", f"{minutes:.2f}"])
    if result.returncode != 0:
        raise InvalidInputError(f"{command[0]} ended with code {result.returncode}; see its message above")
    return done()


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
