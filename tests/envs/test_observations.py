"""What the agent sees."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ssdkd_env.envs.facts import Facts
from ssdkd_env.envs.observations import ENTRIES, OBSERVATIONS, Observer, squash
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import ROUNDS, FloatArray, actions_of, episode, make, reset, samples_of, steps

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
    for name in ENTRIES:
        stem = name.removesuffix("_q10")
        if name.endswith(("_q50", "_q90")):
            continue
        position = table.index(stem, position + 1)
    assert f"–{len(env.observation_names) - 1} " in table
    assert table.index("last_action") > position


def entry(env_names: tuple[str, ...], observation: FloatArray, name: str) -> float:
    return float(observation[env_names.index(name)])


def test_entries_agree_with_info() -> None:
    env = make(observation="unscaled")
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
    env = make(observation="unscaled")
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
    env = make(observation="unscaled")
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


# --- forms and history ---


def test_scaled_entries_are_distances_from_the_mean_in_deviations() -> None:
    raw, scaled = make(observation="unscaled"), make()
    assert raw.observation_names == scaled.observation_names
    entries = ENTRIES.values()
    mean, deviation = (np.array([getattr(e, name) for e in entries]) for name in ("mean", "deviation"))
    for one, other in zip(episode(raw, 3, actions_of(5)), episode(scaled, 3, actions_of(5)), strict=True):
        distances = (one.observation[: len(mean)] - mean) / deviation
        np.testing.assert_allclose(other.observation[: len(mean)], distances.clip(-5, 5), atol=1e-5)
        np.testing.assert_array_equal(one.observation[len(mean) :], other.observation[len(mean) :])
        assert one.observation in raw.observation_space
        assert one[1:] == other[1:]


def test_scaled_entries_are_clipped_at_five_deviations() -> None:
    env = make()
    reset(env, 3)
    assert env.episode is not None
    snapshot = env.episode.snapshot
    report = replace(snapshot.report, class_imbalance=1.0, buffer_fill=0.0, candidate_agreement=math.nan)
    observer = Observer(OBSERVATIONS["scaled"], 1, ())
    observer.begin(replace(snapshot, report=report), Facts(env.task, env.method), np.zeros(0, np.float32))
    observation = observer.observation()
    assert observation in observer.space
    assert entry(observer.names, observation, "buffer_class_imbalance") == 5.0
    assert entry(observer.names, observation, "buffer_fill") == -5.0
    assert np.isfinite(observation).all()


def test_bounds_are_those_of_the_form() -> None:
    scaled, raw = make().observation_space, make(observation="unscaled").observation_space
    assert isinstance(scaled, spaces.Box)
    assert isinstance(raw, spaces.Box)
    assert (scaled.low[:-5] == -5).all() and (scaled.high[:-5] == 5).all()
    assert (raw.high == 1).all()
    for space in (scaled, raw):
        assert (space.low[-5:] == -1).all() and (space.high[-5:] == 1).all()


@pytest.mark.parametrize("form", OBSERVATIONS)
def test_history_stacks_the_newest_first_and_begins_with_the_first_repeated(form: str) -> None:
    one, stacked = make(observation=form), make(observation=form, history=3)
    single = [moment.observation for moment in episode(one, 3, actions_of(5))]
    for number, moment in enumerate(episode(stacked, 3, actions_of(5))):
        expected = np.concatenate([single[max(number - back, 0)] for back in range(3)])
        np.testing.assert_array_equal(moment.observation, expected)
        assert moment.observation in stacked.observation_space
    again = reset(stacked, 3).observation
    np.testing.assert_array_equal(again, np.tile(single[0], 3))


def test_names_of_earlier_rounds_say_how_many_ago() -> None:
    names, stacked = make().observation_names, make(history=3).observation_names
    assert stacked == (*names, *(f"{name}_minus_1" for name in names), *(f"{name}_minus_2" for name in names))


@pytest.mark.parametrize("history", [0, -1, 1.5, "2", None])
def test_bad_history_is_refused(history: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"history=.*: expected a whole number of at least 1") as caught:
        make(history=history)
    assert repr(history) in str(caught.value)


@pytest.mark.parametrize("form", ["raw", "", "Scaled"])
def test_unknown_form_is_refused(form: str) -> None:
    with pytest.raises(InvalidInputError, match=r"observation=.* is unknown; .*: facts, instance, .*unscaled"):
        make(observation=form)


@pytest.mark.parametrize("history", [1, 2])
def test_last_strategy_is_seen_as_one_of_many(history: int) -> None:
    env = make(action="plans", history=history)
    count = len(env.action_names)
    first, *rest = episode(env, 3, [4, 0, 9])
    columns = [env.observation_names.index(f"last_action_{name}") for name in env.action_names]
    np.testing.assert_array_equal(first.observation[columns], np.zeros(count))
    for chosen, moment in zip([4, 0, 9], rest, strict=True):
        np.testing.assert_array_equal(moment.observation[columns], np.eye(count)[chosen])


@pytest.mark.parametrize(("scheme", "seen"), [("full", 8), ("bins", 15), ("class_bins", 3), ("samples", 9)])
def test_first_parts_of_other_actions_are_seen(scheme: str, seen: int) -> None:
    env = make(action=scheme)
    actions = samples_of(env, 0)
    first, *rest = episode(env, 3, actions)
    assert first.observation.shape == (len(ENTRIES) + seen,)
    assert not first.observation[-seen:].any()
    for action, moment in zip(actions, rest, strict=True):
        np.testing.assert_array_equal(moment.observation[-seen:], action[:seen])


def test_space_grows_with_the_action() -> None:
    assert Observer(OBSERVATIONS["unscaled"], 1, ("a", "b")).space.shape == (len(ENTRIES) + 2,)
