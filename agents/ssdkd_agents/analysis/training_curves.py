"""Sample efficiency: curves of several training runs of one algorithm as a mean with a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssdkd_agents.analysis.comparison import mean_score
from ssdkd_agents.analysis.results import Result, is_paper, rows_of, runs_of
from ssdkd_agents.analysis.statistics import Interval
from ssdkd_agents.lines import read_lines
from ssdkd_agents.runs import EPISODES_FILE, EVALUATIONS_FILE
from ssdkd_agents.schemas import EpisodeLine, ValidationLine
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import read_json

FloatArray: TypeAlias = NDArray[np.float64]
Lines: TypeAlias = Sequence[Mapping[str, Any]]

#: Score of an episode of training → the same in a line of evaluations; the agreement is not written there.
TRAINING_SCORES = {"return": "returns", "accuracy": "accuracies", "mean_iou": "mean_ious", "probe_agreement": None}
#: Places at which the curves of several runs are averaged.
GRID = 200


@dataclass(frozen=True)
class Curve:
    """Mean over training runs, with a pointwise 95 % bootstrap band.

    Attributes:
        steps, mean, low, high: (T,) float64; steps are rounds of training, over which all runs have values. There is no
            band (NaN) where there are too few runs or seeds for one.
        values: (T, samples) the runs or seeds themselves, where they are so few.
        runs: how many training runs.
    """

    steps: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    values: FloatArray
    runs: int


def read_training(folder: Path) -> tuple[Lines, Lines]:
    """Lines of the training episodes and of the evaluations, which may be missing; their `timesteps` count rounds.

    Raises:
        InvalidInputError: when the folder holds no training, or none of its episodes is finished.
    """
    episodes = read_lines(folder / EPISODES_FILE, EpisodeLine)
    if not episodes:
        raise InvalidInputError(f"{folder} holds no finished training episode to plot; let its training run for longer")
    file = folder / EVALUATIONS_FILE
    evaluations = read_lines(file, ValidationLine) if file.exists() else []
    return in_rounds(episodes, episodes, folder), in_rounds(evaluations, episodes, folder)


def in_rounds(lines: Lines, episodes: Lines, folder: Path) -> Lines:
    """Lines whose `timesteps` are rounds, so that trainings with other numbers of rounds a step can be compared.

    Args:
        lines: of a training.
        episodes: its `episodes.jsonl`: with several rounds a step, those of all episodes that had ended are counted.
        folder: whose `config.json` says how many rounds its steps have.
    """
    config = _config_of(folder)
    held = config["env_kwargs"].get("rounds_per_step", 1) if isinstance(config.get("env_kwargs"), dict) else 1
    if held == 1:
        return lines
    if not all("rounds" in line for line in episodes):  # the first such trainings, whose episodes had no shorter step
        return [dict(line) | {"timesteps": line["timesteps"] * held} for line in lines]
    ends = [0, *(line["timesteps"] for line in episodes)]
    done = np.cumsum([0, *(line["rounds"] for line in episodes)])
    last = dict(zip(ends, done.tolist(), strict=True))  # of those that end together
    rounds_at = np.interp([line["timesteps"] for line in lines], list(last), list(last.values()))
    return [dict(line) | {"timesteps": at} for line, at in zip(lines, rounds_at.tolist(), strict=True)]


def algorithm_of(folder: Path) -> str:
    """The algorithm that a run's `config.json` names, or else the folder's name."""
    return str(_config_of(folder).get("algorithm", folder.name))


def _config_of(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_json(path) if path.exists() else {}
    return config if isinstance(config, dict) else {}


def episode_curve(runs: Sequence[Lines], score: str, window: int) -> Curve:
    """Scores of the training episodes, as the mean of each run's last `window` episodes.

    The band covers the noise between training runs.

    Raises:
        InvalidInputError: when an episode lacks the score.
    """
    curves = []
    for lines in runs:
        if not all(score in line for line in lines):
            raise InvalidInputError(f"score={score!r} is not in every line of {EPISODES_FILE}; choose return")
        values: FloatArray = np.array([line[score] for line in lines], dtype=np.float64)
        curves.append(moving_average([line["timesteps"] for line in lines], values, window))
    grid = np.linspace(*_common_range([steps for steps, _ in curves]), GRID)
    return _curve(grid, [[{0: value} for value in np.interp(grid, *curve).tolist()] for curve in curves])


def moving_average(steps: Sequence[int], values: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    """Means of the last `window` values; of episodes that end at the same step, the mean after the last of them.

    Args:
        steps: (episodes,) at which each ended.
        values: (episodes,) float64, in the same order.
        window: how many values a mean has at most.

    Returns:
        Different steps, ascending, and the mean at each.
    """
    means = np.array([values[max(0, end - window) : end].mean() for end in range(1, len(values) + 1)])
    different, last = np.unique(steps[::-1], return_index=True)
    return different.astype(np.float64), means[::-1][last]


def evaluation_curve(runs: Sequence[Lines], score: str) -> Curve | None:
    """Scores of the evaluations, with a band over training runs and over the seeds of the evaluations.

    Returns:
        None where a run was not evaluated, or not by this score.
    """
    key = TRAINING_SCORES[score]
    if key is None or not all(lines and all(_scored(line, key) for line in lines) for lines in runs):
        return None
    ranges = [np.array([line["timesteps"] for line in lines], dtype=np.float64) for lines in runs]
    first, last = _common_range(ranges)
    steps = np.unique(np.concatenate(ranges))
    grid = steps[(steps >= first) & (steps <= last)]
    return _curve(grid, [_seed_scores(lines, key, places, grid) for lines, places in zip(runs, ranges, strict=True)])


def best_constant(results: Sequence[Result], score: str) -> tuple[str, Interval] | None:
    """Name and mean score of the best row whose samplers answer every observation with one action, the paper's apart.

    The best of several is flattered by its luck on these seeds; the name says of how many.
    """
    means = {
        name: mean_score(runs_of(lines, score))
        for name, lines in rows_of(results).items()
        if not is_paper(lines[0]) and _is_constant(lines)
    }
    if not means:
        return None
    best = max(means, key=lambda name: means[name].mean)
    return f"best of {len(means)} constant plans:\n{best}" if len(means) > 1 else f"constant plan: {best}", means[best]


def _is_constant(lines: Sequence[Result]) -> bool:
    """Whether each sampler of a row, such as the plans of several searches, has one action in all of its episodes."""
    actions: dict[str, set[str]] = {}
    for line in lines:
        actions.setdefault(line["sampler"], set()).update(map(str, line["actions"]))
    return all(len(of) == 1 for of in actions.values())


def _scored(line: Mapping[str, Any], key: str) -> bool:
    return bool(line.get(key)) and None not in line[key]


def _seed_scores(lines: Lines, key: str, steps: FloatArray, grid: FloatArray) -> list[dict[int, float]]:
    """At each place of the grid the score of each seed, on straight lines between evaluations."""
    seeds = lines[0].get("seeds", range(len(lines[0][key])))
    if any(len(line[key]) != len(seeds) for line in lines):
        raise InvalidInputError(f"{EVALUATIONS_FILE} has lines with different numbers of seeds; plot others")
    scores: FloatArray = np.array([line[key] for line in lines], dtype=np.float64)
    columns = np.array([np.interp(grid, steps, column) for column in scores.T])
    return [dict(zip(seeds, place, strict=True)) for place in columns.T.tolist()]


def _common_range(steps: Sequence[FloatArray]) -> tuple[float, float]:
    """From where to where every run has values."""
    first, last = max(float(places[0]) for places in steps), min(float(places[-1]) for places in steps)
    if first > last:
        raise InvalidInputError("the training runs have no steps in common; plot them in groups of their own")
    return first, last


def _curve(grid: FloatArray, runs: Sequence[Sequence[dict[int, float]]]) -> Curve:
    """Mean and band at each place from run → place → seed → score."""
    intervals = [mean_score(place) for place in zip(*runs, strict=True)]
    mean, low, high = np.array([[interval.mean, interval.low, interval.high] for interval in intervals]).T
    return Curve(grid, mean, low, high, np.array([interval.values for interval in intervals]), len(runs))
