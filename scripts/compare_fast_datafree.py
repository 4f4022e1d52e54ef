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

import numpy as np
import torch
import tyro
from laboratory.common import about, check_least, in_turn
from laboratory.equal_work import EXTRA, OurSide, Round, Seconds, unequal_work
from laboratory.fast_datafree import Checkout, TheirSide, different_networks, load_checkout
from ssdkd_agents.analysis.markdown import EMPTY, markdown_table
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import use_one_thread
from ssdkd_agents.lines import append_line
from tqdm import tqdm

from ssdkd_env.devices import select_device
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Task

#: Precisions of our engine, each a side.
PRECISIONS = ("auto", "float32")


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
    device: str = "cpu"
    """cpu, cuda or auto."""
    autocast: bool = False
    """Measure Fast-Datafree under bfloat16 autocast too."""


def main(args: Arguments) -> None:
    check(args)
    use_one_thread()
    torch.manual_seed(0)  # of the checkout's side; our engine has its own generators
    device = select_device(args.device)
    task = args.size.task()
    checkout = load_checkout(args.checkout)
    append_line(args.out, {name: value for name, value in asdict(args).items() if name not in ("checkout", "out")})
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for pool in args.pools:
            rows += compare(args, task, checkout, pool, device, Path(folder) / str(pool))
    facts = {"checkout_commit": checkout.commit or None, "changes": checkout.changes, "extra": EXTRA}
    append_line(args.out, facts | about(device))
    print("Changes that Fast-Datafree needed here:\n")
    print("\n".join(f"- {change}" for change in checkout.changes) + "\n")
    over = [f"over ours, {precision}" for precision in PRECISIONS]
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


def compare(
    args: Arguments, task: Task, checkout: Checkout, pool: int, device: torch.device, folder: Path
) -> list[list[str]]:
    """Gate, then measure at one size of the memory; returns rows of the table."""
    ours = {f"ours, {precision}": OurSide(args.size, task, pool, device, precision) for precision in PRECISIONS}
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
    show_work(args.size, pool, counted)

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
    return rows


def refuse_if(problems: list[str]) -> None:
    """End without a figure when the sides are not equal."""
    if problems:
        print("no figure, because the sides are not equal:\n" + "\n".join(problems), file=sys.stderr)
        sys.exit(1)


def show_work(size: Round, pool: int, counted: dict[str, dict[str, int]]) -> None:
    """Print the images through each network in a round, and why one side may have more."""
    expected, rows = size.work(), []
    for place in sorted({*expected, *EXTRA}):
        images = [str(side.get(place, 0)) for side in counted.values()]
        rows.append([place, str(expected.get(place, EMPTY)), *images, EXTRA.get(place, "")])
    print(f"Images through the networks in a round, pool of {pool:,}:\n")
    print(markdown_table(["network and place", "both must", *counted, ""], rows) + "\n")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
