"""How far long work is: tqdm's bar in a terminal; elsewhere, as in the log of a job, a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from tqdm import tqdm

#: Seconds between two lines of a log.
EVERY = 60.0
#: Such a line, in the words of `tqdm.format_meter`.
_FORMAT = "{n_fmt}/{total_fmt} {unit}s after {elapsed}, {remaining} left{postfix}"


class Bar(Protocol):
    """What work tells of itself; `n` is how much is done."""

    n: float

    def update(self, n: float) -> Any:
        """So much more is done."""

    def set_postfix(self, ordered_dict: Mapping[str, object], refresh: bool) -> Any:
        """What else is known; shown at once where `refresh`, else with the next update."""


class _Lines:
    """A bar where nothing can be drawn over."""

    def __init__(self, total: int, unit: str, initial: int) -> None:
        self.n: float = initial
        self._total, self._unit, self._initial, self._postfix = total, unit, initial, ""
        self._began = self._said = time.monotonic()

    def update(self, n: float) -> None:
        self.n += n
        if time.monotonic() - self._said >= EVERY:
            self.say()

    def set_postfix(self, ordered_dict: Mapping[str, object], refresh: bool) -> None:
        self._postfix = ", ".join(f"{name} {value}" for name, value in ordered_dict.items())

    def say(self) -> None:
        self._said = time.monotonic()
        gone, postfix = self._said - self._began, self._postfix
        shown: dict[str, Any] = {"unit": self._unit, "initial": self._initial, "postfix": postfix}
        print(tqdm.format_meter(self.n, self._total, gone, bar_format=_FORMAT, **shown), file=sys.stderr, flush=True)


@contextmanager
def progress(total: int, unit: str, initial: int = 0, shown: bool = True) -> Iterator[Bar]:
    """Show on stderr how far work is, until it ends, however it ends.

    Args:
        total: how much there is to do.
        unit: of what, in the singular.
        initial: how much of it was done before.
        shown: false shows nothing.
    """
    if shown and not sys.stderr.isatty():
        lines = _Lines(total, unit, initial)
        try:
            yield lines
        finally:
            lines.say()
        return
    with tqdm(total=total, initial=initial, unit=unit, disable=not shown) as bar:
        yield bar
