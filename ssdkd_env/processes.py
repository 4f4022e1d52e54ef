"""Workers in processes of this machine: one way of starting, watching and ending them, for environments and for jobs.

A process ends soon after its parent has, however that ended, even in the middle of a long computation. It learns of
that from a thread of its own that waits for the parent (`multiprocessing.parent_process`). The end of the pipe would
be noticed between two questions only, and Linux's `PR_SET_PDEATHSIG` comes from the end of the parent's *thread* that
started the process, too, and is Linux's alone.

A process that dies tells nobody. So nothing is shared between processes that a dead one could hold on to: each has a
pipe of its own, and there is no lock, queue or event.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import PATIENCE, Answer, Reply, WorkerDied, respond
from ssdkd_env.registry import trusted


class ProcessWorker:
    """A spawned process: a `Worker`.

    Ctrl-C, which reaches the whole process group, is left to its parent.

    Args:
        answer, purpose, remedy: see `Executor.start`.
    """

    def __init__(self, answer: Answer, purpose: str, remedy: str) -> None:
        self._purpose, self._remedy = purpose, remedy
        context = multiprocessing.get_context("spawn")  # a fork would inherit the threads of torch, and CUDA's state
        self._connection, theirs = context.Pipe()
        # A daemon, because its parent must be able to end at once at a second Ctrl-C.
        self._process = context.Process(target=serve, args=(answer, theirs, trusted()), daemon=True)
        with _ignored_interrupts():
            self._process.start()
        theirs.close()  # else the pipe would have no end when the process dies
        self._question = 0
        self._has_answered = self._left = False

    def __reduce__(self) -> NoReturn:
        """A process has no copy.

        Raises:
            InvalidInputError: always. A copy of the pipe would close it under the process, when it goes.
        """
        raise InvalidInputError(
            f"a process {self._purpose} can be neither copied nor pickled; use what computes in this process "
            "(environments: vectorization='loop')"
        )

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def ask(self, question: Any) -> None:
        """Send a question. What is asked and not taken before something else is asked is lost."""
        self._question += 1
        with suppress(OSError):  # a process that has died is reported by `take`
            self._connection.send((self._question, question))

    def take(self) -> Any:
        """Wait for the answer to the last question.

        Raises:
            WorkerDied: when the process has died.
            Exception: whatever the answer raised.
        """
        number, reply = None, Reply()
        while number != self._question:  # Ctrl-C may have left the answer to an earlier one
            number, reply = self._receive()
        return reply.taken()

    def _receive(self) -> tuple[int, Reply]:
        with suppress(EOFError, OSError):  # what a pipe gives whose other end has died
            received: tuple[int, Reply] = self._connection.recv()
            self._has_answered = True
            return received
        raise WorkerDied(self._death())

    def _death(self) -> str:
        self._process.join(PATIENCE)  # whose pipe ends a moment before it does
        code = self._process.exitcode
        ended = f"exit code {code}" if code is None or code >= 0 else f"exit code {code}: {signal.strsignal(-code)}"
        guard = ""
        if code and code > 0 and not self._has_answered:  # it may have failed to import the main file
            guard = ' Is what the script does under `if __name__ == "__main__":`?'
        return f"process {self._process.pid} {self._purpose} has died ({ended}).{guard} {self._remedy}"

    def leave(self) -> None:
        """Let the process end, after the answer in progress, which is told to come early."""
        if not self._left:
            self._left = True
            with suppress(OSError):  # it has died, or been closed
                self._connection.send(None)

    def close(self, patience: float | None = None) -> None:
        """Wait for the process to end, and make it.

        Args:
            patience: seconds that it has to end by itself; `PATIENCE` where None.
        """
        self._connection.close()
        self._process.join(PATIENCE if patience is None else patience)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


@dataclass(frozen=True)
class Processes:
    """The default `Executor`: spawned processes of one torch thread each.

    Attributes:
        count: how many work side by side.
        tries: how many may die of one piece of work before it has failed.
    """

    count: int = 2
    tries: int = 2

    @property
    def is_here(self) -> bool:
        """Whether one process is enough, which is then the caller's own."""
        return self.count == 1

    def start(self, answer: Answer, purpose: str, remedy: str) -> ProcessWorker:
        """Start a process; see `Executor.start`."""
        return ProcessWorker(answer, purpose, remedy)

    def ready(self, workers: Collection[ProcessWorker], timeout: float) -> list[ProcessWorker]:
        """Those that have answered or died, as soon as there is one; none after `timeout` seconds."""
        by_connection: dict[Any, ProcessWorker] = {worker._connection: worker for worker in workers}
        return [by_connection[connection] for connection in wait(list(by_connection), timeout)]


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """A process started in here ignores Ctrl-C from its first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def serve(answer: Answer, connection: Connection, modules: tuple[str, ...]) -> None:
    """Answer questions until there are no more, or the parent is gone: what a worker's process does.

    Args:
        answer: of the worker.
        connection: this end of the pipe.
        modules: see `executors.respond`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    with suppress(EOFError, OSError):  # the other end is closed
        while (asked := connection.recv()) is not None:
            number, question = asked
            # What can be read before the answer is there is either the end or a later question.
            pack = partial(_packed, number)
            connection.send_bytes(respond(answer, question, connection.poll, modules, pack))


def _packed(number: int, reply: Reply) -> Any:
    return ForkingPickler.dumps((number, reply))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)  # from a thread nothing else ends a process, and nobody is left to be told anything

    threading.Thread(target=watch, daemon=True).start()
