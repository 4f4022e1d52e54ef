"""Names of earlier versions: an argument gets an error that says the new one, a file is read by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssdkd_env.errors import InvalidInputError

#: Argument of an environment → what it is called now.
ARGUMENTS = {"evaluate_every": "evaluate_every_rounds", "vector_backend": "vectorization"}
#: Argument → its values → what they are called now.
VALUES = {"action": {"strategies": "plans"}, "observation": {"statistics": "unscaled"}}


def refuse_old_names(arguments: Mapping[str, Any]) -> None:
    """Name the new name of an argument or a value that an earlier version had.

    Raises:
        InvalidInputError: at the first one.
    """
    for name, value in arguments.items():
        if name in ARGUMENTS:
            raise InvalidInputError(
                f"{name}={value!r} is called {ARGUMENTS[name]} now; give {ARGUMENTS[name]}={value!r}"
            )
        new = VALUES.get(name, {}).get(value) if isinstance(value, str) else None
        if new is not None:
            raise InvalidInputError(f"{name}={value!r} is called {new!r} now; give {name}={new!r}")


def with_new_names(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a file of an earlier version has them, under today's names."""
    renamed = {ARGUMENTS.get(name, name): value for name, value in arguments.items()}
    return {
        name: VALUES.get(name, {}).get(value, value) if isinstance(value, str) else value
        for name, value in renamed.items()
    }
