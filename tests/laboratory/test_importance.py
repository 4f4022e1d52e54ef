"""What a sampler reads is found, exactly; what it does not read changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from laboratory.importance import (
    EVERYTHING,
    Replacement,
    entries_read,
    group_of,
    groups_of,
    play,
    refuse_drawing,
    scores_of,
)
from numpy.typing import NDArray
from ssdkd_agents.playing import PlayedEpisode
from ssdkd_agents.samplers import ConstantSampler, PlanSampler, RandomSampler, State
from ssdkd_agents.vec_env import DistillationVecEnv

from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.actions import ACTION_SCHEMES
from ssdkd_env.envs.named_plans import NAMED_PLANS
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError
from tests.agents.stand_in import SMALL
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, make

FloatArray = NDArray[np.float32]
SEEDS = (5, 6, 7)


class Reader:
    """Part 1 of its action is what `look` makes of (n, entries) observations; it remembers what it was shown.

    Args:
        look: gives (n,) numbers in [−1, 1].
        shape: of an action; () is a choice.
    """

    def __init__(self, look: Callable[[FloatArray], Any], shape: tuple[int, ...] = (5,)) -> None:
        self._look, self._shape = look, shape
        self.shown: list[FloatArray] = []

    def predict(
        self, observation: FloatArray, state: State = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], State]:
        assert deterministic
        self.shown.append(observation.copy())
        seen = np.asarray(self._look(observation))
        if not self._shape:
            return seen.astype(np.int64), state
        action = np.full((len(observation), *self._shape), 0.25, dtype=np.float32)
        action[:, 1] = seen
        return action, state


class Rememberer:
    """Answers with an entry of the round before, which its state holds; nothing at first."""

    def __init__(self, column: int) -> None:
        self._column = column

    def predict(
        self, observation: FloatArray, state: State = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], State]:
        assert episode_start.shape == (len(observation),)
        assert episode_start.all() if state is None else not episode_start.any()
        remembered = np.zeros(len(observation), np.float32) if state is None else state[0]
        return np.repeat(remembered[:, None], 5, axis=1), (observation[:, self._column].copy(),)


@pytest.fixture(scope="module")
def env() -> SSDKDEnv:
    return make(observation="unscaled")


def episode_of(observations: FloatArray) -> PlayedEpisode:
    return PlayedEpisode(0, {}, observations, [0.0] * len(observations), {})


def episodes_of(env: SSDKDEnv, episodes: int = 4, lengths: Sequence[int] = (6,)) -> list[PlayedEpisode]:
    """Random numbers, with a progress that is the same in every episode; the lengths come again and again."""
    random = np.random.default_rng(1)
    shapes = [(lengths[number % len(lengths)], len(env.observation_names)) for number in range(episodes)]
    made = [random.uniform(0, 1, shape).astype(np.float32) for shape in shapes]
    for seen in made:
        seen[:, 0] = np.arange(len(seen)) / max(lengths)
    return [episode_of(seen) for seen in made]


def column_of(env: SSDKDEnv, name: str) -> int:
    return env.observation_names.index(name)


# --- entries and groups ---


@pytest.mark.parametrize("scheme", ACTION_SCHEMES)
@pytest.mark.parametrize("history", [1, 3])
def test_every_entry_belongs_to_one_group(scheme: str, history: int) -> None:
    names = make(action=scheme, history=history).observation_names
    groups = groups_of(names)
    assert groups.pop(EVERYTHING) == list(range(len(names)))
    assert sorted(column for columns in groups.values() for column in columns) == list(range(len(names)))
    assert set(groups) == {
        "progress", "last_action", "trends", "buffer", "effective_sample_size", "candidate", "probe",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "group"),
    [
        ("progress", "progress"),
        ("progress_minus_2", "progress"),
        ("buffer_mean_age", "buffer"),
        ("candidate_agreement", "candidate"),
        ("candidate_agreement_trend", "trends"),
        ("probe_agreement_trend_minus_1", "trends"),
        ("probe_agreement_minus_11", "probe"),
        ("last_action_replaced_share", "last_action"),
        ("something_new", "other"),
    ],
)
def test_group_is_that_of_the_name(entry: str, group: str) -> None:
    assert group_of(entry) == group


# --- permuted ---


@pytest.mark.parametrize("name", ["progress", "buffer_agreement", "probe_discrepancy", "last_action_replaced_share"])
def test_only_the_entry_that_is_read_matters(name: str, env: SSDKDEnv) -> None:
    read = column_of(env, name)
    found = entries_read(Reader(lambda seen: seen[:, read]), env, episodes_of(env))
    assert list(found) == list(env.observation_names)
    assert {entry for entry, change in found.items() if change > 0} == {name}


def test_change_is_the_mean_distance_of_two_values_over_the_parts(env: SSDKDEnv) -> None:
    read, episodes = column_of(env, "probe_agreement"), episodes_of(env, 60, lengths=(6, 3, 9))
    values = np.concatenate([episode.observations[:, read] for episode in episodes]).astype(np.float64)
    apart = np.abs(values[:, None] - values[None]).mean()
    found = entries_read(Reader(lambda seen: seen[:, read]), env, episodes)
    assert found["probe_agreement"] == pytest.approx(apart / 5, rel=0.03)


def test_choices_change_in_two_parts() -> None:
    env = make(action="plans", observation="unscaled")
    read, episodes = column_of(env, "probe_agreement"), episodes_of(env, 60)
    share = np.mean([episode.observations[:, read] > 0.5 for episode in episodes])
    found = entries_read(Reader(lambda seen: np.where(seen[:, read] > 0.5, 7, 2), ()), env, episodes)
    assert found["probe_agreement"] == pytest.approx(2 * 2 * share * (1 - share) / len(env.action_names), rel=0.05)


def test_actions_outside_their_range_are_what_the_environment_takes_them_for(env: SSDKDEnv) -> None:
    read = column_of(env, "probe_agreement")
    found = entries_read(Reader(lambda seen: 2.0 + seen[:, read]), env, episodes_of(env))
    assert set(found.values()) == {0.0}


def test_memory_is_left_out(env: SSDKDEnv) -> None:
    assert set(entries_read(Rememberer(column_of(env, "probe_agreement")), env, episodes_of(env)).values()) == {0.0}


def test_sampler_that_draws_is_refused(env: SSDKDEnv) -> None:
    with pytest.raises(InvalidInputError, match="answers the same observations in another way the second time"):
        refuse_drawing(RandomSampler(env.action_space), env)
    refuse_drawing(ConstantSampler(env.paper_action), env)


# --- played ---


@pytest.fixture(scope="module")
def pool() -> Iterator[SubEnvironments]:
    """Of two environments, so that three seeds are two batches."""
    kwargs = {"budget": BUDGET, "probe": SMALL_PROBE, "observation": "unscaled", "evaluate_every_rounds": 10**6}
    pool = SubEnvironments(2, kwargs, "loop", None)
    yield pool
    pool.close()


def shown_to(sampler: Reader, episodes: int = len(SEEDS)) -> FloatArray:
    """(episodes, rounds, entries) that a sampler was shown by `play`, in batches."""
    batches = [
        np.stack(sampler.shown[first : first + ROUNDS], axis=1) for first in range(0, len(sampler.shown), ROUNDS)
    ]
    shown = np.concatenate(batches)
    assert len(shown) == episodes
    return shown


def observations_of(episodes: Iterable[PlayedEpisode]) -> FloatArray:
    """(episodes, rounds, entries) that the environments showed."""
    return np.stack([episode.observations for episode in episodes])


def test_episodes_are_those_of_the_environment_alone(pool: SubEnvironments) -> None:
    env, plan = make(observation="unscaled"), NAMED_PLANS["fifo"]
    played = list(play(pool, PlanSampler(plan, env), SEEDS))
    assert [episode.seed for episode in played] == list(SEEDS)
    for episode in played:
        observation, _ = env.reset(seed=episode.seed)
        rewards = []
        for seen in episode.observations:
            np.testing.assert_array_equal(seen, observation)
            observation, reward, terminated, _, info = env.step(plan)
            rewards.append(reward)
        assert terminated
        assert episode.total == pytest.approx(sum(rewards))
        assert episode.final == info
        assert episode.held_out_accuracy == env.held_out_accuracy()
        scores = {"return": episode.total, "accuracy": info["accuracy"]}
        assert scores_of(episode).items() >= scores.items()


def test_replaced_entries_are_those_of_the_next_episode_at_the_same_round(pool: SubEnvironments) -> None:
    read = column_of(pool.first, "probe_agreement")
    sampler = Reader(lambda seen: seen[:, read])
    calm = list(play(pool, sampler, SEEDS))
    recorded = observations_of(calm)
    np.testing.assert_array_equal(shown_to(sampler), recorded)
    columns = groups_of(pool.first.observation_names)["probe"]
    assert read in columns
    disturbed = Reader(lambda seen: seen[:, read])
    played = observations_of(play(pool, disturbed, SEEDS, Replacement.of(calm, columns, across_steps=False)))
    shown = shown_to(disturbed)
    others = [column for column in range(shown.shape[2]) if column not in columns]
    np.testing.assert_array_equal(shown[:, :, columns], recorded[[1, 2, 0]][:, :, columns])
    np.testing.assert_array_equal(played[:, 0], recorded[:, 0])
    np.testing.assert_array_equal(shown[:, :, others], played[:, :, others])
    assert not np.array_equal(played, recorded), "the episodes are others"


def test_state_is_handed_from_round_to_round(pool: SubEnvironments) -> None:
    """The first action of an episode is 0 in each part, the second what was seen in the first round."""
    read = column_of(pool.first, "probe_agreement")
    last = [column for column, name in enumerate(pool.first.observation_names) if name.startswith("last_action_")]
    for episode in play(pool, Rememberer(read), SEEDS):
        np.testing.assert_array_equal(episode.observations[1, last], np.zeros(5))
        np.testing.assert_array_equal(episode.observations[2, last], np.repeat(episode.observations[0, read], 5))


def test_what_is_not_read_can_be_replaced_without_effect(pool: SubEnvironments) -> None:
    read = column_of(pool.first, "probe_agreement")
    calm = list(play(pool, Reader(lambda seen: seen[:, read]), SEEDS))
    columns = [column for column in range(len(pool.first.observation_names)) if column != read]
    replacement = Replacement.of(calm, columns, across_steps=False)
    disturbed = play(pool, Reader(lambda seen: seen[:, read]), SEEDS, replacement)
    assert [scores_of(episode) for episode in disturbed] == [scores_of(episode) for episode in calm]


def test_progress_comes_from_half_an_episode_away(env: SSDKDEnv) -> None:
    episodes = episodes_of(env, 2, lengths=(6, 4))
    replacement = Replacement.of(episodes, [0], across_steps=True)
    own = np.zeros((1, len(env.observation_names)), dtype=np.float32)
    for episode, rounds in ((0, (3, 4, 5, 0, 1, 2)), (1, (2, 3, 0, 1))):
        for now, then in enumerate(rounds):
            shown = replacement.apply(own, episode, now)
            assert shown[0, 0] == episodes[episode].observations[then, 0]
            assert not shown[0, 1:].any()


def test_longer_episode_goes_on_with_the_last_that_was_recorded() -> None:
    short = episode_of(np.full((2, 3), 0.5, dtype=np.float32))
    long = episode_of(np.arange(12, dtype=np.float32).reshape(4, 3))
    replacement = Replacement.of([long, short], [1], across_steps=False)
    zeros = np.zeros((2, 3), dtype=np.float32)
    np.testing.assert_array_equal(replacement.apply(zeros, 0, 9), [[0, 0.5, 0], [0, 10, 0]])
    assert not zeros.any()


def test_episodes_without_real_data_have_no_accuracy() -> None:
    episode = replace(episode_of(np.zeros((2, 1), dtype=np.float32)), rewards=[0.25, 0.25])
    assert scores_of(episode) == {"return": 0.5}
    measured = replace(episode, final={"accuracy": 0.1}, held_out_accuracy=0.2)
    assert scores_of(measured) == {"return": 0.5, "held_out_accuracy": 0.2, "accuracy": 0.1}


def test_recurrent_agent_plays_side_by_side_as_alone(pool: SubEnvironments) -> None:
    """Its state has a row for each environment."""
    from ssdkd_agents.policies.algorithms import build_model, load_hyperparameters

    kwargs = {"budget": BUDGET, "probe": SMALL_PROBE, "observation": "unscaled"}
    venv = DistillationVecEnv(1, kwargs, "loop")
    hyperparameters = load_hyperparameters("recurrent_ppo", "SSDKD/Digits-v2", SMALL["recurrent_ppo"] | {"n_envs": 1})
    model = build_model("recurrent_ppo", venv, hyperparameters, seed=0)
    together = list(play(pool, model, SEEDS))
    one = SubEnvironments(1, kwargs, "loop", None)
    for side_by_side, alone in zip(together, play(one, model, SEEDS), strict=True):
        np.testing.assert_allclose(side_by_side.observations, alone.observations, atol=1e-4)
    one.close()
    venv.close()
