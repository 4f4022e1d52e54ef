"""Whether episodes leave memory or open files behind: how much a process grows with each, single and in groups.

Examples:
  python scripts/measure_memory.py --out runs/memory.jsonl
  python scripts/measure_memory.py --out runs/memory.jsonl --episodes 10000

Tiny episodes on the CPU with random actions, in one environment and in a group of four. Resident memory and open file
descriptors are read every so often; the growth is the slope of a line through what was read after the first fifth, in
which caches fill. Appends a JSON line for each reading, prints a table, and exits with 1 where memory grows by a KiB an
episode or more, or descriptors at all.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from laboratory.common import about, check_least
from scipy.stats import linregress
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.environments import make_env, make_vec_env, use_one_thread
from ssdkd_agents.lines import append_line
from ssdkd_agents.seeds import MEASUREMENT_SEED
from tqdm import tqdm

#: An episode of a tenth of a second.
BUDGET = {"rounds": 3, "warmup_rounds": 1, "candidates": 8, "inversion_steps": 1, "student_steps": 2, "batch_size": 8}
ENVIRONMENT = "SSDKD/Digits-v2"
#: Environments of a group.
GROUP = 4
#: KiB an episode from which on memory is said to grow.
MOST_GROWTH = 1.0
#: Of all episodes the share in which caches fill.
WARM_UP = 0.2


@dataclass
class Arguments(Plugins):
    """Command line of `measure_memory`."""

    out: Path
    """JSON-lines file to write; must not exist."""
    episodes: int = 2_000
    """Of each way of stepping."""
    readings: int = 200
    """Of each way of stepping."""


def main(args: Arguments) -> None:
    """Play, read, fit."""
    check_lines_file("out", args.out)
    check_least(args, readings=10, episodes=args.readings)
    use_one_thread()
    rows, grows = [], False
    for way, episodes in (("single", single()), ("grouped", grouped())):
        lines = list(read(way, episodes, args))
        for line in lines:
            append_line(args.out, line)
        settled = [line for line in lines if line["episodes"] > WARM_UP * args.episodes]
        counts = [line["episodes"] for line in settled]
        fit = linregress(counts, [line["rss_kib"] for line in settled])
        descriptors = {line["descriptors"] for line in settled}
        low, high = fit.slope - 2 * fit.stderr, fit.slope + 2 * fit.stderr
        rows.append([way, str(args.episodes), f"{fit.slope:.3f} [{low:.3f}, {high:.3f}]", str(sorted(descriptors))])
        grows |= fit.slope >= MOST_GROWTH or max(descriptors) > min(descriptors)
    append_line(args.out, about(torch.device("cpu")))
    print(markdown_table(["stepped", "episodes", "KiB an episode (± 2 standard errors)", "open descriptors"], rows))
    if grows:
        sys.exit(1)


def single() -> Iterator[int]:
    """Episodes of one environment, for ever: how many more have ended."""
    env = make_env(ENVIRONMENT, {"budget": BUDGET})
    env.action_space.seed(0)
    for seed in count(MEASUREMENT_SEED):
        env.reset(seed=seed)
        over = False
        while not over:
            over = env.step(env.action_space.sample())[2]
        yield 1


def grouped() -> Iterator[int]:
    """Episodes of a group of environments, for ever: how many more have ended."""
    envs = make_vec_env(ENVIRONMENT, {"budget": BUDGET}, GROUP, "grouped", 1)
    envs.action_space.seed(0)
    envs.reset()
    while True:
        _, _, dones, _ = envs.step(np.array([envs.action_space.sample() for _ in range(GROUP)]))
        if dones.any():
            yield int(dones.sum())


def read(way: str, episodes: Iterator[int], args: Arguments) -> Iterator[dict[str, Any]]:
    """Play so many episodes, and read what the process holds."""
    process, played, due = psutil.Process(), 0, args.episodes / args.readings
    with tqdm(total=args.episodes, desc=way, unit="episode") as bar:
        while played < args.episodes:
            more = next(episodes)
            played += more
            bar.update(more)
            if played >= due:
                due += args.episodes / args.readings
                gc.collect()  # or the reading is of when the collector last ran
                yield {
                    "stepped": way,
                    "episodes": played,
                    "rss_kib": process.memory_info().rss / 1024,
                    "descriptors": process.num_fds(),
                }


if __name__ == "__main__":
    launch(Arguments, main, __doc__)
