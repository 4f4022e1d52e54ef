"""Gymnasium's wrappers and `make`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import gymnasium.wrappers.vector as vector_wrappers
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.wrappers import NormalizeObservation, RecordEpisodeStatistics, RecordVideo, RescaleAction

from ssdkd_env.envs import SSDKDVectorEnv
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, actions_of, assert_same, episode, make, reset, steps

ID = "ssdkd_env:SSDKD/Digits-v2"


@pytest.mark.filterwarnings("error")
def test_prefixed_id_gives_the_same_episode_as_the_class() -> None:
    env = gym.make(ID, budget=BUDGET, probe=SMALL_PROBE)
    assert_same(episode(env, 3, actions_of(5)), episode(make(), 3, actions_of(5)))


def test_return_of_the_statistics_wrapper_is_the_sum_of_the_rewards() -> None:
    env = RecordEpisodeStatistics(gym.make(ID, budget=BUDGET, probe=SMALL_PROBE, reward="probe_discrepancy"))
    for _ in range(2):
        moments = episode(env, 3, actions_of(5))
        statistics = moments[-1].info["episode"]
        assert statistics["r"] == pytest.approx(sum(moment.reward for moment in moments))
        assert statistics["l"] == ROUNDS
        assert not any("episode" in moment.info for moment in moments[:-1])


@pytest.mark.skipif(find_spec("ssdkd_env.envs.rendering") is None, reason="there is no rendering yet")
def test_video_wrapper_writes_a_file(tmp_path: Path) -> None:
    env = RecordVideo(
        gym.make(ID, budget=BUDGET, probe=SMALL_PROBE, render_mode="rgb_array"),
        str(tmp_path / "videos"),
        episode_trigger=lambda _: True,
    )
    episode(env, 3, actions_of(5))
    env.close()  # type: ignore[no-untyped-call]
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.stat().st_size > 0


def test_common_wrappers_fit() -> None:
    env = RescaleAction(
        NormalizeObservation(gym.make(ID, budget=BUDGET, probe=SMALL_PROBE)), np.float32(0), np.float32(1)
    )
    reset(env, 3)
    assert [moment.terminated for moment in steps(env, [env.action_space.sample()] * ROUNDS)] == [False, False, True]


def test_names_are_reached_through_the_wrappers() -> None:
    env = gym.make(ID, budget=BUDGET, probe=SMALL_PROBE)
    assert env.get_wrapper_attr("observation_names") == make().observation_names
    assert env.get_wrapper_attr("paper_action") in env.action_space


#: Gymnasium's wrappers of one environment, and the steps of an episode with each where it is not the budget's.
WRAPPERS: dict[str, tuple[Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]], int]] = {
    "AddRenderObservation": (lambda env: wrappers.AddRenderObservation(env, render_only=False), ROUNDS),
    "Autoreset": (wrappers.Autoreset, ROUNDS),
    "ClipAction": (wrappers.ClipAction, ROUNDS),
    "ClipReward": (lambda env: wrappers.ClipReward(env, -1.0, 1.0), ROUNDS),
    "DelayObservation": (lambda env: wrappers.DelayObservation(env, 1), ROUNDS),
    "FlattenObservation": (wrappers.FlattenObservation, ROUNDS),
    "FrameStackObservation": (lambda env: wrappers.FrameStackObservation(env, 3), ROUNDS),
    "MaxAndSkipObservation": (lambda env: wrappers.MaxAndSkipObservation(env, 2), 2),
    "NormalizeObservation": (NormalizeObservation, ROUNDS),
    "NormalizeReward": (wrappers.NormalizeReward, ROUNDS),
    "PassiveEnvChecker": (wrappers.PassiveEnvChecker, ROUNDS),
    "RecordEpisodeStatistics": (RecordEpisodeStatistics, ROUNDS),
    "RenderCollection": (wrappers.RenderCollection, ROUNDS),
    "RescaleAction": (lambda env: RescaleAction(env, np.zeros(5, np.float32), np.ones(5, np.float32)), ROUNDS),
    "RescaleObservation": (lambda env: wrappers.RescaleObservation(env, np.float32(-1), np.float32(1)), ROUNDS),
    "StickyAction": (lambda env: wrappers.StickyAction(env, 0.5), ROUNDS),
    "TimeLimit": (lambda env: wrappers.TimeLimit(env, 2), 2),
    "TransformReward": (lambda env: wrappers.TransformReward(env, lambda reward: 2.0 * float(reward)), ROUNDS),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("wrap", "length"), WRAPPERS.values(), ids=WRAPPERS)
def test_each_common_wrapper_plays_an_episode(
    wrap: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]], length: int
) -> None:
    env = wrap(gym.make(ID, budget=BUDGET, probe=SMALL_PROBE, render_mode="rgb_array"))
    moments = [reset(env, 3), *steps(env, [env.action_space.sample() for _ in range(length)])]
    assert all(moment.observation in env.observation_space for moment in moments)
    assert [moment.terminated or moment.truncated for moment in moments] == [False] * length + [True]
    env.render()
    env.reset()


VECTOR_WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "ClipAction": vector_wrappers.ClipAction,
    "DictInfoToList": vector_wrappers.DictInfoToList,
    "DtypeObservation": lambda envs: vector_wrappers.DtypeObservation(envs, np.float64),
    "FlattenObservation": vector_wrappers.FlattenObservation,
    "NormalizeObservation": vector_wrappers.NormalizeObservation,
    "NormalizeReward": vector_wrappers.NormalizeReward,
    "RecordEpisodeStatistics": vector_wrappers.RecordEpisodeStatistics,
    "RescaleAction": lambda envs: vector_wrappers.RescaleAction(envs, 0.0, 1.0),
}


@pytest.mark.parametrize("wrap", VECTOR_WRAPPERS.values(), ids=VECTOR_WRAPPERS)
def test_each_common_vector_wrapper_plays_two_episodes(wrap: Callable[[Any], Any]) -> None:
    """On what `make_vec` makes where no mode is given."""
    made: Any = gym.make_vec(ID, num_envs=2, vectorization="loop", budget=BUDGET, probe=SMALL_PROBE)
    assert isinstance(made, SSDKDVectorEnv)
    envs = wrap(made)
    envs.reset(seed=3)
    ends = [envs.step(envs.action_space.sample())[2].tolist() for _ in range(2 * ROUNDS + 1)]
    assert ends == [[index % (ROUNDS + 1) == ROUNDS - 1] * 2 for index in range(2 * ROUNDS + 1)]


def test_an_observation_of_the_time_needs_the_length_of_an_episode() -> None:
    """Gymnasium's own line says so; the last step is then truncated as well."""
    with pytest.raises(ValueError, match="max_episode_steps"):
        wrappers.TimeAwareObservation(gym.make(ID, budget=BUDGET, probe=SMALL_PROBE))
    env = wrappers.TimeAwareObservation(gym.make(ID, budget=BUDGET, probe=SMALL_PROBE, max_episode_steps=ROUNDS))
    moments = episode(env, 3, actions_of(5))
    assert [moment.observation[-1] for moment in moments] == list(range(ROUNDS + 1))
    assert (moments[-1].terminated, moments[-1].truncated) == (True, True)
    alone = episode(make(), 3, actions_of(5))
    np.testing.assert_array_equal(moments[1].observation[:-1], alone[1].observation)


def test_what_is_outside_the_box_counts_as_the_nearest_inside() -> None:
    """As `ClipAction` would have it, in what is seen of the action too."""
    far = 3.0 * actions_of(5)
    assert np.abs(far).max() > 1.0
    assert_same(episode(make(), 3, far), episode(wrappers.ClipAction(make()), 3, far))


@pytest.mark.parametrize(
    "action",
    [
        [np.nan] * 5,
        [np.inf] * 5,
        [-np.inf, 0, 0, 0, 0],
        [True] * 5,
        ["0.5"] * 5,
        [0.5j] * 5,
        [None] * 5,
        [0] * 4,
        [[0] * 5],
    ],
    ids=str,
)
def test_what_is_no_action_is_refused_and_nothing_has_moved(action: Any) -> None:
    env, actions = make(), actions_of(5)
    moments = episode(env, 3, actions[:1])
    with pytest.raises(InvalidInputError, match=r"action=.*expected 5 finite numbers in \[-1, 1\]"):
        env.step(action)
    assert_same(moments + steps(env, actions[1:]), episode(make(), 3, actions))


@pytest.mark.parametrize(
    "form", [list, lambda a: a.astype(np.float16), torch.tensor, lambda a: torch.tensor(a).requires_grad_()]
)
def test_an_action_comes_as_an_agent_has_it(form: Callable[[Any], Any]) -> None:
    """Also with a gradient, which the environment does not need."""
    actions = actions_of(5).round(2).astype(np.float16).astype(np.float32)
    assert_same(episode(make(), 3, map(form, actions)), episode(make(), 3, actions))
