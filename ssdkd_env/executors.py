"""Who does work side by side: workers that answer questions, in processes of this machine or on a cluster.

An executor starts workers, and says which of them have answered. What is asked of them (episodes of a benchmark, steps
of environments) and what becomes of a worker that dies are the same for all executors:
`ssdkd_env.processes.Processes` is the default, `ssdkd_env.cluster.RayCluster` where one machine is too small.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.registry import trust

#: Answers a question; the second argument says whether an early end is wanted.
Answer = Callable[[Any, Callable[[], bool]], Any]
PackedT = TypeVar("PackedT")

#: Seconds that a worker has to end by itself.
PATIENCE = 10.0


class WorkerDied(InvalidInputError):
    """A worker has ended before its answer; one line says which, how, and what to do."""


class Worker(Protocol):
    """Answers one question after another, elsewhere, with one torch thread."""

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked, as far as is known here."""
        ...

    def ask(self, question: Any) -> None:
        """Send a question. What is asked and not taken before something else is asked is lost."""
        ...

    def take(self) -> Any:
        """Wait for the answer to the last question.

        Raises:
            WorkerDied: when the worker has died.
            Exception: whatever the answer raised.
        """
        ...

    def leave(self) -> None:
        """Let it end, after the answer in progress, which is told to come early."""
        ...

    def close(self, patience: float | None = None) -> None:
        """Wait for it to end, and make it.

        Args:
            patience: seconds that it has to end by itself; a few where None.
        """
        ...


class Executor(Protocol):
    """Starts workers."""

    @property
    def count(self) -> int:
        """How many work side by side."""
        ...

    @property
    def tries(self) -> int:
        """How many workers may die of one piece of work before it has failed."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether work is rather done by whoever asks than by a single worker."""
        ...

    def start(self, answer: Answer, purpose: str, remedy: str) -> Worker:
        """Start a worker.

        Args:
            answer: picklable; called by the worker.
            purpose: what it is for, in the words of an error message: "of two environments".
            remedy: what to do when it has died, as a sentence.
        """
        ...

    def ready(self, workers: Collection[Any], timeout: float) -> list[Any]:
        """Of workers that were asked, those that have answered or died, as soon as there is one; else none.

        Args:
            workers: that this executor has started.
            timeout: seconds to wait for.
        """
        ...


class Reply(NamedTuple):
    """What a worker sends back.

    Attributes:
        answer: None after an error.
        error: what was raised instead.
        trace: its traceback as text, which pickle does not keep.
    """

    answer: Any = None
    error: Exception | None = None
    trace: str = ""

    def taken(self) -> Any:
        """The answer.

        Raises:
            Exception: whatever was raised instead.
        """
        if self.error is not None:
            raise self.error from RuntimeError(f"in another process:\n{self.trace}")
        return self.answer


def respond(
    answer: Answer,
    question: Any,
    stop: Callable[[], bool],
    modules: Collection[str],
    pack: Callable[[Reply], PackedT],
) -> PackedT:
    """Answer a question as in a process that has answered none before; returns the packed reply.

    Args:
        answer: of the worker.
        question: that was asked.
        stop: whether an early end is wanted.
        modules: that the user has named (`registry.trusted` of whoever asks); they may register what is asked for.
        pack: makes of a reply what is sent; an answer that it raises an error on is an error.
    """
    # Of the thread that answers, and each time: an answer before may have wanted others.
    torch.set_num_threads(1)  # side by side, more only wait for each other
    torch.set_default_dtype(torch.float32)
    try:
        trust(modules)
        return pack(Reply(answer(question, stop)))
    except Exception as error:  # whatever it is, it is raised again where the user can see it
        return pack(Reply(None, error, traceback.format_exc()))
