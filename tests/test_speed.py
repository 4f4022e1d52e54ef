"""A guard against losing speed: ratios of processor time in one process, with wide margins.

What is measured in earnest lies in `results/`. Here a side must lose much before a test fails, whatever the machine and
whatever else runs on it: both sides take turns, and the median turn counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ssdkd_env.distillation import DistillationRun, ReplayBuffer, SamplingPlan, make_method
from ssdkd_env.distillation.buffer import Entries
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.tasks import Task, load_task

TURNS = 5


@pytest.fixture
def task() -> Task:
    """Digits, with as much work a round as in the default budget but fewer minibatches."""
    digits = load_task("digits")
    return digits.with_budget(replace(digits.spec.budget, rounds=2 * TURNS, warmup_rounds=6, student_steps=16))


def ratio(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Median over the turns of the first side's processor time over the second's."""
    ratios = []
    for _ in range(TURNS):
        seconds = []
        for side in (first, second):
            started = time.process_time()
            side()
            seconds.append(time.process_time() - started)
        ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios))


def test_grouped_runs_are_faster_than_one_after_another(task: Task) -> None:
    """`results/digits-runs`: four grouped take 1/1.8 of the time."""
    alone, together = ([DistillationRun(task, make_method("ssdkd"), seed) for seed in range(4)] for _ in range(2))
    runs, plan = GroupedRuns(), SamplingPlan()
    runs.play([run.warm_up for run in together])
    for run in alone:
        run.warm_up()
    found = ratio(
        lambda: runs.play([partial(run.step, plan) for run in together]), lambda: [run.step(plan) for run in alone]
    )
    assert found < 0.8


def test_fast_backend_is_not_slower_than_the_plain_one(task: Task) -> None:
    fast, plain = (DistillationRun(task, make_method("ssdkd"), 0, backend=name) for name in ("fast", "plain"))
    fast.warm_up()
    plain.warm_up()
    assert ratio(lambda: fast.step(SamplingPlan()), lambda: plain.step(SamplingPlan())) < 1.1


def test_environment_costs_little_beside_its_engine() -> None:
    """`results/digits-overhead`: 1.03 times the engine and the accuracy that a user would want to know."""
    env = SSDKDEnv(budget={"rounds": 2 * TURNS})
    env.reset(seed=0)
    bare = DistillationRun(env.task, env.method, 0)
    bare.warm_up()
    action, plan = env.paper_action, env.action_scheme.to_plan(env.paper_action)

    def engine() -> None:
        bare.step(plan)
        env.task.accuracy(bare.student, bare.device)

    assert ratio(lambda: env.step(action), engine) < 1.25


def test_update_of_a_large_buffer_grows_no_faster_than_its_size() -> None:
    """Ten times the images."""

    def full(capacity: int) -> Callable[[], object]:
        buffer = ReplayBuffer(capacity, (3, 8, 8), 10, torch.device("cpu"))
        buffer.update(make_entries(capacity), torch.zeros(capacity), capacity)
        candidates, keys = make_entries(64), torch.rand(capacity + 64, dtype=torch.float64)
        return lambda: [buffer.update(candidates, keys, 64) for _ in range(5)]

    assert ratio(full(50_000), full(5_000)) < 12


def make_entries(count: int) -> Entries:
    number = torch.zeros(count)
    return Entries(
        images=torch.zeros((count, 3, 8, 8), dtype=torch.uint8),
        teacher_logits=torch.zeros(count, 10),
        class_share=torch.zeros(count, 10),
        confidence=number.clone(),
        discrepancy=number.clone(),
        importance_weight=number.clone(),
        born=torch.zeros(count, dtype=torch.int64),
    )
