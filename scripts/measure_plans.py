"""How much the sampling plan matters, and whether the data-free rewards rank plans as accuracy on real data does.

Fixed plans (baselines, and plans drawn uniformly from the action space) × seeds, at an equal number of synthesised
images. Says the share of the variance of the final accuracy, and of each reward's return, that the plan explains, and
the rank correlation of plan means between each return and the accuracy.

Examples:
  python scripts/measure_plans.py --out runs/digits-plans-full.jsonl --action full --plans 20 --seeds 10
  python scripts/measure_plans.py --out runs/digits-plans-full.jsonl --again
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from laboratory.plan_plots import plot_plans, plot_validity
from laboratory.plans import better_half, fixed_plans, play_plans, rank_correlation
from laboratory.statistics import bootstrap_between_group_share
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.archives import ENDING
from ssdkd_agents.commands.command_line import Plugins, as_settings, check_lines_file, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.given import refuse_settings
from ssdkd_agents.environments import env_arguments, make_env, use_one_thread
from ssdkd_agents.machine import machine
from ssdkd_agents.runs import append_line, read_lines, versions
from ssdkd_agents.seeds import MEASUREMENT_SEED
from tqdm import tqdm

from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError

REWARDS = ("probe_agreement", "probe_discrepancy", "candidate_agreement")


@dataclass
class Arguments(Plugins):
    """Command line of measure_plans."""

    out: Path
    """JSON-lines file to write; must not exist, unless --again, which reads .jsonl.gz too."""
    again: bool = False
    """Play nothing: tables and pictures anew, from the episodes that --out has."""
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
    if args.again:
        lines = played_lines(args.out)
        report(lines, summarize(lines), args.out)
        return
    check_lines_file("out", args.out)
    for name, least in (("plans", 0), ("seeds", 2), ("num_envs", 1)):
        if getattr(args, name) < least:
            raise InvalidInputError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least {least}")
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
    pool = SubEnvironments(args.num_envs, env_arguments(args.env_id, kwargs), args.vectorization, None)
    print(f"environments: {pool.count}, {pool.choice}")
    try:
        lines = []
        for line in tqdm(play_plans(pool, env, plans, seeds), total=len(plans) * len(seeds), unit="episode"):
            append_line(args.out, line)
            lines.append(line)
    finally:
        pool.close()
    settings = {name: value for name, value in as_settings(args).items() if name != "out"}
    summary = summarize(lines) | {"backend": str(pool.choice), "versions": versions(), "machine": machine(env.device)}
    append_line(args.out, {"settings": settings, **summary})
    report(lines, summary, args.out)


def played_lines(path: Path) -> list[dict[str, Any]]:
    """The episodes of a measurement that was finished.

    Raises:
        InvalidInputError: when the file holds no such thing.
    """
    *lines, last = read_lines(path) or [{}]
    plans, seeds = ({line.get(name) for line in lines} for name in ("label", "seed"))
    finished = "settings" in last and len(seeds) == last["settings"].get("seeds")
    scored = all(line.get("gains", {}).keys() >= {*REWARDS} and "accuracy" in line.get("final", {}) for line in lines)
    if not finished or not scored or len(lines) != len(plans) * len(seeds):
        raise InvalidInputError(f"--out {path} holds no finished measurement; measure anew into another file")
    return lines


def by_plan(lines: list[dict[str, Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(plans, seeds) of the final accuracy, or of a score's gain."""
    labels = list(dict.fromkeys(line["label"] for line in lines))
    value = {
        (line["label"], line["seed"]): line["final"]["accuracy"] if name == "accuracy" else line["gains"][name]
        for line in lines
    }
    return np.array([[value[label, seed] for seed in sorted({line["seed"] for line in lines})] for label in labels])


def summarize(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Share of the variance, and how each reward ranks the plans: all of them, and the better half alone."""
    accuracy = by_plan(lines, "accuracy")
    half = better_half(accuracy)
    summary: dict[str, Any] = {
        "plan_share_of_accuracy": vars(bootstrap_between_group_share(accuracy.tolist())),
        "plan_share_of_accuracy_better_half": vars(bootstrap_between_group_share(accuracy[half].tolist())),
        "seed_deviation_median": float(np.median(accuracy.std(axis=1, ddof=1))),
        "synthesized": sorted({line["final"]["synthesized"] for line in lines}),
    }
    for name in REWARDS:
        gains = by_plan(lines, name)
        summary[name] = {
            "rank_correlation": vars(rank_correlation(gains, accuracy)),
            "rank_correlation_better_half": vars(rank_correlation(gains[half], accuracy[half])),
            "plan_share": vars(bootstrap_between_group_share(gains.tolist())),
            "plan_share_better_half": vars(bootstrap_between_group_share(gains[half].tolist())),
        }
    return summary


def report(lines: list[dict[str, Any]], summary: dict[str, Any], out: Path) -> None:
    """Print the tables and draw the pictures."""
    labels = list(dict.fromkeys(line["label"] for line in lines))
    accuracy = dict(zip(labels, by_plan(lines, "accuracy").tolist(), strict=True))
    gains = {name: dict(zip(labels, by_plan(lines, name).tolist(), strict=True)) for name in REWARDS}
    ranked = sorted(labels, key=lambda label: -float(np.mean(accuracy[label])))
    plans = [[label, *(str(bootstrap_mean(of[label])) for of in (accuracy, *gains.values()))] for label in ranked]
    print(markdown_table(["plan", "accuracy on real data", *(f"return, {name}" for name in REWARDS)], plans))
    shares = (summary["plan_share_of_accuracy"], summary["plan_share_of_accuracy_better_half"])
    facts = [["share of the accuracy's variance between plans", *map(_shown, shares)]]
    for name in REWARDS:
        pair = (summary[name]["plan_share"], summary[name]["plan_share_better_half"])
        facts.append([f"share of the return's variance between plans, {name}", *map(_shown, pair)])
    for name in REWARDS:
        pair = (summary[name]["rank_correlation"], summary[name]["rank_correlation_better_half"])
        facts.append([f"rank correlation of plan means, {name}", *map(_shown, pair)])
    print("\n" + markdown_table(["", "all plans", "better half"], facts))
    out = out.with_suffix("") if out.suffix == ENDING else out
    plot_plans(accuracy, out.with_suffix(".png"))
    plot_validity(accuracy, gains, out.with_name(f"{out.stem}-validity.png"))


def _shown(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
