"""Scores of instances: what several episodes of one instance give on average.

A policy's score on a task is in RL the mean over its evaluation episodes; the interval is then over tasks and training
runs, and the luck of one episode decides no comparison. That is rliable's own unit (Agarwal et al. 2021), where an
instance is a task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssdkd_agents.analysis.results import SCORES, Result, common_score, row_name, score_of, trainings_of, wall_seconds
from ssdkd_env.errors import InvalidInputError


def instance_means(results: Sequence[Result], score: str | None = None) -> list[Result]:
    """A line for each instance and training run: means of its episodes, with the instance for a seed.

    Args:
        results: lines of episodes on a set of instances, each sampler's from the same seeds.
        score: that is wanted beside those of `SCORES`; every line has it.

    Raises:
        InvalidInputError: when a line names no instance, or two samplers played an instance from other seeds.
    """
    played: dict[tuple[str, str, int], list[Result]] = {}
    for line, training in zip(results, trainings_of(results), strict=True):
        if line.get("instance") is None:
            raise InvalidInputError(
                f"instances: {row_name(line)!r} has an episode of no instance; give results of --env.instances"
            )
        played.setdefault((row_name(line), training, line["instance"]), []).append(line)
    seeds: dict[int, tuple[str, list[int]]] = {}
    for (row, _, instance), lines in played.items():
        own = sorted(line["seed"] for line in lines)
        first, expected = seeds.setdefault(instance, (row, own))
        if own != expected:
            raise InvalidInputError(
                f"instances: {row!r} played instance {instance} from {len(own)} seeds, {first!r} from "
                f"{len(expected)} that are not the same; let ssdkd evaluate --resume play what is missing"
            )
    wanted = [*SCORES, *([score] if score else [])]
    return [_mean(lines, wanted) for lines in played.values()]


def _mean(lines: Sequence[Result], wanted: Sequence[str]) -> Result:
    """One line in place of several of an instance. What is no score is the first one's."""
    known = [name for name in wanted if common_score(lines, [name])]
    scores = {name: float(np.mean([score_of(line, name) for line in lines])) for name in known}
    first = lines[0]
    final = first["final"] | {"diverged": any(line["final"].get("diverged") for line in lines)}
    return {name: value for name, value in first.items() if name not in wanted} | {
        "seed": first["instance"],
        "return": float(np.mean([line["return"] for line in lines])),
        "final": {name: value for name, value in final.items() if name not in wanted},
        "seconds": float(np.median([wall_seconds(line) for line in lines])),
        **scores,
    }
