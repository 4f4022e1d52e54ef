"""The one exception that means "the caller can mend this"."""

from __future__ import annotations

from collections.abc import Iterable


class InvalidInputError(ValueError):
    """A value given by the user cannot be used.

    The message is one line that names the argument or file, says what was expected, and what to do next.
    Scripts print it without a traceback and exit with code 2.
    """


def check_choice(argument: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        InvalidInputError: otherwise; the message lists the choices.
    """
    known = sorted(choices)
    if value not in known:
        raise InvalidInputError(f"{argument}={value!r} is unknown; choose one of: {', '.join(known)}")
    return value


def one_line(error: Exception) -> str:
    """An error's message without line breaks, cut to a readable length."""
    return " ".join(str(error).split())[:200]
