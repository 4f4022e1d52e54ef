"""Search the best simple policy, by random search or CMA-ES: one action in all rounds, a schedule, or a linear one.

Examples:
  ssdkd search --out runs/cma --searcher cma
  ssdkd search --out runs/random --searcher random --episodes 400 --evaluate-every-steps 1600
  ssdkd search --out runs/schedule --searcher cma --family schedule --plays 2 --env.action work --env.work-scale 1
  ssdkd search --out runs/cma --resume
  tensorboard --logdir runs

What a trained agent has to beat: it plays as many episodes as you let an agent play, on seeds that agents train on.
Writes episodes.jsonl, evaluations.jsonl, tensorboard logs, config.json, command.txt and the best action in
constant.json into the folder. Ctrl-C stops after the round in progress; --resume continues exactly, and plays the
episodes that were cut short again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ssdkd_agents.commands.command_line import Plugins, launch, refuse_beside_resume, resuming
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.executing import WHERE, Where, cluster_of
from ssdkd_agents.environments import make_env
from ssdkd_agents.inputs import inputs_of
from ssdkd_agents.runs import CONSTANT_FILE, RunFolder
from ssdkd_agents.searching.search import SearchConfig, config_of_search, constant_name, search, searcher_of
from ssdkd_agents.searching.searchers import FIRST_SIGMA
from ssdkd_env.cluster import RayCluster
from ssdkd_env.reading import read_json


@dataclass
class Arguments(Where, Plugins):
    """Command line of `ssdkd search`."""

    out: Path
    """Folder of the run; must be new or empty, unless --resume."""
    family: str = "constant"
    """What is searched: constant (one action), schedule (from one action to another), linear (in the observation)."""
    searcher: str = "random"
    """random (a bandit where actions are numbers) or cma."""
    episodes: int = 400
    """Episodes in all, without those of --evaluate-every-steps."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    seed: int = 0
    """Of candidates and episodes, 0 to 999."""
    num_envs: int = 16
    """Environments side by side."""
    vectorization: str = "by_size"
    """How they are stepped: loop, process, grouped, by_size (grouped where images are small, else in processes), or
    auto, which tries what is fastest here and now."""
    final_share: float = 0.5
    """Share of random search's episodes that play its best candidates again, because returns are noisy."""
    population: int = 16
    """Candidates of a generation of CMA-ES."""
    plays: int = 1
    """Episodes of each candidate in a generation of CMA-ES, on seeds that all share, and on instances in turn."""
    sigma: float = FIRST_SIGMA
    """Standard deviation of the first generation of CMA-ES; the box is 2 wide."""
    start: list[float] | None = None
    """Action around which CMA-ES begins, a number in [-1, 1] for each part; the middle of the box where none is
    given."""
    evaluate_every_steps: int = 0
    """Environment steps between evaluations of the best action on validation seeds (500,000 and on); 0 for none."""
    evaluation_episodes: int = 8
    """Episodes of such an evaluation."""
    resume: bool = False
    """Continue the search in --out, with its own settings."""
    progress_bar: bool = True
    """Show a progress bar."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def main(args: Arguments) -> None:
    """Do what the command line says."""
    with cluster_of(args) as cluster:
        begin_or_resume(args, cluster)


def begin_or_resume(args: Arguments, cluster: RayCluster | None) -> None:
    """Search, and say how it ended."""
    if args.resume:
        refuse_beside_resume(args, ("progress_bar", *WHERE))
        folder = RunFolder.resume(args.out)
        config = config_of_search(folder)
    else:
        config = SearchConfig(
            env_id=args.env_id,
            searcher=args.searcher,
            episodes=args.episodes,
            seed=args.seed,
            env_kwargs=args.env.settings(),
            vectorization=args.vectorization,
            num_envs=args.num_envs,
            final_share=args.final_share,
            population=args.population,
            evaluate_every_steps=args.evaluate_every_steps,
            evaluation_episodes=args.evaluation_episodes,
            family=args.family,
            plays=args.plays,
            start=args.start,
            sigma=args.sigma,
        )
        env = make_env(config.env_id, config.env_kwargs)
        searcher_of(config, env)  # refuses what cannot be searched
        folder = RunFolder(args.out, asdict(config), inputs_of(env))
    print(f"curves: tensorboard --logdir {folder.path}")
    outcome = search(config, folder, args.progress_bar, cluster)
    if outcome == "interrupted":
        print(f"interrupted; continue with: {resuming(folder.path)}")
        sys.exit(130)
    best = read_json(folder.path / CONSTANT_FILE)
    print(f"finished; best {best['family']}, mean return {best['mean_return']:.4f}: {folder.path / CONSTANT_FILE}")
    print(f"name for ssdkd evaluate: '{constant_name(best)}'")


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd search", arguments)
