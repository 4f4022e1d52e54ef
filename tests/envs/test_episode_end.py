"""When an episode ends, and what cannot be done before and after it."""

from __future__ import annotations

import gymnasium as gym
import pytest

from ssdkd_env.envs import SSDKDEnv
from tests.envs.episodes import actions_of, episode, make, reset


@pytest.mark.parametrize("rounds", [1, 3])
def test_episode_terminates_when_the_budget_is_used_up_and_is_never_truncated(rounds: int) -> None:
    moments = episode(make(budget={"rounds": rounds}), 3, actions_of(5, rounds))
    assert [moment.terminated for moment in moments] == [False] * rounds + [True]
    assert not any(moment.truncated for moment in moments)
    assert all(type(moment.terminated) is bool and type(moment.truncated) is bool for moment in moments)
    assert [moment.info["round"] for moment in moments] == list(range(rounds + 1))


def test_gymnasium_adds_no_time_limit() -> None:
    assert gym.spec("SSDKD/Digits-v2").max_episode_steps is None


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        make().step(actions_of(5)[0])


def test_step_after_the_end_is_refused_with_reason_and_remedy() -> None:
    env = make()
    episode(env, 3, actions_of(5))
    with pytest.raises((RuntimeError, gym.error.Error), match=r"budget is used up after 3 rounds.*reset\(\)"):
        env.step(actions_of(5)[0])
    assert reset(env, 3).info["round"] == 0


def test_close_may_be_called_at_any_time_and_twice() -> None:
    env = make()
    env.close()
    reset(env, 3)
    env.close()
    env.close()


def test_options_of_reset_change_nothing() -> None:
    first, second = make(), make()
    one, other = first.reset(seed=3, options={}), second.reset(seed=3, options=None)
    assert (one[0] == other[0]).all()


def test_construction_makes_no_run() -> None:
    assert SSDKDEnv().run is None
