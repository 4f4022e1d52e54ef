"""Searches on a noisy quadratic, where the best action is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count, repeat

import numpy as np
import pytest
from gymnasium import Space, spaces
from ssdkd_agents.searching.searchers import (
    Action,
    Recommendation,
    Searcher,
    SuccessiveHalving,
    Trial,
    bandit_rungs,
    make_searcher,
    plain,
    random_rungs,
)
from ssdkd_agents.seeds import VALIDATION_SEED, Beginning

from ssdkd_env.errors import InvalidInputError

BOX = spaces.Box(-1.0, 1.0, (5,), np.float32)
BEST = np.array([0.9, -0.5, 0.3, 0.0, 0.6])
RUNS = 12


def true_return(action: Action) -> float:
    return -float(((np.asarray(action) - BEST) ** 2).sum())


class Noisy:
    """Returns of a quadratic with noise of its own for each episode, and noise that episodes of a seed share."""

    def __init__(self, seed: int, scale: float = 0.7) -> None:
        self._random, self._scale = np.random.default_rng(1000 + seed), scale
        self._shared: dict[int, float] = {}

    def __call__(self, trial: Trial) -> float:
        shared = self._shared.setdefault(trial.seed, self._scale * self._random.normal())
        return true_return(trial.action) + shared + self._scale * self._random.normal()


def search_by(
    searcher: str,
    seed: int = 0,
    episodes: int = 400,
    space: Space[np.ndarray] | Space[np.int64] = BOX,
    final_share: float = 0.5,
    population: int = 16,
) -> Searcher:
    return make_searcher(searcher, space, episodes, seed, final_share, population)


def finish(search: Searcher, returns: Callable[[Trial], float], most: int = 16) -> list[Trial]:
    """Play the whole budget; returns every episode."""
    played: list[Trial] = []
    while trials := search.ask(most):
        assert len(trials) <= most
        for trial in trials:
            search.tell(returns(trial))
        played += trials
    return played


def regrets(searcher: str, final_share: float = 0.5) -> list[float]:
    """True loss of what each of several searches recommends."""
    losses = []
    for seed in range(RUNS):
        search = search_by(searcher, seed, final_share=final_share)
        finish(search, Noisy(seed))
        losses.append(-true_return(search.recommendation().action))
    return losses


# --- what is found ---


def test_cma_recommends_what_is_nearer_to_the_best_action_than_random_search_does() -> None:
    """0.15 against 0.30 on average over 40 runs of about this noise."""
    assert np.mean(regrets("cma")) < 0.75 * np.mean(regrets("random"))


def test_playing_the_best_candidates_again_finds_better_ones_at_the_same_budget() -> None:
    """0.30 against 0.52 on average over 40 runs of about this noise."""
    assert np.mean(regrets("random")) < 0.85 * np.mean(regrets("random", final_share=0.0))


def test_mean_return_of_random_search_leaves_out_the_lucky_draw() -> None:
    def optimism(final_share: float) -> float:
        errors = []
        for seed in range(RUNS):
            search = search_by("random", seed, final_share=final_share)
            finish(search, Noisy(seed))
            found = search.recommendation()
            assert found.mean_return is not None
            errors.append(found.mean_return - true_return(found.action))
        return float(np.mean(errors))

    assert optimism(0.0) > 0.8, "the best of 400 noisy draws promises too much"
    assert abs(optimism(0.5)) < 0.4


def test_cma_recommends_the_mean_of_its_last_generation_not_the_best_sample() -> None:
    search = search_by("cma", episodes=160)
    noisy = Noisy(0)
    returns: list[float] = []
    played = finish(search, lambda trial: returns.append(noisy(trial)) or returns[-1])  # type: ignore[func-returns-value]
    found = search.recommendation()
    assert not any(np.array_equal(trial.action, found.action) for trial in played)
    last = np.array([trial.action for trial in played[-16:]])
    assert np.abs(last.mean(axis=0) - found.action).max() < 2 * last.std(axis=0).max()
    assert found.mean_return == pytest.approx(np.mean(returns[-16:]))
    assert found.plays == 16


def test_what_is_left_after_whole_generations_plays_the_recommendation() -> None:
    search = search_by("cma", episodes=37)
    played = finish(search, lambda trial: float(trial.seed))
    found = search.recommendation()
    assert len(played) == 37
    assert all(np.array_equal(trial.action, found.action) for trial in played[32:])
    assert not np.array_equal(played[31].action, found.action)
    assert len({trial.seed for trial in played[32:]}) == found.plays == 5
    assert found.mean_return == pytest.approx(np.mean([trial.seed for trial in played[32:]]))


def test_best_action_in_a_corner_is_reached_inside_the_box() -> None:
    for searcher in ("cma", "random"):
        search = search_by(searcher, episodes=800)
        played = finish(search, lambda trial: float(np.sum(trial.action)))
        assert all(BOX.contains(trial.action) for trial in played)
        assert BOX.contains(search.recommendation().action)
        assert np.min(search.recommendation().action) > (0.95 if searcher == "cma" else 0.0)


def test_bandit_finds_the_best_of_the_actions() -> None:
    means = np.array([0.0, 0.5, 0.2, 1.0, 0.8, 0.1])
    found = []
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        search = search_by("random", seed, 200, spaces.Discrete(6, start=2))
        played = finish(search, lambda trial, random=random: means[int(trial.action) - 2] + random.normal())  # type: ignore[misc]
        assert [trial.action for trial in played[:6]] == [2, 3, 4, 5, 6, 7], "each in turn"
        found.append(search.recommendation().action)
    assert np.mean([means[int(action) - 2] for action in found]) > 0.9


# --- which episodes are played ---


@pytest.mark.parametrize("searcher", ["random", "cma"])
@pytest.mark.parametrize("episodes", [16, 40, 101])
@pytest.mark.parametrize("most", [1, 7, 64])
def test_the_whole_budget_is_played_whatever_is_played_side_by_side(searcher: str, episodes: int, most: int) -> None:
    played = finish(search_by(searcher, episodes=episodes), Noisy(0), most)
    again = finish(search_by(searcher, episodes=episodes), Noisy(0), 16)
    assert len(played) == episodes
    assert [(plain(trial.action), trial.seed) for trial in played] == [
        (plain(trial.action), trial.seed) for trial in again
    ]


@pytest.mark.parametrize("searcher", ["random", "cma"])
def test_seeds_are_the_trainings_and_differ_between_searches(searcher: str) -> None:
    first, second = ({trial.seed for trial in finish(search_by(searcher, seed), Noisy(0))} for seed in (0, 1))
    assert max(first | second) < VALIDATION_SEED == 500_000
    assert not first & second


def test_a_generation_shares_its_seed_and_no_other_has_it() -> None:
    seeds = [trial.seed for trial in finish(search_by("cma", episodes=64), Noisy(0))]
    generations = [set(seeds[first : first + 16]) for first in range(0, 64, 16)]
    assert all(len(generation) == 1 for generation in generations)
    assert len(set.union(*generations)) == 4


def test_global_random_numbers_are_left_alone() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    finish(search_by("cma", episodes=32), Noisy(0))
    assert np.random.random() == expected


def test_searches_of_other_seeds_play_other_actions() -> None:
    for searcher in ("random", "cma"):
        first, second = (search_by(searcher, seed).ask(1)[0].action for seed in (0, 1))
        assert not np.array_equal(first, second)


def test_a_rung_plays_its_candidates_on_the_same_new_seeds() -> None:
    search = search_by("random", episodes=64)
    played = finish(search, Noisy(0))
    assert random_rungs(64, 0.5) == [(32, 1), (8, 2), (2, 8)]
    blocks = [played[:32], played[32:40], played[40:48], *(played[i : i + 2] for i in range(48, 64, 2))]
    seeds = [{trial.seed for trial in block} for block in blocks]
    assert all(len(block) == 1 for block in seeds)
    assert len(set.union(*seeds)) == len(blocks)
    assert {str(plain(t.action)) for t in blocks[1]} == {str(plain(t.action)) for t in blocks[2]}


def test_best_by_the_mean_over_all_their_episodes_go_on() -> None:
    table = {0: [5.0, 0.0], 1: [4.0, 4.0], 2: [3.0, 4.5], 3: [1.0]}
    search = SuccessiveHalving([0, 1, 2, 3], [(4, 1), (3, 1), (1, 1)], map(Beginning, count(), repeat(0)))
    assert search.recommendation() == Recommendation(0, None, 0)
    plays = dict.fromkeys(table, 0)
    seen = []
    for expected in (0, 1, 2, 3, 0, 1, 2):
        (trial,) = search.ask(1)
        assert trial.action == expected
        search.tell(table[expected][plays[expected]])
        plays[expected] += 1
        seen.append(search.recommendation())
    assert seen[-2] == Recommendation(0, 5.0, 1), "compared at as many episodes as all of the rung have"
    assert seen[-1] == Recommendation(1, 4.0, 1)
    assert search.ask(9) == [Trial(1, 2)]


@pytest.mark.parametrize("episodes", [*range(1, 40), 64, 400, 401, 5000])
@pytest.mark.parametrize("final_share", [0.0, 0.1, 0.5, 0.9])
def test_rungs_of_random_search_spend_the_budget(episodes: int, final_share: float) -> None:
    rungs = random_rungs(episodes, final_share)
    assert sum(size * plays for size, plays in rungs) == episodes
    assert rungs[0] == (episodes - min(int(final_share * episodes), episodes - 1), 1)
    sizes = [size for size, _ in rungs]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("arms", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("extra", [0, 1, 5, 100])
def test_rungs_of_a_bandit_spend_the_budget_and_play_every_arm(arms: int, extra: int) -> None:
    rungs = bandit_rungs(arms, arms + extra)
    assert sum(size * plays for size, plays in rungs) == arms + extra
    assert rungs[0][0] == arms
    assert [size for size, _ in rungs] == sorted((size for size, _ in rungs), reverse=True)


def test_plain_actions_are_short_and_give_the_same_action() -> None:
    action = np.array([0.1, -1.0, 1e-7, 1 / 3], dtype=np.float32)
    assert plain(action)[:2] == [0.1, -1.0]  # type: ignore[index]
    assert np.array_equal(np.array(plain(action), dtype=np.float32), action)
    assert plain(3) == 3


# --- what is refused ---


@pytest.mark.parametrize(
    ("searcher", "space", "episodes", "match"),
    [
        ("grid", BOX, 40, "searcher='grid' is unknown; choose one of: cma, random"),
        ("cma", spaces.Discrete(4), 40, r"searcher='cma' cannot search Discrete\(4\).*choose searcher='random'"),
        ("cma", spaces.Box(-1, 1, (1,)), 40, "needs two parts; choose searcher='random'"),
        ("cma", BOX, 15, "episodes=15: expected at least population=16"),
        ("random", spaces.Discrete(4), 3, "episodes=3: expected at least 4, one for each action"),
        ("random", spaces.MultiDiscrete([2, 2]), 40, "cannot search MultiDiscrete.*choose another action"),
        ("random", spaces.Box(0, 1, (5,)), 40, "it needs a Box"),
        ("random", spaces.Box(-1, 1, (2, 2)), 40, "it needs a Box"),
    ],
    ids=str,
)
def test_what_cannot_be_searched_is_refused(searcher: str, space: Space[np.ndarray], episodes: int, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        search_by(searcher, episodes=episodes, space=space)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("searcher", ["cma", "random"])
def test_candidates_that_are_compared_play_the_same_instances(searcher: str) -> None:
    """Of a generation, or a rung; and all instances are played as often, but for what is left of the budget."""
    search = make_searcher(searcher, BOX, 96, 0, 0.5, 8, 3 if searcher == "cma" else 1, instances=3)
    played = finish(search, Noisy(0))
    by_seed = {trial.seed: {other.instance for other in played if other.seed == trial.seed} for trial in played}
    assert all(len(instances) == 1 for instances in by_seed.values())
    if searcher == "cma":
        for first in range(0, 96, 24):
            generation = played[first : first + 24]
            assert Counter(trial.instance for trial in generation) == {0: 8, 1: 8, 2: 8}
            assert len({trial.seed for trial in generation}) == 3
    else:
        beginnings = [by_seed[seed].pop() for seed in dict.fromkeys(trial.seed for trial in played)]
        assert all(len(set(beginnings[first : first + 3])) == 3 for first in range(0, len(beginnings) - 3, 3))


def test_a_set_of_one_draws_nothing() -> None:
    played = finish(make_searcher("cma", BOX, 96, 0, 0.5, 8), Noisy(0))
    same = finish(make_searcher("cma", BOX, 96, 0, 0.5, 8, instances=1), Noisy(0))
    assert [trial.seed for trial in played] == [trial.seed for trial in same]
    assert {trial.instance for trial in same} == {0}


def test_narrow_first_generation_stays_near_its_start() -> None:
    start = np.full(BOX.shape, 0.3, dtype=np.float32)
    for sigma in (0.05, 0.5):
        search = make_searcher("cma", BOX, 96, 0, 0.5, 32, start=start, sigma=sigma)
        spread = np.std(np.array([trial.action for trial in search.ask(32)]))
        assert spread == pytest.approx(sigma, rel=0.35)
