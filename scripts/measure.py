"""The measurements behind the defaults of the digits task and the figures in README.

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
from pathlib import Path
from typing import Any

import numpy as np
from laboratory.plots import plot_budgets
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episode
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import make_env, use_one_thread
from ssdkd_agents.machine import machine
from ssdkd_agents.runs import append_line, versions
from ssdkd_agents.seeds import HELD_OUT_SEED, MEASUREMENT_SEED
from tqdm import tqdm

from ssdkd_env.devices import select_device
from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs.observations import ENTRIES
from ssdkd_env.envs.vector import SSDKDVectorEnv
from ssdkd_env.errors import InvalidInputError

ENV_ID = "SSDKD/Digits-v2"

#: Budgets that trade seconds for accuracy; the task's default is among them.
BUDGETS: dict[str, dict[str, int]] = {
    "4 rounds": {"rounds": 4},
    "8 rounds": {"rounds": 8},
    "12 rounds": {"rounds": 12},
    "default (16 rounds)": {},
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
    """Mean and deviation of every entry of the observation under random actions: the constants of `ENTRIES`."""

    out: Path
    """JSON-lines file to write; must not exist."""
    episodes: int = 32
    """Episodes, side by side."""


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
    for name in ("seeds", "episodes"):
        if getattr(args, name, 1) < 1:
            raise InvalidInputError(f"--{name} {getattr(args, name)}: expected at least 1")
    use_one_thread()
    if isinstance(args, Episode):
        measure_episode(args)
    elif isinstance(args, Budgets):
        measure_budgets(args)
    elif isinstance(args, Observations):
        measure_observations(args)
    else:
        measure_overhead(args)


def measure_episode(args: Episode) -> None:
    results = _play(args.out, [EpisodeConfig(ENV_ID, "paper", HELD_OUT_SEED + seed) for seed in range(args.seeds)], {})
    peak = max(r["peak_memory_mib"] for r in results)
    append_line(args.out, {"peak_memory_mib": peak, "machine": machine(select_device("auto"))})
    print(
        "| seconds (median) | accuracy on 1,797 real digits | return | peak memory of the process |\n|---|---|---|---|"
    )
    print(
        f"| {np.median([r['seconds']['wall'] for r in results]):.2f} | {_accuracy(results)} "
        f"| {bootstrap_mean(r['return'] for r in results)} | {peak:.0f} MiB |"
    )


def measure_budgets(args: Budgets) -> None:
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in BUDGETS}
    for seed in range(args.seeds):  # seed by seed, so that a drift of the machine meets every budget alike
        for name, budget in BUDGETS.items():
            config = EpisodeConfig(ENV_ID, "paper", HELD_OUT_SEED + seed, {"budget": budget})
            lines[name] += _play(args.out, [config], {"label": name})
    append_line(args.out, {"machine": machine(select_device("auto"))})
    print("| budget | seconds (median) | accuracy on real digits | images synthesised |\n|---|---|---|---|")
    points = []
    for name, results in lines.items():
        seconds = float(np.median([r["seconds"]["wall"] for r in results]))
        points.append((name, seconds, bootstrap_mean(r["final"]["accuracy"] for r in results)))
        print(f"| {name} | {seconds:.2f} | {points[-1][2]} | {results[0]['final']['synthesized']} |")
    plot_budgets(points, args.out.with_suffix(".png"))


def measure_observations(args: Observations) -> None:
    envs = SSDKDVectorEnv(args.episodes, observation="unscaled", evaluate_every_rounds=10**6)
    names = [name for name in envs.observation_names if name in ENTRIES]
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
    append_line(args.out, {"versions": versions(), "machine": machine(select_device("auto"))})


def measure_overhead(args: Overhead) -> None:
    env = make_env(ENV_ID, {})
    action, plan = env.paper_action, env.action_scheme.to_plan(env.paper_action)
    lines: list[dict[str, Any]] = []
    for episode in range(args.episodes):
        env.reset(seed=episode)
        assert env.run is not None
        bare, measured = (DistillationRun(env.task, env.method, env.run.seed) for _ in range(2))
        bare.warm_up()
        measured.warm_up()
        sides: dict[str, Callable[[], object]] = {
            "environment": lambda: env.step(action),
            "engine": lambda run=bare: run.step(plan),  # type: ignore[misc]
            "engine and accuracy": lambda run=measured: (run.step(plan), env.task.accuracy(run.student, run.device)),  # type: ignore[misc]
        }
        seconds = dict.fromkeys(sides, 0.0)
        for index in range(env.budget.rounds):
            turn = index % len(sides)  # each side is first, second and third equally often
            for side in [*sides][turn:] + [*sides][:turn]:
                started = time.perf_counter()
                sides[side]()
                seconds[side] += time.perf_counter() - started
        lines.append({"episode": episode, "seconds": seconds})
        append_line(args.out, lines[-1])
    append_line(args.out, {"machine": machine(select_device("auto"))})
    print("| environment step over | ratio |\n|---|---|")
    for side in ("engine", "engine and accuracy"):
        ratio = bootstrap_mean(line["seconds"]["environment"] / line["seconds"][side] for line in lines)
        print(f"| bare {side} | {ratio} |")


def _play(out: Path, configs: list[EpisodeConfig], extra: dict[str, Any]) -> list[dict[str, Any]]:
    results = []
    for config in configs:
        results.append(extra | run_episode(config))
        append_line(out, results[-1])
    return results


def _accuracy(results: list[dict[str, Any]]) -> str:
    return str(bootstrap_mean(r["final"]["accuracy"] for r in results))


if __name__ == "__main__":
    launch(Episode | Budgets | Observations | Overhead, main, __doc__)  # type: ignore[arg-type]
