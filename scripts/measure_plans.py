"""How much the sampling plan matters, and whether the data-free rewards rank plans as accuracy on real data does.

Fixed plans (baselines, and plans drawn uniformly from the action space) × seeds, at an equal number of synthesised
images. Says the share of the variance of the final accuracy, and of each reward's return, that the plan explains, and
the rank correlation of plan means between each return and the accuracy.

Example: python scripts/measure_plans.py --out runs/digits-plans-full.jsonl --action full --plans 20 --seeds 10
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from laboratory.common import about, check_least
from laboratory.plans import REWARDS, fixed_plans, play_plans
from laboratory.plots import plot_plans
from laboratory.statistics import better_half, rank_correlation, share_interval, two_digits
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean
from ssdkd_agents.commands.command_line import Plugins, as_settings, check_lines_file, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.executing import Where, cluster_of
from ssdkd_agents.commands.given import refuse_settings
from ssdkd_agents.environments import env_arguments, make_env, use_one_thread
from ssdkd_agents.lines import append_line
from ssdkd_agents.seeds import MEASUREMENT_SEED
from tqdm import tqdm

from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError


@dataclass
class Arguments(Where, Plugins):
    """Command line of measure_plans."""

    out: Path
    """JSON-lines file to write; must not exist."""
    action: str = "exponents"
    """Action scheme."""
    plans: int = 20
    """Random plans, beside the baselines; a discrete scheme plays every choice."""
    seeds: int = 10
    """Episodes of each plan."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    num_envs: int = 32
    """Episodes side by side."""
    vectorization: str = "auto"
    """How they are stepped: loop, process, grouped or auto."""
    env: EnvOptions = field(default_factory=ENV)
    """Further arguments of the environment."""


def main(args: Arguments) -> None:
    """Play the plans and report."""
    check_lines_file("out", args.out)
    check_least(args, plans=0, seeds=2, num_envs=1)
    use_one_thread()
    refuse_settings(
        args.env,
        {
            "action": "give --action",
            "evaluate_every_rounds": "leave it out: only ends are measured",
            "rounds_per_step": "leave it out: the plan of an episode is the same in all rounds",
        },
    )
    kwargs = args.env.settings() | {"action": args.action, "evaluate_every_rounds": 10**6}
    env = make_env(args.env_id, kwargs)
    if env.task.spec.evaluation is None:
        raise InvalidInputError(f"--env-id {args.env_id}: no real images to measure accuracy on; give --env.evaluation")
    plans = fixed_plans(env, args.plans)
    seeds = range(MEASUREMENT_SEED, MEASUREMENT_SEED + args.seeds)
    lines = []
    arguments = env_arguments(args.env_id, kwargs)
    with (
        cluster_of(args) as cluster,
        closing(SubEnvironments(args.num_envs, arguments, args.vectorization, None, cluster)) as pool,
    ):
        print(f"environments: {pool.count}, {pool.choice}")
        for line in tqdm(play_plans(pool, env, plans, seeds), total=len(plans) * len(seeds), unit="episode"):
            append_line(args.out, line)
            lines.append(line)
    settings = {name: value for name, value in as_settings(args).items() if name != "out"}
    summary = summarize(lines)
    append_line(args.out, {"settings": settings, **summary, "backend": str(pool.choice)} | about(env.device))
    report(lines, summary, args.out)


def by_plan(lines: list[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """Plan → final accuracy, or a score's gain, of each seed."""
    values: dict[str, list[float]] = {}
    for line in lines:
        value = line["final"]["accuracy"] if name == "accuracy" else line["gains"][name]
        values.setdefault(line["label"], []).append(value)
    return values


def summarize(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Share of the variance, and how each reward ranks the plans: all of them, and the better half alone."""
    accuracy = np.array([*by_plan(lines, "accuracy").values()])
    half = better_half(accuracy)
    summary: dict[str, Any] = {
        "plan_share_of_accuracy": vars(share_interval(accuracy)),
        "plan_share_of_accuracy_better_half": vars(share_interval(accuracy[half])),
        "seed_deviation_median": float(np.median(accuracy.std(axis=1, ddof=1))),
        "synthesized": sorted({line["final"]["synthesized"] for line in lines}),
    }
    for name in REWARDS:
        gains = np.array([*by_plan(lines, name).values()])
        summary[name] = {
            "rank_correlation": vars(rank_correlation(gains, accuracy)),
            "rank_correlation_better_half": vars(rank_correlation(gains[half], accuracy[half])),
            "plan_share": vars(share_interval(gains)),
            "plan_share_better_half": vars(share_interval(gains[half])),
        }
    return summary


def report(lines: list[dict[str, Any]], summary: dict[str, Any], out: Path) -> None:
    """Print the tables and draw the pictures."""
    accuracy, gains = by_plan(lines, "accuracy"), {name: by_plan(lines, name) for name in REWARDS}
    ranked = sorted(accuracy, key=lambda label: -float(np.mean(accuracy[label])))
    plans = [[label, *(str(bootstrap_mean(of[label])) for of in (accuracy, *gains.values()))] for label in ranked]
    print(markdown_table(["plan", "accuracy on real data", *(f"return, {name}" for name in REWARDS)], plans))
    facts = [["share of the accuracy's variance between plans", *_shown(summary, "plan_share_of_accuracy")]]
    for what, key in (
        ("share of the return's variance between plans", "plan_share"),
        ("rank correlation of plan means", "rank_correlation"),
    ):
        facts += [[f"{what}, {name}", *_shown(summary[name], key)] for name in REWARDS]
    print("\n" + markdown_table(["", "all plans", "better half"], facts))
    plot_plans(accuracy, out.with_suffix(".png"))


def _shown(summary: dict[str, Any], name: str) -> list[str]:
    """An interval of all plans, and that of the better half."""
    return [two_digits(Interval(**summary[key])) for key in (name, f"{name}_better_half")]


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
