"""Reading tar archives front to back, without unpacking anything to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, cast

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.reading import check_regular, check_unpacked

#: Members that any archive may have, and bytes of it that each further one must take: images take more.
_SURELY_FINE, _LEAST_PACKED = 20_000, 200
#: Bytes of the headers of one member, and letters of a name.
_MOST_HEADER, _MOST_NAME = 2**18, 1000
#: Bytes of a tar block; an archive ends with blocks of zeros.
_BLOCK = 512
_CHUNK = 2**16
#: First bytes of a compressed file → what opens it.
_OPENERS: dict[bytes, Callable[[Path], object]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}

#: Name of a member, split at "/".
Parts = tuple[str, ...]


class Member(NamedTuple):
    """A file or folder inside a folder or an archive.

    Attributes:
        parts: its name.
        is_folder: what it is.
        read: reads a file of at most so many bytes; to be called before the next member is asked for.
    """

    parts: Parts
    is_folder: bool
    read: Callable[[int], bytes]


def read_tar(where: str, path: Path) -> Iterator[Member]:
    """The members of an archive, in its order.

    Args:
        where: the user's argument and its value, for error messages.
        path: a tar archive, plain or compressed with gzip, bzip2 or xz.

    Raises:
        InvalidInputError: when the archive cannot be read, is damaged or cut short, or has more in it than images take:
            unpacks to a hundred times its size, has headers without end, or members by the hundred thousand.
    """
    check_regular(path)
    with _in_a_line(where), _open(path) as file:
        stream = _Bounded(where, file, path.stat().st_size)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
            for number, member in enumerate(tar):
                check_members(where, number + 1, stream.packed)
                # Headers follow upon the content; tarfile would take in whatever length they say that they have.
                stream.limit = tar.offset + _MOST_HEADER
                yield Member(name_parts(where, member.name), member.isdir(), partial(_content, where, tar, member))
                # tarfile would keep every header
                tar.members.clear()  # type: ignore[attr-defined]
                tar.pax_headers.clear()  # type: ignore[attr-defined]
            stream.limit = math.inf
            # tarfile stops without a word at a damaged header, and where the file ends too early
            while rest := cast(IO[bytes], tar.fileobj).read(_CHUNK):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("a header inside is damaged")
            if stream.last != bytes(_BLOCK):
                raise tarfile.ReadError("its end is missing")


@contextmanager
def archive_in_a_line(where: str, kind: str, own: tuple[type[Exception], ...], remedy: str) -> Iterator[None]:
    """Say in one line what is wrong with an archive.

    Args:
        where: the user's argument and its value.
        kind: of archive.
        own: what its reader raises, beside what any reading and unpacking does.
        remedy: what to do.

    Raises:
        InvalidInputError: in place of these errors.
    """
    caught: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, *own)
    try:
        yield
    except InvalidInputError:
        raise
    except caught as error:
        raise InvalidInputError(
            f"{where} cannot be read as a {kind} archive ({one_line(error)}); was it cut short? {remedy}"
        ) from error


_in_a_line = partial(
    archive_in_a_line,
    kind="tar",
    own=(RecursionError, tarfile.TarError),
    remedy="expected a whole .tar, .tar.gz, .tar.bz2, .tar.xz or .zip, or an .npz: copy or download it anew",
)


def check_members(where: str, count: int, packed: int) -> None:
    """Refuse an archive with more members than images have room in it.

    Raises:
        InvalidInputError: when there are more than 20,000, and one for every 200 bytes of the archive.
    """
    if count > _SURELY_FINE + packed // _LEAST_PACKED:
        raise InvalidInputError(
            f"{where} has {packed:,} bytes and more than {count - 1:,} members, most of them empty; pack images alone"
        )


def name_parts(where: str, name: str) -> Parts:
    """A member's name, split.

    Raises:
        InvalidInputError: when it is longer than any that images have.
    """
    if len(name) > _MOST_NAME:
        raise InvalidInputError(
            f"{where}: a name inside has {len(name):,} letters, at most {_MOST_NAME:,} are read: {name[:40]}…; shorten"
            " it"
        )
    return tuple(part for part in name.split("/") if part not in ("", "."))


class _Bounded:
    """A file that ends in an error where an archive is absurd, and remembers the last block read from it.

    Attributes:
        packed: bytes of the archive.
        limit: how far it may be read by now.
        last: its last block so far, which shows whether the archive is whole.
    """

    def __init__(self, where: str, file: IO[bytes], packed: int) -> None:
        self._where = where
        self._file = file
        self._read = 0
        self.packed = packed
        self.limit: float = _MOST_HEADER
        self.last = b""

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._read += len(content)
        check_unpacked(self._where, self._read, self.packed)
        if not content and self.limit < math.inf:  # tarfile would go on, to the end of whatever size a header says
            raise tarfile.ReadError("its end is missing")
        if self._read > self.limit:
            raise tarfile.ReadError(f"a header inside has more than {_MOST_HEADER:,} bytes")
        self.last = (self.last + content)[-_BLOCK:]
        return content


def _open(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        magic = file.read(6)
    for start, opener in _OPENERS.items():
        if magic.startswith(start):
            return cast(IO[bytes], opener(path))
    return open(path, "rb")


def _content(where: str, tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if not member.isfile() or member.issparse():
        raise InvalidInputError(
            f"{where}: {member.name} inside is a link, a device or sparse; pack the files themselves "
            "(GNU tar: --dereference --hard-dereference)"
        )
    if member.size > most:
        raise InvalidInputError(
            f"{where}: {member.name} inside has {member.size:,} bytes, at most {most:,} are read; pack images"
        )
    with _in_a_line(where):
        file = tar.extractfile(member)
        assert file is not None  # it is a plain file
        return file.read()
