"""Compressed files: the same content gives the same archive, and what is no whole archive is refused in a line."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.reading import check_regular

#: What the name of a compressed file ends in.
ENDING = ".gz"
#: Content of an archive beyond which it is taken for a bomb: 256 MiB, hundreds of times the largest file of results.
MOST_BYTES = 256 * 2**20
_CHUNK = 2**20


def compress(content: bytes) -> bytes:
    """A gzip archive without a name or a time in it, so that it depends on the content (and on the zlib) alone."""
    archive = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=archive, mtime=0) as file:
        file.write(content)
    return archive.getvalue()


def read_content(path: str | Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in `.gz`.

    Raises:
        InvalidInputError: when it is missing, no regular file, no whole archive, or unpacks to more than `MOST_BYTES`.
    """
    path = Path(path)
    check_regular(path)
    try:
        return _unpack(path) if path.suffix == ENDING else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidInputError(
            f"{path} is no whole gzip archive ({one_line(error)}); fetch it again, or rename it if it is not compressed"
        ) from error
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}; give a file that is there") from error


def _unpack(path: Path) -> bytes:
    content = bytearray()
    with path.open("rb") as archive, gzip.GzipFile(fileobj=archive) as file:
        while chunk := file.read(_CHUNK):
            content += chunk
            if len(content) > MOST_BYTES:
                raise InvalidInputError(
                    f"{path} unpacks to more than {MOST_BYTES:,} bytes; if you trust it, unpack it yourself (gunzip)"
                )
        if not archive.tell():  # which gzip takes for an archive of nothing
            raise EOFError("the file is empty")
    return bytes(content)
