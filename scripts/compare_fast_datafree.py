"""One round of ours (method fast5) against one of Fast-Datafree, at equal work, from a checkout that you give.

Example:
  git clone https://github.com/zju-vipa/Fast-Datafree
  pip install kornia torchvision
  python scripts/compare_fast_datafree.py --checkout Fast-Datafree --out runs/fast-datafree.jsonl

Same networks, batches and steps on both sides, in one process with one torch thread; theirs may have its loader
processes besides. Its cost grows with its pool of PNG files, so several sizes are measured, with ours at the same
size; each side keeps its own memory layout and its own way of loading. Ours takes the precision that is its default
here, and float32 besides; theirs is float32, as its code has it on a CPU, and with --autocast also in bfloat16, which
is its best case where a device has it. The rounds of the sides alternate. First the
images that pass through each network are counted on both sides: if the work is unequal, no time is given. Whatever had
to be changed to run the checkout is listed with what it does to its time: nothing, or in its favour, but for some
milliseconds a fork. No data are needed: times do not depend on what the teacher has learned.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from laboratory.common import about, check_least, in_turn
from laboratory.equal_work import EXTRA, OurSide, Round, Seconds, unequal_work
from laboratory.fast_datafree import Checkout, TheirSide, different_networks, load_checkout
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import use_one_thread
from ssdkd_agents.lines import append_line
from tqdm import tqdm

from ssdkd_env.devices import select_device
from ssdkd_env.distillation.execution import PRECISION_CHOICES
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.tasks import Task


@dataclass
class Arguments(Plugins):
    """Command line of compare_fast_datafree."""

    checkout: Path
    """Folder of a checkout of https://github.com/zju-vipa/Fast-Datafree."""
    out: Path
    """JSON-lines file to write; must not exist."""
    pools: tuple[int, ...] = (1280, 5120, 20480)
    """Images in the memory of both sides; multiples of the batch size."""
    workers: tuple[int, ...] = (4, 0)
    """Loader processes of Fast-Datafree, each measured; 4 is what it writes."""
    rounds: int = 8
    """Measured rounds of each side at each pool."""
    size: tyro.conf.OmitArgPrefixes[Round] = field(default_factory=Round)
    """Work of a round; the defaults are the CIFAR task's budget for a CPU."""
    teacher: Path | None = None
    """Weights file of the teacher; random weights without it."""
    device: str = "cpu"
    """cpu, cuda or auto."""
    backend: str = "auto"
    """Backend of our engine: auto, fast or plain."""
    precisions: tuple[str, ...] = ("auto", "float32")
    """Precisions of our engine, each a side."""
    autocast: bool = False
    """Measure Fast-Datafree under bfloat16 autocast too."""


def main(args: Arguments) -> None:
    check(args)
    use_one_thread()
    torch.manual_seed(0)  # of the checkout's side; our engine has its own generators
    device = select_device(args.device)
    task = args.size.task(args.teacher)
    checkout = load_checkout(args.checkout)
    settings = asdict(args) | {"teacher": args.teacher.name if args.teacher else None}
    append_line(args.out, {name: value for name, value in settings.items() if name not in ("checkout", "out")})
    rows: list[list[str]] = []
    works: dict[int, dict[str, dict[str, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for pool in args.pools:
            works[pool], table = compare(args, task, checkout, pool, device, Path(folder) / str(pool))
            rows += table
    facts = {"checkout_commit": checkout.commit or None, "changes": checkout.changes, "extra": EXTRA}
    append_line(args.out, facts | about(device))
    show_work(args.size, works)
    print("Changes that Fast-Datafree needed here:\n")
    print("\n".join(f"- {change}" for change in checkout.changes) + "\n")
    over = [f"over ours, {precision}" for precision in args.precisions]
    head = ["pool", "side", "seconds a round", "synthesis", "student", *over]
    print(markdown_table(head, rows))


def check(args: Arguments) -> None:
    """Refuse what cannot be measured.

    Raises:
        InvalidInputError: then.
    """
    check_lines_file("out", args.out)
    check_least(args.size, **{name: 1 for name, value in asdict(args.size).items() if isinstance(value, int)})
    check_least(args, rounds=1)
    for pool in args.pools:
        if pool <= args.size.candidates or pool % args.size.batch_size:
            raise InvalidInputError(
                f"--pools {pool}: expected more images than --candidates {args.size.candidates}, and a multiple "
                f"of --batch-size {args.size.batch_size}, so that every minibatch of an epoch is full"
            )
    if not args.pools or not args.workers or min(args.workers) < 0:
        raise InvalidInputError("--pools and --workers: give at least one number, and none below 0")
    for precision in args.precisions:
        check_choice("--precisions", precision, PRECISION_CHOICES)
    if not args.precisions:
        raise InvalidInputError("--precisions: give at least one, such as auto")


def compare(
    args: Arguments, task: Task, checkout: Checkout, pool: int, device: torch.device, folder: Path
) -> tuple[dict[str, dict[str, int]], list[list[str]]]:
    """Gate, then measure at one size of the memory; returns the counted images of each side and rows of the table."""
    ours = {
        f"ours, {precision}": OurSide(args.size, task, pool, device, args.backend, precision)
        for precision in args.precisions
    }
    theirs = TheirSide(checkout, args.size, next(iter(ours.values())), pool, folder)
    sides: dict[str, Callable[[], Seconds]] = {name: side.round for name, side in ours.items()}
    for autocast in (False, True) if args.autocast else (False,):
        more = ", bfloat16" if autocast else ""
        names = {f"Fast-Datafree, {workers} workers{more}": workers for workers in args.workers}
        sides |= {name: partial(theirs.round, workers, autocast) for name, workers in names.items()}

    problems, counted = different_networks(next(iter(ours.values())), theirs), {}
    for name, play in sides.items():
        side = ours.get(name, theirs)
        counter = side.counter()
        with counter.counting():
            play()
        counted[name] = dict(sorted(counter.images.items()))
        in_float32 = name.endswith("float32") or name.endswith("workers")
        problems += unequal_work(name, counter, args.size.work(), EXTRA if name in ours else (), in_float32)
        problems += [f"{name}: {side.memory} images in the memory, expected {pool}"] if side.memory != pool else []
    append_line(args.out, {"pool": pool, "images": counted, "problems": problems})
    refuse_if(problems)

    seconds: dict[str, list[Seconds]] = {side: [] for side in sides}
    for index in tqdm(range(args.rounds), desc=f"pool of {pool:,}", unit="round", leave=False):
        for name in in_turn(sides, index):
            seconds[name].append(sides[name]())
        last = {name: parts[-1]._asdict() for name, parts in seconds.items()}
        append_line(args.out, {"pool": pool, "round": index, "seconds": last})
    diverged = [name for name, own in ours.items() if own.diverged] + ["Fast-Datafree"] * theirs.diverged
    refuse_if([f"{name}: the student diverged" for name in diverged])

    rows = []
    for name, parts in seconds.items():
        ratios = []
        for own in ours:
            interval = bootstrap_mean(its.total / our.total for its, our in zip(parts, seconds[own], strict=True))
            ratios.append("" if name in ours else str(interval))
            if name not in ours:
                append_line(args.out, {"pool": pool, "side": name, "over": own, "ratio": vars(interval)})
        medians = (f"{np.median([getattr(p, part) for p in parts]):.3f}" for part in ("total", "synthesis", "student"))
        rows.append([f"{pool:,}", name, *medians, *ratios])
    return counted, rows


def refuse_if(problems: list[str]) -> None:
    """End without a figure when the sides are not equal."""
    if problems:
        print("no figure, because the sides are not equal:\n" + "\n".join(problems), file=sys.stderr)
        sys.exit(1)


def show_work(size: Round, works: dict[int, dict[str, dict[str, Any]]]) -> None:
    """Print the images through each network in a round, and why one side may have more."""
    expected = size.work()
    for pool, counted in works.items():
        rows = [
            [
                place,
                str(expected.get(place, "–")),
                *(str(it.get(place, 0)) for it in counted.values()),
                EXTRA.get(place, ""),
            ]
            for place in sorted({*expected, *EXTRA})
        ]
        print(f"Images through the networks in a round, pool of {pool:,}:\n")
        print(markdown_table(["network and place", "both must", *counted, ""], rows) + "\n")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
