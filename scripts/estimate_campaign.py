"""What a comparison by the paper's protocol costs, from the multiply-adds of its passes and a rate that GPUs sustain.

Examples:
  python scripts/estimate_campaign.py --out runs/estimate.jsonl
  python scripts/estimate_campaign.py --out runs/small.jsonl --pairs resnet34:resnet18 --methods ssdkd fast5 --seeds 3

Nothing is trained, and no data or teachers are needed: the networks are made and their products counted; a multiply-add
is two FLOPs. The rate is an assumption until somebody has measured it on a GPU (`measure_speed.py`). Teachers and what
is measured on real images are left out. Runs are given to GPUs longest first. Writes a line for each method and pair.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from laboratory.common import check_least
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.lines import append_line

from ssdkd_env.distillation.costs import Costs, PassCosts, multiply_adds
from ssdkd_env.distillation.methods import make_method
from ssdkd_env.distillation.problem import Problem
from ssdkd_env.distillation.sizes import Sizes
from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.networks.registry import GENERATORS, NETWORKS
from ssdkd_env.tasks.cifar import CIFAR10

#: Real images of CIFAR, for methods that train on them.
REAL = 50_000


@dataclass
class Arguments(Plugins):
    """Command line of estimate_campaign."""

    out: Path
    """JSON-lines file to write; must not exist."""
    pairs: tuple[str, ...] = (
        "resnet34:resnet18", "vgg11:resnet18", "wrn40_2:wrn16_1", "wrn40_2:wrn40_1", "wrn40_2:wrn16_2",
    )  # fmt: skip
    """Teacher and student networks."""
    methods: tuple[str, ...] = (
        "ssdkd", "fast2", "fast5", "fast10", "nayer", "cmi", "dafl", "dfad", "deepinversion", "vanilla_kd",
    )  # fmt: skip
    """Methods."""
    seeds: int = 5
    """Runs of each method on each pair."""
    tflops: float = 100.0
    """TFLOP/s that a GPU sustains over a round."""
    price: float = 3.0
    """Of an hour of a GPU."""
    gpus: tuple[int, ...] = (8, 1000)
    """Numbers of GPUs."""


def main(args: Arguments) -> None:
    """Count, and print tables."""
    check_lines_file("out", args.out)
    check_least(args, seeds=1)
    if not args.tflops > 0 or not args.price >= 0 or not args.gpus or min(args.gpus) < 1:
        raise InvalidInputError("--tflops, --price and --gpus: expected numbers above 0")
    hours = {}
    for pair in args.pairs:
        for method, count in zip(args.methods, counts(pair, args.methods), strict=True):
            hours[pair, method] = 2 * count / (args.tflops * 1e12) / 3600
            append_line(args.out, {"pair": pair, "method": method, "multiply_adds": count})
    append_line(args.out, {"tflops": args.tflops, "price": args.price, "seeds": args.seeds})
    cells = [[method, *(f"{hours[pair, method]:.2f}" for pair in args.pairs)] for method in args.methods]
    print(f"GPU hours of a run at {args.tflops:g} TFLOP/s")
    print(markdown_table(["method", *args.pairs], cells))
    runs = [each for each in hours.values() for _ in range(args.seeds)]
    total = sum(runs)
    print(f"{len(runs)} runs, {total:,.0f} GPU hours, {total * args.price:,.0f} at {args.price:g} an hour")
    print(markdown_table(["GPUs", "hours", "busy"], [[f"{count:,}", *wall(runs, count)] for count in args.gpus]))


def counts(pair: str, methods: Sequence[str]) -> list[int]:
    """Multiply-adds of a run of each method.

    Raises:
        InvalidInputError: when a network or method is unknown.
    """
    teacher, _, student = pair.partition(":")
    spec, images = CIFAR10, torch.zeros(2, *CIFAR10.image_shape)
    for name in (teacher, student):
        check_choice(f"--pairs {pair}", name, NETWORKS)
    networks = [NETWORKS[name](num_classes=10, in_channels=3).eval() for name in (teacher, student)]
    generator = GENERATORS[spec.generator_arch](latent_dim=spec.latent_dim, image_shape=spec.image_shape).eval()
    answers = [multiply_adds(network, images) for network in networks]
    passes = PassCosts(answers[0], answers[1], multiply_adds(generator, torch.zeros(2, spec.latent_dim)))
    real = torch.zeros(1).expand(REAL)
    task: Any = SimpleNamespace(spec=spec, dense=False, pass_costs=passes, training_images=lambda: real)
    made = []
    for name in methods:
        method = make_method(name)
        sizes = Sizes.of(method, spec.budget, cast(Problem, task))
        made.append(Costs.of(method, spec.budget, sizes, cast(Problem, task)).whole(spec.budget))
    return made


def wall(runs: Sequence[float], count: int) -> tuple[str, str]:
    """Hours that runs take on so many GPUs, and the share of these that is used."""
    ends = [0.0] * count
    for hours in sorted(runs, reverse=True):
        heapq.heapreplace(ends, ends[0] + hours)
    return f"{max(ends):,.1f}", f"{sum(runs) / (count * max(ends)):.0%}"


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
