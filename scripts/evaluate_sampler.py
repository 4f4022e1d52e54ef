"""Compare samplers on held-out seeds: the same episodes for each, a table with intervals, JSON lines.

Example: python scripts/evaluate_sampler.py --out runs/evaluation --samplers runs/ppo paper uniform --episodes 20
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from _cli import launch, parse_settings
from tqdm import tqdm

from agents.experiments import HELD_OUT_SEED, EpisodeConfig, run_episodes, summarize, validate
from agents.runs import RunFolder
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically


@dataclass
class Arguments:
    """Command line of evaluate_sampler."""

    out: Path
    """Folder for the results; must be new or empty."""
    samplers: tuple[str, ...] = ("paper", "uniform", "random")
    """Controls by name, or files or run folders of trained samplers."""
    env: str = "SSDKD/Digits-v0"
    """Environment id."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, such as 'budget={"rounds": 10}'."""
    episodes: int = 20
    """Episodes of each sampler."""
    first_seed: int = HELD_OUT_SEED
    """Seed of the first episode; from 1,000,000 on no training has seen them."""
    processes: int = 2
    """Episodes side by side, one torch thread each."""


def main(args: Arguments) -> None:
    if args.episodes < 1 or args.processes < 1:
        raise InvalidInputError("--episodes and --processes must be at least 1")
    env_kwargs = parse_settings("env-kwargs", args.env_kwargs)
    configs = [
        EpisodeConfig(args.env, sampler, args.first_seed + index, env_kwargs)
        for index in range(args.episodes)
        for sampler in args.samplers
    ]
    validate(configs)
    folder = RunFolder(args.out, asdict(args) | {"out": str(args.out)})
    results = []
    for result in tqdm(run_episodes(configs, args.processes), total=len(configs), unit="episode"):
        folder.append(result)
        results.append(result)
    table = summarize(results)
    write_atomically(folder.path / "table.md", lambda temporary: temporary.write_text(table + "\n"))
    print(table)


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
