"""Rewards telescope, and a lost student costs what it had gained."""

from __future__ import annotations

import copy
import math
from typing import Any

import gymnasium as gym
import pytest
import torch

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.buffer import Entries, Update
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.rewards import REWARDS
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.probe import ProbeScore, ProbeSet, probe_set
from tests.envs.episodes import (
    COMPARING_REWARDS,
    REWARD_NAMES,
    TERMINAL_REWARDS,
    Moment,
    actions_of,
    assert_same,
    episode,
    make,
    reset,
    steps,
)


def score(env: SSDKDEnv) -> float:
    """The student's score, computed without the environment's own score."""
    assert env.run is not None
    student, name = env.run.student, env.settings.reward.removeprefix("terminal_")
    if name == "candidate_agreement":
        assert env.episode is not None
        return env.episode.snapshot.report.candidate_agreement  # see the test of this score
    if name == "oracle_accuracy":
        accuracy = env.task.accuracy(student, env.device)
        assert accuracy is not None
        return accuracy
    images = probe_set(env.task, env.device).images
    networks = (env.run.teacher, student)
    normalize = Normalize(env.task.spec.mean, env.task.spec.std, env.device)
    teacher_logits, student_logits = (logits_of(network, images, normalize).double() for network in networks)
    if name == "probe_agreement":
        return float((teacher_logits.argmax(1) == student_logits.argmax(1)).double().mean())
    log_p, log_q = teacher_logits.log_softmax(1), student_logits.log_softmax(1)
    return 1.0 / (1.0 + float((log_p.exp() * (log_p - log_q)).sum(1).mean()))


def assert_finite(moment: Moment, env: SSDKDEnv) -> None:
    assert moment.observation in env.observation_space
    assert math.isfinite(moment.reward)
    assert all(math.isfinite(value) for value in moment.info.values())


def test_known_rewards_and_only_the_oracle_needs_data() -> None:
    assert set(REWARDS) == {*REWARD_NAMES, *TERMINAL_REWARDS, *COMPARING_REWARDS}
    oracles = {name for name, reward in REWARDS.items() if reward.oracle}
    assert oracles == {name for name in REWARDS if name.endswith("oracle_accuracy")}
    assert len(oracles) == len(REWARDS) / 4


@pytest.mark.parametrize("reward", [*REWARD_NAMES, *TERMINAL_REWARDS])
def test_return_is_the_gain_of_the_score(reward: str) -> None:
    env = make(reward=reward, budget={"student_steps": 20})
    start = reset(env, 4)
    start_score = score(env)
    moments = steps(env, actions_of(5))
    gained = sum(moment.reward for moment in moments)
    assert gained == pytest.approx(moments[-1].info["score"] - start.info["score"], abs=1e-12)
    assert gained == pytest.approx(score(env) - start_score, abs=1e-5)
    assert gained != 0.0


@pytest.mark.parametrize("reward", REWARD_NAMES)
def test_each_reward_is_the_gain_of_its_own_step(reward: str) -> None:
    env = make(reward=reward)
    last = reset(env, 3).info["score"]
    for action in actions_of(5):
        moment = steps(env, [action])[0]
        assert moment.reward == pytest.approx(moment.info["score"] - last, abs=1e-12)
        assert moment.info["score"] == pytest.approx(score(env), abs=1e-5)
        assert 0.0 <= moment.info["score"] <= 1.0
        last = moment.info["score"]


@pytest.mark.parametrize("reward", REWARD_NAMES)
def test_terminal_reward_pays_in_the_last_step_what_the_other_pays_on_the_way(reward: str) -> None:
    """Two episodes, of which the second owes nothing to the first; all but the reward is the same."""
    budget = {"student_steps": 20}  # enough to gain something
    env, other = make(reward=f"terminal_{reward}", budget=budget), make(reward=reward, budget=budget)
    paid = []
    for seed in (3, None):
        late, soon = (episode(each, seed, actions_of(5)) for each in (env, other))
        assert [moment.reward for moment in late[:-1]] == [0.0] * 3
        assert late[-1].reward == pytest.approx(sum(moment.reward for moment in soon), abs=1e-12)
        paid.append(late[-1].reward)
        assert_same([m._replace(reward=0.0) for m in late], [m._replace(reward=0.0) for m in soon])
    assert any(paid)


def test_candidate_agreement_is_that_on_fresh_images_before_the_student_saw_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = make(reward="candidate_agreement", budget={"student_steps": 20})
    reset(env, 3)
    assert env.run is not None
    fresh: list[torch.Tensor] = []
    update = env.run.buffer.update

    def record(candidates: Entries, *rest: Any) -> Update:
        fresh.append(candidates.images)
        return update(candidates, *rest)

    monkeypatch.setattr(env.run.buffer, "update", record)
    for action in actions_of(5):
        student = copy.deepcopy(env.run.student)
        info = steps(env, [action])[0].info
        inputs = (fresh[-1].double() / 255 - env.task.spec.mean[0]) / env.task.spec.std[0]
        with torch.no_grad():
            answers = [copy.deepcopy(network).double()(inputs).argmax(dim=1) for network in (env.run.teacher, student)]
        assert info["score"] == pytest.approx((answers[0] == answers[1]).double().mean().item(), abs=1e-6)
        assert info["score"] == info["candidate_agreement"]
    assert len(fresh) == 3


def test_data_free_rewards_run_without_evaluation_data_and_the_oracle_is_refused() -> None:
    task = "tests.envs.own_networks:DIGITS_WITHOUT_DATA"
    for reward in (name for name in REWARDS if not name.endswith("oracle_accuracy")):
        moments = episode(make(task=task, reward=reward), 3, actions_of(5))
        assert all("accuracy" not in moment.info for moment in moments)
    for reward in ("oracle_accuracy", "terminal_oracle_accuracy"):
        with pytest.raises(InvalidInputError, match=rf"reward='{reward}'.*choose a data-free reward"):
            make(task=task, reward=reward)


def test_training_raises_the_score() -> None:
    """Enough rounds for a student to learn something: the reward is not noise."""
    budget = {"rounds": 6, "candidates": 48, "inversion_steps": 5, "student_steps": 30, "batch_size": 32}
    env = make(budget=budget | {"warmup_rounds": 3, "buffer_capacity": 96})
    moments = episode(env, 1, [env.paper_action] * 6)
    assert sum(moment.reward for moment in moments) > 0.2
    assert moments[-1].info["accuracy"] > moments[0].info["accuracy"] + 0.2


def poison(env: SSDKDEnv, value: float) -> None:
    assert env.run is not None
    with torch.no_grad():
        next(env.run.student.parameters()).fill_(value)


@pytest.mark.parametrize("reward", [*REWARD_NAMES, "terminal_probe_agreement"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.filterwarnings("error")
def test_diverged_student_ends_the_episode_with_its_score_lost(reward: str, value: float) -> None:
    env = make(reward=reward)
    start = reset(env, 3)
    moments = steps(env, actions_of(5)[:1])
    poison(env, value)
    moments += steps(env, actions_of(5)[1:2])
    last = moments[-1]
    assert (last.terminated, last.truncated) == (True, False)
    assert type(last.terminated) is bool
    assert last.info["diverged"] is True
    assert last.info["score"] == 0.0
    assert last.info.keys() == start.info.keys()
    assert sum(moment.reward for moment in moments) == pytest.approx(-start.info["score"], abs=1e-12)
    assert_finite(last, env)


def test_learning_rate_that_is_far_too_high_is_a_divergence_not_an_exception() -> None:
    env = make(student={"lr": 1e30})
    start = reset(env, 3)
    moments: list[Moment] = []
    for action in actions_of(5):
        moments += steps(env, [action])
        assert_finite(moments[-1], env)
        if moments[-1].terminated:
            break
    assert moments[-1].info["diverged"]
    assert sum(moment.reward for moment in moments) == pytest.approx(-start.info["score"], abs=1e-12)


@pytest.mark.parametrize("reward", ["probe_agreement", "terminal_probe_agreement"])
def test_after_a_divergence_there_is_no_step_but_a_reset(reward: str) -> None:
    env = make(reward=reward)
    reset(env, 3)
    poison(env, math.nan)
    steps(env, actions_of(5)[:1])
    with pytest.raises(gym.error.ResetNeeded, match="the student has diverged after 1 rounds"):
        steps(env, actions_of(5)[1:2])
    assert_same(episode(env, 3, actions_of(5)), episode(make(reward=reward), 3, actions_of(5)))


def test_score_that_is_not_finite_never_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A student that overflows on the probe set alone counts as diverged."""
    env = make(reward="probe_discrepancy")
    reset(env, 3)
    monkeypatch.setattr(ProbeSet, "judge", lambda *_: ProbeScore(agreement=0.1, discrepancy=math.nan))
    moment = steps(env, actions_of(5)[:1])[0]
    assert moment.info["diverged"]
    assert moment.terminated
    assert_finite(moment, env)
