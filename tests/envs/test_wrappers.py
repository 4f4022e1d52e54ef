"""Gymnasium's wrappers and `make`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import NormalizeObservation, RecordEpisodeStatistics, RecordVideo, RescaleAction

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
