"""One designed experiment over the decisions of a set of instances, and the policies that follow from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ssdkd_agents.analysis.statistics import FEWEST, Interval
from ssdkd_agents.evolution import make_strategy
from ssdkd_agents.playing import play_side_by_side

from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.tasks.instances import Instance

Values = NDArray[np.float64]
#: What all instances get; what each gets by its buffer, work and warm-up; what is best for each; what the method does.
CONSTANT, FACTS, ORACLE, MIDDLE = "constant", "facts", "oracle", "middle"
#: Gain in held-out accuracy that is worth an agent.
LEAST_GAIN = 0.01
#: Of the search for the policy of the facts, whose candidates cost no episode: they are read off the surfaces.
_GENERATIONS, _POPULATION = 200, 24


#: An action of every step.
Plan = tuple[float, ...]


class Wanted(NamedTuple):
    """An episode: a plan, on an instance, from a seed."""

    plan: Plan
    instance: int
    seed: int


def levels(parts: int, count: int) -> list[Plan]:
    """Plans on a grid over Box(−1, 1): so many values of each part."""
    return list(itertools.product(np.linspace(-1.0, 1.0, count).tolist(), repeat=parts))


def facts_of(instance: Instance) -> tuple[float, float, float]:
    """What a policy may know before its first step: log₂ of the buffer's share over 10 %, of work and of warm-up.

    The first is halved, and the warm-up is in the six batches of the digits, a third of it.
    """
    buffer, warm_up = instance.buffer_scale or 0.1, instance.budget.get("warmup_rounds", 6)
    return math.log2(buffer / 0.1) / 2, math.log2(instance.work_scale or 1.0), math.log2(warm_up / 6) / 3


@dataclass(frozen=True)
class Surfaces:
    """Mean return of each plan on each instance, and between the plans.

    A plan's neighbours have a say in what it is worth: returns are noisy, and the best of many draws is a lucky one.

    Attributes:
        plans: (plans, parts), a grid of at least two values a part.
        returns: (instances, plans).
        width: of the Gaussian kernel, in steps of the grid. Half a step gives a direct neighbour a seventh.
    """

    plans: Values
    returns: Values
    width: float = 0.5

    def at(self, points: Values) -> Values:
        """Smoothed returns, (instances, points), of (points, parts) in Box(−1, 1) (Nadaraya 1964, Watson 1964)."""
        step = 2.0 / (len(np.unique(self.plans[:, 0])) - 1)
        distances = ((points[:, None] - self.plans[None]) ** 2).sum(axis=2) / step**2
        kernel = np.exp(-distances / (2 * self.width**2))
        smoothed: Values = self.returns @ (kernel / kernel.sum(axis=1, keepdims=True)).T
        return smoothed

    def constant(self) -> Plan:
        """The plan of the grid that is best on average over the instances."""
        return _plan(self.plans[self.at(self.plans).mean(axis=0).argmax()])

    def oracle(self) -> list[Plan]:
        """The plan of the grid that is best on each instance."""
        return [_plan(self.plans[best]) for best in self.at(self.plans).argmax(axis=1)]

    def of_facts(self, facts: Values, seed: int = 0) -> Values:
        """The linear policy of the facts that is best on average: (parts, 1 + facts), the constant's part first.

        Searched by CMA-ES on the surfaces, from the best constant plan; the plan is clipped to the box.

        Args:
            facts: (instances, facts).
            seed: of the search.
        """
        parts, known = self.plans.shape[1], facts.shape[1]
        start = np.zeros((parts, 1 + known))
        start[:, 0] = self.constant()
        random = np.random.default_rng(seed)
        strategy = make_strategy("the policy of the facts", start.ravel(), 0.2, _POPULATION, random)
        for _ in range(_GENERATIONS):
            candidates = strategy.ask()
            strategy.tell(candidates, [-self._reached(each.reshape(start.shape), facts) for each in candidates])
        best: Values = np.asarray(strategy.result.xbest).reshape(start.shape)
        return best if self._reached(best, facts) > self._reached(start, facts) else start

    def _reached(self, policy: Values, facts: Values) -> float:
        points = np.array([plan_of(policy, row) for row in facts])
        return float(np.diag(self.at(points)).mean())


def plan_of(policy: Values, facts: Sequence[float] | Values) -> Plan:
    """The plan of a linear policy for an instance of these facts."""
    return _plan(np.clip(policy @ np.array([1.0, *facts]), -1.0, 1.0))


def _plan(values: Values) -> Plan:
    return tuple(round(float(value), 4) for value in values)


def surfaces(plans: Sequence[Plan], instances: int, lines: Sequence[Mapping[str, Any]]) -> Surfaces:
    """From the lines of a whole design."""
    returns: list[list[list[float]]] = [[[] for _ in plans] for _ in range(instances)]
    index = {plan: number for number, plan in enumerate(plans)}
    for line in lines:
        returns[line["instance"]][index[tuple(line["plan"])]].append(line["return"])
    return Surfaces(np.array(plans), np.array([[np.mean(values) for values in row] for row in returns]))


def play(pool: SubEnvironments, wanted: Sequence[Wanted]) -> Iterator[dict[str, Any]]:
    """Play episodes, as many side by side as the pool has environments, those of one plan and instance in one process.

    Of these all passes are equally many and equally large, so that a process plays them as one group.
    """
    parts = pool.choice.processes
    for first in range(0, len(wanted), pool.count):
        batch = list(wanted[first : first + pool.count])
        if len(batch) == pool.count and pool.count % parts == 0:  # member i is in process i mod parts
            size = pool.count // parts
            batch = [batch[part * size + place] for place in range(size) for part in range(parts)]
        plans = [np.array(each.plan, dtype=np.float32) for each in batch]
        played = play_side_by_side(
            pool,
            [each.seed for each in batch],
            lambda *_: plans,  # noqa: B023
            held_out=True,
            instances=[each.instance for each in batch],
        )
        assert played is not None
        for each, episode in zip(batch, played, strict=True):
            yield {
                "plan": list(each.plan),
                "instance": each.instance,
                "seed": each.seed,
                "return": episode.total,
                "held_out_accuracy": episode.held_out_accuracy,
                "steps": len(episode.rewards),
                "rounds": episode.final["round"],
                "diverged": episode.final["diverged"],
            }


def by_seed(
    plans: Sequence[Plan], lines: Mapping[Wanted, Mapping[str, Any]], seeds: Sequence[int], score: str
) -> dict[int, float]:
    """Seed → mean of a score over all instances, so that every instance counts alike, and intervals are over seeds.

    Args:
        plans: that of each instance.
        lines: of the episodes.
        seeds: of which every instance has an episode.
        score: a key of the lines.
    """
    return {
        seed: float(np.mean([lines[Wanted(plan, index, seed)][score] for index, plan in enumerate(plans)]))
        for seed in seeds
    }


def verdict(gains: Mapping[str, Interval], over: str) -> str:
    """Which rows show headroom, in words.

    Args:
        gains: in held-out accuracy, row by row.
        over: what they are gains over.
    """
    found = [row for row, gain in gains.items() if gain.known and gain.mean >= LEAST_GAIN and gain.low > 0]
    said = ", ".join(f"{row} {gain}" for row, gain in gains.items())
    if not all(gain.known for gain in gains.values()):
        return f"Headroom over {over}: not known, on fewer than {FEWEST} seeds; {said}."
    return f"Headroom over {over} (at least {LEAST_GAIN}): {' and '.join(found) or 'none'}; {said}."
