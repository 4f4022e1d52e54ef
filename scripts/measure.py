"""What observations look like under random actions, and what an environment step costs.

Examples:
  python scripts/measure.py observations --out runs/digits-observations.jsonl
  python scripts/measure.py overhead --out runs/digits-overhead.jsonl

Each appends JSON lines to a new file and prints a Markdown table. Times are of one process with one torch thread: let
the machine do nothing else.
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
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import make_env, use_one_thread
from ssdkd_agents.lines import append_line
from ssdkd_agents.seeds import MEASUREMENT_SEED
from tqdm import tqdm

from ssdkd_env.devices import select_device
from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs.actions import OF_WORK
from ssdkd_env.envs.observations import ENTRIES, WORK_ENTRIES
from ssdkd_env.envs.vector import SSDKDVectorEnv

ENV_ID = "SSDKD/Digits-v2"


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


def main(args: Observations | Overhead) -> None:
    check_lines_file("out", args.out)
    check_least(args, episodes=1)
    use_one_thread()
    measure_observations(args) if isinstance(args, Observations) else measure_overhead(args)
    append_line(args.out, about(select_device("auto")))


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
    launch(Observations | Overhead, main, __doc__)  # type: ignore[arg-type]
