"""What stops in the middle is undone: a step that has raised an error has not moved the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from torch import nn

from ssdkd_env.distillation.buffer import ReplayBuffer

ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")


class Undoable(Protocol):
    """A run; see `DistillationRun`, which is one."""

    buffer: ReplayBuffer
    student: nn.Module

    def state_beside_buffer(self) -> dict[str, Any]:
        """Everything that a step depends on but for the buffer, copied."""
        ...

    def load_beside_buffer(self, state: dict[str, Any]) -> None:
        """Continue from `state_beside_buffer()`, whose tensors now belong to the run."""
        ...


RunT = TypeVar("RunT", bound=Undoable)


@contextmanager
def undone_by_errors(run: Undoable) -> Iterator[None]:
    """Put a run back as it was if the block raises, by Ctrl-C too. An inner block leaves it to the outermost."""
    if run.buffer.is_undoable:
        yield
        return
    before = run.state_beside_buffer()
    try:
        with run.buffer.undone_by_errors():
            yield
    except BaseException:
        run.load_beside_buffer(before)
        run.student.eval()  # it may have been in training
        raise


def whole_or_not_at_all(
    method: Callable[Concatenate[RunT, ArgumentsT], ResultT],
) -> Callable[Concatenate[RunT, ArgumentsT], ResultT]:
    """Decorate a method of a run: an error in the middle undoes it."""

    @wraps(method)
    def call(run: RunT, /, *args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
        with undone_by_errors(run):
            return method(run, *args, **kwargs)

    return call
