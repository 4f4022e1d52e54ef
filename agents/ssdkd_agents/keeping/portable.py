"""Paths in what is kept: those of one machine say nothing anywhere else, those below the project are kept below it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssdkd_agents.lines import encode_line, raw_lines_of
from ssdkd_env.errors import InvalidInputError

#: What may stand before a path without being the end of a longer one.
_BEGINNING = r"(?<![\w./-])"


def portable(text: str, root: Path) -> str:
    """A text in which every path below a folder is relative to it.

    Args:
        text: may be JSON.
        root: the folder.
    """
    whole = os.path.abspath(root).rstrip(os.sep) + os.sep
    spelt = sorted({whole, json.dumps(whole)[1:-1]})
    return re.sub(f"{_BEGINNING}(?:{'|'.join(map(re.escape, spelt))})", "", text)


def portable_lines(content: bytes, path: Path, root: Path) -> bytes:
    """Lines of results in which every path below a folder is relative to it; the others stay, byte for byte.

    Args:
        content: of a JSON-lines file, without what is cut short at its end.
        path: the file, for the error messages.
        root: the folder.

    Raises:
        InvalidInputError: when it is damaged, or a line names a file or folder that lies elsewhere.
    """
    return b"".join(_portable_line(raw, value, path, root) for raw, value in raw_lines_of(content, path))


def _portable_line(raw: bytes, value: dict[str, Any], path: Path, root: Path) -> bytes:
    text = json.dumps(value)
    kept = portable(text, root)
    here = value if kept == text else json.loads(kept)
    for name in _strings(here):
        if os.path.isabs(name):
            raise InvalidInputError(
                f"{path} names {name}, which another machine has not; give the folder above it with --root, and what "
                "lies below that is kept"
            )
    return raw + b"\n" if kept == text else encode_line(here)


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
