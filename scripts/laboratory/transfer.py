"""How much of what agents win on one set of instances they keep on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from ssdkd_agents.analysis.statistics import BOOTSTRAP_RESAMPLES, FEWEST, Interval

from ssdkd_env.errors import InvalidInputError

#: Training run → evaluation seed → score.
Scores = Mapping[str, Mapping[int, float]]
#: Of a gain, to be kept elsewhere.
HALF = 0.5


def gains(row: Scores, reference: Mapping[int, float], where: str) -> dict[str, NDArray[np.float64]]:
    """Training run → (seeds,) differences from the reference, in the order of its seeds.

    Raises:
        InvalidInputError: when a run lacks a seed of the reference.
    """
    for run, scores in row.items():
        if missing := [seed for seed in reference if seed not in scores]:
            raise InvalidInputError(f"{where}: {run} has no episode of seed {missing[0]}; let ssdkd evaluate --resume")
    seeds = sorted(reference)
    return {run: np.array([scores[seed] - reference[seed] for seed in seeds]) for run, scores in row.items()}


def kept(
    here: Mapping[str, NDArray[np.float64]],
    there: Mapping[str, NDArray[np.float64]],
    part: float = HALF,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The gain there less a part of the gain here: above 0 where more than that part is kept.

    A resample draws training runs, for both sets alike, because a run that wins more here may win more there, and the
    seeds of each set by themselves.

    Args:
        here: training run → (seeds,) gains.
        there: of the same runs on another set.
        part: that is asked for.
        seed: of the resampling.
        confidence: of the interval.

    Returns:
        Without an interval where there are fewer than `FEWEST` runs, but more than one, or as few seeds.
    """
    runs = sorted(here)
    first, second = (np.stack([gains[run] for run in runs]) for gains in (here, there))
    mean = float(second.mean() - part * first.mean())
    few = min(first.shape[1], second.shape[1]) < FEWEST or 1 < len(runs) < FEWEST
    if few:
        values: Sequence[float] = (second.mean(axis=1) - part * first.mean(axis=1)).tolist() if len(runs) > 1 else []
        return Interval.of_few(mean, values)
    random = np.random.default_rng(seed)
    shape = BOOTSTRAP_RESAMPLES, len(runs)
    by_run = random.integers(len(runs), size=shape) if len(runs) > 1 else np.zeros(shape, dtype=np.int64)

    def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        count = values.shape[1]
        seeds = random.multinomial(count, np.full(count, 1 / count), size=BOOTSTRAP_RESAMPLES) / count
        of_each_run = seeds @ values.T
        drawn: NDArray[np.float64] = np.take_along_axis(of_each_run, by_run, axis=1).mean(axis=1)
        return drawn

    resampled = means(second) - part * means(first)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high))
