"""Playing and comparing episodes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs import SSDKDEnv, judging
from ssdkd_env.envs.actions import OF_WORK
from ssdkd_env.envs.snapshot import Snapshot
from ssdkd_env.tasks.task import share_right

#: A run of a tenth of a second.
BUDGET = {
    "rounds": 3,
    "warmup_rounds": 1,
    "candidates": 16,
    "inversion_steps": 2,
    "student_steps": 2,
    "batch_size": 8,
    "buffer_capacity": 24,
}
ROUNDS = BUDGET["rounds"]
#: The same without the number of rounds, which a budget of work has not.
WORK_BUDGET = {name: value for name, value in BUDGET.items() if name != "rounds"}
#: Settings that make a probe set in milliseconds instead of seconds.
SMALL_PROBE = {"generators": 1, "batches": 2, "kept": 1, "steps": 2}
REWARD_NAMES = ("probe_agreement", "probe_discrepancy", "candidate_agreement", "oracle_accuracy")
#: Rewards that pay the same in the last step alone.
TERMINAL_REWARDS = tuple(f"terminal_{name}" for name in REWARD_NAMES)
#: Rewards that compare with the method's own plan.
COMPARING_REWARDS = tuple(
    f"{when}{against}_{name}"
    for when in ("", "terminal_")
    for against in ("relative", "standardized")
    for name in REWARD_NAMES
)

FloatArray = NDArray[np.float32]


class Moment(NamedTuple):
    """What a reset (with reward 0 and no end) or a step returned."""

    observation: FloatArray
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


def make(**arguments: Any) -> SSDKDEnv:
    """A small digits environment without wrappers, with a probe set made in milliseconds."""
    budget = BUDGET | arguments.get("budget", {})
    if arguments.get("action") in OF_WORK and "work" not in budget:
        arguments = {"work_scale": 1.0} | arguments
    if "work" in budget or arguments.get("work_scale"):
        del budget["rounds"]
    return SSDKDEnv(**({"probe": SMALL_PROBE} | arguments | {"budget": budget}))


def actions_of(seed: int, count: int = ROUNDS) -> FloatArray:
    """Random actions, (count, 5) float32 in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 5)).astype(np.float32)


def samples_of(env: gym.Env[Any, Any], seed: int, count: int = ROUNDS) -> list[Any]:
    """Random actions of whatever scheme the environment has."""
    space = copy.deepcopy(env.action_space)
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def reset(env: gym.Env[Any, Any], seed: int | None = None) -> Moment:
    observation, info = env.reset(seed=seed)
    return Moment(observation, 0.0, False, False, info)


def steps(env: gym.Env[Any, Any], actions: Iterable[Any]) -> list[Moment]:
    return [Moment(*env.step(action)) for action in actions]  # type: ignore[arg-type]


def episode(env: gym.Env[Any, Any], seed: int | None, actions: Iterable[Any]) -> list[Moment]:
    """Reset, then one step for each action."""
    return [reset(env, seed), *steps(env, actions)]


def assert_same(one: Any, other: Any) -> None:
    """The same structure, types and numbers, to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    elif isinstance(one, np.ndarray) and one.dtype == object:
        assert_same(list(one), list(other))
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


def rounds_measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds after which students are measured on real images, from now on."""
    measured: list[int] = []
    runs: list[DistillationRun] = []
    look = judging.Judge.look

    def see(judge: judging.Judge, run: DistillationRun, *rest: Any) -> Snapshot:
        runs.append(run)
        return look(judge, run, *rest)

    def count(logits: Tensor, labels: Tensor) -> float:
        measured.append(runs[-1].round)
        return share_right(logits, labels)

    monkeypatch.setattr(judging.Judge, "look", see)
    monkeypatch.setattr(judging, "share_right", count)
    return measured
