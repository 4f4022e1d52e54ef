"""What all command lines share: parsing, and one clear line for what the user can mend."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.registry import trust, trusted

ArgumentsT = TypeVar("ArgumentsT", bound="Plugins")


def launch(
    arguments: type[ArgumentsT],
    main: Callable[[ArgumentsT], None],
    description: str | None,
    program: str | None = None,
    words: Sequence[str] | None = None,
) -> None:
    """Parse a command line into `arguments` and call `main`.

    Exit codes: 0 done, 2 bad input (one line on stderr, no traceback), 130 stopped by Ctrl-C.

    Args:
        arguments: class of the arguments.
        main: what to do with them.
        description: what `--help` says.
        program: what `--help` calls the command; the script's path where None.
        words: of the command line, without the program; `sys.argv` where None.
    """
    parsed = tyro.cli(arguments, description=description, prog=program, args=words)
    with one_line_for_the_user():
        trust(parsed.plugins)
        main(parsed)


@dataclass(kw_only=True)
class Plugins:
    """What every command line can be given."""

    plugins: tuple[str, ...] = ()
    """Modules of yours to import first: they may register methods, schemes, rewards, …, and names in files (samplers,
    results, configurations) may lie in them. Nothing else that a file names is imported."""


@contextmanager
def one_line_for_the_user() -> Iterator[None]:
    """End the process with one line in place of a traceback: code 2 after bad input, 130 after Ctrl-C."""
    try:
        yield
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def resuming(folder: Path) -> str:
    """The line that continues this command's run in `folder`, from any directory, quoted for a shell."""
    program = Path(sys.argv[0]).resolve()
    interpreter = [sys.executable] if program.suffix == ".py" else []
    subcommand = takewhile(lambda word: not word.startswith("-"), sys.argv[1:])
    plugins = ["--plugins", *trusted()] if trusted() else []
    return shlex.join([*interpreter, str(program), *subcommand, "--out", str(folder.resolve()), "--resume", *plugins])


def parse_settings(argument: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `("rounds=10", "lr=0.1")` into a dict; values are JSON, or text where they are not.

    Raises:
        InvalidInputError: when a pair has no `=`.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise InvalidInputError(f"--{argument} {pair!r}: expected NAME=VALUE, such as rounds=10")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings


def refuse_settings(argument: str, settings: Mapping[str, Any], remedies: Mapping[str, str]) -> None:
    """Refuse settings that a command decides itself.

    Args:
        argument: where the settings were given.
        settings: as `parse_settings` gives them.
        remedies: setting → what to do instead.

    Raises:
        InvalidInputError: when one of them is given.
    """
    for name, remedy in remedies.items():
        if name in settings:
            raise InvalidInputError(f"--{argument} {name}={settings[name]}: {remedy}")


def refuse_existing(argument: str, path: Path) -> None:
    """Keep a file that is there from being written over.

    Raises:
        InvalidInputError: when `path` exists.
    """
    if path.exists():
        raise InvalidInputError(f"--{argument} {path} exists; choose another file, or delete it first")


def check_lines_file(argument: str, path: Path) -> None:
    """Refuse a place for JSON lines that is taken, or beside which a picture or table would be written over them.

    Raises:
        InvalidInputError: when `path` exists or does not end in `.jsonl`.
    """
    if path.suffix != ".jsonl":
        raise InvalidInputError(f"--{argument} {path}: expected a name that ends in .jsonl")
    refuse_existing(argument, path)
