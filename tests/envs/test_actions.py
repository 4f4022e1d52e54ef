"""From an action to a sampling plan and back, and what the plan does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from ssdkd_env.distillation import DistillationRun, SamplingPlan
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.exponent_actions import Exponents
from ssdkd_env.tasks import Budget
from tests.distillation.halfway import recorded_weights
from tests.distillation.rows import distribution
from tests.envs.episodes import BUDGET, actions_of, assert_same, episode, make, reset, steps

SCHEME = Exponents(Budget(**BUDGET))
PARTS = ("discrepancy_exponent", "diversity_exponent", "difficulty_exponent", "importance_exponent", "replaced_share")
EPSILON = 1e-2

actions = npst.arrays(np.float32, 5, elements=st.floats(-1.0, 1.0, width=32))


def parts(plan: SamplingPlan) -> list[float]:
    return [getattr(plan, name) for name in PARTS]


def test_action_parts_carry_the_names_of_the_plan() -> None:
    assert SCHEME.names == PARTS
    assert {*PARTS} < {f.name for f in fields(SamplingPlan)}


def test_space_is_the_box_that_trainers_expect() -> None:
    space = SCHEME.space
    assert space == spaces.Box(-1.0, 1.0, (5,), np.float32)


def test_ends_and_middle_of_the_box_mean_the_ends_and_middle_of_the_ranges() -> None:
    assert parts(SCHEME.to_plan(np.full(5, -1.0, np.float32))) == pytest.approx([-2, -2, -2, 0, 0])
    assert parts(SCHEME.to_plan(np.zeros(5, np.float32))) == pytest.approx([0, 0, 0, 0.5, 1 / 3])
    assert parts(SCHEME.to_plan(np.ones(5, np.float32))) == pytest.approx([2, 2, 2, 1, 2 / 3])


def test_each_part_moves_its_own_number_alone() -> None:
    middle = parts(SCHEME.to_plan(np.zeros(5, np.float32)))
    for index in range(5):
        action = np.zeros(5, np.float32)
        action[index] = 1.0
        moved = parts(SCHEME.to_plan(action))
        assert [i for i in range(5) if moved[i] != middle[i]] == [index]
        assert moved[index] > middle[index]


@given(action=actions)
def test_action_and_plan_are_inverse(action: NDArray[np.float32]) -> None:
    again = SCHEME.from_plan(SCHEME.to_plan(action))
    assert again.dtype == np.float32
    assert again in SCHEME.space
    np.testing.assert_allclose(again, action, atol=1e-6)


def test_plan_outside_the_range_becomes_the_nearest_action() -> None:
    plan = SamplingPlan(discrepancy_exponent=9.0, diversity_exponent=-9.0, replaced_share=1.0)
    np.testing.assert_allclose(SCHEME.from_plan(plan), [1, -1, 0, -0.2, 1], atol=1e-6)


@pytest.mark.parametrize(("candidates", "capacity"), [(16, 24), (5, 3), (1, 49), (3, 47)])
def test_engine_replaces_every_image_when_told_to(candidates: int, capacity: int) -> None:
    """At the highest share every candidate competes, also where (candidates / capacity) · capacity rounds down."""
    env = make(
        budget={"candidates": candidates, "buffer_capacity": capacity, "warmup_rounds": -(-capacity // candidates)}
    )
    reset(env, 0)
    assert env.run is not None
    assert len(env.run.buffer) == capacity
    logits = torch.cat([torch.full((capacity,), -1e6), torch.full((candidates,), 1e6)])
    share = env.action_scheme.to_plan(np.ones(5, np.float32)).replaced_share
    assert env.run.step(SamplingPlan(replaced_share=share, logits=logits)).replaced == min(candidates, capacity)


def test_paper_action_is_the_default_plan() -> None:
    env = make()
    plan, paper = env.action_scheme.to_plan(env.paper_action), SamplingPlan()
    assert parts(plan)[:4] == pytest.approx(parts(paper)[:4], abs=1e-6)
    assert plan.replaced_share * 24 == pytest.approx(min(paper.replaced_share * 24, 16))  # never more than candidates


def test_paper_action_lets_every_candidate_compete_as_documented() -> None:
    env = make()
    assert env.action_scheme.to_plan(env.paper_action).replaced_share * 24 == pytest.approx(16)


def test_run_by_the_paper_action_is_the_run_by_the_default_plan() -> None:
    """The engine alone, given `SamplingPlan()`, goes the same way but for the last digits of β in float32."""
    env = make()
    reset(env, 3)
    assert env.run is not None
    alone = DistillationRun(env.task, env.method, env.run.seed)
    for _ in range(3):
        moment = steps(env, [env.paper_action])[0]
        report = alone.step(SamplingPlan())
        assert (moment.info["replaced"], moment.info["round"]) == (report.replaced, report.round)
        assert moment.info["student_loss"] == pytest.approx(report.student_loss, rel=1e-4)
        assert moment.info["buffer_discrepancy"] == pytest.approx(report.discrepancy_quantiles[1], rel=1e-3)
    residents, others = env.run.buffer.residents, alone.buffer.residents
    assert torch.equal(residents.born, others.born)
    assert (residents.images.int() - others.images.int()).abs().max() <= 1


def test_uniform_action_has_no_priority_and_no_weights() -> None:
    env = make()
    plan = env.action_scheme.to_plan(env.uniform_action)
    assert parts(plan)[:4] == [0.0, 0.0, 0.0, 0.0]


def test_named_actions_are_valid_and_fresh() -> None:
    env = make()
    for name in ("paper_action", "uniform_action"):
        action = getattr(env, name)
        assert action in env.action_space
        action[:] = 0.3
        assert not np.array_equal(getattr(env, name), action)


def test_lowest_share_replaces_nothing_once_the_buffer_is_full() -> None:
    """The first step fills the free slots, which is no replacement."""
    moments = episode(make(), 3, np.full((3, 5), -1.0, np.float32))
    assert [moment.info["replaced"] for moment in moments] == [0, 0, 0, 0]


def test_list_of_numbers_serves_as_action() -> None:
    action = actions_of(5)[0]
    assert_same(episode(make(), 3, [action]), episode(make(), 3, [action.tolist()]))


def kl_by_hand(teacher_logits: NDArray[np.float64], student_logits: NDArray[np.float64]) -> NDArray[np.float64]:
    def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return logs

    log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
    divergence: NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return divergence


class Before(NamedTuple):
    """The student as it was before a step, and each resident's importance weight and KL, by its image."""

    student: torch.nn.Module
    weights: dict[bytes, float]
    divergences: dict[bytes, float]

    def entering_weight(self, divergence: float) -> float:
        """What an image enters with: read off the line through the residents in logarithms."""
        known = np.log(np.array([self.divergences[image] for image in self.weights]) + EPSILON)
        logs = np.log(np.array(list(self.weights.values())))
        slope, offset = np.polyfit(known, logs, 1)
        return float(np.exp(np.clip(offset + slope * np.log(divergence + EPSILON), logs.min(), logs.max())))


def forget_nothing(env: SSDKDEnv) -> Before:
    assert env.run is not None
    residents = env.run.buffer.residents
    images = [image.numpy().tobytes() for image in residents.images]
    numbers = (residents.importance_weight, residents.discrepancy)
    weights, divergences = (dict(zip(images, each.tolist(), strict=True)) for each in numbers)
    return Before(copy.deepcopy(env.run.student), weights, divergences)


def probabilities_by_hand(env: SSDKDEnv, before: Before, form: Callable[[Any], Any]) -> NDArray[np.float64]:
    """P over the buffer after a step, from the images, the student before the step and the weights before it."""
    assert env.run is not None
    images = env.run.buffer.residents.images
    inputs = (images.double() / 255 - env.task.spec.mean[0]) / env.task.spec.std[0]
    with torch.no_grad():
        teacher_logits = copy.deepcopy(env.task.teacher_on(env.device)).double()(inputs).numpy()
        student_logits = before.student.double()(inputs).numpy()
    divergences = kl_by_hand(teacher_logits, student_logits)
    keys = [image.numpy().tobytes() for image in images]
    previous = [
        before.weights[key] if key in before.weights else before.entering_weight(divergence)
        for key, divergence in zip(keys, divergences, strict=True)
    ]
    unnormalised = form(np.array(previous) * divergences)
    return np.asarray(unnormalised / unnormalised.sum())


def engine_probabilities(env: SSDKDEnv, action: NDArray[np.float32]) -> NDArray[np.float64]:
    """P over the buffer in the step of an action."""
    with recorded_weights() as found:
        steps(env, [action])
    return distribution(found[-1]).numpy()


def test_exponent_of_the_action_is_the_exponent_of_the_priority() -> None:
    env = make()
    reset(env, 3)
    before = forget_nothing(env)
    action = env.uniform_action
    action[0] = -0.75  # a = −1.5
    found = engine_probabilities(env, action)
    expected = probabilities_by_hand(env, before, lambda delta: (np.abs(delta) + EPSILON) ** -1.5)
    np.testing.assert_allclose(found, expected, rtol=2e-4)
