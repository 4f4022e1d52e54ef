"""Everything that waits for a GPU, in pieces that resume: give the same command until it says that all is done.

Examples:
  python scripts/gpu_day.py --out runs/gpu --data-root data --checkout Fast-Datafree --minutes 9
  python scripts/gpu_day.py --out runs/try --device cpu --tiny --pieces correctness peak profile

Pieces, in this order:
  correctness  the parts of a round on the device beside the CPU, in float64; nothing else is measured until they agree
  peak         a round beside the fastest convolution, with hot loops as they are and compiled, and
               how long the first round takes (capture and compilation)
  runs         many digits environments, each way of stepping them
  profile      where the time of a round goes, and a trace
  peer         a round beside Fast-Datafree, where --checkout is given
  protocol     the paper's protocol on CIFAR, teachers included
  scenes       the paper's segmentation on NYUv2, teacher included

Figures are in PIECE*.jsonl below --out, what was said in PIECE.log. A piece that has failed or was killed begins anew
with the next call, but for the last two, which go on where they stopped.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from laboratory.common import untrained_teacher
from laboratory.correctness import compare_devices
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.commands.command_line import Plugins, launch

from ssdkd_env.devices import select_device
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.files import write_json
from ssdkd_env.tasks.cifar import CIFAR10

SCRIPTS = Path(__file__).parent
#: What is measured of a round: as in the paper, with a full buffer and few rounds; or hardly anything.
FULL = ("--env.budget.rounds", "8", "--env.budget.warmup-rounds", "20")
TINY = ("--env.budget.preset", "tiny", "--env.budget.rounds", "8")
#: The probe set is not what is measured.
PROBE = ("--env.probe.generators", "1", "--env.probe.batches", "2", "--env.probe.kept", "1", "--env.probe.steps", "2")


@dataclass
class Arguments(Plugins):
    """Command line of gpu_day."""

    out: Path
    """Folder for all that is measured; the same in every call."""
    data_root: str | None = None
    """Folder with CIFAR-10 and NYUv2; else SSDKD_DATA."""
    checkout: Path | None = None
    """Folder of a checkout of Fast-Datafree, for the piece peer."""
    minutes: float = 9.0
    """Length of this call. A piece that has begun is finished, but for the last two."""
    pieces: tuple[str, ...] = ("correctness", "peak", "runs", "profile", "peer", "protocol", "scenes")
    """Which to do."""
    device: str = "cuda"
    """cuda, or cpu to try everything out."""
    tiny: bool = False
    """At the smallest sizes, to see that everything runs."""


def main(args: Arguments) -> None:
    """Do what is left, piece by piece, until time is over."""
    for piece in args.pieces:
        check_choice("--pieces", piece, COMMANDS)
    if RESUMED.intersection(args.pieces) and not args.minutes > 0.5:
        raise InvalidInputError(f"--minutes {args.minutes}: expected more than half a minute")
    args.device = str(select_device(args.device))
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    for piece in (piece for piece in COMMANDS if piece in args.pieces):
        if (args.out / f"{piece}.done").exists():
            continue
        minutes = (end - time.monotonic()) / 60
        if (minutes < 0.5 and piece != "correctness") or not do(args, piece, minutes):
            print("not finished yet: give the same command again")
            return
        (args.out / f"{piece}.done").touch()
    print(f"all done: {args.out}")


def do(args: Arguments, piece: str, minutes: float) -> bool:
    """Do a piece; returns whether it is finished.

    Raises:
        InvalidInputError: when it fails, or the device computes otherwise than the CPU.
    """
    if piece == "correctness":
        check_device(args)
        return True
    log = args.out / f"{piece}.log"
    for number, command in enumerate(COMMANDS[piece](args, minutes)):
        print(f"{piece}: {' '.join(command)}", flush=True)
        with log.open("a" if number or piece in RESUMED else "w") as said:
            done = subprocess.run([sys.executable, str(SCRIPTS / command[0]), *command[1:]], stdout=said, stderr=said)
        if done.returncode:
            last = (log.read_text().strip().splitlines() or ["nothing was said"])[-1]
            raise InvalidInputError(f"{piece} failed: {last} (see {log})")
    return piece not in RESUMED or "everything is finished" in log.read_text()


def check_device(args: Arguments) -> None:
    """Refuse a device that computes otherwise than the CPU."""
    rows = compare_devices(select_device(args.device))
    write_json(args.out / "correctness.json", {row.what: row.difference for row in rows})
    print(
        markdown_table(["on the device beside the CPU", "largest difference", "allowed"], [row.cells() for row in rows])
    )
    if wrong := [row.what for row in rows if not row.right]:
        raise InvalidInputError(
            f"--device {args.device} computes otherwise than the CPU: {', '.join(wrong)}; no figures"
        )


def cifar(args: Arguments) -> list[str]:
    """An environment with an untrained teacher, on which times do not depend."""
    teacher, student = ("resnet8", "resnet8") if args.tiny else ("wrn40_2", "wrn16_1")
    weights = args.out / f"untrained-{teacher}.safetensors"
    untrained_teacher(replace(CIFAR10, teacher_arch=teacher), weights)
    networks = ["--env.teacher", str(weights), "--env.teacher-arch", teacher, "--env.student-arch", student]
    return [
        "--env-id",
        "SSDKD/CIFAR10-v2",
        "--env.device",
        args.device,
        *networks,
        *PROBE,
        *(TINY if args.tiny else FULL),
    ]


def fresh(args: Arguments, name: str) -> str:
    """A file for figures; what a failed call has left there is gone."""
    path = args.out / name
    path.unlink(missing_ok=True)
    return str(path)


def peak(args: Arguments, _: float) -> list[list[str]]:
    """The reference and the compiled loops."""
    return [
        ["measure_speed.py", "peak", "--out", fresh(args, f"peak-{way}.jsonl"), *cifar(args), "--env.backend", way]
        for way in ("fast", "compiled")
    ]


def runs(args: Arguments, _: float) -> list[list[str]]:
    """Digits, because its networks are small enough to be grouped."""
    picture = args.out / "runs.png"
    picture.unlink(missing_ok=True)
    few = ("--counts", "1", "2", "--blocks", "2", "--env.budget.rounds", "4") if args.tiny else ("--compiled",)
    return [["measure_speed.py", "runs", "--out", fresh(args, "runs.jsonl"), "--env.device", args.device, *few]]


def profile(args: Arguments, _: float) -> list[list[str]]:
    """A trace of one round, and a table of two."""
    files = ["--trace", fresh(args, "profile-trace.json.gz"), "--out", fresh(args, "profile.jsonl")]
    return [["profile_step.py", *files, *cifar(args), "--rounds", "2"]]


def peer(args: Arguments, _: float) -> list[list[str]]:
    """Nothing without a checkout."""
    if args.checkout is None:
        return []
    sizes = ("--pools", "128", "--rounds", "1", "--candidates", "32", "--batch-size", "32", "--workers", "0")
    command = ["compare_fast_datafree.py", "--checkout", str(args.checkout), "--out", fresh(args, "peer.jsonl")]
    return [[*command, "--device", args.device, *(sizes if args.tiny else ("--autocast",))]]


def protocol(args: Arguments, minutes: float) -> list[list[str]]:
    """It has a folder of its own, in which it goes on."""
    small = ("--pairs", "resnet8:resnet8", "--methods", "ssdkd", "fast2")
    return [paper_protocol(args, minutes, "protocol", "cifar10", small)]


def scenes(args: Arguments, minutes: float) -> list[list[str]]:
    """Likewise; CamVid has networks that are small."""
    task = "camvid" if args.tiny else "nyuv2"
    return [paper_protocol(args, minutes, "scenes", task, ("--methods", "ssdkd", "vanilla_kd"))]


def paper_protocol(args: Arguments, minutes: float, piece: str, task: str, small: tuple[str, ...]) -> list[str]:
    root = ["--data-root", args.data_root] if args.data_root else []
    small += ("--teacher-epochs", "1", "--env.budget.preset", "tiny", *PROBE)
    common = ["--task", task, "--out", str(args.out / piece), "--device", args.device, "--minutes", f"{minutes:.2f}"]
    return ["paper_protocol.py", *common, *root, *(small if args.tiny else ())]


#: Pieces in their order, and the commands of each; it is told how many minutes are left.
COMMANDS: dict[str, Callable[[Arguments, float], list[list[str]]]] = {
    "correctness": lambda args, minutes: [],
    "peak": peak,
    "runs": runs,
    "profile": profile,
    "peer": peer,
    "protocol": protocol,
    "scenes": scenes,
}
#: Pieces that go on where they stopped.
RESUMED = {"protocol", "scenes"}


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
