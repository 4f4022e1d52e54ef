"""Draw the reward curves of training runs, beside what samplers reach on held-out seeds.

Examples:
  ssdkd results plot --out curve.png --runs runs/ppo runs/sac --results runs/evaluation/results.jsonl
  ssdkd results plot --out mean.png --runs runs/ppo-0 runs/ppo-1 runs/sac-0 runs/sac-1 --by-algorithm
  ssdkd results plot --out mean.png --runs ppo=runs/ppo-0,runs/ppo-1 sac=runs/sac-0,runs/sac-1 --score accuracy

With groups, or --by-algorithm, a curve is the mean over training runs with a bootstrap band, beside the paper's sampler
and the best constant plan of the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdkd_agents.analysis.results import read_results
from ssdkd_agents.analysis.training_curves import TRAINING_SCORES, algorithm_of, in_rounds, read_training
from ssdkd_agents.benchmarking.suites import sampler_runs
from ssdkd_agents.commands.command_line import Plugins, launch
from ssdkd_agents.lines import read_lines
from ssdkd_agents.plotting.comparison_plots import plot_training_curves
from ssdkd_agents.plotting.plots import SMOOTHING, plot_reward_curves
from ssdkd_agents.runs import EPISODES_FILE
from ssdkd_agents.schemas import EpisodeLine
from ssdkd_env.errors import InvalidInputError, check_choice


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd results plot`."""

    out: Path
    """PNG to write."""
    runs: tuple[str, ...]
    """Folders of ssdkd train, or groups of these such as ppo=runs/ppo-0,runs/ppo-1."""
    results: Path | None = None
    """results.jsonl of ssdkd evaluate or ssdkd benchmark, or compressed as .jsonl.gz."""
    by_algorithm: bool = False
    """One mean curve with its band for all runs of an algorithm; groups always have one."""
    score: str = "return"
    """Of mean curves: return, accuracy, mean_iou (of dense predictions) or probe_agreement."""
    window: int = SMOOTHING
    """Episodes of the moving average."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if args.window < 1:
        raise InvalidInputError(f"--window {args.window}: expected at least 1 episode")
    check_choice("score", args.score, TRAINING_SCORES)
    groups = sampler_runs(args.runs, "runs")
    if args.by_algorithm or args.score != "return" or any((name,) != runs for name, runs in groups.items()):
        plot_means(groups, args)
    else:
        plot_each(args)
    print(f"plot: {args.out}")


def plot_each(args: Arguments) -> None:
    """Every run by itself, with a point for each episode."""
    folders = [Path(run) for run in args.runs]
    names = [folder.name for folder in folders]
    labels = [folder.name if names.count(folder.name) == 1 else str(folder) for folder in folders]
    curves = {}
    for label, folder in zip(labels, folders, strict=True):
        episodes = read_lines(folder / EPISODES_FILE, EpisodeLine)
        curves[label] = in_rounds(episodes, episodes, folder)
    results = read_results(args.results) if args.results else []
    plot_reward_curves(curves, results, args.out, args.window)


def plot_means(groups: dict[str, tuple[str, ...]], args: Arguments) -> None:
    """One curve for each group; a folder by itself belongs to the group of its algorithm if these are asked for."""
    folders: dict[str, list[Path]] = {}
    for name, runs in groups.items():
        alone = (name,) == runs
        label = (algorithm_of(Path(name)) if args.by_algorithm else Path(name).name) if alone else name
        folders.setdefault(label, []).extend(Path(run) for run in runs)
    trainings = {label: [read_training(folder) for folder in members] for label, members in folders.items()}
    results = read_results(args.results) if args.results else []
    plot_training_curves(trainings, results, args.out, args.score, args.window)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd results plot", arguments)
