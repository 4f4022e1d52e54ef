"""What all command lines share: parsing, and one clear line for what the user can mend."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ssdkd_agents.commands.endings import HELP, one_line_for_the_user, outlive_readers
from ssdkd_agents.commands.given import Given, abridged, as_words
from ssdkd_agents.commands.old_options import refuse_old_options
from ssdkd_agents.ownership import release_all
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import printable
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
    outlive_readers()
    given = sys.argv[1:] if words is None else list(words)
    shown = abridged(arguments) if any(word in HELP for word in given) else arguments
    with one_line_for_the_user():
        refuse_old_options(arguments, given)
        parsed = tyro.cli(shown, description=description, prog=program, args=words)
        usual = warnings.formatwarning
        warnings.formatwarning = _in_a_line  # type: ignore[assignment]  # of which it leaves out where it was
        try:
            trust(parsed.plugins)
            main(parsed)
        finally:
            release_all()
            warnings.formatwarning = usual


def _in_a_line(message: Warning | str, *where: object) -> str:
    """A warning as a user reads it: without the line of code that gave it; it may quote a stranger's file."""
    return f"warning: {printable(' '.join(str(message).split()))}\n"


@dataclass(kw_only=True)
class Plugins:
    """What every command line can be given."""

    plugins: tuple[str, ...] = ()
    """Modules of yours to import first: they may register methods, schemes, rewards, …, and names in files (samplers,
    results, configurations) may lie in them. Nothing else that a file names is imported."""


def resuming(folder: Path) -> str:
    """The line that continues this command's run in `folder`, from any directory, quoted for a shell."""
    program = Path(sys.argv[0]).resolve()
    interpreter = [sys.executable] if program.suffix == ".py" else []
    subcommand = takewhile(lambda word: not word.startswith("-"), sys.argv[1:])
    plugins = ["--plugins", *trusted()] if trusted() else []
    return shlex.join([*interpreter, str(program), *subcommand, "--out", str(folder.resolve()), "--resume", *plugins])


def refuse_beside_resume(arguments: Plugins, taken: Collection[str] = ()) -> None:
    """Refuse options of a new run where one is continued, which has its own.

    Args:
        arguments: of a command with --out and --resume, whose other options have defaults.
        taken: names of options that a run takes when it is continued, too.

    Raises:
        InvalidInputError: at the first other option that was given, unless it is what is the default anyway.
    """
    for option in fields(arguments):
        if option.name in ("out", "resume", "plugins", *taken):
            continue
        value = getattr(arguments, option.name)
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if value != default:
            words = value.settings() if isinstance(value, Given) else {option.name: value}
            given = as_words(value.prefix if isinstance(value, Given) else "--", words)
            raise InvalidInputError(f"{' '.join(given)}: --resume goes on with the run's own settings; leave it out")


def as_settings(arguments: Plugins) -> dict[str, Any]:
    """Arguments as `config.json` and result lines hold them: paths as text, of an environment's only what was given."""
    values: dict[str, Any] = {}
    for name, value in vars(arguments).items():
        if isinstance(value, Given):
            values["env_kwargs" if name == "env" else name] = value.settings()
        else:
            values[name] = str(value) if isinstance(value, Path) else value
    return values


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
