"""How a command ends where something is other than hoped: in one line, without a traceback."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

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


class _Unread(io.FileIO):
    """A stream whose reader may leave."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data).cast("B"))


def outlive_readers() -> None:
    """Let a command go on when whoever read what it prints has had enough, as `head` has: its run is not lost.

    Lines are written when they are complete, so that a log shows them at once. Streams that somebody has put in the
    place of the process's own stay as they are.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            binary = io.BufferedWriter(_Unread(stream.fileno(), "w", closefd=False))
            own = io.TextIOWrapper(binary, encoding=stream.encoding, errors=stream.errors, line_buffering=True)
            setattr(sys, name, own)
