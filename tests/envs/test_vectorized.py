"""Vector environments of Gymnasium and Stable-Baselines3 show the same episodes as single environments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from ssdkd_env.envs import SSDKDVectorEnv, sub_environments, tuning
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, FloatArray, Moment, actions_of, make, reset, steps

ID = "ssdkd_env:SSDKD/Digits-v2"
SEEDS = [11, 22]
#: One step through the end of the first episode and two into the second.
STEPS = ROUNDS + 3


@pytest.fixture
def arguments(tiny_teacher: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A task that costs worker processes little."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return {"task": "tests.envs.own_networks:TINY", "teacher": tiny_teacher, "budget": BUDGET, "probe": SMALL_PROBE}


def step_actions(index: int) -> FloatArray:
    """The actions of both environments in one step, (2, 5)."""
    return actions_of(100 + index, count=len(SEEDS))


def single(number: int, arguments: dict[str, Any], mode: AutoresetMode) -> list[Moment]:
    """What environment `number` has to show: a reset, then `STEPS` steps with resets at the ends."""
    env = make(**arguments)
    shown = [reset(env, SEEDS[number])]
    ended = False
    for index in range(STEPS):
        if ended and mode == AutoresetMode.NEXT_STEP:
            moment = reset(env)
            ended = False
        else:
            moment = steps(env, [step_actions(index)[number]])[0]
            ended = moment.terminated
            if ended and mode == AutoresetMode.SAME_STEP:
                fresh = reset(env)
                moment = moment._replace(observation=fresh.observation, info=fresh.info)
        shown.append(moment)
    return shown


def assert_info(infos: dict[str, Any], number: int, expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        assert infos[f"_{key}"][number]
        assert infos[key][number] == value


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_gymnasium_vector_environment_equals_single_ones(
    vectorization: str, mode: AutoresetMode, arguments: dict[str, Any]
) -> None:
    if vectorization == "async" and mode == AutoresetMode.SAME_STEP:
        pytest.skip("starting processes takes seconds, and the mode is Gymnasium's own code")
    expected = [single(number, arguments, mode) for number in range(2)]
    vector_kwargs: dict[str, Any] = {"autoreset_mode": mode}
    if vectorization == "async":
        vector_kwargs["context"] = "spawn"
    envs = gym.make_vec(ID, num_envs=2, vectorization_mode=vectorization, vector_kwargs=vector_kwargs, **arguments)
    try:
        observations, infos = envs.reset(seed=SEEDS)  # type: ignore[arg-type]
        for number in range(2):
            np.testing.assert_array_equal(observations[number], expected[number][0].observation)
            assert_info(infos, number, expected[number][0].info)
        for index in range(STEPS):
            observations, rewards, terminated, truncated, infos = envs.step(step_actions(index))
            for number in range(2):
                moment = expected[number][index + 1]
                np.testing.assert_array_equal(observations[number], moment.observation)
                shown = (float(rewards[number]), bool(terminated[number]), bool(truncated[number]))
                assert shown == moment[1:4]
                assert_info(infos, number, moment.info)
    finally:
        envs.close()


def test_make_vec_works_with_its_default_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the vector entry point, which tries what is fastest; here that is the reference."""
    monkeypatch.setattr(sub_environments, "usable_cores", lambda: 1)
    monkeypatch.setattr(tuning, "_race", lambda env, count: (count, 1.0, 1.0))
    envs = gym.make_vec(ID, num_envs=2, budget=BUDGET, probe=SMALL_PROBE)
    assert isinstance(envs, SSDKDVectorEnv)
    observations, _ = envs.reset(seed=3)
    expected = reset(make(), 3).observation
    np.testing.assert_array_equal(observations[0], expected)
    assert envs.step(envs.action_space.sample())[0].shape == (2, len(expected))
    envs.close()


def make_single(arguments: dict[str, Any]) -> gym.Env:
    return gym.make(ID, **arguments)


@pytest.mark.parametrize(
    "vectorize", [DummyVecEnv, partial(SubprocVecEnv, start_method="spawn")], ids=["dummy", "subproc"]
)
def test_sb3_vector_environment_equals_single_ones(
    vectorize: Callable[[list[Callable[[], gym.Env]]], VecEnv], arguments: dict[str, Any]
) -> None:
    singles = [make(**arguments) for _ in SEEDS]
    expected = [reset(env, SEEDS[0] + number) for number, env in enumerate(singles)]
    envs = vectorize([partial(make_single, arguments)] * 2)
    try:
        envs.seed(SEEDS[0])  # Stable-Baselines3 gives the environments consecutive seeds
        np.testing.assert_array_equal(envs.reset(), [moment.observation for moment in expected])
        for index in range(STEPS):
            observations, rewards, dones, infos = envs.step(step_actions(index))
            assert isinstance(observations, np.ndarray)
            for number, env in enumerate(singles):
                moment = steps(env, [step_actions(index)[number]])[0]
                assert rewards[number] == np.float32(moment.reward)
                assert dones[number] == moment.terminated
                assert infos[number]["TimeLimit.truncated"] is False
                assert moment.info.items() <= infos[number].items()
                if moment.terminated:
                    np.testing.assert_array_equal(infos[number]["terminal_observation"], moment.observation)
                    moment = reset(env)
                np.testing.assert_array_equal(observations[number], moment.observation)
    finally:
        envs.close()


def test_sb3_normalisation_wraps_the_environment() -> None:
    envs = VecNormalize(DummyVecEnv([partial(make_single, {"budget": BUDGET, "probe": SMALL_PROBE})] * 2))
    envs.reset()
    for index in range(2 * ROUNDS):
        observations, rewards, _, _ = envs.step(step_actions(index))
        assert isinstance(observations, np.ndarray)
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()
        assert np.abs(observations).max() <= 10.0
    assert isinstance(envs.obs_rms, RunningMeanStd)
    assert envs.obs_rms.count > 2 * ROUNDS
    envs.close()


def test_attributes_and_methods_are_reached_through_sb3() -> None:
    envs = DummyVecEnv([partial(make_single, {"budget": BUDGET, "probe": SMALL_PROBE})] * 2)
    assert envs.get_attr("observation_names")[0] == make().observation_names
    actions = np.stack(envs.get_attr("paper_action"))
    envs.reset()
    envs.step(actions)
    assert envs.get_attr("paper_action")[1] in envs.action_space
    envs.close()
