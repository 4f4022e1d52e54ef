"""A step of several rounds does what as many steps of one round with the same action do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.distillation.report import RoundReport
from ssdkd_env.envs import SSDKDVectorEnv
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import (
    BUDGET,
    ROUNDS,
    SMALL_PROBE,
    FloatArray,
    actions_of,
    assert_same,
    episode,
    make,
    rounds_measured,
    steps,
)

REWARD = "probe_agreement"
#: Rounds of a step → the rounds after which its steps end, of three.
ENDS = {1: [0, 1, 2, 3], 2: [0, 2, 3], 3: [0, 3], 4: [0, 3], 1000: [0, 3]}


def held(actions: FloatArray, rounds_per_step: int) -> FloatArray:
    """The action of each round."""
    return np.repeat(actions, rounds_per_step, axis=0)[:ROUNDS]


@pytest.mark.parametrize("rounds_per_step", ENDS)
def test_step_of_several_rounds_equals_as_many_steps(rounds_per_step: int) -> None:
    ends = ENDS[rounds_per_step]
    env, single = make(rounds_per_step=rounds_per_step), make()
    actions = actions_of(4, len(ends) - 1)
    moments, by_round = episode(env, 7, actions), episode(single, 7, held(actions, rounds_per_step))
    assert [moment.info["round"] for moment in moments] == ends
    assert [moment.terminated for moment in moments] == [False] * (len(ends) - 1) + [True]
    for moment, end, begin in zip(moments, ends, [0, *ends], strict=False):
        assert moment.info == by_round[end].info
        assert moment.reward == pytest.approx(sum(past.reward for past in by_round[begin + 1 : end + 1]), abs=1e-12)
    assert env.run is not None
    assert single.run is not None
    for name, tensor in env.run.student.state_dict().items():
        assert torch.equal(tensor, single.run.student.state_dict()[name])


def test_observation_is_of_the_last_round_and_trends_are_means_over_the_step() -> None:
    env, single = make(rounds_per_step=3, observation="unscaled"), make(observation="unscaled")
    actions = actions_of(4, 1)
    first, last = episode(env, 7, actions)
    by_round = episode(single, 7, held(actions, 3))
    names = list(env.observation_names)
    trend = names.index("probe_agreement_trend")
    same = [index for index, name in enumerate(names) if not name.endswith("_trend")]
    np.testing.assert_array_equal(last.observation[same], by_round[-1].observation[same])
    assert last.observation[trend] == pytest.approx(
        (last.info["probe_agreement"] - first.info["probe_agreement"]) / 3, abs=1e-6
    )


def test_seconds_are_those_of_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(rounds_per_step=3, clock=True)
    env.reset(seed=0)
    assert env.run is not None
    step = env.run.step

    def timed(plan: SamplingPlan) -> RoundReport:
        report = step(plan)
        return replace(report, seconds_synthesis=10.0**report.round, seconds_distillation=2.0**report.round)

    monkeypatch.setattr(env.run, "step", timed)
    ((*_, info),) = steps(env, actions_of(0, 1))
    assert info["seconds"] == {"synthesis": 1110.0, "distillation": 14.0}


def test_diverged_student_ends_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(rounds_per_step=3)
    env.reset(seed=0)
    assert env.run is not None
    step = env.run.step

    def diverging(plan: SamplingPlan) -> RoundReport:
        report = step(plan)
        return replace(report, diverged=report.round == 2)

    monkeypatch.setattr(env.run, "step", diverging)
    (moment,) = steps(env, actions_of(0, 1))
    assert (moment.terminated, moment.info["round"], moment.info["diverged"]) == (True, 2, True)


def test_accuracy_is_measured_after_the_steps_in_which_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps end after rounds 2, 4, 6, 8, 10 and 11; it is due after 4, 8 and the last one."""
    env = make(rounds_per_step=2, evaluate_every_rounds=4, budget={"rounds": 11})
    other = make(rounds_per_step=2, evaluate_every_rounds=3, budget={"rounds": 11})
    measured = rounds_measured(monkeypatch)
    for playing, expected in ((env, [0, 4, 8, 11]), (other, [0, 4, 6, 10, 11])):
        measured.clear()
        episode(playing, 7, actions_of(4, 6))
        episode(playing, 8, actions_of(4, 6))
        assert measured == 2 * expected


def test_picture_of_a_run_has_the_curve_by_rounds() -> None:
    env, single = make(rounds_per_step=2, render_mode="rgb_array"), make(render_mode="rgb_array")
    actions = np.stack([actions_of(4, 1)[0]] * 3)
    episode(env, 7, actions[:2])
    episode(single, 7, actions)
    picture = env.render()
    assert picture is not None
    assert (picture != single.render()).any()
    del single.curve[1]  # which a step of two rounds does not show
    np.testing.assert_array_equal(picture, single.render())


def test_terminal_reward_and_history_are_of_steps() -> None:
    arguments: dict[str, Any] = {"observation": "scaled", "history": 2}
    env, gaining = (make(rounds_per_step=2, reward=name, **arguments) for name in (f"terminal_{REWARD}", REWARD))
    actions = actions_of(4, 2)
    moments, gains = episode(env, 7, actions), episode(gaining, 7, actions)
    assert [moment.reward for moment in moments] == [0.0, 0.0, pytest.approx(sum(moment.reward for moment in gains))]
    size = len(env.observation_names) // 2
    np.testing.assert_array_equal(moments[2].observation[size:], moments[1].observation[:size])


def test_scaled_trends_of_long_steps_are_not_clipped() -> None:
    env = make(rounds_per_step=3, budget={"rounds": 6})
    first = episode(env, 7, actions_of(4, 1))[1]
    trends = [index for index, name in enumerate(env.observation_names) if name.endswith("_trend")]
    single = episode(make(budget={"rounds": 6}), 7, held(actions_of(4, 1), 3))
    mean = np.mean([moment.observation[trends] for moment in single[1:]], axis=0)
    np.testing.assert_allclose(first.observation[trends], mean, rtol=1e-4)


def test_saved_episode_goes_on_with_as_many_rounds_a_step_alone(tmp_path: Path) -> None:
    actions = actions_of(4, 2)
    env, other = make(rounds_per_step=2), make(rounds_per_step=2)
    moments = episode(env, 7, actions[:1])
    env.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    assert_same([*moments, *steps(env, actions[1:])], [*moments, *steps(other, actions[1:])])
    with pytest.raises(InvalidInputError, match="rounds_per_step"):
        make().load(tmp_path / "saved")


@pytest.mark.parametrize("backend", ["loop", "grouped"])
def test_vector_environment_gives_what_single_ones_give(backend: str) -> None:
    arguments: dict[str, Any] = {
        "budget": BUDGET,
        "probe": SMALL_PROBE,
        "rounds_per_step": 2,
        "observation": "unscaled",
    }
    envs = SSDKDVectorEnv(2, vectorization=backend, processes=1, **arguments)
    alone = [make(rounds_per_step=2, observation="unscaled") for _ in range(2)]
    actions = actions_of(1, 2)
    envs.reset(seed=[5, 6])
    moments = [episode(env, seed, actions) for env, seed in zip(alone, (5, 6), strict=True)]
    for index, action in enumerate(actions, start=1):
        observations, rewards, ended, *_ = envs.step(np.stack([action] * 2))
        tolerance = 0.0 if backend == "loop" else 0.1
        np.testing.assert_allclose(
            observations, [moment[index].observation for moment in moments], rtol=0, atol=tolerance
        )
        np.testing.assert_allclose(rewards, [moment[index].reward for moment in moments], rtol=0, atol=tolerance)
        assert ended.tolist() == [index == 2] * 2
    envs.close()


def test_logits_of_a_rounds_images_are_refused() -> None:
    env = make(rounds_per_step=2)
    env.reset(seed=0)
    assert env.run is not None
    logits = torch.zeros(len(env.run.buffer) + BUDGET["candidates"])
    with pytest.raises(InvalidInputError, match=r"logits.*scorer.*rounds_per_step=1"):
        env.step(SamplingPlan(logits=logits))
    assert env.run.round == 0
    envs = SSDKDVectorEnv(2, vectorization="loop", processes=1, budget=BUDGET, probe=SMALL_PROBE, rounds_per_step=2)
    envs.reset(seed=0)
    with pytest.raises(InvalidInputError, match="logits"):
        envs._environments.step({0: env.uniform_action, 1: SamplingPlan(logits=logits)})  # type: ignore[dict-item]
    assert [run.round for run in envs.get_attr("run")] == [0, 0]
    envs.close()


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None])
def test_bad_number_of_rounds_is_refused(count: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"rounds_per_step=.*: expected a whole number of at least 1") as caught:
        make(rounds_per_step=count)
    assert repr(count) in str(caught.value)
