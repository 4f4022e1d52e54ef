"""CMA-ES (Hansen 2016, package `cma`) as searches and trainings use it: silent, and with random numbers of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdkd_env.extras import load_extra


def make_strategy(
    needed_by: str,
    start: NDArray[np.floating[Any]],
    sigma: float,
    population: int,
    random: np.random.Generator,
    **options: Any,
) -> Any:
    """A strategy to ask and tell.

    Args:
        needed_by: the argument that asks for it, for the error message.
        start: mean of the first generation, (size,).
        sigma: its standard deviation.
        population: candidates of a generation.
        random: of the samples; numpy's global generator is left alone.
        **options: further ones of the package.

    Raises:
        InvalidInputError: when the package is not installed.
    """
    cma = load_extra("cma", needed_by)
    silent = {
        "seed": np.nan,  # leave numpy's global generator as it is
        "verbose": -10,  # -9 would read `cma_signals.in` from the working directory
        "verb_disp": 0,
        "verb_log": 0,
    }
    drawn = {"popsize": population, "randn": lambda *shape: random.standard_normal(shape)}
    return cma.CMAEvolutionStrategy(start.astype(np.float64), sigma, silent | drawn | options)
