"""Reading tar archives front to back, without unpacking anything to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.reading import check_regular

#: Largest file inside an archive that is read; CIFAR-100's training batch, the largest known, has 148 MiB.
MAX_MEMBER_BYTES = 256 * 2**20
#: Bytes of a tar block; an archive ends with blocks of zeros.
_BLOCK = 512
_CHUNK = 2**16
#: First bytes of a compressed file → what opens it.
_OPENERS: dict[bytes, Callable[[Path], object]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}

#: Name of a member, split at "/".
Parts = tuple[str, ...]


def read_members(where: str, path: Path, wanted: Callable[[Parts], bool]) -> Iterator[tuple[Parts, bytes | None]]:
    """Names and contents of the wanted files of an archive, in the archive's order; folders come with None.

    Args:
        where: the user's argument and its value, for error messages.
        path: a tar archive, plain or compressed with gzip, bzip2 or xz.
        wanted: tells by its name whether a member is read.

    Raises:
        InvalidInputError: when the archive cannot be read, is damaged or cut short, or when a wanted member is a
            link or a device, or too large.
    """
    try:
        with _open(path) as file:
            stream = _Tail(file)
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
                for member in tar:
                    parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
                    if wanted(parts):
                        yield parts, None if member.isdir() else _content(where, tar, member)
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
                # tarfile stops without a word at a damaged header, and where the file ends too early
                while rest := cast(IO[bytes], tar.fileobj).read(_CHUNK):
                    if rest.strip(b"\0"):
                        raise tarfile.ReadError("a header inside is damaged")
                if stream.last != bytes(_BLOCK):
                    raise tarfile.ReadError("its end is missing")
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, tarfile.TarError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"{where} cannot be read as a tar archive ({one_line(error)}); was it cut short? expected a whole .tar, "
            ".tar.gz, .tar.bz2 or .tar.xz, or an .npz: copy or download it anew"
        ) from error


class _Tail:
    """A file that remembers the last block read from it, which shows whether the archive is whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.last = b""

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.last = (self.last + content)[-_BLOCK:]
        return content


def _open(path: Path) -> IO[bytes]:
    check_regular(path)
    with open(path, "rb") as file:
        magic = file.read(6)
    for start, opener in _OPENERS.items():
        if magic.startswith(start):
            return cast(IO[bytes], opener(path))
    return open(path, "rb")


def _content(where: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isfile():
        raise InvalidInputError(
            f"{where}: {member.name} inside is a link or a device; pack the files themselves "
            "(GNU tar: --dereference --hard-dereference)"
        )
    if member.size > MAX_MEMBER_BYTES:
        raise InvalidInputError(
            f"{where}: {member.name} inside has {member.size} bytes, at most {MAX_MEMBER_BYTES} are read; pack images"
        )
    file = tar.extractfile(member)
    assert file is not None  # it is a plain file
    return file.read()
