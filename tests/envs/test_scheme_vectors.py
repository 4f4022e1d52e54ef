"""Vector environments with every action scheme, of which one is discrete."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from ssdkd_agents.vec_env import DistillationVecEnv
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from ssdkd_env.distillation import SamplingPlan
from ssdkd_env.envs import SSDKDEnv, SSDKDVectorEnv
from ssdkd_env.envs.actions import ACTION_SCHEMES, OF_WORK
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, WORK_BUDGET, Moment, make, reset, samples_of, steps

BACKENDS: dict[str, dict[str, Any]] = {
    "loop": {"vectorization": "loop"},
    "process": {"vectorization": "process", "processes": 2},
    "grouped": {"vectorization": "grouped"},
}


@pytest.fixture(scope="module")
def tiny(tiny_teacher: str) -> dict[str, Any]:
    """A task that costs worker processes little."""
    task = {"task": "tests.envs.own_networks:TINY", "teacher": tiny_teacher, "reward": "probe_discrepancy"}
    return task | {"budget": BUDGET, "probe": SMALL_PROBE}


@pytest.fixture
def float64(empty_caches: None, float64: None) -> None:
    """Every network, the teacher too, in float64, where a group differs by nothing that can be seen."""


def actions_by_member(count: int, **arguments: Any) -> list[list[Any]]:
    """Of each environment its own for every round."""
    env = make(**arguments)
    length = 60 if env.budget.work else ROUNDS
    return [samples_of(env, 10 + number, length) for number in range(count)]


def assert_near(moment: Moment, observation: Any, reward: float, info: dict[str, Any], tolerance: float) -> None:
    np.testing.assert_allclose(observation, moment.observation, rtol=0, atol=1e-5 if tolerance else 0)
    assert reward == pytest.approx(moment.reward, rel=tolerance, abs=tolerance)
    for key, value in moment.info.items():
        assert info[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key


def until_the_end(env: SSDKDEnv, seed: int, actions: list[Any]) -> list[Moment]:
    """An episode under these actions, or as many of them as it takes."""
    moments = [reset(env, seed)]
    for action in actions:
        if moments[-1].terminated:
            break
        moments += steps(env, [action])
    assert moments[-1].terminated
    return moments


def check_against_single(tiny: dict[str, Any], scheme: str, backend: str, tolerance: float) -> None:
    arguments = tiny | {"action": scheme, "history": 2}
    actions = actions_by_member(2, **arguments)
    alone = [until_the_end(make(**arguments), 11 + number, actions[number]) for number in range(2)]
    last = min(map(len, alone)) - 1  # schemes that divide work end episodes after different numbers of steps
    if scheme in OF_WORK:
        arguments |= {"work_scale": 1.0, "budget": WORK_BUDGET}
    envs = SSDKDVectorEnv(2, autoreset_mode=AutoresetMode.DISABLED, **BACKENDS[backend], **arguments)
    try:
        assert envs.action_space == batch_space(envs.single_action_space, 2)
        observations, infos = envs.reset(seed=11)
        rewards = np.zeros(2)
        for index in range(last + 1):
            for number in range(2):
                info = {key: value[number] for key, value in infos.items() if not key.startswith("_")}
                assert_near(alone[number][index], observations[number], rewards[number], info, tolerance)
            if index < last:
                batch = np.stack([actions[number][index] for number in range(2)])
                assert batch in envs.action_space
                observations, rewards, ended, _, infos = envs.step(batch)
        assert ended.tolist() == [len(moments) == last + 1 for moments in alone]
    finally:
        envs.close()


@pytest.mark.parametrize("scheme", ACTION_SCHEMES)
def test_loop_gives_what_single_environments_give(scheme: str, tiny: dict[str, Any]) -> None:
    check_against_single(tiny, scheme, "loop", 0.0)


@pytest.mark.parametrize("scheme", ["plans", "samples"])
def test_processes_give_what_single_environments_give(scheme: str, tiny: dict[str, Any]) -> None:
    check_against_single(tiny, scheme, "process", 0.0)


@pytest.mark.parametrize("scheme", ACTION_SCHEMES)
def test_group_gives_what_single_environments_give(scheme: str, float64: None, tiny: dict[str, Any]) -> None:
    """Each with a plan of its own."""
    check_against_single(tiny, scheme, "grouped", 1e-8)


def vec(tiny: dict[str, Any], **more: Any) -> SSDKDVectorEnv:
    return SSDKDVectorEnv(2, vectorization="loop", **tiny, **more)


@pytest.mark.parametrize("actions", [[3, 7], (3, 7), np.array([3, 7], np.int32), np.array([[3], [7]])], ids=repr)
def test_choices_may_come_in_any_form(actions: Any, tiny: dict[str, Any]) -> None:
    envs, same = vec(tiny, action="plans"), vec(tiny, action="plans")
    assert isinstance(envs.action_space, spaces.MultiDiscrete)
    for each in (envs, same):
        each.reset(seed=1)
    found, expected = envs.step(actions)[0], same.step(np.array([3, 7]))[0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("actions", [[3, len(NAMED_PLANS)], [0.5, 1.0], [3, -1], [3]], ids=repr)
def test_bad_choice_is_refused_before_any_environment_moves(actions: Any, tiny: dict[str, Any]) -> None:
    envs, same = vec(tiny, action="plans"), vec(tiny, action="plans")
    for each in (envs, same):
        each.reset(seed=1)
    with pytest.raises(InvalidInputError, match="action"):
        envs.step(actions)
    good = np.array([3, 7])
    np.testing.assert_array_equal(envs.step(good)[0], same.step(good)[0])


def test_plans_may_be_given_in_place_of_actions(tiny: dict[str, Any]) -> None:
    envs, same = vec(tiny, action="plans"), vec(tiny, action="plans")
    for each in (envs, same):
        each.reset(seed=1)
    plans: Any = [SamplingPlan(), NAMED_PLANS["fifo"]]
    chosen: Any = [0, [*NAMED_PLANS].index("fifo")]
    np.testing.assert_array_equal(envs.step(plans)[0], same.step(chosen)[0])


# --- Stable-Baselines3 ---


@pytest.mark.parametrize("backend", ["loop", "process"])
def test_results_are_those_of_dummy_vec_env(backend: str, tiny: dict[str, Any]) -> None:
    arguments = tiny | {"action": "plans"}
    mine = DistillationVecEnv(2, arguments, backend, 2 if backend == "process" else None)
    theirs = DummyVecEnv([lambda: make(**arguments)] * 2)
    try:
        assert mine.action_space == theirs.action_space == spaces.Discrete(len(NAMED_PLANS))
        for each in (mine, theirs):
            each.seed(4)
        np.testing.assert_array_equal(mine.reset(), theirs.reset())
        for index in range(ROUNDS + 1):
            actions = np.array([index, 9 - index])
            results = [each.step(actions) for each in (mine, theirs)]
            for one, other in zip(results[0][:3], results[1][:3], strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        mine.close()


@pytest.mark.parametrize("backend", ["loop", "grouped"])
def test_an_algorithm_for_choices_learns(backend: str, tiny: dict[str, Any]) -> None:
    """With its own forms of actions."""
    for algorithm in (PPO, DQN):
        envs = DistillationVecEnv(2, tiny | {"action": "plans"}, backend)
        settings: dict[str, Any] = {"n_steps": 4, "batch_size": 8} if algorithm is PPO else {"learning_starts": 4}
        model = algorithm("MlpPolicy", envs, device="cpu", seed=0, **settings)
        model.learn(8)
        action, _ = model.predict(envs.reset(), deterministic=True)
        envs.step(action)
        single = make(**(tiny | {"action": "plans"}))
        choice, _ = model.predict(single.reset(seed=0)[0], deterministic=True)
        single.step(choice)
