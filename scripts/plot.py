"""Draw the reward curves of training runs, beside what samplers reach on held-out seeds.

Example: python scripts/plot.py --out curve.png --runs runs/ppo runs/sac --results runs/evaluation/results.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from _cli import launch

from agents.plots import plot_reward_curves
from agents.runs import read_lines


@dataclass
class Arguments:
    """Command line of plot."""

    out: Path
    """PNG to write."""
    runs: tuple[Path, ...]
    """Folders of train_sampler."""
    results: Path | None = None
    """results.jsonl of evaluate_sampler."""


def main(args: Arguments) -> None:
    names = [run.name for run in args.runs]
    labels = [run.name if names.count(run.name) == 1 else str(run) for run in args.runs]
    curves = {
        label: read_lines(run / "episodes.jsonl", ("timesteps", "return"))
        for label, run in zip(labels, args.runs, strict=True)
    }
    results = read_lines(args.results, ("sampler", "return")) if args.results else []
    plot_reward_curves(curves, results, args.out)
    print(f"plot: {args.out}")


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
