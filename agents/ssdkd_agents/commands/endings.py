"""How a command ends where something is other than hoped: in one line, without a traceback."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import is_full, unwritable
from ssdkd_env.reading import printable

#: Words that ask for help.
HELP = ("-h", "--help")


@contextmanager
def one_line_for_the_user() -> Iterator[None]:
    """End the process with one line in place of a traceback: code 2 after bad input, 130 after Ctrl-C."""
    try:
        with _full_disks_said_once():
            yield
    except InvalidInputError as error:
        _refuse(str(error))
    except OSError as error:
        if is_full(error):  # met by a writer of others, such as TensorBoard's: it names no file
            _refuse(str(unwritable(error.filename or "any more", error)))
        if error.filename is None:  # not of a file, so that nobody can mend it by looking at one
            raise
        _refuse(f"cannot use {error.filename}: {error.strerror}; make it what it was")
    except MemoryError:
        _refuse("there is not enough memory for this; ask for less, or look at the file it came from")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


@contextmanager
def _full_disks_said_once() -> Iterator[None]:
    """Without the traceback of TensorBoard's thread, whose error comes again where the command writes next."""
    before = threading.excepthook

    def hook(said: threading.ExceptHookArgs) -> None:
        if not is_full(said.exc_value):
            before(said)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _refuse(text: str) -> NoReturn:
    """Say what is wrong, which may quote a stranger's file, and end the process."""
    print(f"error: {printable(text)}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def while_somebody_reads() -> Iterator[None]:
    """Print what a reader such as `head` may have enough of: the process then ends with code 0."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(0)
