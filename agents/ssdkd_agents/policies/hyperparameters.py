"""Hyper-parameters that an algorithm would refuse in its first update are refused before anything is written.

Stable-Baselines3 says in the signatures of its algorithms what each is; it does not look whether it is.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import MOST_NUMBER, check_bounds

#: Those that count something of which there has to be one.
_COUNTS = (
    *(
        "n_epochs",
        "batch_size",
        "n_steps",
        "buffer_size",
        "policy_delay",
        "target_update_interval",
        "stats_window_size",
    ),
    *("n_critic_updates", "cg_max_steps", "line_search_max_iter"),
    *("n_delta", "n_top", "n_eval_episodes", "population", "groups"),
)
#: Plain types that a signature may name, and what they are called.
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


def check_hyperparameters(algorithm: type, given: Mapping[str, Any], environments: int) -> None:
    """Compare hyper-parameters with the signature of their algorithm.

    Args:
        algorithm: class of Stable-Baselines3.
        given: name → value, schedules and noise made into what they mean; unknown names are left to the algorithm.
        environments: that it learns from.

    Raises:
        InvalidInputError: when a value is of another type, no finite number, a count below 1, or does not fit so many
            environments.
    """
    check_bounds(given, "hyperparameters", MOST_NUMBER)
    parameters = _parameters(algorithm)
    for name, value in given.items():
        if name in parameters and not _fits(value, parameters[name].annotation):
            kinds = " or ".join(word for kind, word in _PLAIN.items() if kind in _members(parameters[name].annotation))
            raise InvalidInputError(f"hyperparameters[{name!r}]={value!r}: expected {kinds}")
        if name in _COUNTS and isinstance(value, int) and value < 1:
            raise InvalidInputError(f"hyperparameters[{name!r}]={value!r}: expected a whole number of at least 1")
    _check_frequency(given, environments)


def _parameters(algorithm: type) -> dict[str, inspect.Parameter]:
    """What an algorithm takes, and what it hands on to the one that it is made of."""
    found: dict[str, inspect.Parameter] = {}
    for made_of in algorithm.__mro__:
        if "__init__" in vars(made_of):
            own = inspect.signature(made_of, eval_str=True).parameters
            found = dict(own) | found
            if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in own.values()):
                break
    return found


def _check_frequency(given: Mapping[str, Any], environments: int) -> None:
    """How often an off-policy algorithm learns, and how much."""
    frequency = given.get("train_freq", 1)
    count, unit = frequency if isinstance(frequency, tuple) and len(frequency) == 2 else (frequency, "step")
    if not isinstance(count, int) or count < 1 or unit not in ("step", "episode"):
        raise InvalidInputError(
            f"hyperparameters['train_freq']={frequency!r}: expected a whole number of at least 1, or such a number "
            'with "step" or "episode"'
        )
    if unit == "episode" and environments > 1:
        raise InvalidInputError(
            f"hyperparameters['train_freq']={frequency!r}: {environments} environments do not end episodes together; "
            "count steps, or set n_envs=1"
        )
    steps = given.get("gradient_steps", 1)
    if not isinstance(steps, int) or (steps < 1 and steps != -1):
        raise InvalidInputError(
            f"hyperparameters['gradient_steps']={steps!r}: expected a whole number of at least 1, or -1 for as many as "
            "environment steps"
        )


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one that there is."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value is of a type that an annotation names; objects are left to the algorithm."""
    plain = [kind for kind in _members(annotation) if kind in _PLAIN]
    if not plain or not isinstance(value, bool | int | float | str | NoneType):
        return True
    if isinstance(value, bool):
        return bool in plain
    if isinstance(value, float):
        return float in plain and math.isfinite(value)
    if isinstance(value, int):
        return int in plain or float in plain
    return type(value) in plain
