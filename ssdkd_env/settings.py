"""Settings are frozen dataclasses; this replaces some of their fields by name, with errors that teach."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any, TypeGuard, TypeVar

import numpy as np

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import MOST_SEED

SettingsT = TypeVar("SettingsT")

#: The largest number of a setting: networks compute in float32, which ends at 3e38.
MOST = 1e30


def plain(value: Any) -> Any:
    """NumPy's numbers, truth values and text as Python's, and its arrays as lists, wherever settings hold them.

    Searches and data frames give them, and they are the numbers that they are. Other values stay as they are.
    """
    if isinstance(value, np.generic):
        return float(value) if isinstance(value, np.floating) else value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {plain(name): plain(part) for name, part in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def hold_plain(settings: Any) -> None:
    """Make the fields of a frozen dataclass `plain`; to be called as it is made."""
    for each in fields(settings):
        object.__setattr__(settings, each.name, plain(getattr(settings, each.name)))


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a `plain` value is a whole number; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: Any) -> TypeGuard[float]:
    """Whether a `plain` value is a number that one can calculate with; a truth value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # not so of NaN, nor of a whole number that no float can hold


def check_seed(argument: str, value: Any) -> int:
    """A seed as Python's number.

    Raises:
        InvalidInputError: when it is no whole number, or one outside the range.
    """
    seed = plain(value)
    if not is_whole(seed) or not 0 <= seed <= MOST_SEED:
        raise InvalidInputError(f"{argument}={value!r}: expected a whole number from 0 to 2**63 - 1")
    return seed


def with_overrides(settings: SettingsT, argument: str, options: Mapping[str, Any] | None) -> SettingsT:
    """Replace fields of the frozen dataclass `settings`.

    Args:
        settings: the defaults.
        argument: name of the user's argument, for error messages.
        options: field name → value, Python's or NumPy's; a whole number serves where a float is expected.

    Raises:
        InvalidInputError: when a name is unknown, or a value has another type than the default it replaces or is
            not finite, or beyond `MOST`.
    """
    if options is not None and not isinstance(options, Mapping):
        raise InvalidInputError(f"{argument}={options!r}: expected a mapping of settings, such as {{'name': value}}")
    if not options:
        return settings
    known = {f.name for f in fields(settings)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise InvalidInputError(
                f"{argument} has no setting {name!r}; choose among: {', '.join(sorted(known - {'name', 'source'}))}"
            )
        default, value = getattr(settings, name), plain(value)
        if isinstance(default, float) and is_finite_number(value):
            value = float(value)
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if type(value) is not type(default):
            raise InvalidInputError(
                f"{argument}[{name!r}]={value!r}: expected {type(default).__name__}, such as {default!r}"
            )
        if isinstance(value, float) and not abs(value) <= MOST:
            raise InvalidInputError(f"{argument}[{name!r}]={value}: expected a finite number of at most {MOST:g}")
        values[name] = value
    return replace(settings, **values)  # type: ignore[type-var]


def essence(value: Any) -> Any:
    """Settings without those that have their default, so that a key made of them outlives new settings.

    Dataclasses become their name and their other fields, mappings pairs in order; what is inside likewise.
    """
    if is_dataclass(value) and not isinstance(value, type):
        own = [(each.name, getattr(value, each.name)) for each in fields(value) if not _has_default(value, each)]
        return type(value).__name__, [(name, essence(part)) for name, part in own]
    if isinstance(value, Mapping):
        return [(name, essence(part)) for name, part in sorted(value.items())]
    return [essence(part) for part in value] if isinstance(value, list | tuple) else value


def _has_default(value: Any, setting: Field[Any]) -> bool:
    default = setting.default if setting.default_factory is MISSING else setting.default_factory()
    return default is not MISSING and bool(getattr(value, setting.name) == default)
