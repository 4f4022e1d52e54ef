"""Whole episodes side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ssdkd_agents.playing import play_side_by_side

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.sub_environments import SubEnvironments
from tests.envs.episodes import BUDGET, SMALL_PROBE

KWARGS: dict[str, Any] = {"budget": BUDGET | {"rounds": 2}, "probe": SMALL_PROBE}
ACTIONS = [np.full(5, value, dtype=np.float32) for value in (0.5, -0.5, 0.5)]


def test_episodes_are_those_that_each_environment_plays_alone() -> None:
    seeds = [7, 8, 9]
    played = play_side_by_side(SubEnvironments(3, KWARGS, "loop", None), seeds, lambda *_: ACTIONS, held_out=True)
    assert played is not None
    env = SSDKDEnv(**KWARGS)
    for episode, seed, action in zip(played, seeds, ACTIONS, strict=True):
        observation, begun = env.reset(seed=seed)
        assert episode.begun == begun
        for shown, reward in zip(episode.observations, episode.rewards, strict=True):
            np.testing.assert_array_equal(shown, observation)
            observation, expected, terminated, _, info = env.step(action)
            assert reward == expected
        assert terminated
        assert (episode.seed, episode.final) == (seed, info)
        assert episode.total == sum(episode.rewards)
        assert episode.held_out_accuracy == env.held_out_accuracy()


def test_decisions_are_asked_for_with_the_round_and_what_each_shows() -> None:
    asked: list[tuple[int, Any]] = []

    def decide(observations: Any, round_index: int) -> Any:
        asked.append((round_index, observations))
        return ACTIONS[:2]

    played = play_side_by_side(SubEnvironments(2, KWARGS, "loop", None), [7, 8], decide)
    assert played is not None
    assert [number for number, _ in asked] == [0, 1]
    np.testing.assert_array_equal([seen for _, seen in asked], np.stack([e.observations for e in played], axis=1))
    assert {episode.held_out_accuracy for episode in played} == {None}, "it was not asked for"


def test_diverged_student_ends_its_episode_early_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    original = SSDKDEnv.step

    def step(self: SSDKDEnv, action: Any) -> Any:
        observation, reward, terminated, truncated, info = original(self, action)
        return observation, reward, terminated or action[0] < 0, truncated, info

    monkeypatch.setattr(SSDKDEnv, "step", step)
    played = play_side_by_side(SubEnvironments(3, KWARGS, "loop", None), [7, 7, 7], lambda *_: ACTIONS)
    assert played is not None
    first, short, last = played
    assert [len(episode.rewards) for episode in played] == [2, 1, 2]
    assert [len(episode.observations) for episode in played] == [2, 1, 2]
    assert (first.total, first.final) == (last.total, last.final)
    assert short.final["round"] == 1


def test_stop_is_asked_before_every_round_and_leaves_nothing() -> None:
    asked = iter([False, True])
    assert (
        play_side_by_side(SubEnvironments(1, KWARGS, "loop", None), [7], lambda *_: ACTIONS, lambda: next(asked))
        is None
    )
    assert next(asked, None) is None
