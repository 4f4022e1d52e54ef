"""How fast it is: many runs side by side, and this checkout beside an earlier one.

Examples:
  python scripts/measure_speed.py runs --out runs/digits-runs.jsonl
  python scripts/measure_speed.py versions --before ../first --out runs/digits-versions.jsonl
  python scripts/measure_speed.py peak --env-id SSDKD/CIFAR10-v2 --env.teacher t.safetensors --out runs/peak.jsonl

Each appends JSON lines to a new file, writes a picture of the same name where there is something to see, and prints a
Markdown table. The sides take turns in one command. Let the machine do nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from laboratory.common import Environments, about, check_least, memory_mib, timed, untrained_teacher
from laboratory.plots import plot_runs
from laboratory.speed import (
    CONVOLUTIONS,
    GATE_TOLERANCE,
    ROUND_TURNS,
    Checkout,
    convolution_rate,
    cost_of_round,
    grouped_error,
    sides,
)
from laboratory.statistics import two_digits
from ssdkd_agents.analysis.markdown import EMPTY
from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean
from ssdkd_agents.commands.command_line import Plugins, check_lines_file, launch
from ssdkd_agents.commands.dialect import ENV, EnvOptions
from ssdkd_agents.commands.given import refuse_settings
from ssdkd_agents.environments import env_arguments, make_env, use_one_thread
from ssdkd_agents.lines import append_line
from ssdkd_agents.machine import peak_device_memory_mib, peak_memory_mib
from tqdm import tqdm

from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.envs.sub_environments import usable_cores
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.registry import TASKS


@dataclass
class Runs(Plugins):
    """Environment steps per second in all, for several numbers of environments and each way of stepping them.

    First a gate: in float64 a run in a group must give what it gives alone, or there is no figure.
    """

    out: Path
    """JSON-lines file to write; must not exist."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    counts: tuple[int, ...] = (1, 4, 16, 64)
    """Numbers of environments."""
    blocks: int = 6
    """Turns of each way; a turn is a step of all environments."""
    compiled: bool = False
    """Also grouped with the hot loops compiled, whose compilation comes before the first turn."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


@dataclass
class Versions(Plugins):
    """Seconds of an episode, or of a step of many, in an earlier checkout and in this one, taking turns.

    Both must know the environment and the arguments that are given; a relative path in them is meant from each.
    """

    before: Path
    """Checkout to compare with, as `git worktree add ../first ed43f66` makes it."""
    out: Path
    """JSON-lines file to write; must not exist."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    episodes: int = 10
    """Episodes of each side."""
    warm_up: bool = True
    """First an episode in each process that is not counted."""
    turns: int = 5
    """Processes of each side among which the episodes are divided."""
    environments: int = 1
    """Above 1, each turn steps so many environments side by side `--steps` times, and plays no whole episode."""
    steps: int = 10
    """Steps of all environments in a turn."""
    unlike: bool = False
    """Step each of them with a random action of its own, the same every time and on both sides; else the paper's."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment, on the CPU."""


@dataclass
class Peak(Plugins):
    """Share of the device's rate of convolutions that a round reaches.

    That of the fastest of some convolutions, measured in the same command. The buffer should be full: give as many
    warm-up rounds as that takes.
    """

    out: Path
    """JSON-lines file to write; must not exist."""
    env_id: str = "SSDKD/Digits-v2"
    """Environment id."""
    untrained: bool = False
    """With a teacher of the task's network whose weights nobody has trained, on which times do not depend."""
    env: EnvOptions = field(default_factory=ENV)
    """Arguments of the environment."""


def main(args: Runs | Versions | Peak) -> None:
    """Measure one of the three."""
    check_lines_file("out", args.out)
    use_one_thread()
    {Runs: measure_runs, Versions: measure_versions, Peak: measure_peak}[type(args)](args)  # type: ignore[operator]


def measure_runs(args: Runs) -> None:
    kwargs = args.env.settings()
    refuse_settings(args.env, {"rounds_per_step": "leave it out: rounds are what is measured"})
    env, arguments = make_env(args.env_id, kwargs), env_arguments(args.env_id, kwargs)
    error = grouped_error(env)
    append_line(args.out, {"gate": error, "tolerance": GATE_TOLERANCE} | about(env.device))
    if not error <= GATE_TOLERANCE:
        raise InvalidInputError(f"a grouped run differs by {error:.2g} from the same run alone: no figure")
    print(f"gate: a grouped run differs by {error:.1e} in float64 from the same run alone\n")
    rates: dict[str, dict[int, Interval]] = {}
    print("| environments | way | steps/s in all | over one after another | MiB more | s to start |")
    print("|---|---|---|---|---|---|")
    for count in args.counts:
        lines = _measure_count(arguments, count, args)
        for line in lines:
            append_line(args.out, line)
            rate = bootstrap_mean(count / seconds for seconds in line["seconds"])
            rates.setdefault(line["way"], {})[count] = rate
            shown = f"{two_digits(rate)} | {_ratio(lines[0]['seconds'], line['seconds'])} | {line['memory_mib']:.0f}"
            print(f"| {count} | {line['way']} | {shown} | {line['seconds_to_start']:.0f} |", flush=True)
    plot_runs(rates, args.out.with_suffix(".png"))


def _measure_count(kwargs: dict[str, Any], count: int, args: Runs) -> list[dict[str, Any]]:
    """A line for each way; the ways take turns, step by step. Resets are not counted."""
    ways: list[Environments] = []
    lines: list[dict[str, Any]] = []
    with ExitStack() as closing:
        for side in sides(count, usable_cores(), args.compiled):
            before, started = memory_mib(), time.perf_counter()
            ways.append(Environments(kwargs | {"backend": side.engine}, count, side.backend, side.processes))
            closing.callback(ways[-1].close)
            for _ in range(2):  # buffers of kernels, processes that start, compilation
                ways[-1].ready()
                ways[-1].once()
            start = {"memory_mib": memory_mib() - before, "seconds_to_start": time.perf_counter() - started}
            lines.append({"environments": count, "way": side.name, "seconds": []} | start)
        for _ in tqdm(range(args.blocks), desc=f"{count} environments", leave=False):
            for line, way in zip(lines, ways, strict=True):
                way.ready()
                line["seconds"].append(timed(way.device, way.once)[1])
    return lines


def measure_versions(args: Versions) -> None:
    """See `Versions`."""
    check_least(args, episodes=1, turns=1, environments=1, steps=1)
    kwargs = args.env.settings() | {"device": "cpu"}
    here = Path(__file__).resolve().parents[1]
    checkouts = {"before": Checkout(args.before, args.env_id, kwargs), "now": Checkout(here, args.env_id, kwargs)}
    played: dict[str, list[dict[str, Any]]] = {side: [] for side in checkouts}
    many = args.environments > 1
    if many and args.steps > (most := make_env(args.env_id, kwargs).budget.rounds - 2):
        raise InvalidInputError(f"--steps {args.steps}: expected at most {most}, so that no episode ends meanwhile")
    for turn in tqdm(range(args.turns), unit="turn"):
        seeds = range(1_000_000 + turn, 1_000_000 + args.episodes, args.turns)
        for side, checkout in checkouts.items():
            lines = (
                checkout.step(args.environments, args.steps, args.unlike)
                if many
                else checkout.play(seeds, args.warm_up)
            )
            for line in lines:
                append_line(args.out, {"side": side, "turn": turn} | line)
            played[side] += [{"turn": turn} | line for line in lines]
    append_line(args.out, {"env_id": args.env_id, "env_kwargs": kwargs} | about(torch.device("cpu")))
    _report_steps(played, args.environments) if many else _report_episodes(played)
    seconds = {
        side: _of_turns(lines) if many else [line["seconds"] for line in lines] for side, lines in played.items()
    }
    print(f"\nbefore over now: {_ratio(seconds['before'], seconds['now'])}")


def _report_episodes(played: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    print("| side | seconds an episode (median) | accuracy | peak MiB |\n|---|---|---|---|")
    for side, episodes in played.items():
        seconds, peak = ([episode[name] for episode in episodes] for name in ("seconds", "peak_mib"))
        measured = [episode["accuracy"] for episode in episodes if episode["accuracy"] is not None]
        accuracy = str(bootstrap_mean(measured)) if measured else EMPTY
        print(f"| {side} | {np.median(seconds):.2f} | {accuracy} | {max(peak):.0f} |")


def _report_steps(played: Mapping[str, Sequence[dict[str, Any]]], environments: int) -> None:
    print(f"| side | steps/s of {environments} environments in all | way |\n|---|---|---|")
    for side, steps in played.items():
        rate = bootstrap_mean(environments / seconds for seconds in _of_turns(steps))
        print(f"| {side} | {two_digits(rate)} | {'; '.join(sorted({step['way'] for step in steps}))} |")


def _of_turns(steps: Sequence[dict[str, Any]]) -> list[float]:
    """Mean seconds of a step in each turn: steps of one process are no samples of their own."""
    turns = sorted({step["turn"] for step in steps})
    return [float(np.mean([step["seconds"] for step in steps if step["turn"] == turn])) for turn in turns]


def measure_peak(args: Peak) -> None:
    """See `Peak`."""
    with TemporaryDirectory() as folder:
        settings = args.env.settings()
        if args.untrained:
            refuse_settings(args.env, {"teacher": "leave it out, or --untrained"})
            registered = gym.registry.get(args.env_id)
            spec = TASKS[registered.kwargs.get("task", "digits") if registered else "digits"]
            settings["teacher"] = str(untrained_teacher(spec, Path(folder) / "untrained.safetensors"))
        env = make_env(args.env_id, settings)
    if env.budget.rounds < (needed := 2 + ROUND_TURNS):
        raise InvalidInputError(f"--env.budget.rounds {env.budget.rounds}: expected at least {needed}, to be played")
    dtype = torch.bfloat16 if env.precision == "bfloat16" else torch.float32
    counted = "fast" if env.backend == "compiled" else env.backend
    run, reference = (
        DistillationRun(env.task, env.method, 0, env.device, backend, env.precision)
        for backend in (env.backend, counted)
    )
    started = time.perf_counter()
    run.step(SamplingPlan())
    first_round = time.perf_counter() - started
    cost = cost_of_round(run, reference)
    fastest = max(convolution_rate(*shape, env.device, dtype) for shape in CONVOLUTIONS)
    cost["peak_memory_mib"] = peak_device_memory_mib(env.device) or peak_memory_mib()
    rate = cost["flops"] / cost["seconds"]
    line = {"cost": cost, "convolution": fastest, "share": rate / fastest, "first_round_seconds": first_round}
    asked = {"env_id": args.env_id, "env_kwargs": args.env.settings(), "untrained": args.untrained}
    append_line(args.out, line | asked | about(env.device))
    print("| GFLOP/s of a round | of the fastest convolution | share |\n|---|---|---|")
    print(f"| {rate / 1e9:.1f} | {fastest / 1e9:.1f} | {rate / fastest:.0%} |")
    memory = f"{cost['peak_memory_mib']:.0f} MiB at most"
    print(f"\n{cost['seconds']:.3f} s a round; warm-up and first round took {first_round:.1f} s; {memory}")


def _ratio(before: Sequence[float], now: Sequence[float]) -> str:
    return two_digits(bootstrap_mean(a / b for a, b in zip(before, now, strict=True)))


if __name__ == "__main__":
    launch(Runs | Versions | Peak, main, __doc__)  # type: ignore[arg-type]
