"""Making files that a stranger might send: see `specimens_of_settings`, `…_of_arrays` and `…_of_data`."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Numbers that no file has good reason to name, text that a terminal, a page or a picture obeys, nesting without end.
HUGE = 10**9
ESCAPES = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>|`x`$\\frac$\u202e"
DEEP = "[" * 100_000 + "]" * 100_000
#: An attribute that only an import would find.
STRANGER = "stranger:net"
#: Puts a specimen into an empty folder, given the sound runs by kind; returns the words of the command to read it.
Make = Callable[[Mapping[str, Path], Path], list[str]]
#: From the path of a file or a run to the words of the command to read it.
Words = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Specimen:
    """A stranger's file.

    Attributes:
        kind: of file.
        holds: what is in it, in words.
        make: makes it.
    """

    kind: str
    holds: str
    make: Make


class Hostile:
    """A pickle of this calls `os.mkdir` when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def put(value: Any, path: str, new: Any) -> Any:
    """A copy of nested mappings and lists in which what is at `path` ("a.0.b"; "" is all) is `new`."""
    head, _, rest = path.partition(".")
    if not path:
        return new
    if isinstance(value, list):
        return [put(item, rest, new) if index == int(head) else item for index, item in enumerate(value)]
    key = int(head) if head.isdigit() and int(head) in value else head  # optimisers count their parameters
    return {**value, key: put(value.get(key, {}), rest, new)}


def evaluate(sampler: Path) -> list[str]:
    return ["evaluate", "--samplers", str(sampler), "--episodes", "1", "--processes", "1", *out(sampler.parent)]


def out(folder: Path) -> list[str]:
    return ["--out", str(folder / "out")]


def holding(name: str, content: bytes, words: Words) -> Make:
    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        (folder / name).write_bytes(content)
        return words(folder / name)

    return make


def pipe(name: str, words: Words) -> Make:
    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        os.mkfifo(folder / name)
        return words(folder / name)

    return make


def changed(kind: str, name: str, path: str, value: Any, words: Words) -> Make:
    """A copy of a sound run with one entry of a JSON file changed."""

    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        copy = folder / "run"
        shutil.copytree(runs[kind], copy)
        (copy / name).write_text(json.dumps(put(json.loads((copy / name).read_text()), path, value)))
        return words(copy)

    return make


def replaced(kind: str, name: str, content: bytes | None, words: Words) -> Make:
    """A copy of a sound run with other bytes in a file, or a named pipe in its place."""

    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        copy = folder / "run"
        shutil.copytree(runs[kind], copy)
        (copy / name).unlink(missing_ok=True)
        if content is None:
            os.mkfifo(copy / name)
        else:
            (copy / name).write_bytes(content)
        return words(copy)

    return make


def zipped(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return made.getvalue()


def safetensors(header: str | bytes) -> bytes:
    content = header.encode() if isinstance(header, str) else header
    return len(content).to_bytes(8, "little") + content


SAFETENSORS = {
    "a tensor of 10^15 numbers": safetensors(
        json.dumps({"t": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}})
    ),
    "a header of 2^60 bytes": (2**60).to_bytes(8, "little") + b"{}",
    "a structure without end": safetensors(json.dumps({"__metadata__": {"structure": "0" * 64 + " " + DEEP}})),
}
