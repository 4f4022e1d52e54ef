"""JSON lines: appended whole or not at all, and noticed where one was changed, doubled or cut short.

Each line ends with a checksum of the rest of it (`"crc32"`), which readers take off again. Lines without one, of
earlier versions or made by hand, are read as they are: of them nobody can say whether they were changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import Any

from ssdkd_agents.archives import read_raw_lines
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import unwritable, write_atomically
from ssdkd_env.reading import conform

#: Name of a line's checksum: eight hexadecimal digits, the last entry of the object.
CHECKSUM = "crc32"
_ENDING = re.compile(rb'(?:, )?"crc32": "([0-9a-f]{8})"\}$')


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line: after it, or where it fails, the file holds whole lines.

    Half a line that a killed process has left at the end is cut off first.

    Raises:
        InvalidInputError: when the file cannot be written, be it that the disk is full; what was in it stays.
    """
    line = encode_line(value)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            end = _mend_end(file)
            try:
                _write_all(file, line)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise unwritable(path, error) from error


def read_lines(path: str | Path, schema: type = dict) -> list[dict[str, Any]]:
    """Read a JSON-lines file, compressed (`.jsonl.gz`) or plain.

    A last line that is cut short, as a killed process leaves it, is left out with a warning.

    Args:
        path: the file.
        schema: of every line; see `schemas`.

    Raises:
        InvalidInputError: when it is missing or damaged, or a line is no JSON object of this schema, was changed since
            it was written, or is there twice.
    """
    return [value for _, value in numbered_lines(path, schema)]


def numbered_lines(path: str | Path, schema: type = dict) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same, one after the other, each with its number from 1: what is refused at its first line is read no further.

    Raises:
        InvalidInputError: as `read_lines`.
    """
    for number, _, value in _parsed(read_raw_lines(path), path, schema):
        yield number, value


def raw_lines(path: str | Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """The same of a file of any size: number of each line, the line as it is, without its end, and what it says.

    Raises:
        InvalidInputError: as `read_lines`.
    """
    yield from _parsed(read_raw_lines(path, of_any_size=True), path, dict)


def parse_lines(content: bytes, path: str | Path, schema: type = dict) -> list[dict[str, Any]]:
    """The JSON objects that a file's content holds, one a line; errors name `path`, as those of `read_lines`."""
    return [value for _, _, value in _parsed(BytesIO(content), path, schema)]


def raw_lines_of(content: bytes, path: str | Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The same, each beside the line as it is, without its end."""
    for _, raw, value in _parsed(BytesIO(content), path, dict):
        yield raw, value


def _parsed(lines: Iterable[bytes], path: str | Path, schema: type) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Number of each line, the line as it is in the file, without its end, and what it says."""
    seen: dict[bytes, int] = {}
    for number, raw in _whole(lines, path):
        value = _decode(raw, f"{path}, line {number}")
        if schema is not dict:  # which every line is; it would be copied for nothing
            conform(value, schema, f"{path}, line {number}", "delete that line, or get another copy")
        if value.pop(CHECKSUM, None) is not None:
            first = seen.setdefault(hashlib.sha256(raw).digest(), number)
            if first != number:
                raise InvalidInputError(f"{path}, line {number} is line {first} once more; delete one of them")
        yield number, raw, value


def drop_lines(path: Path, keep: Callable[[dict[str, Any]], bool], schema: type = dict) -> None:
    """Delete the lines of a file that are not to be kept, and half a line at its end; the others stay as they are.

    Args:
        path: a JSON-lines file; where there is none, nothing is done.
        keep: whether to keep a line.
        schema: of every line.

    Raises:
        InvalidInputError: as `read_lines`.
    """
    if not path.exists():
        return
    kept = b"".join(raw + b"\n" for _, raw, value in _parsed(read_raw_lines(path), path, schema) if keep(value))
    if len(kept) != path.stat().st_size:
        write_atomically(path, lambda temporary: temporary.write_bytes(kept))


def write_checked(path: Path, value: dict[str, Any]) -> None:
    """Write a file of one line, atomically: JSON with a checksum."""
    content = encode_line(value)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def read_checked(path: Path) -> dict[str, Any]:
    """Read what `write_checked` wrote.

    Raises:
        InvalidInputError: when it is missing, or was changed since.
    """
    lines = read_lines(path)
    if len(lines) != 1:
        raise InvalidInputError(f"{path} has {len(lines)} whole lines, expected one; was it cut short?")
    return lines[0]


def encode_line(value: dict[str, Any]) -> bytes:
    """A JSON line with its checksum and its end."""
    value = {name: item for name, item in value.items() if name != CHECKSUM}  # of a line that was read by other means
    body = json.dumps(value).encode()[:-1]
    return b'%s%s"%s": "%08x"}\n' % (body, b", " if value else b"", CHECKSUM.encode(), zlib.crc32(body + b"}"))


def _decode(raw: bytes, where: str) -> dict[str, Any]:
    """A line's object, with its checksum if it has one."""
    try:
        value = json.loads(raw)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{where} is no text ({error}); give a .jsonl or .jsonl.gz file of lines") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{where} is not JSON ({error}); delete that line") from error
    if not isinstance(value, dict):
        raise InvalidInputError(f"{where} is no JSON object; delete that line")
    if CHECKSUM in value and not _is_unchanged(raw):
        raise InvalidInputError(
            f"{where} was changed since it was written; put back what it was, or delete it, or its {CHECKSUM} if the "
            "change is yours"
        )
    return value


def _is_unchanged(raw: bytes) -> bool:
    ending = _ENDING.search(raw)
    return ending is not None and zlib.crc32(raw[: ending.start()] + b"}") == int(ending[1], 16)


def _whole(lines: Iterable[bytes], path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of each line that is not blank, without what is cut short at the end."""
    for number, line in enumerate(lines, start=1):
        raw = line.removesuffix(b"\n")
        if not raw.strip():
            continue
        if raw == line and _is_cut_short(raw):
            warnings.warn(f"{path}, line {number} is cut short, and left out", stacklevel=2)
            return
        yield number, raw


def _is_cut_short(raw: bytes) -> bool:
    """Whether a line without a line break after it is the beginning of one, rather than one, or something else."""
    try:
        value = json.loads(raw)
    except RecursionError:
        return False
    except ValueError:
        return raw.startswith(b"{")
    return isinstance(value, dict) and CHECKSUM in value and not _is_unchanged(raw)


def _mend_end(file: RawIOBase) -> int:
    """Bytes of a file up to the end of its last whole line; anything behind it is cut off."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return end
    file.seek(0)
    content = file.read()
    last = content.rfind(b"\n") + 1
    if not _is_cut_short(content[last:]):
        _write_all(file, b"\n")
        return end + 1
    file.truncate(last)
    return last


def _write_all(file: RawIOBase, content: bytes) -> None:
    """Write everything: of a file on a disk that fills up, the system may take a part."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
