"""Compare samplers on held-out seeds: the same episodes for each, a table with intervals, JSON lines.

Examples:
  ssdkd evaluate --out runs/evaluation --samplers runs/ppo paper uniform --episodes 20
  ssdkd evaluate --out runs/seeds --samplers ppo=runs/ppo-0,runs/ppo-1,runs/ppo-2 paper

The second makes one row of three training runs, whose intervals cover the noise of training too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episodes, validate
from ssdkd_agents.benchmarking.sampler_report import make_sampler_table, note
from ssdkd_agents.benchmarking.suites import sampler_runs
from ssdkd_agents.commands.command_line import Plugins, as_settings, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.policies.storage import face_of
from ssdkd_agents.runs import RunFolder
from ssdkd_agents.seeds import HELD_OUT_SEED
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd evaluate`."""

    out: Path
    """Folder for the results; must be new or empty."""
    samplers: tuple[str, ...] = ("paper", "uniform", "random")
    """Baselines by name, files or run folders of trained samplers, or groups of these such as ppo=runs/a,runs/b."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    episodes: int = 20
    """Episodes of each sampler."""
    first_seed: int = HELD_OUT_SEED
    """Seed of the first episode; from 1,000,000 on no training has seen them."""
    processes: int = 2
    """Episodes side by side, one torch thread each."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    if args.episodes < 1 or args.processes < 1:
        raise InvalidInputError("--episodes and --processes must be at least 1")
    rows = {run: name for name, runs in sampler_runs(args.samplers).items() for run in runs}
    kwargs = {run: {**face_of(run), **args.env.settings()} for run in rows}
    configs = [
        EpisodeConfig(args.env_id, run, args.first_seed + index, kwargs[run])
        for index in range(args.episodes)
        for run in rows
    ]
    validate(configs)
    folder = RunFolder(args.out, as_settings(args))
    results = []
    for result in tqdm(run_episodes(configs, args.processes), total=len(configs), unit="episode"):
        line = {"group": rows[result["sampler"]]} | result
        folder.append(line)
        results.append(line)
    table = make_sampler_table(results)
    write_atomically(folder.path / "table.md", lambda temporary: temporary.write_text(f"{table}\n\n{note()}\n"))
    print(table)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd evaluate", arguments)
