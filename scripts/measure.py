"""The measurements behind the defaults of the digits task, and what an environment step costs.

Examples:
  python scripts/measure.py episode --out runs/digits-episode.jsonl
  python scripts/measure.py budgets --out runs/digits-budgets.jsonl
  python scripts/measure.py observations --out runs/digits-observations.jsonl
  python scripts/measure.py overhead --out runs/digits-overhead.jsonl

Each appends JSON lines to a new file, writes a picture of the same name where there is something to see, and prints
a Markdown table. Times are of one process with one torch thread: let the machine do nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from laboratory.common import about, check_least, in_turn
from laboratory.plots import plot_budgets
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.results import score_of, wall_seconds
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episode
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import make_env, use_one_thread
from ssdkd_agents.runs import append_line
from ssdkd_agents.seeds import HELD_OUT_SEED, MEASUREMENT_SEED
from tqdm import tqdm

from ssdkd_env.devices import select_device
from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs.actions import OF_WORK
from ssdkd_env.envs.observations import ENTRIES, WORK_ENTRIES
from ssdkd_env.envs.vector import SSDKDVectorEnv

ENV_ID = "SSDKD/Digits-v2"
DEFAULT = "default (16 rounds)"
#: Budgets that trade seconds for accuracy; the task's default is among them.
BUDGETS: dict[str, dict[str, int]] = {
    "4 rounds": {"rounds": 4},
    "8 rounds": {"rounds": 8},
    "12 rounds": {"rounds": 12},
    DEFAULT: {},
    "24 rounds": {"rounds": 24},
    "64 candidates": {"candidates": 64, "warmup_rounds": 3},
    "24 minibatches": {"student_steps": 24},
    "96 minibatches": {"student_steps": 96},
    "5 inversion steps": {"inversion_steps": 5},
}


@dataclass
class Episode(Plugins):
    """Seconds, accuracy on real digits and peak memory of one episode with the paper's sampler, on one core."""

    out: Path
    """JSON-lines file to write; must not exist."""
    seeds: int = 20
    """Episodes."""


@dataclass
class Budgets(Plugins):
    """Accuracy against episode seconds over several budgets, with the paper's sampler."""

    out: Path
    """JSON-lines file to write; must not exist."""
    seeds: int = 10
    """Episodes of each budget."""


@dataclass
class Observations(Plugins):
    """Mean and deviation of every entry of the observation under random actions: the constants of `ENTRIES`.

    With actions that divide the work, those of `WORK_ENTRIES` too.
    """

    out: Path
    """JSON-lines file to write; must not exist."""
    episodes: int = 32
    """Episodes, side by side."""
    action: str = "exponents"
    """Action scheme."""


@dataclass
class Overhead(Plugins):
    """Environment step over the bare engine loop, interleaved in one process.

    A third side is the loop that a user would write: the bare engine, and the accuracy on real images after each
    round, which the environment reports too.
    """

    out: Path
    """JSON-lines file to write; must not exist."""
    episodes: int = 10
    """Pairs of episodes."""


def main(args: Episode | Budgets | Observations | Overhead) -> None:
    check_lines_file("out", args.out)
    use_one_thread()
    if isinstance(args, Episode | Budgets):
        check_least(args, seeds=1)
        measure_budgets(args, {DEFAULT: {}} if isinstance(args, Episode) else BUDGETS)
    else:
        check_least(args, episodes=1)
        measure_observations(args) if isinstance(args, Observations) else measure_overhead(args)
    append_line(args.out, about(select_device("auto")))


def measure_budgets(args: Episode | Budgets, budgets: dict[str, dict[str, int]]) -> None:
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in budgets}
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + args.seeds):  # so that a drift of the machine meets all alike
        for name, budget in budgets.items():
            played = run_episode(EpisodeConfig(ENV_ID, "paper", seed, {"budget": budget} if budget else {}))
            results[name].append({"label": name} | played)
            append_line(args.out, results[name][-1])
    points, rows = [], []
    for name, lines in results.items():
        accuracy, gain = (bootstrap_mean(score_of(line, score) for line in lines) for score in ("accuracy", "return"))
        points.append((name, float(np.median([wall_seconds(line) for line in lines])), accuracy))
        peak = max(line["peak_memory_mib"] for line in lines)
        images = str(lines[0]["final"]["synthesized"])
        rows.append([name, f"{points[-1][1]:.2f}", str(accuracy), str(gain), images, f"{peak:.0f} MiB"])
    head = ["budget", "seconds (median)", "accuracy on real digits", "return", "images synthesised", "peak memory"]
    print(markdown_table(head, rows))
    if len(points) > 1:
        plot_budgets(points, args.out.with_suffix(".png"))


def measure_observations(args: Observations) -> None:
    divides = args.action in OF_WORK
    observation, entries = ("work_unscaled", ENTRIES | WORK_ENTRIES) if divides else ("unscaled", ENTRIES)
    envs = SSDKDVectorEnv(args.episodes, action=args.action, observation=observation, evaluate_every_rounds=10**6)
    names = [name for name in envs.observation_names if name in entries]
    envs.action_space.seed(0)
    seen = [envs.reset(seed=MEASUREMENT_SEED)[0]]
    for _ in tqdm(range(make_env(ENV_ID, {}).budget.rounds), unit="round"):
        seen.append(envs.step(envs.action_space.sample())[0])
    envs.close()
    values = np.concatenate(seen)[:, : len(names)]
    print("| entry | mean | deviation |\n|---|---|---|")
    for name, column in zip(names, values.T, strict=True):
        line = {"entry": name, "mean": float(column.mean()), "deviation": float(column.std())}
        append_line(args.out, line)
        print(f"| {name} | {line['mean']:.3f} | {line['deviation']:.3f} |")


def measure_overhead(args: Overhead) -> None:
    env = make_env(ENV_ID, {})
    action, plan = env.paper_action, env.action_scheme.to_plan(env.paper_action)

    def step_and_measure(run: DistillationRun) -> None:
        run.step(plan)
        env.task.accuracy(run.student, run.device)

    lines: list[dict[str, Any]] = []
    for episode in range(args.episodes):
        env.reset(seed=episode)
        assert env.run is not None
        bare, measured = (DistillationRun(env.task, env.method, env.run.seed) for _ in range(2))
        bare.warm_up()
        measured.warm_up()
        sides: dict[str, Callable[[], object]] = {
            "environment": partial(env.step, action),
            "engine": partial(bare.step, plan),
            "engine and accuracy": partial(step_and_measure, measured),
        }
        seconds = dict.fromkeys(sides, 0.0)
        for index in range(env.budget.rounds):
            for side in in_turn(sides, index):
                started = time.perf_counter()
                sides[side]()
                seconds[side] += time.perf_counter() - started
        lines.append({"episode": episode, "seconds": seconds})
        append_line(args.out, lines[-1])
    print("| environment step over | ratio |\n|---|---|")
    for side in ("engine", "engine and accuracy"):
        ratio = bootstrap_mean(line["seconds"]["environment"] / line["seconds"][side] for line in lines)
        print(f"| bare {side} | {ratio} |")


if __name__ == "__main__":
    launch(Episode | Budgets | Observations | Overhead, main, __doc__)  # type: ignore[arg-type]
