"""Labels for what is being done, and a stopwatch that knows where the seconds went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch.profiler import record_function

#: Phases in the order of a round; `rest` is what belongs to none of them.
PHASES = ("synthesis", "answers", "buffer", "distillation", "refresh", "observation", "rest")
#: Part of a phase that belongs to none of its named ones.
OTHER = "other"


class Label(NamedTuple):
    """A part of a phase of the round."""

    phase: str
    part: str

    def __str__(self) -> str:
        return self.phase if self.part == OTHER else f"{self.phase}: {self.part}"


#: What belongs to no phase.
REST = Label(PHASES[-1], OTHER)


class Labels:
    """What is being done at the moment: nested labels, of which the innermost holds."""

    def __init__(self) -> None:
        self._open = [REST]

    def enter(self, phase: str | None, part: str | None) -> None:
        """Begin a part; a phase of None is that of the label around it. The same label once more goes on with it."""
        outer = self._open[-1]
        label = Label(phase or outer.phase, part or OTHER)
        if label != outer:
            self._begin(label)
        self._open.append(label)

    def leave(self) -> None:
        """End what was entered last."""
        label = self._open.pop()
        if label != self._open[-1]:
            self._end(label)

    def _begin(self, label: Label) -> None:
        raise NotImplementedError

    def _end(self, label: Label) -> None:
        raise NotImplementedError


class Stopwatch(Labels):
    """Seconds of each label, without those of the labels inside it, so that they sum to the whole.

    Args:
        wait: called at every border, to wait for a device that works on its own.
        clock: gives seconds.

    Attributes:
        seconds: by label.
        calls: how often each was entered.
        wall: seconds between beginning and end of `running`.
    """

    def __init__(self, wait: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self._wait, self._clock = wait, clock
        self._mark = clock()
        self.seconds: dict[Label, float] = {}
        self.calls: dict[Label, int] = {}
        self.wall = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what is inside; what has no label there goes to `REST`."""
        self._wait()
        started = self._mark = self._clock()
        try:
            yield
        finally:
            self._charge(REST)
            self.wall += self._mark - started

    def _begin(self, label: Label) -> None:
        self._charge(self._open[-1])
        self.calls[label] = self.calls.get(label, 0) + 1

    def _end(self, label: Label) -> None:
        self._charge(label)

    def _charge(self, label: Label) -> None:
        """Give the seconds since the last border to a label."""
        self._wait()
        now = self._clock()
        self.seconds[label] = self.seconds.get(label, 0.0) + now - self._mark
        self._mark = now


class TraceMarks(Labels):
    """Labels as events of PyTorch's profiler."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[record_function] = []

    def _begin(self, label: Label) -> None:
        self._events.append(record_function(str(label)))
        self._events[-1].__enter__()

    def _end(self, label: Label) -> None:
        self._events.pop().__exit__(None, None, None)
