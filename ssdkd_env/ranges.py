"""Named ranges of a round for PyTorch's profiler: `torch.profiler.profile` shows them in its tables and traces.

A phase is a stretch of the round (`ssdkd::synthesis`), a part is what is done in it (`part::backward`). Where no
profiler runs, a range does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from torch._C._autograd import _profiler_enabled
from torch.profiler import record_function

#: How the names of ranges begin.
PHASE, PART = "ssdkd::", "part::"
#: Every phase, in the order of a round; what is outside them all belongs to none.
PHASES = ("synthesis", "logits", "comparison", "buffer", "sampling", "training", "observation")
#: Every part. Those of networks are forward passes; `grouping` puts weights and batches of several together and apart.
PARTS = (
    *("generator", "teacher", "student", "statistics", "loss", "backward", "optimiser"),
    *("augmentation", "gather", "grouping"),
)

ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")
#: What is called where a range begins and ends; see `waiting`.
_wait: Callable[[], object] | None = None


class Range:
    """A range for one `with` block, or as a decorator for every call of a function.

    `torch.profiler.record_function` alone takes microseconds also where no profiler runs; a small step has many ranges.
    """

    __slots__ = ("_name", "_record")

    def __init__(self, name: str) -> None:
        self._name = name
        self._record: record_function | None = None

    def __enter__(self) -> None:
        if _profiler_enabled():
            if _wait is not None:
                _wait()
            self._record = record_function(self._name)
            self._record.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._record is not None:
            if _wait is not None:
                _wait()
            self._record.__exit__(*error)

    def __call__(self, function: Callable[ArgumentsT, ResultT]) -> Callable[ArgumentsT, ResultT]:
        """Decorate a function: each of its calls is a range of its own."""

        @wraps(function)
        def call(*args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
            with Range(self._name):
                return function(*args, **kwargs)

        return call


def phase(name: str) -> Range:
    """A stretch of the round, one of `PHASES`."""
    return Range(PHASE + name)


def part(name: str) -> Range:
    """What is done in a phase, one of `PARTS`."""
    return Range(PART + name)


@contextmanager
def waiting(wait: Callable[[], object]) -> Iterator[None]:
    """Call `wait` where a range begins and ends: a GPU's work would else outlast the range that asks for it."""
    global _wait
    before, _wait = _wait, wait
    try:
        yield
    finally:
        _wait = before
