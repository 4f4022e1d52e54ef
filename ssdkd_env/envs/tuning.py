"""Which way of doing many environments' work is taken: by their size, or tried out in about a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.threads import one_at_a_time

if TYPE_CHECKING:
    from ssdkd_env.envs.distillation import SSDKDEnv

#: Runs that are tried side by side: more would tell little more.
MOST_TRIED = 8
#: Student minibatches and inversion steps of the rounds that are timed, and how often each side is timed.
TRIED_STEPS, TRIED_INVERSIONS, REPEATS = 6, 2, 3
#: Seconds that the trial may take, as far as two runs allow.
AFFORDABLE = 2.0
#: Pixels of an image up to which a group is taken on a CPU (12×12); beyond, a run fills a core alone.
PIXELS_OF_A_GROUP = 144
#: A group must be faster by this factor, for it needs more memory.
MARGIN = 1.05


@dataclass(frozen=True)
class Choice:
    """How the work of many environments is done.

    Attributes:
        backend: `"loop"`, `"process"` or `"grouped"`.
        processes: among which the environments are divided.
        reason: for people to read.
    """

    backend: str
    processes: int
    reason: str

    def __str__(self) -> str:
        where = "" if self.processes == 1 else f" in {self.processes} processes"
        return f"{self.backend}{where}: {self.reason}"


def choose_by_size(env: SSDKDEnv, count: int, cores: int, processes: int | None) -> Choice:
    """The way that fits the size of the images, which one machine always chooses alike.

    Args:
        env: one of the environments.
        count: how many there will be.
        cores: that may be used.
        processes: as many as the user asked for; None is one for each core, and one on a GPU.
    """
    if processes is None:
        processes = min(cores, count) if env.device.type == "cpu" else 1
    apart = "process" if processes > 1 else "loop"
    _, height, width = env.task.spec.image_shape
    size = f"images of {height}×{width}"
    if -(-count // processes) == 1:
        return Choice(apart, processes, "a group needs two environments in a process")
    if env.device.type == "cpu" and height * width > PIXELS_OF_A_GROUP:
        return Choice(apart, processes, f"{size} fill a core one by one")
    return Choice("grouped", processes, f"{size} leave a core idle one by one")


@one_at_a_time
def choose(env: SSDKDEnv, count: int, cores: int, processes: int | None) -> Choice:
    """Time short rounds of a few runs, one by one against together, and divide them among the cores.

    Args:
        env: one of the environments.
        count: how many there will be.
        cores: that may be used.
        processes: as many as the user asked for; None to choose.
    """
    if processes is None:
        processes = min(cores, count) if env.device.type == "cpu" else 1
    tried = min(-(-count // processes), MOST_TRIED)
    if tried == 1:
        backend = "process" if processes > 1 else "loop"
        return Choice(backend, processes, "a group needs two environments in a process")
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if processes > 1 else threads)  # as the processes will have
    try:
        tried, alone, together = _race(env, tried)
    finally:
        torch.set_num_threads(threads)
    reason = f"{tried} short rounds took {alone:.3f} s one by one, {together:.3f} s grouped"
    if alone > MARGIN * together:
        return Choice("grouped", processes, reason)
    return Choice("process" if processes > 1 else "loop", processes, reason)


def _race(env: SSDKDEnv, count: int) -> tuple[int, float, float]:
    """How many runs were tried, and the seconds of a short round of them one by one, and together."""
    short = replace(
        env.budget,
        rounds=REPEATS + 3,
        warmup_rounds=1,
        student_steps=min(TRIED_STEPS, env.budget.student_steps),
        inversion_steps=min(TRIED_INVERSIONS, env.budget.inversion_steps),
    )
    task = env.task.with_budget(short)
    method = replace(env.method, steps=min(env.method.steps, TRIED_INVERSIONS))
    grouped, plan = GroupedRuns(), SamplingPlan()
    first = DistillationRun(task, method, 0, env.device, env.backend, env.precision)
    first.warm_up()
    once = _seconds(lambda: first.step(plan))
    count = max(2, min(count, int(AFFORDABLE / (2 * (REPEATS + 1) * once))))
    alone, together = (
        [DistillationRun(task, method, seed, env.device, env.backend, env.precision) for seed in range(count)]
        for _ in range(2)
    )
    sides: list[Callable[[], Any]] = [
        lambda: [run.step(plan) for run in alone],
        lambda: grouped.play([partial(run.step, plan) for run in together]),
    ]
    for side in sides:
        side()  # the first round of each warms up
    seconds = [[_seconds(side) for side in sides] for _ in range(REPEATS)]
    return count, *(min(times) for times in zip(*seconds, strict=True))


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
