"""Which entries of the observation carry information for a sampler.

Each entry's values change places between the steps of all episodes: how much does the sampler's action change? Then the
episodes are played again while a group of entries is shown as it was in another episode at the same step (`progress`:
half an episode away): what does the sampler lose? An entry that it reads may be worth nothing. After permutation
importance (Breiman 2001, sec. 10).

Example: python scripts/measure_importance.py --sampler runs/ppo --out runs/importance.jsonl --seeds 20
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from laboratory.common import about, check_least
from laboratory.importance import UNDISTURBED, differences_of, entries_read, play_all, refuse_drawing
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.commands.command_line import Plugins, as_settings, check_lines_file, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.environments import env_arguments, make_env, use_one_thread
from ssdkd_agents.lines import append_line
from ssdkd_agents.policies.places import sampler_digest
from ssdkd_agents.policies.storage import face_of, load_sampler
from ssdkd_agents.seeds import MEASUREMENT_SEED

from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError


@dataclass
class Arguments(Plugins):
    """Command line of measure_importance."""

    sampler: str
    """File or run folder of a trained sampler, or a baseline that draws nothing."""
    out: Path
    """JSON-lines file to write; must not exist."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    seeds: int = 20
    """Episodes, each played once undisturbed and once for each group of entries."""
    num_envs: int = 16
    """Episodes side by side."""
    vectorization: str = "auto"
    """How they are stepped: loop, process, grouped or auto."""
    env: EnvOptions = field(default_factory=ENV)
    """Further arguments of the environment."""


def main(args: Arguments) -> None:
    """Play, permute and report."""
    check_lines_file("out", args.out)
    check_least(args, seeds=2, num_envs=1)
    use_one_thread()
    kwargs = {**face_of(args.sampler), **args.env.settings(), "evaluate_every_rounds": 10**6}
    env = make_env(args.env_id, kwargs)
    if env.rounds_per_step >= env.budget.rounds:
        raise InvalidInputError(
            f"--sampler {args.sampler}: it decides once an episode, so that `progress` has no other value to be given; "
            "measure one with fewer rounds a step"
        )
    sampler = load_sampler(args.sampler, env)
    refuse_drawing(sampler, env)
    pool = SubEnvironments(min(args.num_envs, args.seeds), env_arguments(args.env_id, kwargs), args.vectorization, None)
    print(f"environments: {pool.count}, {pool.choice}")
    with closing(pool):
        episodes = play_all(pool, sampler, range(MEASUREMENT_SEED, MEASUREMENT_SEED + args.seeds), args.out)
    read = entries_read(sampler, env, episodes[UNDISTURBED])
    differences = differences_of(episodes)
    settings = {name: value for name, value in as_settings(args).items() if name != "out"}
    summary = {score: {group: vars(value) for group, value in row.items()} for score, row in differences.items()}
    facts = {"read": read, "differences": summary, "backend": str(pool.choice)} | about(env.device)
    append_line(args.out, {"settings": settings, "sampler_digest": sampler_digest(args.sampler)} | facts)
    ranked = sorted(read, key=lambda name: -read[name])
    print(markdown_table(["entry permuted", "change of the action"], [[name, f"{read[name]:.4f}"] for name in ranked]))
    columns = ["entries of another episode", *(f"difference of {score}" for score in differences)]
    rows = [[group, *(str(row[group]) for row in differences.values())] for group in next(iter(differences.values()))]
    print("\n" + markdown_table(columns, rows))


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
