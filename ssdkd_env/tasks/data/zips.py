"""Reading zip archives, without unpacking anything to disk."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import check_regular, check_unpacked, read_start
from ssdkd_env.tasks.data.tar import Member, archive_in_a_line, check_members, name_parts

# RuntimeError: it is encrypted, or compressed in an unknown way.
_in_a_line = partial(
    archive_in_a_line, kind="zip", own=(RuntimeError, zipfile.BadZipFile), remedy="copy or download it anew"
)

#: Bytes of an archive's list of members, of which `zipfile` makes twenty times as much.
_MOST_LIST = 16 * 2**20


@contextmanager
def open_zip(where: str, path: Path) -> Iterator[zipfile.ZipFile]:
    """An open zip archive whose list of members is no longer than that of images; other errors are not caught.

    Raises:
        InvalidInputError: when the list is longer, or the path is of no regular file, a web page or the like.
    """
    check_regular(path, where=where)
    read_start(path, where)
    with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
        file.most = sys.maxsize
        yield archive


def read_zip(where: str, path: Path) -> Iterator[Member]:
    """The members of a zip archive, in the order of its list.

    Args:
        where: the user's argument and its value, for error messages.
        path: of the archive.

    Raises:
        InvalidInputError: when the archive cannot be read, is damaged, or has more in it than images take.
    """
    unpacked, packed = 0, path.stat().st_size
    with _in_a_line(where), open_zip(where, path) as archive:
        check_members(where, len(archive.infolist()), packed)
        for entry in archive.infolist():
            unpacked += entry.file_size
            check_unpacked(where, unpacked, packed)
            parts = name_parts(where, entry.filename.replace("\\", "/"))
            yield Member(parts, entry.is_dir(), partial(_content, where, archive, entry))


class _Bounded(io.FileIO):
    """A file of which no more than `most` bytes are read at once."""

    most = _MOST_LIST

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > self.most:
            raise zipfile.BadZipFile(f"its list of members has {size:,} bytes, at most {self.most:,} are read")
        return super().read(size) or b""


def _content(where: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.file_size > most:
        raise InvalidInputError(
            f"{where}: {entry.filename} inside has {entry.file_size:,} bytes, at most {most:,} are read; pack images"
        )
    with _in_a_line(where):
        return archive.read(entry)
