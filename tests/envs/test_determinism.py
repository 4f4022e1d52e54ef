"""One seed is one episode, and nothing outside the environment notices."""

from __future__ import annotations

import random

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.envs.episodes import BUDGET, REWARD_NAMES, SMALL_PROBE, actions_of, assert_same, episode, make, reset, steps


@pytest.mark.parametrize("reward", REWARD_NAMES)
def test_equal_seeds_give_equal_episodes(reward: str) -> None:
    first = episode(make(reward=reward), 7, actions_of(1))
    for draw in (torch.rand, np.random.rand):  # what happens outside makes no difference
        draw(3)
    assert_same(first, episode(make(reward=reward), 7, actions_of(1)))


def test_second_episode_of_a_seed_equals_the_first() -> None:
    env = make()
    first = episode(env, 7, actions_of(1))
    assert_same(first, episode(env, 7, actions_of(1)))


def test_reset_in_the_middle_starts_over() -> None:
    env = make()
    whole = episode(env, 7, actions_of(1))
    reset(env, 3)
    steps(env, actions_of(2)[:1])
    assert_same(whole, episode(env, 7, actions_of(1)))


def test_other_seeds_give_other_episodes() -> None:
    first, second = (episode(make(), seed, actions_of(1)) for seed in (7, 8))
    for one, other in zip(first, second, strict=True):
        assert not np.array_equal(one.observation, other.observation)
    assert first[-1].info["probe_discrepancy"] != second[-1].info["probe_discrepancy"]


def test_other_actions_give_other_episodes() -> None:
    first, second = (episode(make(), 7, actions) for actions in (actions_of(1), actions_of(2)))
    assert_same(first[:1], second[:1])
    statistics = slice(0, -5)  # without the actions themselves
    assert not np.array_equal(first[-1].observation[statistics], second[-1].observation[statistics])


def test_resets_without_seed_continue_one_stream() -> None:
    first, second = make(), make()
    ours = [reset(first, 7), reset(first), *episode(first, None, actions_of(1))]
    theirs = [reset(second, 7), reset(second), *episode(second, None, actions_of(1))]
    assert_same(ours, theirs)
    assert not np.array_equal(ours[0].observation, ours[1].observation)
    assert not np.array_equal(ours[1].observation, ours[2].observation)


def test_episode_length_does_not_change_the_next_episode() -> None:
    """The stream of resets is not drawn from by steps."""
    first, second = make(), make()
    episode(first, 7, actions_of(1))
    episode(second, 7, actions_of(1)[:1])
    assert_same([reset(first)], [reset(second)])


def test_first_reset_without_seed_works_and_is_random() -> None:
    first, second = (episode(make(), None, actions_of(1)) for _ in range(2))
    assert not np.array_equal(first[0].observation, second[0].observation)


def test_environments_in_turns_do_not_disturb_each_other() -> None:
    alone = [episode(make(), seed, actions_of(seed)) for seed in (1, 2)]
    first, second = make(), make()
    mine, yours = [reset(first, 1)], [reset(second, 2)]
    for one, other in zip(actions_of(1), actions_of(2), strict=True):
        mine += steps(first, [one])
        yours += steps(second, [other])
    assert_same(alone[0], mine)
    assert_same(alone[1], yours)


@pytest.mark.parametrize("generator_arch", [None, "tests.envs.own_networks:dropout_generator"])
@pytest.mark.usefixtures("empty_caches")
def test_global_random_generators_stay_as_they_were(generator_arch: str | None) -> None:
    """From loading the teacher and making the probe set to the end of an episode."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()
    env = make(generator_arch=generator_arch)
    for seed in (7, None):
        episode(env, seed, actions_of(1))
    env.close()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    for before, after in zip(numpy_state, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_spec_survives_json() -> None:
    env = gym.make("SSDKD/Digits-v2", budget=BUDGET, probe=SMALL_PROBE, reward="probe_discrepancy", student={"lr": 0.1})
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert_same(episode(env, 7, actions_of(1)), episode(again, 7, actions_of(1)))
    assert again.get_wrapper_attr("settings").reward == "probe_discrepancy"


def test_global_spec_survives_json() -> None:
    spec = gym.spec("SSDKD/Digits-v2")
    assert gym.envs.registration.EnvSpec.from_json(spec.to_json()) == spec
