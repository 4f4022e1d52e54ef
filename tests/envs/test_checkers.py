"""The environment checkers of Gymnasium and Stable-Baselines3, with every warning an error."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

import ssdkd_env  # noqa: F401 (registers the ids)
from ssdkd_env.envs.actions import ACTION_SCHEMES, OF_WORK
from tests.envs.episodes import BUDGET, REWARD_NAMES, SMALL_PROBE, WORK_BUDGET

pytestmark = pytest.mark.filterwarnings("error")
#: The rendering check starts by itself as soon as there is a rendering module.
SKIP_RENDERING = find_spec("ssdkd_env.envs.rendering") is None


def gym_make(**arguments: Any) -> gym.Env:
    return gym.make("SSDKD/Digits-v2", **{"budget": BUDGET, "probe": SMALL_PROBE} | arguments).unwrapped


@pytest.mark.parametrize("reward", REWARD_NAMES)
def test_gymnasium_checker_passes(reward: str) -> None:
    gymnasium_check(gym_make(reward=reward), skip_render_check=SKIP_RENDERING)


@pytest.mark.parametrize("reward", REWARD_NAMES)
def test_sb3_checker_passes(reward: str) -> None:
    mode = None if SKIP_RENDERING else "rgb_array"
    sb3_check(gym_make(reward=reward, render_mode=mode), warn=True, skip_render_check=SKIP_RENDERING)


@pytest.mark.parametrize("scheme", ACTION_SCHEMES)
def test_checkers_pass_with_every_action_scheme(scheme: str) -> None:
    """And with stacked observations and a terminal reward."""
    arguments: dict[str, Any] = {"action": scheme, "history": 2}
    arguments |= {"reward": "terminal_probe_discrepancy", "render_mode": "rgb_array"}
    if scheme in OF_WORK:
        arguments |= {"work_scale": 0.02, "budget": WORK_BUDGET}
    gymnasium_check(gym_make(**arguments), skip_render_check=SKIP_RENDERING)
    sb3_check(gym_make(**arguments), warn=True, skip_render_check=SKIP_RENDERING)


def test_checkers_pass_on_own_task_without_evaluation_data(tiny_teacher: str) -> None:
    env = gym.make(
        "SSDKD/Digits-v2", task="tests.envs.own_networks:TINY", teacher=tiny_teacher, probe=SMALL_PROBE
    ).unwrapped
    gymnasium_check(env, skip_render_check=SKIP_RENDERING)
    sb3_check(env, warn=True, skip_render_check=True)


def test_smallest_memory_is_an_id_of_its_own_and_may_be_chosen_otherwise() -> None:
    def capacity(**arguments: Any) -> int:
        made: Any = gym.make("SSDKD/Digits1Percent-v2", probe=SMALL_PROBE, **arguments).unwrapped
        size: int = made.budget.buffer_capacity
        return size

    assert capacity() == 18
    assert capacity(buffer_scale=0.05) == 90
    arguments = {name: value for name, value in BUDGET.items() if name != "buffer_capacity"}
    gymnasium_check(
        gym.make("SSDKD/Digits1Percent-v2", probe=SMALL_PROBE, budget=arguments).unwrapped, skip_render_check=True
    )
