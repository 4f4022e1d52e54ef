"""How fast many runs go side by side, one checkout beside another, and a round beside what a device can do."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from laboratory.common import float64, timed
from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import Task
from ssdkd_env.threads import alone

#: Largest difference in float64 between a run in a group and the same run alone that is still rounding.
GATE_TOLERANCE = 1e-6
#: Channels and side of the maps of the convolutions that are tried.
CONVOLUTIONS = ((16, 32), (64, 32), (128, 16), (256, 8))
#: Turns of each measurement of a device, and of a round, of which the fastest counts.
TURNS, ROUND_TURNS = 5, 3


class Side(NamedTuple):
    """A way of stepping many environments: its name, backend of `SubEnvironments`, processes, backend of the runs."""

    name: str
    backend: str
    processes: int | None = None
    engine: str = "auto"


def sides(count: int, cores: int, compiled: bool = False) -> list[Side]:
    """The ways of stepping `count` environments on so many cores, the reference first; some `compiled` if wanted."""
    processes = min(cores, count)
    ways = {
        Side("one after another", "loop", 1): True,
        Side("grouped", "grouped", 1): count > 1,
        Side("grouped, compiled", "grouped", 1, engine="compiled"): count > 1 and compiled,
        Side(f"{processes} processes", "process", processes): processes > 1,
        Side(f"grouped in {processes} processes", "grouped", processes): count > processes > 1,
    }
    return [side for side, sensible in ways.items() if sensible]


def grouped_error(env: SSDKDEnv, count: int = 3, rounds: int = 2) -> float:
    """Largest difference in float64 between the students of grouped runs and of the same runs alone.

    The gate of every figure of speed: where it is above `GATE_TOLERANCE` the two sides do not do the same.
    """
    with float64():
        budget = replace(env.budget, rounds=rounds, warmup_rounds=1, student_steps=min(env.budget.student_steps, 8))
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
        differences = [(_numbers(a) - _numbers(b)).abs().max() for a, b in zip(alone, together, strict=True)]
        return float(torch.stack(differences).max())  # `torch.max` passes NaN on, Python's own does not


def _numbers(run: DistillationRun) -> Tensor:
    return torch.cat([p.detach().flatten() for p in (*run.student.parameters(), run.buffer.residents.discrepancy)])


#: Plays episodes in a checkout, with nothing but what every version of the environment has.
EPISODE = """
import json, sys, time
import gymnasium, torch
torch.set_num_threads(1)
import ssdkd_env
env_id, kwargs, seeds = json.loads(sys.argv[1])
for seed in seeds:
    env = gymnasium.make(env_id, **kwargs).unwrapped
    started = time.perf_counter()
    env.reset(seed=seed)
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(env.paper_action)
    line = {"seed": seed, "seconds": time.perf_counter() - started, "accuracy": info.get("accuracy")}
    # The system's other count begins with the memory of the process that started this one.
    (peak,) = [row.split()[1] for row in open("/proc/self/status") if row.startswith("VmHWM")]
    print(json.dumps(line | {"peak_mib": int(peak) / 1024}))
"""

#: Steps many environments in a checkout, in the way that it takes unless told otherwise; resets are not counted.
STEPS = """
import json, sys, time
import gymnasium, numpy, torch
torch.set_num_threads(1)
import ssdkd_env
env_id, kwargs, count, steps, unlike = json.loads(sys.argv[1])
actions = numpy.stack([gymnasium.make(env_id, **kwargs).unwrapped.paper_action] * count)
if unlike:
    actions = numpy.random.default_rng(0).uniform(-1, 1, actions.shape).astype(numpy.float32)
envs = gymnasium.make_vec(env_id, num_envs=count, vectorization_mode="vector_entry_point", **kwargs)
envs.reset(seed=0)
for _ in range(2 + steps):
    started = time.perf_counter()
    envs.step(actions)
    print(json.dumps({"environments": count, "seconds": time.perf_counter() - started, "way": str(envs.choice)}))
envs.close()
"""


@dataclass(frozen=True)
class Checkout:
    """Code of another version, which plays in processes of its own.

    Attributes:
        folder: as of `git worktree add`.
        env_id: an environment that it has.
        kwargs: arguments of the environment that it has.
    """

    folder: Path
    env_id: str
    kwargs: Mapping[str, Any]

    def play(self, seeds: Sequence[int], warm_up: bool = True) -> list[dict[str, Any]]:
        """Seconds of episodes with the paper's sampler, accuracy on real images if any, and the process's peak memory.

        With `warm_up` a first episode is played that is left out of the result.

        Raises:
            InvalidInputError: when the folder is no checkout, or the episode fails there.
        """
        return self._run(EPISODE, [[0] * warm_up + list(seeds)])[warm_up:]

    def step(self, count: int, steps: int, unlike: bool) -> list[dict[str, Any]]:
        """Seconds of each step of `count` environments side by side, by the paper's action or `unlike` random ones.

        The first two steps warm up and are left out of the result.

        Raises:
            InvalidInputError: when the folder is no checkout, or a step fails there.
        """
        return self._run(STEPS, [count, steps, unlike])[2:]

    def _run(self, program: str, arguments: list[Any]) -> list[dict[str, Any]]:
        """What a program prints, a JSON object a line."""
        if not (self.folder / "ssdkd_env" / "__init__.py").is_file():
            raise InvalidInputError(
                f"--before {self.folder} holds no ssdkd_env; give a checkout, as of `git worktree add`"
            )
        command = [sys.executable, "-c", program, json.dumps([self.env_id, self.kwargs, *arguments])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder.resolve())}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1]
            raise InvalidInputError(f"--before {self.folder}: an episode failed there: {said}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def convolution_rate(channels: int, side: int, device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of a 3×3 convolution of 64 maps in channels_last."""
    maps, weights = torch.randn(64, channels, side, side), torch.randn(channels, channels, 3, 3)
    maps, weights = (x.to(device, dtype).contiguous(memory_format=torch.channels_last) for x in (maps, weights))
    with torch.no_grad():
        seconds = fastest(lambda: F.conv2d(maps, weights, padding=1), device)
    return 2 * 9 * channels**2 * 64 * side**2 / seconds


def fastest(work: Callable[[], Any], device: torch.device, turns: int = TURNS) -> float:
    """Seconds of the fastest turn, after one that warms up."""
    return min([timed(device, work)[1] for _ in range(turns + 1)][1:])


def cost_of_round(run: DistillationRun, reference: DistillationRun) -> dict[str, float]:
    """Count the work of a round, and time it.

    Args:
        run: to be timed, however its backend and precision do it.
        reference: the same run, whose operations are counted: not compiled, with the same precision.

    Returns:
        `flops` of convolutions and products, all networks, forward and backward; `seconds` of the fastest round.
    """
    plan = SamplingPlan()
    reference.step(plan)
    with alone(), FlopCounterMode(display=False) as flops:
        reference.step(plan)
    seconds = fastest(lambda: run.step(plan), run.device, turns=ROUND_TURNS)
    return {"flops": flops.get_total_flops(), "seconds": seconds}
