"""Markdown tables, of text that may be a stranger's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ssdkd_env.reading import printable

#: A cell without a value.
EMPTY = "–"


class Markup(str):
    """A cell that is Markdown of ours, with nothing in it of anybody else."""

    __slots__ = ()


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, whose cells are escaped unless they are `Markup`."""
    lines = [_cells(columns), _cells(["---"] * len(columns)), *map(_cells, rows)]
    return "\n".join(lines)


def table_row(cells: Iterable[object]) -> str:
    """A row of a table by itself, escaped likewise."""
    return _cells(cell if isinstance(cell, str) else str(cell) for cell in cells)


def escaped(text: str) -> str:
    """Text as Markdown: no bar ends a cell, no tag or link begins, nothing acts on the terminal it is printed on."""
    shown = printable(text.replace("\n", " "))
    for mark in ("|", "<", "]("):
        shown = shown.replace(mark, f"{mark[:-1]}\\{mark[-1]}")
    return shown


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell if isinstance(cell, Markup) else escaped(cell) for cell in cells)} |"
