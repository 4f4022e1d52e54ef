"""Compressed files: the same content gives the same archive, and what is no whole archive is refused in a line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.reading import check_regular

#: What the name of a compressed file ends in.
ENDING = ".gz"
#: Bytes of a file, unpacked, beyond which it is taken for a bomb: hundreds of times the largest file of results.
MOST_BYTES = 256 * 2**20
#: Bytes of a line: an episode of 50,000 rounds has fewer. Parsed it may take thirty times as much memory.
MOST_LINE = 16 * 2**20
#: Lines of a file, blank ones too.
MOST_LINES = 5_000_000
_CHUNK = 2**20


def compress(content: bytes) -> bytes:
    """A gzip archive without a name or a time in it, so that it depends on the content (and on the zlib) alone."""
    archive = io.BytesIO()
    with compressing(archive) as file:
        file.write(content)
    return archive.getvalue()


def compressing(archive: IO[bytes]) -> gzip.GzipFile:
    """Such an archive, to be written into a file piece by piece."""
    return gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=archive, mtime=0)


def read_content(path: str | Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in `.gz`.

    Raises:
        InvalidInputError: when it is missing, no regular file, no whole archive, or unpacks to more than `MOST_BYTES`.
    """
    content = io.BytesIO()  # whose value is no copy
    with _opened(path) as file:
        while chunk := file.read(_CHUNK):
            content.write(chunk)
            _refuse_beyond(path, content.tell())
    return content.getvalue()


def read_raw_lines(path: str | Path, of_any_size: bool = False) -> Iterator[bytes]:
    """The lines of a file as `read_content` reads it, each with its end, one after the other.

    Args:
        path: the file.
        of_any_size: whether it may have more lines and bytes, for a reader that keeps none of them.

    Raises:
        InvalidInputError: as `read_content`; also at a line of more than `MOST_LINE` bytes, and after `MOST_LINES`.
    """
    total = number = 0
    with _opened(path) as file:
        while raw := file.readline(MOST_LINE + 1):
            number += 1
            if number > MOST_LINES and not of_any_size:
                raise InvalidInputError(f"{path} has more than {MOST_LINES:,} lines; give a part of them")
            if len(raw) > MOST_LINE:
                raise InvalidInputError(
                    f"{path} has a line of more than {MOST_LINE:,} bytes, which no episode has; get another copy"
                )
            total += len(raw)
            if not of_any_size:
                _refuse_beyond(path, total)
            yield raw


@contextmanager
def _opened(path: str | Path) -> Iterator[BufferedIOBase]:
    """A file's content as a stream. Read it to its end: an archive is whole only there."""
    path = Path(path)
    check_regular(path)
    try:
        with path.open("rb") as file:
            if path.suffix != ENDING:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
            if not file.tell():  # which gzip takes for an archive of nothing
                raise EOFError("the file is empty")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidInputError(
            f"{path} is no whole gzip archive ({one_line(error)}); fetch it again, or rename it if it is not compressed"
        ) from error
    except InvalidInputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"cannot read {path}: {reason}; give a file that is there") from error


def _refuse_beyond(path: str | Path, size: int) -> None:
    if size > MOST_BYTES:
        raise InvalidInputError(
            f"{path} has more than {MOST_BYTES:,} bytes, unpacked; give the right file, or a part of its lines"
        )
