"""What is lost when things go wrong, tried on tiny runs: killed processes, two owners, changed bits, full disks.

Examples:
  python scripts/measure_durability.py kills --out runs/kills.jsonl
  python scripts/measure_durability.py owners --out runs/owners.jsonl
  python scripts/measure_durability.py bits --out runs/bits.jsonl
  mount -t tmpfs -o size=64m tmpfs /mnt/small
  python scripts/measure_durability.py disk --disk /mnt/small --out runs/disk.jsonl

A run that was disturbed and resumed must be the run that nobody disturbed: the same lines, weights and settings, and no
other files. Appends a JSON line for each try, prints a table, and exits with 1 where anything is not as it must be.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from laboratory.common import about, check_least
from laboratory.durability import COMMANDS, Command, damaged, essence, resume, run
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import use_one_thread
from ssdkd_agents.lines import append_line
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError, check_choice

Line = dict[str, Any]


@dataclass
class Kills(Plugins):
    """Kill at random moments, and at every event by which a run opens, renames, removes or makes a file."""

    out: Path
    """JSON-lines file to write; must not exist."""
    commands: tuple[str, ...] = tuple(COMMANDS)
    """Subcommands of ssdkd."""
    moments: int = 20
    """Random moments of each command."""
    every: int = 1
    """Of the events, every so many-th; 1 for all."""


@dataclass
class Owners(Plugins):
    """Two processes that begin, or resume, the same run at once: one does it, one is refused in a line."""

    out: Path
    """JSON-lines file to write; must not exist."""
    starts: int = 200
    """Pairs that begin."""
    resumes: int = 20
    """Pairs that resume."""


@dataclass
class Bits(Plugins):
    """One bit of each part of a training's newest checkpoint, and each part exchanged for that of the one before."""

    out: Path
    """JSON-lines file to write; must not exist."""


@dataclass
class Disk(Plugins):
    """A disk that is full at so many moments, in the middle of a file or line too."""

    out: Path
    """JSON-lines file to write; must not exist."""
    disk: Path
    """Folder on a small file system that nothing else uses."""
    moments: int = 8
    """Amounts of free space tried with each command."""
    commands: tuple[str, ...] = tuple(COMMANDS)
    """Subcommands of ssdkd."""


def main(args: Kills | Owners | Bits | Disk) -> None:
    """Disturb, resume, compare."""
    check_lines_file("out", args.out)
    for command in getattr(args, "commands", ()):
        check_choice("--commands", command, COMMANDS)
    use_one_thread()
    ways: dict[type, Callable[[Any, Path], Iterator[Line]]] = {Kills: kills, Owners: owners, Bits: bits, Disk: disk}
    tried: dict[tuple[str, str], list[Line]] = {}
    with tempfile.TemporaryDirectory() as parent:
        for line in ways[type(args)](args, Path(parent) / "run"):
            append_line(args.out, line)
            tried.setdefault((line["command"], line["kind"]), []).append(line)
    append_line(args.out, about(torch.device("cpu")))
    wrong = [line for lines in tried.values() for line in lines if not line["as_it_must_be"]]
    for line in wrong:
        print(f"not as it must be: {line}", file=sys.stderr)
    rows = [[*key, str(len(lines)), str(sum(line["as_it_must_be"] for line in lines))] for key, lines in tried.items()]
    print(markdown_table(["command", "disturbed by", "times", "as if nothing had been"], rows))
    if wrong:
        sys.exit(1)


def kills(args: Kills, folder: Path) -> Iterator[Line]:
    """See `Kills`."""
    check_least(args, moments=0, every=1)
    for command in args.commands:
        words, expected, events = undisturbed(command, folder)
        started = time.perf_counter()
        again(words, folder)
        longest, moments = time.perf_counter() - started, random.Random(0)
        jobs = [("an event", float(number)) for number in range(0, events, args.every)]
        jobs += [("a moment", moments.uniform(0, longest)) for _ in range(args.moments)]
        for kind, at in tqdm(jobs, desc=command, unit="kill"):
            again(words, folder, **({"at_event": int(at)} if kind == "an event" else {"after": at}))
            yield fate(command, f"SIGKILL at {kind}", at, folder, expected)


def owners(args: Owners, folder: Path) -> Iterator[Line]:
    """See `Owners`."""
    check_least(args, starts=0, resumes=0)
    command = "search"
    words, expected, events = undisturbed(command, folder)
    resuming = [command, "--out", str(folder), "--resume"]
    jobs = [("two starts", number) for number in range(args.starts)]
    jobs += [("two resumes", number) for number in range(args.resumes)]
    for kind, number in tqdm(jobs, unit="pair"):
        shutil.rmtree(folder, ignore_errors=True)
        if kind == "two resumes":
            run(words, folder, at_event=events // 2 + number)
        pair = [
            Command(words if kind == "two starts" else resuming, folder, log=folder.with_name(str(side)))
            for side in range(2)
        ]
        ended = [process.wait() for process in pair]
        codes = sorted(one.code for one in ended)
        # The second one may come when the first has ended: it then finds a finished run.
        said = [one.text for one in ended if one.code == 2]
        one_line = all("is being written by" in text or "is not empty" in text for text in said)
        found = essence(folder) == expected
        done = codes == [0, 2] or (kind == "two resumes" and codes == [0, 0])
        yield {
            "command": command, "kind": kind, "at": number, "codes": codes,
            "as_it_must_be": done and one_line and found and not any("Traceback" in one.text for one in ended),
        }  # fmt: skip


def bits(args: Bits, folder: Path) -> Iterator[Line]:
    """See `Bits`."""
    _, expected, _ = undisturbed("train", folder)
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    for number, (part, kind, content) in enumerate(damaged(whole / "checkpoints")):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        (folder / "outcome.json").unlink()
        (folder / "checkpoints" / part).write_bytes(content)
        yield fate("train", kind, f"{number}: {part}", folder, expected, said="going on from the checkpoint of")


def disk(args: Disk, folder: Path) -> Iterator[Line]:
    """See `Disk`."""
    check_least(args, moments=1)
    if shutil.disk_usage(args.disk).total > 2**30:
        raise InvalidInputError(f"--disk {args.disk}: expected a file system of less than 1 GiB, such as tmpfs")
    ballast, there = args.disk / "ballast", args.disk / "run"
    for command in args.commands:
        _, expected, _ = undisturbed(command, folder)
        needed = 2 * sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        words = [command, "--out", str(there), *COMMANDS[command]]
        for moment in tqdm(range(args.moments), desc=command, unit="disk"):
            shutil.rmtree(there, ignore_errors=True)
            free = int(needed * moment / args.moments)
            with ballast.open("wb") as file:
                file.write(bytes(max(shutil.disk_usage(args.disk).free - free, 0)))
            ended = run(words, there, log=folder)
            ballast.unlink()
            line = fate(command, "a full disk", free, there, expected)
            right = line["as_it_must_be"] and "Traceback" not in ended.text
            yield line | {"as_it_must_be": right, "said": ended.text[-300:]}


def undisturbed(command: str, folder: Path) -> tuple[list[str], dict[str, Any], int]:
    """Words of a command, what it leaves, and the events that it has.

    Raises:
        InvalidInputError: when it does not even run undisturbed.
    """
    words = [command, "--out", str(folder), *COMMANDS[command]]
    ended = again(words, folder)
    if ended.code != 0:
        raise InvalidInputError(f"{command} does not run here: {ended.text[-300:]}")
    return words, essence(folder), ended.events


def again(words: list[str], folder: Path, **options: Any) -> Any:
    """`run` into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    return run(words, folder, **options)


def fate(command: str, kind: str, at: object, folder: Path, expected: dict[str, Any], said: str = "") -> Line:
    """What became of a run that was disturbed, once it is resumed."""
    found = resume(command, folder, expected)
    right = found.resumed and found.identical and not found.left_over and said in found.text
    about_it = {"differs": found.differs, "left_over": found.left_over, "text": "" if right else found.text[-300:]}
    return {"command": command, "kind": kind, "at": at, "as_it_must_be": right, **about_it}


if __name__ == "__main__":
    launch(Kills | Owners | Bits | Disk, main, __doc__)  # type: ignore[arg-type]
