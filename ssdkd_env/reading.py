"""What a file may be and hold, checked where it is read: files come from strangers, too.

Only regular files are read, none larger than its kind can be. What is in them is checked against the schema of its kind
(a dataclass or a `TypedDict`, by [msgspec](https://jcristharif.com/msgspec)) before anything is made of it.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from ssdkd_env.errors import InvalidInputError, one_line

SchemaT = TypeVar("SchemaT")

#: Bytes of settings as JSON beyond which a file is no file of settings.
MOST_JSON = 8 * 2**20
#: Largest number among settings of another package, which has no bounds of its own.
MOST_NUMBER = 10**8
#: Of settings: longest list and text, deepest nesting.
_MOST_ITEMS, _MOST_TEXT, _MOST_DEPTH = 10_000, 10_000, 20
#: Bytes that may be unpacked from whatever, and how many times its size of an archive beyond.
_SURELY_FINE, _MOST_RATIO = 64 * 2**20, 100
#: Places of a nested value that `check_bounds` looks at, at most.
_MOST_PARTS = 100_000

#: First bytes of text that stands for a file which somebody meant to download → what it is, and what to do.
_STAND_INS = {
    b"version https://git-lfs": "is a Git LFS pointer, which stands for the file; fetch the file itself (git lfs pull)",
    b"<": "is a web page; download the file itself, not the page that shows it",
}
#: Bytes of a file's beginning that `check_no_stand_in` looks at.
START = 64

#: Names and other short text.
Text = Annotated[str, msgspec.Meta(max_length=_MOST_TEXT)]
#: A number of things that there are, or are to be.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
#: The largest seed of an episode: beyond it Gymnasium and NumPy take none.
MOST_SEED = 2**63 - 1
Seed = Annotated[int, msgspec.Meta(ge=0, le=MOST_SEED)]


def check_regular(path: str | Path, most: int | None = None, where: str = "") -> None:
    """Refuse what is there and is no file: pipes never end, devices never fill, folders hold no bytes.

    Args:
        path: of what is to be read. Where there is nothing, nothing is refused.
        most: bytes that a file of its kind can have.
        where: what error messages call it; the path where it is empty.

    Raises:
        InvalidInputError: when it is no regular file, or larger.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInputError(
            f"cannot read {where or path}: it is {_special(found.st_mode)}; give a file that is there"
        )
    if most is not None and found.st_size > most:
        raise InvalidInputError(
            f"{where or path} has {found.st_size:,} bytes, and a file of its kind at most {most:,}; give the right file"
        )


def check_no_stand_in(where: str, start: bytes) -> None:
    """Refuse what was downloaded in place of a file of bytes: a Git LFS pointer or a web page.

    Args:
        where: the file, for the error message.
        start: its first `START` bytes.

    Raises:
        InvalidInputError: when it is one of these. What has a zero byte in it is no text, whatever it begins with.
    """
    for beginning, mistake in _STAND_INS.items():
        if start.lstrip().startswith(beginning) and b"\0" not in start:
            raise InvalidInputError(f"{where} {mistake}")


def read_start(path: str | Path, where: str) -> bytes:
    """The first `START` bytes of a file that was checked to be regular.

    Args:
        path: the file.
        where: the same, for the error message.

    Raises:
        InvalidInputError: as `check_no_stand_in`.
        OSError: when it cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(START)
    check_no_stand_in(where, start)
    return start


def read_bytes(path: str | Path, most: int = MOST_JSON) -> bytes:
    """The bytes of a regular file.

    Raises:
        InvalidInputError: when it cannot be read, is no regular file, or has more than `most` bytes.
    """
    check_regular(path, most)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def read_text(path: str | Path, most: int = MOST_JSON) -> str:
    """The text of a regular file, in UTF-8.

    Raises:
        InvalidInputError: as `read_bytes`; also when it is no such text.
    """
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is no text in UTF-8 ({error}); give the right file") from error


def check_unpacked(where: object, unpacked: int, packed: int) -> None:
    """Refuse what is compressed to a hundredth: images and weights are not, so that it only fills the memory.

    Args:
        where: the archive, for the error message.
        unpacked: bytes that it would give.
        packed: bytes that it has.

    Raises:
        InvalidInputError: when it unpacks to 64 MiB and a hundred times its size.
    """
    if unpacked > _SURELY_FINE and unpacked > _MOST_RATIO * packed:
        raise InvalidInputError(
            f"{where} unpacks from {packed:,} to {unpacked:,} bytes; if you trust it, unpack it, and save it anew "
            "without compression"
        )


def read_json(path: str | Path, most: int = MOST_JSON) -> Any:
    """Read a JSON file of at most `most` bytes.

    Raises:
        InvalidInputError: when it is missing, no regular file, too large or no JSON.
    """
    content = read_bytes(path, most)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not valid JSON ({error}); was it cut short?") from error


def conform(value: Any, schema: type[SchemaT], where: object, remedy: str) -> SchemaT:
    """What a file holds: of a dataclass an instance; of a `TypedDict` the value as it is, with all its entries.

    Args:
        value: of JSON, perhaps with tensors in it where the schema has `Any`.
        schema: a dataclass or a `TypedDict`.
        where: the file, for the error message.
        remedy: what to do.

    Raises:
        InvalidInputError: at the first place where it is otherwise than the schema.
    """
    try:
        made = fitted(value, schema)
    except ValueError as error:
        raise InvalidInputError(f"{where}: {error}; {remedy}") from error
    if isinstance(made, dict):
        return value  # type: ignore[no-any-return]
    unknown = _unknown(value, made)
    if unknown:
        raise InvalidInputError(f"{where}: {unknown} is no setting here; {remedy}")
    return made


def check_bounds(value: Any, where: object, most: float = math.inf) -> None:
    """Refuse settings with lists, text, nesting or numbers that none has good reason for.

    Args:
        value: of mappings, lists and plain values.
        where: the file or argument, for the error message.
        most: largest number.

    Raises:
        InvalidInputError: at the first larger number, list or text of more than 10,000, or 21 levels of nesting.
    """
    parts = [("", value, 0)]
    looked_at = 0
    while parts:
        name, part, depth = parts.pop()
        looked_at += 1
        if isinstance(part, Mapping):
            below = [(str(key), item, depth + 1) for key, item in part.items()]
        elif isinstance(part, list | tuple):
            below = [(name, item, depth + 1) for item in part]
        else:
            below = []
        large = isinstance(part, int | float) and abs(part) > most  # not so of NaN, which is of no size
        long = isinstance(part, str) and len(part) > _MOST_TEXT
        if large or long or len(below) > _MOST_ITEMS or depth > _MOST_DEPTH or looked_at > _MOST_PARTS:
            what = repr(part)[:60] if large else "more in it than any setting has"
            raise InvalidInputError(f"{where}: {name!r} has {what}; correct it, or get another copy")
        parts += below


def fitted(value: Any, schema: type[SchemaT]) -> SchemaT:
    """A value as its schema has it; see `conform`, which checks what names there are, too.

    Raises:
        ValueError: at the first place where it is otherwise.
    """
    try:
        return msgspec.convert(value, schema)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(error)) from error


@contextmanager
def fitting(where: object, remedy: str) -> Iterator[None]:
    """Put back what a file holds: what Python or PyTorch say of values that do not fit is said in one line.

    Args:
        where: the file, for the error message.
        remedy: what to do.

    Raises:
        InvalidInputError: in place of whatever values raise that lack, or are of another kind or size.
    """
    try:
        yield
    except InvalidInputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError, OverflowError) as error:
        said = f"{type(error).__name__}: {one_line(error)}"
        raise InvalidInputError(f"{where} does not fit ({said}); {remedy}") from error


def printable(text: str) -> str:
    """Text without characters that act on a terminal, whose codes stand in their place; line ends are kept."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )


def _unknown(value: Any, made: Any) -> str:
    """The first name in a value that the dataclass made of it does not have; empty where there is none."""
    if is_dataclass(made) and isinstance(value, Mapping):
        names = {each.name for each in fields(made)}
        below = [(item, getattr(made, name)) for name, item in value.items() if name in names]
        own = next((str(name) for name in value if name not in names), "")
    elif isinstance(made, list | tuple) and isinstance(value, list | tuple):
        below, own = list(zip(value, made, strict=True)), ""
    else:
        return ""
    return own or next(filter(None, (_unknown(*pair) for pair in below)), "")


def _in_words(error: msgspec.ValidationError) -> str:
    """A schema's complaint, in the words of these messages: `"settings.epochs: expected int, got str"`."""
    said, _, place = str(error).replace("`", "").partition(" - at ")
    said = said[:1].lower() + said[1:]
    place = place.replace("$.", "").replace("$", "").strip()
    said = said.replace("object missing required field", "it lacks")
    return f"{place}: {said}" if place else said


def _special(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
