"""What a Ray cluster costs, and what dies with its workers and nodes, on a cluster of two nodes of this machine.

Examples:
  python scripts/measure_cluster.py overhead --out runs/overhead.jsonl
  python scripts/measure_cluster.py rate --out runs/rate.jsonl
  python scripts/measure_cluster.py kills --out runs/kills.jsonl
  python scripts/measure_cluster.py training --out runs/training.jsonl

`overhead` plays episodes by the processes of this machine and by the cluster in turn, as many side by side. `rate` has
jobs that take no time, so that the command itself is all that does. `kills` has a comparison whose workers or nodes are
killed at random moments: its lines must be those of one that nobody disturbed, each once. `training` trains with
environments whose workers are killed: what it leaves must be what a training on this machine leaves. Appends JSON
lines, prints a table; exit code 1 where anything is not as it must be.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from laboratory.cluster import LocalCluster, answered
from laboratory.common import about, check_least, in_turn
from laboratory.durability import COMMANDS, difference, essence
from ssdkd_agents.analysis.markdown import markdown_table
from ssdkd_agents.analysis.statistics import bootstrap_mean
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episodes
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.lines import append_line, read_lines
from ssdkd_agents.workers import run_jobs
from tqdm import tqdm

from ssdkd_env.cluster import RayCluster
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import Executor
from ssdkd_env.processes import Processes

Line = dict[str, Any]
#: Nodes, and cores that each says it has.
NODES = 2
#: Lines of episodes.
KEPT = Path(__file__).resolve().parents[1] / "results" / "digits-ablation.jsonl.gz"


@dataclass
class Overhead(Plugins):
    """Wall time of the same episodes, by processes of this machine and by the cluster."""

    out: Path
    """JSON-lines file to write; must not exist."""
    env_id: str = "SSDKD/Digits-v2"
    """Of the environment."""
    episodes: int = 64
    """In each turn of each side."""
    turns: int = 5
    """Of both sides, which begin alternately."""


@dataclass
class Rate(Plugins):
    """Lines a second that a command gives out, takes back and writes, where episodes take no time."""

    out: Path
    """JSON-lines file to write; must not exist."""
    jobs: int = 2000
    """In each turn of each side."""
    turns: int = 5
    """Of both sides, which begin alternately."""


@dataclass
class Kills(Plugins):
    """A worker or a node that is killed at a random moment of a comparison."""

    out: Path
    """JSON-lines file to write; must not exist."""
    workers: int = 10
    """Comparisons that lose a worker."""
    nodes: int = 10
    """Comparisons that lose a node."""
    seeds: int = 3
    """Of each comparison, of two methods."""
    rounds: int = 100
    """Of each episode, which should take longer than a worker's start."""


@dataclass
class Training(Plugins):
    """Workers that are killed while a training's environments are theirs."""

    out: Path
    """JSON-lines file to write; must not exist."""
    kills: int = 5
    """Workers that are killed, at random moments."""
    timesteps: int = 192
    """Of the training."""


def main(args: Overhead | Rate | Kills | Training) -> None:
    """Measure, and report."""
    check_lines_file("out", args.out)
    ways: dict[type, Callable[[Any], bool]] = {Overhead: overhead, Rate: rate, Kills: kills, Training: training}
    right = ways[type(args)](args)
    append_line(args.out, about(torch.device("cpu")))
    if not right:
        sys.exit(1)


def overhead(args: Overhead) -> bool:
    """See `Overhead`."""
    check_least(args, episodes=2 * NODES, turns=1)
    configs = [EpisodeConfig(args.env_id, "paper", seed, {}) for seed in range(args.episodes)]
    ratios, starts = [], dict[str, list[float]](local=[], ray=[])
    began = time.perf_counter()
    with LocalCluster(NODES) as cluster, RayCluster(cluster.address, NODES) as ray:
        line: Line = {"step": "a cluster's start", "seconds": time.perf_counter() - began}
        append_line(args.out, line)
        sides: dict[str, Executor] = {"local": Processes(NODES), "ray": ray}
        for turn in tqdm(range(args.turns), unit="turn"):
            rates = {}
            for name in in_turn(sides, turn):
                first, seconds, returns = played(configs, sides[name])
                rates[name] = seconds
                starts[name].append(first)
                line = {"step": "episodes", "side": name, "turn": turn, "first": first, "seconds": seconds}
                append_line(args.out, line | {"returns": returns})
            ratios.append(rates["ray"] / rates["local"])
    rows = [[name, f"{sum(seconds) / len(seconds):.1f}"] for name, seconds in starts.items()]
    print(markdown_table(["side", "seconds to the first end of an episode of each worker"], rows))
    print(f"wall time of the others, by the cluster over by processes: {bootstrap_mean(ratios)}")
    return True


def played(configs: list[EpisodeConfig], executor: Executor) -> tuple[float, float, list[float]]:
    """Seconds until as many episodes have ended as there are workers, those of the others, and all returns."""
    began, ends, returns = time.perf_counter(), [], []
    for line in run_episodes(configs, executor):
        ends.append(time.perf_counter())
        returns.append(line["return"])
    first = ends[NODES - 1]
    return first - began, ends[-1] - first, returns


def rate(args: Rate) -> bool:
    """See `Rate`."""
    check_least(args, jobs=2 * NODES, turns=1)
    kept = next(iter(read_lines(KEPT)))
    rates = dict[str, list[float]](local=[], ray=[])
    with (
        tempfile.TemporaryDirectory(dir=args.out.parent) as folder,
        LocalCluster(NODES) as cluster,
        RayCluster(cluster.address, NODES) as ray,
    ):
        sides: dict[str, Executor] = {"local": Processes(NODES), "ray": ray}
        for turn in tqdm(range(args.turns), unit="turn"):
            for name in in_turn(sides, turn):
                ends = []
                for outcome in run_jobs(answered, [kept] * args.jobs, sides[name], lambda: False):
                    if outcome.result is None:
                        raise InvalidInputError(f"a job of {name} fails here: {outcome.error}")
                    append_line(Path(folder) / f"{name}.jsonl", outcome.result)
                    ends.append(time.perf_counter())
                rates[name].append((len(ends) - NODES) / (ends[-1] - ends[NODES - 1]))
                append_line(args.out, {"side": name, "turn": turn, "jobs": len(ends), "rate": rates[name][-1]})
    rows = [[name, str(bootstrap_mean(found))] for name, found in rates.items()]
    print(markdown_table(["side", f"lines/s of {len(json.dumps(kept)):,} characters"], rows))
    return True


def kills(args: Kills) -> bool:
    """See `Kills`."""
    check_least(args, workers=0, nodes=0, seeds=1, rounds=1)
    words = ["benchmark", *COMMANDS["benchmark"]]
    words[words.index("--seeds") + 1] = str(args.seeds)
    words[words.index("--env.budget.rounds") + 1] = str(args.rounds)
    at = words.index("--processes")
    del words[at : at + 2]
    kinds = ["a worker"] * args.workers + ["a node"] * args.nodes
    moments, right = random.Random(0), True
    with tempfile.TemporaryDirectory() as parent, LocalCluster(NODES) as cluster:
        folder = Path(parent) / "run"
        there = ["--executor", "ray", "--address", cluster.address, "--processes", str(NODES)]
        expected, seconds = undisturbed(words, folder, there, cluster)
        rows = dict.fromkeys(kinds, 0)
        for number, kind in enumerate(tqdm(kinds, unit="kill")):
            shutil.rmtree(folder)
            moment = moments.uniform(0.0, 0.9) * seconds
            kill = cluster.kill_worker if kind == "a worker" else cluster.kill_node
            code, said, hit, _ = disturbed([*words, "--out", str(folder), *there], cluster, [moment], kill)
            found = essence(folder)
            differs = difference(found.get("results.jsonl"), expected["results.jsonl"], "results.jsonl")
            as_it_must_be = code == 0 and not differs and hit == 1
            rows[kind] += as_it_must_be
            right = right and as_it_must_be
            append_line(
                args.out,
                {
                    "killed": kind, "number": number, "at": moment, "hit": hit, "code": code, "differs": differs,
                    "done_again": said.count("done once more"), "as_it_must_be": as_it_must_be,
                    "said": "" if as_it_must_be else said[-500:],
                },
            )  # fmt: skip
            cluster.refill()
    tried = [[kind, str(kinds.count(kind)), str(count)] for kind, count in rows.items()]
    print(markdown_table(["killed", "times", "every line there, and once"], tried))
    return right


def training(args: Training) -> bool:
    """See `Training`."""
    check_least(args, kills=0, timesteps=2)
    words = ["train", *COMMANDS["train"]]
    words[words.index("--timesteps") + 1] = str(args.timesteps)
    words[words.index("--checkpoint-every-steps") + 1] = str(args.timesteps // 4)
    words[words.index("--evaluate-every-steps") + 1] = str(args.timesteps // 4)
    words[words.index("n_envs=1")] = f"n_envs={2 * NODES}"
    with tempfile.TemporaryDirectory() as parent, LocalCluster(NODES) as cluster:
        here, there = Path(parent) / "here", Path(parent) / "there"
        expected, _ = undisturbed(words, here, [], cluster)
        remote = ["--executor", "ray", "--address", cluster.address]
        alone, seconds = undisturbed(words, there, remote, cluster)
        shutil.rmtree(there)
        moments = sorted(random.Random(0).uniform(0.0, 0.9) * seconds for _ in range(args.kills))
        kill = cluster.kill_worker
        code, said, hit, _ = disturbed([*words, "--out", str(there), *remote], cluster, moments, kill)
        found = essence(there)
    places = [place for name in expected if (place := difference(found.get(name), expected[name], name))]
    undisturbed_too = [place for name in expected if (place := difference(alone.get(name), expected[name], name))]
    right = code == 0 and not places and hit == args.kills
    line = {
        "kills": hit, "code": code, "differs": places, "differs_without_kills": undisturbed_too,
        "as_it_must_be": right, "said": "" if right else said[-500:],
    }  # fmt: skip
    append_line(args.out, line)
    print(f"{hit} workers killed: {'the training is that of one machine' if right else f'it differs in {places}'}")
    return right


def undisturbed(
    words: list[str], folder: Path, where: list[str], cluster: LocalCluster
) -> tuple[dict[str, Any], float]:
    """What a command leaves, and the seconds in which the cluster had workers of it.

    Raises:
        InvalidInputError: when it does not even run undisturbed.
    """
    code, said, _, seconds = disturbed([*words, "--out", str(folder), *where], cluster)
    if code != 0:
        raise InvalidInputError(f"{words[0]} does not run here: {said[-300:]}")
    return essence(folder), seconds


def disturbed(
    words: list[str], cluster: LocalCluster, moments: Sequence[float] = (), kill: Callable[[], bool] = lambda: False
) -> tuple[int, str, int, float]:
    """Run `ssdkd` with these words, and kill something at moments of it, counted from its first worker on.

    Returns:
        Its exit code, what it printed, how often there was something to kill, and the seconds from its first worker on.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ssdkd_agents", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.communicate()[0]))
    reader.start()
    while reader.is_alive() and not cluster.workers():
        reader.join(0.05)
    began, hit = time.perf_counter(), 0
    for moment in moments:
        reader.join(max(began + moment - time.perf_counter(), 0))
        killed = False
        while reader.is_alive() and not (killed := kill()):
            reader.join(0.05)  # until there is something
        hit += killed
    reader.join()
    return process.returncode, said[0], hit, time.perf_counter() - began


if __name__ == "__main__":
    launch(Overhead | Rate | Kills | Training, main, __doc__)  # type: ignore[arg-type]
