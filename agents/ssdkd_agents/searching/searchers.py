"""Searches for a list of numbers, such as one action for all rounds: random search and an evolution strategy.

A searcher asks for episodes and is told their returns in the same order. What it asks for follows from its seed and
from what it was told, so that telling it recorded returns again brings it back to where it was.

Episodes that are compared with each other share their seed: among the better half of the fixed plans on digits the
seed makes 37 % of the noise of the return (`results/digits-plans-exponents`), and what they share does not change
their order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ssdkd_agents.evolution import make_strategy
from ssdkd_agents.families import is_unit_box
from ssdkd_agents.seeds import VALIDATION_SEED, Beginning, instances_in_turn
from ssdkd_env.errors import InvalidInputError, check_choice

#: An action of a `Box(-1, 1)`, (parts,) float32, or a number of a `Discrete` space.
Action = NDArray[np.float32] | int

SEARCHERS = ("random", "cma")
#: Of the candidates that were drawn one in so many is played again, and so on; the same of a bandit's arms.
KEPT_OF_DRAWN, KEPT_OF_ARMS = 4, 2
#: Standard deviation of the first generation: a quarter of the box's width, as cma advises.
FIRST_SIGMA = 0.5
SMALLEST_POPULATION = 4


@dataclass(frozen=True)
class Trial:
    """An episode to be played.

    Attributes:
        action: of every round, or the numbers of whatever else is searched.
        seed: of the episode, below `VALIDATION_SEED`.
        instance: that it plays, of a set.
    """

    action: Action
    seed: int
    instance: int = 0


@dataclass(frozen=True)
class Recommendation:
    """What a search takes for the best action so far.

    Attributes:
        action: the action.
        mean_return: what that rests on, see the searchers; None before any episode.
        plays: episodes in that mean.
    """

    action: Action
    mean_return: float | None
    plays: int


def plain(action: Action) -> list[float] | int:
    """An action as JSON; the shortest numbers that give the same float32."""
    return action if isinstance(action, int) else [float(str(part)) for part in np.asarray(action, dtype=np.float32)]


class Searcher(ABC):
    """Asks for episodes and learns from their returns."""

    def __init__(self) -> None:
        self._pending: deque[Trial] = deque()

    def ask(self, most: int) -> list[Trial]:
        """The next episodes, at most `most`, that can be played side by side; none when the budget is used up."""
        if not self._pending:
            self._pending.extend(self._next_trials())
        return list(islice(self._pending, most))

    def tell(self, value: float) -> None:
        """Give the return of the first episode that `ask` gave and that has not been told yet."""
        self._take(self._pending.popleft(), value)

    @abstractmethod
    def recommendation(self) -> Recommendation:
        """The best action as far as is known."""

    @abstractmethod
    def _next_trials(self) -> list[Trial]:
        """Episodes that depend on nothing but what was told before; none at the end."""

    @abstractmethod
    def _take(self, trial: Trial, value: float) -> None: ...


class SuccessiveHalving(Searcher):
    """Plays all candidates, then the best of them again, and so on (Karnin et al. 2013).

    With noisy returns the best of many single draws is mostly a lucky one. A rung plays each of its candidates on the
    same new seeds; the best by the mean over all of their episodes go on. The recommendation's `mean_return` leaves out
    the first rung where it can, which it owes its place to and in which it was lucky.

    Args:
        candidates: what may be recommended.
        rungs: how many candidates each rung keeps, and how many episodes of each it plays.
        beginnings: of the episodes.
    """

    def __init__(
        self, candidates: Sequence[Action], rungs: Sequence[tuple[int, int]], beginnings: Iterator[Beginning]
    ) -> None:
        super().__init__()
        self._candidates, self._rungs, self._beginnings = candidates, deque(rungs), beginnings
        self._first_plays = rungs[0][1]
        self._returns: list[list[float]] = [[] for _ in candidates]
        self._kept = list(range(len(candidates)))
        self._told = 0

    def recommendation(self) -> Recommendation:
        """The best candidate of the rung, compared at as many episodes as all of the rung have."""
        played, plays = self._comparable()
        if not played:
            return Recommendation(self._candidates[0], None, 0)
        best = self._ranked()[0]
        returns = self._returns[best][self._first_plays : plays] or self._returns[best][:plays]
        return Recommendation(self._candidates[best], float(np.mean(returns)), len(returns))

    def _next_trials(self) -> list[Trial]:
        if not self._rungs:
            return []
        size, plays = self._rungs.popleft()
        self._kept, self._told = (self._ranked() or self._kept)[:size], 0
        return [Trial(self._candidates[i], *begun) for begun in islice(self._beginnings, plays) for i in self._kept]

    def _take(self, trial: Trial, value: float) -> None:
        self._returns[self._kept[self._told % len(self._kept)]].append(value)
        self._told += 1

    def _comparable(self) -> tuple[list[int], int]:
        """Candidates of the rung that were played, and the number of episodes that each of them has at least."""
        played = [i for i in self._kept if self._returns[i]]
        return played, min((len(self._returns[i]) for i in played), default=0)

    def _ranked(self) -> list[int]:
        played, plays = self._comparable()
        return sorted(played, key=lambda i: -float(np.mean(self._returns[i][:plays])))


class EvolutionStrategy(Searcher):
    """CMA-ES (Hansen 2016, package `cma`) in `Box(-1, 1)`; all of a generation play the same seeds.

    It recommends the mean of its distribution, which averages over many noisy returns, not the best sampled point. What
    is left of the budget after the last whole generation plays that mean. The recommendation's `mean_return` is that
    of these episodes, else of the last generation, which lies around the mean.

    Args:
        start: where it begins, (size,) in [−1, 1].
        episodes: budget.
        population: candidates of a generation.
        plays: episodes of each candidate, whose mean return counts.
        beginnings: of the episodes.
        random: of the samples; numpy's global generator is left alone.
        sigma: standard deviation of the first generation.
    """

    def __init__(
        self,
        start: NDArray[np.float32],
        episodes: int,
        population: int,
        plays: int,
        beginnings: Iterator[Beginning],
        random: np.random.Generator,
        sigma: float = FIRST_SIGMA,
    ) -> None:
        super().__init__()
        # The bounds are kept by a smooth transformation of the box, `BoundTransform`.
        self._strategy = make_strategy("searcher='cma'", start, sigma, population, random, bounds=[-1.0, 1.0])
        self._mean = start.astype(np.float32)
        self._generation, self._plays = population * plays, plays
        self._left, self._beginnings = episodes, beginnings
        self._samples: list[NDArray[np.float64]] = []
        self._returns: list[float] = []
        self._rests_on: list[float] = []

    def recommendation(self) -> Recommendation:
        """The distribution's mean after the last whole generation."""
        mean_return = float(np.mean(self._rests_on)) if self._rests_on else None
        return Recommendation(self._mean, mean_return, len(self._rests_on))

    def _next_trials(self) -> list[Trial]:
        count = min(self._generation, self._left)
        self._left -= count
        if count < self._generation:
            self._samples = []
            return [Trial(self._mean, *begun) for begun in islice(self._beginnings, count)]
        beginnings = list(islice(self._beginnings, self._plays))
        self._samples = self._strategy.ask()
        return [Trial(sample.astype(np.float32), *begun) for begun in beginnings for sample in self._samples]

    def _take(self, trial: Trial, value: float) -> None:
        self._returns.append(value)
        if self._samples and len(self._returns) < self._generation:
            return
        if self._samples:
            means = np.reshape(self._returns, (self._plays, -1)).mean(axis=0)
            self._strategy.tell(self._samples, [-value for value in means])
            self._mean = np.asarray(self._strategy.result.xfavorite, dtype=np.float32)
            self._rests_on, self._returns = self._returns, []
        else:
            self._rests_on = list(self._returns)


def make_searcher(
    searcher: str,
    space: gym.Space[Any],
    episodes: int,
    seed: int,
    final_share: float,
    population: int,
    plays: int = 1,
    start: NDArray[np.float32] | None = None,
    sigma: float = FIRST_SIGMA,
    instances: int = 1,
) -> Searcher:
    """Build a searcher.

    Random search draws candidates from a box and plays the best of them again; in a `Discrete` space it is a bandit
    that plays each action in turn and then the better half of them, again and again.

    Args:
        searcher: one of `SEARCHERS`.
        space: the actions, `Box(-1, 1, (parts,))` or `Discrete`.
        episodes: budget.
        seed: of candidates and episodes.
        final_share: of the budget, for playing the best of random search's candidates again.
        population: candidates of a generation of CMA-ES.
        plays: episodes of each of them.
        start: where CMA-ES begins; None is the middle of the box.
        sigma: standard deviation of its first generation.
        instances: of the set, which take turns.

    Raises:
        InvalidInputError: when the searcher is unknown or does not fit the space or the budget.
    """
    check_choice("searcher", searcher, SEARCHERS)
    for_actions, for_episodes = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    seeds = map(int, for_episodes.permutation(VALIDATION_SEED))
    beginnings = map(Beginning, seeds, instances_in_turn(for_episodes, instances))
    if isinstance(space, gym.spaces.Discrete) and searcher == "random":
        arms = [int(space.start) + index for index in range(int(space.n))]
        if episodes < len(arms):
            raise InvalidInputError(f"episodes={episodes}: expected at least {len(arms)}, one for each action")
        return SuccessiveHalving(arms, bandit_rungs(len(arms), episodes), beginnings)
    if not is_unit_box(space):
        remedy = "choose searcher='random'" if isinstance(space, gym.spaces.Discrete) else "choose another action"
        raise InvalidInputError(f"searcher={searcher!r} cannot search {space}, it needs a Box(-1, 1); {remedy}")
    size = space.shape[0]
    if searcher == "random":
        rungs = random_rungs(episodes, final_share)
        candidates = for_actions.uniform(-1.0, 1.0, (rungs[0][0], size)).astype(np.float32)
        return SuccessiveHalving(list(candidates), rungs, beginnings)
    if size < 2:
        raise InvalidInputError(f"searcher='cma' cannot search {space}, it needs two parts; choose searcher='random'")
    if episodes < population * plays:
        raise InvalidInputError(
            f"episodes={episodes}: expected at least population={population} times plays={plays}, one generation"
        )
    middle = np.zeros(size, dtype=np.float32)
    return EvolutionStrategy(
        middle if start is None else start, episodes, population, plays, beginnings, for_actions, sigma
    )


def random_rungs(episodes: int, final_share: float) -> list[tuple[int, int]]:
    """Rungs of random search: every candidate once, then a quarter of them again, and so on."""
    drawn = max(1, episodes - int(final_share * episodes))
    sizes = [max(2, drawn // KEPT_OF_DRAWN)] if drawn > 1 else []
    while sizes and sizes[-1] // KEPT_OF_DRAWN >= 2:
        sizes.append(sizes[-1] // KEPT_OF_DRAWN)
    return [(drawn, 1), *_spend(sizes, episodes - drawn)]


def bandit_rungs(arms: int, episodes: int) -> list[tuple[int, int]]:
    """Rungs of a bandit: every arm, the better half, down to two, with an equal share of the episodes for each rung."""
    sizes = [arms]
    while sizes[-1] > 2:
        sizes.append(math.ceil(sizes[-1] / KEPT_OF_ARMS))
    plays = max(1, episodes // len(sizes) // arms)
    return [(arms, plays), *_spend(sizes[1:], episodes - arms * plays)]


def _spend(sizes: Sequence[int], episodes: int) -> list[tuple[int, int]]:
    """Divide all of the episodes equally among rungs; what does not divide plays the best once more."""
    rungs = []
    for left, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        share = episodes // left
        size = min(size, share)
        if size > 1:
            rungs.append((size, share // size))
            episodes -= size * (share // size)
    return [*rungs, (1, episodes)] if episodes else rungs
