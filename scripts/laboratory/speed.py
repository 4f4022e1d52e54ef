"""Measuring how fast many runs go side by side, and how fast one checkout is beside another."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ssdkd_agents.machine import MIB
from ssdkd_agents.vec_env import DistillationVecEnv

from laboratory.machine import kernel_bytes
from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Task

#: Largest difference in float64 between a run in a group and the same run alone that is still rounding.
GATE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Side:
    """A way of stepping many environments.

    Attributes:
        name: in tables.
        backend: of `SubEnvironments`.
        processes: among which the environments are divided; None leaves it to the backend.
        engine: backend of each environment's runs.
    """

    name: str
    backend: str
    processes: int | None = None
    engine: str = "auto"


def sides(count: int, cores: int, compiled: bool = False) -> list[Side]:
    """The ways of stepping `count` environments on so many cores, the reference first.

    Args:
        count: environments.
        cores: that may be used.
        compiled: also grouped with the hot loops compiled.
    """
    ways = [Side("one after another", "loop", 1)]
    if count > 1:
        ways.append(Side("grouped", "grouped", 1))
        if compiled:
            ways.append(Side("grouped, compiled", "grouped", 1, engine="compiled"))
    processes = min(cores, count)
    if processes > 1:
        ways.append(Side(f"{processes} processes", "process", processes))
    if processes > 1 and count > processes:
        ways.append(Side(f"grouped in {processes} processes", "grouped", processes))
    return ways


class SteppedEnvironments:
    """Environments that are stepped with the paper's sampler, and reset at their episodes' ends.

    Args:
        env: one of them.
        kwargs: its arguments.
        count: how many.
        side: how.
    """

    def __init__(self, env: SSDKDEnv, kwargs: dict[str, Any], count: int, side: Side) -> None:
        self.envs = DistillationVecEnv(count, kwargs | {"backend": side.engine}, side.backend, side.processes)
        self._actions = np.stack([env.paper_action] * count)
        self._rounds = env.budget.rounds
        self._done = 0
        self.envs.seed(0)
        self.envs.reset()

    def seconds(self, steps: int) -> list[float]:
        """Wall seconds of each of some steps of all environments; resets are not counted."""
        times = []
        for _ in range(steps):
            if self._done == self._rounds - 1:  # the last step of an episode would reset in the same call
                self.envs.reset()
                self._done = 0
            started = time.perf_counter()
            self.envs.step(self._actions)
            times.append(time.perf_counter() - started)
            self._done += 1
        return times


def memory_mib() -> float:
    """Resident memory of this process and of those that it started, in MiB; 0 where the system does not say."""
    resident = [kernel_bytes(f"/proc/{pid}/status", "VmRSS") for pid in ["self", *_children()]]
    return sum(nbytes for nbytes in resident if nbytes is not None) / MIB


def _children() -> list[str]:
    path = Path("/proc/self/task")
    files = path.glob("*/children") if path.exists() else ()
    return [pid for file in files for pid in file.read_text().split()]


def grouped_error(env: SSDKDEnv, count: int = 3, rounds: int = 2) -> float:
    """Largest difference in float64 between the students of grouped runs and of the same runs alone.

    The gate of every figure of speed: where it is above `GATE_TOLERANCE` the two sides do not do the same.
    """
    with ExitStack() as undo:
        undo.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        budget = replace(env.budget, rounds=rounds, warmup_rounds=1)
        budget = replace(budget, student_steps=min(budget.student_steps, 8))
        teacher = copy.deepcopy(env.task.teacher_on(torch.device("cpu"))).double()
        task = Task(replace(env.task.spec, budget=budget), teacher)
        alone, together = (
            [DistillationRun(task, env.method, seed, env.device, env.backend) for seed in range(count)]
            for _ in range(2)
        )
        grouped, plan = GroupedRuns(), SamplingPlan()
        for _ in range(rounds):
            for run in alone:
                run.step(plan)
            grouped.play([partial(run.step, plan) for run in together])
        pairs = zip(alone, together, strict=True)
        # `torch.max` passes NaN on, Python's own does not.
        return float(torch.stack([_difference(*pair) for pair in pairs]).max())


@torch.no_grad()
def _difference(first: DistillationRun, second: DistillationRun) -> torch.Tensor:
    mine, theirs = ([*run.student.parameters(), run.buffer.residents.discrepancy] for run in (first, second))
    return torch.stack([(a - b).abs().max() for a, b in zip(mine, theirs, strict=True)]).max()


#: Plays episodes in a checkout, with nothing but what every version of the environment has.
EPISODE = """
import json, sys, time
import gymnasium, torch
torch.set_num_threads(1)
import ssdkd_env
for seed in map(int, sys.argv[1:]):
    env = gymnasium.make("SSDKD/Digits-v2", device="cpu").unwrapped
    started = time.perf_counter()
    env.reset(seed=seed)
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(env.paper_action)
    print(json.dumps({"seed": seed, "seconds": time.perf_counter() - started, "accuracy": info["accuracy"]}))
"""


def play_in_checkout(checkout: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds and accuracy of digits episodes with the paper's sampler, in a process of a checkout's own code.

    The first episode of the process warms up and is left out of the result.

    Raises:
        InvalidInputError: when the folder is no checkout, or the episode fails there.
    """
    if not (checkout / "ssdkd_env" / "__init__.py").is_file():
        raise InvalidInputError(f"--before {checkout} holds no ssdkd_env; give a checkout, as of `git worktree add`")
    arguments = [sys.executable, "-c", EPISODE, "0", *map(str, seeds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(arguments, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InvalidInputError(f"--before {checkout}: an episode failed there: {done.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in done.stdout.splitlines()][1:]
