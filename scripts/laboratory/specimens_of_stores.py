"""What a stranger's store of results may hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
from ssdkd_agents.analysis.store import ACTIONS, ENDING, LINE, write_store

from laboratory.specimens import DEEP, ESCAPES, HUGE, Make, Specimen, holding, out, pipe

NAME = f"campaign{ENDING}"
#: From a sound store's table to another.
Change = Callable[[Any], Any]


def of_stores() -> Iterator[Specimen]:
    """All of them, read by commands that look at what is wrong with them."""
    columns: dict[str, Change] = {
        "nesting without end as actions": partial(_column, name=ACTIONS, value=DEEP),
        "nesting without end as settings": partial(_column, name="env_kwargs", value=DEEP),
        "escapes in a name": partial(_column, name="label", value=ESCAPES),
        "numbers as names": partial(_column, name="label", value=HUGE),
        "lists as settings": partial(_column, name="env_kwargs", value="[]"),
        "no seeds": lambda table: table.drop_columns(["seed"]),
        "a column twice": lambda table: table.append_column("seed", table["seed"]),
        "a text of 60 MB": partial(_column, name="env_kwargs", value="x" * 60_000_000),
    }
    lines: dict[str, Change] = {
        "nesting without end as line": partial(_column, name=LINE, value=DEEP),
        "a number as line": partial(_column, name=LINE, value="7"),
        "300 MB of one line, packed": _repeated,
    }
    for command, changes in (("compare", columns), ("rank", columns), ("policy", lines), ("export", {})):
        words = partial(_words, command)
        for holds, change in changes.items():
            yield Specimen(f"store, {command}", holds, _stored(change, words))
        for holds, content in (
            ("zeros between the marks of a file", b"PAR1" + bytes(10**6) + b"PAR1"),
            ("no bytes", b""),
        ):
            yield Specimen(f"store, {command}", holds, holding(NAME, content, words))
        yield Specimen(f"store, {command}", "a named pipe", pipe(NAME, words))


def _words(command: str, store: Path) -> list[str]:
    where = ["--out", str(store.parent / "p.png")] if command == "policy" else out(store.parent)
    if command == "export":
        return ["results", command, "--store", str(store), "--out", str(store.parent / "lines.jsonl")]
    against = ["--against", "paper"] if command == "compare" else []
    return ["results", command, "--results", str(store), *against, *where]


def _stored(change: Change, words: Callable[[Path], list[str]]) -> Make:
    """A store of a sound run's lines, changed."""

    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        store = folder / NAME
        write_store([runs["evaluate"] / "results.jsonl"], store)
        parquet.write_table(change(parquet.read_table(store)), store, compression="zstd")
        return words(store)

    return make


def _column(table: Any, name: str, value: Any) -> Any:
    """With one value in all rows of a column."""
    values = arrow.array([value] * len(table))
    return table.set_column(table.column_names.index(name), name, values)


def _repeated(table: Any) -> Any:
    return arrow.concat_tables([table.slice(0, 1)] * (300_000_000 // len(table[LINE][0].as_py())))
