"""What the user gave of some settings: as a class to parse into, as words of a command line, as NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, get_args

import tyro

from ssdkd_env.errors import InvalidInputError


@dataclass(frozen=True)
class Given:
    """What was given of some settings; a field is None where it was left to the environment's id, task or preset."""

    #: What its options begin with.
    prefix: ClassVar[str] = "--"
    #: The same with fewer options, where all are too many for `--help`.
    brief: ClassVar[type[Given] | None] = None

    def settings(self) -> dict[str, Any]:
        """Only what was given, by name, as `gymnasium.make` takes it and files hold it."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        said = {name: value.settings() if isinstance(value, Given) else value for name, value in values.items()}
        return {name: value for name, value in said.items() if value is not None and value != {}}


def classes_of(arguments: Any) -> tuple[Any, ...]:
    """The classes of a union of arguments, or the one that there is."""
    return get_args(arguments) or (arguments,)


def given_of(arguments: Any) -> Iterator[tuple[str, type[Given]]]:
    """The fields of a class of arguments that are what the user gave of some settings: name and class."""
    for option in fields(arguments):
        made = option.default_factory
        if isinstance(made, type) and issubclass(made, Given):
            yield option.name, made


def abridged(arguments: Any) -> Any:
    """The same arguments (a class, or a union of classes) with fewer options, for a help that can be read."""
    if get_args(arguments):
        return reduce(or_, map(abridged, classes_of(arguments)))
    fewer = [
        (name, Annotated[kind.brief, tyro.conf.arg(help=kind.brief.__doc__)], field(default_factory=kind.brief))
        for name, kind in given_of(arguments)
        if kind.brief
    ]
    if not fewer:
        return arguments
    about = {"__doc__": arguments.__doc__}
    return make_dataclass(arguments.__name__, fewer, bases=(arguments,), kw_only=True, namespace=about)


def as_words(prefix: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line.

    Args:
        prefix: of the options, such as `"--env."`.
        settings: by name; those that are None are left out, as they are where nothing is given.
    """
    words: list[str] = []
    for name, value in settings.items():
        option = name.replace("_", "-")
        if isinstance(value, Mapping):
            words += as_words(f"{prefix}{option}.", value)
        elif isinstance(value, bool):
            words.append(f"{prefix}{option}" if value else f"{prefix}no-{option}")
        elif value is not None:
            words += [f"{prefix}{option}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return words


def parse_settings(argument: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `("n_steps=64", "gamma=0.99")` into a dict; values are JSON, or text where they are not.

    For keyword arguments that are not ours to list: those of Stable-Baselines3's algorithms, of which each has others,
    and which nest as deep as `policy_kwargs` goes. Settings of ours are options of their own names (`dialect`).

    Raises:
        InvalidInputError: when a pair has no `=`.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise InvalidInputError(f"--{argument} {pair!r}: expected NAME=VALUE, such as n_steps=64")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings


def refuse_settings(given: Given, remedies: Mapping[str, str]) -> None:
    """Refuse settings that a command decides itself.

    Args:
        given: by the user.
        remedies: setting → what to do instead.

    Raises:
        InvalidInputError: when one of them is given.
    """
    for name, value in given.settings().items():
        if name in remedies:
            raise InvalidInputError(f"{' '.join(as_words(given.prefix, {name: value}))}: {remedies[name]}")
