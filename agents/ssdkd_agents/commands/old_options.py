"""Options of earlier versions: each gets one line that says what to give now."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from itertools import takewhile
from typing import Any

from ssdkd_agents.commands.given import Given, as_words, classes_of, given_of, parse_settings
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.renamed import with_new_names

#: Option → what it is called now: the one that the command has, where some count steps and others epochs.
OLD_OPTIONS = {
    "--env": ("--env-id",),
    "--strategy": ("--searcher",),
    "--vector-backend": ("--vectorization",),
    "--evaluate-every": ("--evaluate-every-steps", "--evaluate-every-epochs"),
    "--checkpoint-every": ("--checkpoint-every-steps", "--checkpoint-every-epochs"),
    "--image-every": ("--image-every-episodes",),
}
#: Option that took NAME=VALUE → the argument of the environment whose parts are options now; all arguments, if none.
OLD_PAIRS = {
    "--env-kwargs": "",
    "--budget": "budget",
    "--student": "student",
    "--probe": "probe",
    "--method-options": "method_options",
}


def refuse_old_options(arguments: Any, words: Sequence[str]) -> None:
    """Name the new name of an option that an earlier version had.

    Args:
        arguments: class of the arguments, or a union of such.
        words: of the command line.

    Raises:
        InvalidInputError: at the first one that the command had.
    """
    for position, word in enumerate(words):
        option, joined, value = word.partition("=")
        option = option.replace("_", "-")
        if option in OLD_OPTIONS or option in OLD_PAIRS:
            following = takewhile(lambda later: not later.startswith("--"), words[position + 1 :])
            new = _new_words(arguments, option, [value] if joined else list(following))
            if new:
                raise InvalidInputError(f"{option} is an option of an earlier version; give {new}")


def _new_words(arguments: Any, option: str, values: list[str]) -> str:
    """What to give in place of an option and its values; nothing where the command had no such option."""
    kinds = classes_of(arguments)
    if option in OLD_PAIRS:
        return next((_spelt(made, OLD_PAIRS[option], values) for kind in kinds for _, made in given_of(kind)), "")
    has = {f"--{field.name.replace('_', '-')}" for kind in kinds for field in fields(kind)}
    return next((shlex.join([new, *values]) for new in OLD_OPTIONS[option] if new in has), "")


def _spelt(made: type[Given], argument: str, pairs: list[str]) -> str:
    """NAME=VALUE as options of today; nothing where the environment's argument is none of the command's."""
    if argument and argument not in {field.name for field in fields(made)}:
        return ""
    prefix = f"{made.prefix}{argument.replace('_', '-')}." if argument else made.prefix
    if not pairs or not all("=" in pair for pair in pairs):
        return f"{prefix}NAME VALUE"
    return shlex.join(as_words(prefix, with_new_names(parse_settings(argument, pairs))))
