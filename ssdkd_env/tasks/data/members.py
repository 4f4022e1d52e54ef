"""Files of a data set in a folder, a tar or a zip archive: listed, then read one after the other, none unpacked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import check_regular, read_bytes, read_start
from ssdkd_env.tasks.data.tar import Member, Parts, read_tar
from ssdkd_env.tasks.data.zips import read_zip

#: First bytes of a zip archive.
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06")


def members_of(where: str, path: Path, tops: Collection[str] = ()) -> Iterator[Member]:
    """The members of a folder or an archive, one after the other; what is hidden is overlooked.

    Args:
        where: the user's argument and its value, for error messages.
        path: a folder; a tar archive, plain or compressed with gzip, bzip2 or xz; or a zip archive.
        tops: of a folder the folders in it that are entered; all where there are none.

    Raises:
        InvalidInputError: when it cannot be read, or is none of these.
    """
    if path.is_dir():
        return _in_folder(where, str(path), tops)
    check_regular(path, where=where)
    start = read_start(path, where)
    members = (read_zip if start.startswith(_ZIPS) else read_tar)(where, path)
    return (member for member in members if member.parts and not any(map(_is_hidden, member.parts)))


def list_members(where: str, path: Path, tops: Collection[str] = ()) -> dict[Parts, bool]:
    """Names of the members, and whether each is a folder.

    Raises:
        InvalidInputError: as `members_of`; also when it holds a file twice.
    """
    found: dict[Parts, bool] = {}
    for member in members_of(where, path, tops):
        if member.parts in found and not member.is_folder:
            raise InvalidInputError(f"{where} holds {'/'.join(member.parts)} twice; pack it anew")
        found[member.parts] = member.is_folder
    return found


def read_members(where: str, path: Path, wanted: Collection[Parts], most: int) -> Iterator[tuple[Parts, bytes]]:
    """Names and contents of wanted files of at most `most` bytes, in the order of an archive; of a folder in theirs.

    Raises:
        InvalidInputError: as `members_of`; also when a file cannot be read, or is larger.
    """
    if path.is_dir():
        for parts in wanted:
            if os.path.lexists(file := os.path.join(path, *parts)):
                yield parts, _read(where, file, most)
        return
    for member in members_of(where, path):
        if member.parts in wanted:
            yield member.parts, member.read(most)


def packed_size(path: Path, names: Iterable[Parts]) -> int:
    """Bytes of an archive, or of these files in a folder."""
    files = [os.path.join(path, *parts) for parts in names] if path.is_dir() else [str(path)]
    return sum(os.path.getsize(file) for file in files if os.path.exists(file))  # a link may lead nowhere


def stamp_of(path: Path, names: Iterable[Parts] = ()) -> str:
    """State of an archive, or of these files in a folder: another value means that they may have changed."""
    if not path.is_dir():
        state = path.stat()
        return f"{state.st_size} {state.st_mtime_ns}"
    digest = hashlib.sha256()
    for file in (os.path.join(path, *parts) for parts in sorted(names)):
        there = os.stat(file) if os.path.exists(file) else None
        digest.update(os.fsencode(file) + (f"\0{there.st_size} {there.st_mtime_ns}\0" if there else "\0").encode())
    return digest.hexdigest()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _in_folder(
    where: str, folder: str, tops: Collection[str], parts: Parts = (), above: Parts = ()
) -> Iterator[Member]:
    real = os.path.realpath(folder)
    if real in above:
        raise InvalidInputError(f"{where}: {'/'.join(parts)} is a link to a folder that holds it; remove it")
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in found if not _is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidInputError(f"{where}: {folder} cannot be listed ({error.strerror}); make it readable") from error
    for entry in entries:
        if tops and entry.name not in tops:
            continue
        name = (*parts, entry.name)
        yield Member(name, entry.is_dir(), partial(_read, where, entry.path))
        if entry.is_dir():
            yield from _in_folder(where, entry.path, (), name, (*above, real))


def _read(where: str, file: str, most: int) -> bytes:
    try:
        return read_bytes(file, most)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}; make it readable") from error
