"""What the agent sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ssdkd_env.envs.observations import STATISTICS, Observer, squash
from tests.envs.episodes import ROUNDS, FloatArray, actions_of, episode, make, reset, steps

action_parts = st.floats(-1.0, 1.0, width=32) | st.sampled_from([-1.0, 0.0, 1.0])
action_lists = st.lists(npst.arrays(np.float32, 5, elements=action_parts), min_size=ROUNDS, max_size=ROUNDS)


@settings(max_examples=12)
@given(actions=action_lists, seed=st.integers(0, 2**31))
def test_observation_stays_inside_the_space_whatever_the_agent_does(actions: list[FloatArray], seed: int) -> None:
    env = make()
    for moment in episode(env, seed, actions):
        assert moment.observation in env.observation_space
        assert math.isfinite(moment.reward)
        assert all(math.isfinite(value) for value in moment.info.values())


def test_space_is_flat_float32_with_finite_bounds_and_a_name_for_each_entry() -> None:
    env = make()
    space = env.observation_space
    assert isinstance(space, spaces.Box)
    assert space.dtype == np.float32
    assert np.isfinite(space.low).all()
    assert np.isfinite(space.high).all()
    assert (space.low < space.high).all()
    assert (len(env.observation_names),) == space.shape
    assert len(set(env.observation_names)) == len(env.observation_names)


def test_class_docstring_lists_every_observation_in_order() -> None:
    env = make()
    table = (type(env).__doc__ or "").partition("## Observation Space")[2].partition("## Rewards")[0]
    position = -1
    for name in STATISTICS:
        stem = name.removesuffix("_q10")
        if name.endswith(("_q50", "_q90")):
            continue
        position = table.index(stem, position + 1)
    assert f"–{len(env.observation_names) - 1} " in table
    assert table.index("last_action") > position


def entry(env_names: tuple[str, ...], observation: FloatArray, name: str) -> float:
    return float(observation[env_names.index(name)])


def test_entries_agree_with_info() -> None:
    env = make(observation="statistics")
    moments = episode(env, 3, actions_of(5))
    for number, moment in enumerate(moments):
        info = moment.info
        seen = {name: entry(env.observation_names, moment.observation, name) for name in env.observation_names}
        assert seen["progress"] == pytest.approx(number / ROUNDS)
        assert seen["probe_agreement"] == pytest.approx(info["probe_agreement"])
        for name in ("probe_discrepancy", "candidate_discrepancy"):
            assert seen[name] == pytest.approx(info[name] / (1 + info[name]), rel=1e-5)
        assert seen["buffer_discrepancy_q50"] == pytest.approx(
            info["buffer_discrepancy"] / (1 + info["buffer_discrepancy"]), rel=1e-5
        )
        assert seen["buffer_difficulty_q50"] == pytest.approx(info["buffer_difficulty"])
        assert seen["buffer_mean_age"] == pytest.approx(info["buffer_mean_age"] / ROUNDS)
        for name in ("buffer_agreement", "buffer_class_imbalance", "effective_sample_size", "candidate_agreement"):
            assert seen[name] == pytest.approx(info[name], abs=1e-6)
        assert seen["buffer_difficulty_q10"] <= seen["buffer_difficulty_q50"] <= seen["buffer_difficulty_q90"]
        assert seen["buffer_discrepancy_q10"] <= seen["buffer_discrepancy_q50"] <= seen["buffer_discrepancy_q90"]


def test_trends_are_differences_of_two_rounds_and_zero_after_a_reset() -> None:
    env = make(observation="statistics")
    moments = episode(env, 3, actions_of(5))
    for name in ("candidate_agreement", "probe_discrepancy", "probe_agreement"):
        values = [entry(env.observation_names, moment.observation, name) for moment in moments]
        trends = [entry(env.observation_names, moment.observation, f"{name}_trend") for moment in moments]
        assert trends[0] == 0.0
        np.testing.assert_allclose(trends[1:], np.diff(values), atol=1e-6)


def test_last_action_is_seen_and_zero_after_a_reset() -> None:
    env = make()
    actions = actions_of(5)
    for _ in range(2):
        first, *rest = episode(env, 3, actions)
        np.testing.assert_array_equal(first.observation[-5:], np.zeros(5))
        for action, moment in zip(actions, rest, strict=True):
            np.testing.assert_array_equal(moment.observation[-5:], action)


def test_progress_and_fill_follow_the_budget() -> None:
    env = make(observation="statistics")
    moments = episode(env, 3, actions_of(5))
    fills = [entry(env.observation_names, moment.observation, "buffer_fill") for moment in moments]
    np.testing.assert_allclose(fills, [16 / 24, 1, 1, 1], rtol=1e-6)


def test_real_data_reach_neither_observation_nor_reward() -> None:
    """The same episode, judged on other images and labels: nothing differs but the reported accuracy."""
    mine = episode(make(), 3, actions_of(5))
    for task in ("DIGITS_JUDGED_BY_NOISE", "DIGITS_WITHOUT_DATA"):
        theirs = episode(make(task=f"tests.envs.own_networks:{task}"), 3, actions_of(5))
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.observation, other.observation)
            assert one[1:4] == other[1:4]
            own, foreign = dict(one.info), dict(other.info)
            assert own.pop("accuracy") != foreign.pop("accuracy", None)
            assert own == foreign


def test_shape_does_not_depend_on_the_number_of_classes(tiny_teacher: str) -> None:
    digits = make()
    three_classes = make(task="tests.envs.own_networks:TINY", teacher=tiny_teacher)
    assert three_classes.task.spec.num_classes == 3
    assert three_classes.observation_space == digits.observation_space
    assert three_classes.action_space == digits.action_space
    assert three_classes.observation_names == digits.observation_names
    for moment in episode(three_classes, 3, actions_of(5)):
        assert moment.observation in digits.observation_space


def test_shape_does_not_depend_on_the_budget() -> None:
    assert make(budget={"buffer_capacity": 5, "candidates": 9}).observation_space == make().observation_space


def test_observations_share_no_memory() -> None:
    env = make()
    moments = [reset(env, 3)]
    for action in actions_of(5):
        moments[-1].observation[:] = 0.5  # what the caller does with it must not come back
        moments += steps(env, [action])
    clean = episode(make(), 3, actions_of(5))
    np.testing.assert_array_equal(moments[-1].observation, clean[-1].observation)
    assert moments[-1].reward == clean[-1].reward


def test_action_is_copied() -> None:
    env = make()
    reset(env, 3)
    action = actions_of(5)[0]
    before = steps(env, [action])[0].observation[-5:].copy()
    action[:] = 0.0
    np.testing.assert_array_equal(env._last_action, before)


@given(divergence=st.floats(0.0, 1e30))
def test_squash_keeps_order_and_stays_below_one(divergence: float) -> None:
    assert 0.0 <= squash(divergence) <= 1.0
    assert squash(divergence) <= squash(2.0 * divergence)


def test_squash_of_an_infinite_divergence_is_the_worst_value() -> None:
    assert squash(math.inf) == 1.0


def test_space_grows_with_the_action() -> None:
    assert Observer("statistics", 1, ("a", "b")).space.shape == (len(STATISTICS) + 2,)
