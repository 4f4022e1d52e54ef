"""Jobs side by side in processes, where a failure or a dead process costs one job and no more."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypeVar

from ssdkd_agents.environments import start_worker
from ssdkd_agents.stopping import Stopper
from ssdkd_env.errors import one_line
from ssdkd_env.registry import trusted

JobT = TypeVar("JobT")
#: Does a job; the second argument says whether to stop. None: it stopped before the end.
Work = Callable[[JobT, Callable[[], bool]], dict[str, Any] | None]

#: Seconds between two looks at the clock and at Ctrl-C while processes work.
POLL = 0.2


@dataclass(frozen=True)
class Outcome(Generic[JobT]):
    """How a job ended: with a result, with an error, or stopped before its end (neither).

    Attributes:
        job: which one.
        result: what it returned.
        error: one line, of a job that failed.
        details: its traceback.
    """

    job: JobT
    result: dict[str, Any] | None = None
    error: str = ""
    details: str = ""


def run_jobs(work: Work[JobT], jobs: Sequence[JobT], processes: int, stop: Stopper) -> Iterator[Outcome[JobT]]:
    """Do jobs in their order, in this process or side by side in spawned ones of one torch thread each.

    Args:
        work: picklable function that does one job.
        jobs: picklable.
        processes: how many; 1 works in this process.
        stop: when to begin no more jobs and ask those in progress to stop.

    Yields:
        An outcome for each job that was begun, as they end.
    """
    if processes > 1:
        yield from _run_in_processes(work, jobs, processes, stop)
        return
    for job in jobs:
        if stop():
            return
        yield _attempt(work, job, stop)


def _attempt(work: Work[JobT], job: JobT, stop: Callable[[], bool]) -> Outcome[JobT]:
    try:
        return Outcome(job, work(job, stop))
    except Exception as error:  # whatever it is, it is this job's and must not lose the others
        return Outcome(job, error=f"{type(error).__name__}: {one_line(error)}", details=traceback.format_exc())


class _Worker(Generic[JobT]):
    """A process that does one job after another."""

    def __init__(self, context: SpawnContext, work: Work[JobT], stop: Event) -> None:
        self.connection, theirs = context.Pipe()
        # A daemon, because its parent must be able to end at once at a second Ctrl-C.
        self.process = context.Process(target=_serve, args=(work, theirs, stop, trusted()), daemon=True)
        with _ignored_interrupts():
            self.process.start()
        theirs.close()
        self.job: JobT | None = None

    def begin(self, job: JobT) -> None:
        self.job = job
        with suppress(OSError):  # it has died since its last job: `outcome` will find out
            self.connection.send(job)

    def outcome(self) -> Outcome[JobT]:
        """What came of the job; the process may have died of it."""
        job, self.job = self.job, None
        assert job is not None
        try:
            outcome: Outcome[JobT] = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            return Outcome(job, error=f"its process died (exit code {code}); was there enough memory?")
        return outcome

    def end(self) -> None:
        self.connection.close()
        self.process.join()


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole group; a process started in here ignores it from its first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _serve(work: Work[JobT], connection: Connection, stop: Event, modules: tuple[str, ...]) -> None:
    start_worker(modules)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(work, job, stop.is_set))


def _run_in_processes(work: Work[JobT], jobs: Sequence[JobT], processes: int, stop: Stopper) -> Iterator[Outcome[JobT]]:
    context = multiprocessing.get_context("spawn")
    stop_event = context.Event()
    waiting = list(reversed(jobs))
    idle: list[_Worker[JobT]] = []
    busy: dict[Any, _Worker[JobT]] = {}
    while waiting or busy:
        if stop():
            stop_event.set()
            waiting.clear()
        while waiting and len(busy) < processes:
            worker = idle.pop() if idle else _Worker(context, work, stop_event)
            worker.begin(waiting.pop())
            busy[worker.connection] = worker
        for connection in wait(list(busy), timeout=POLL):
            worker = busy.pop(connection)
            outcome = worker.outcome()
            if outcome.error:
                worker.end()  # a process that has failed once may be unusable, after an error of the GPU for one
            else:
                idle.append(worker)
            yield outcome
    for worker in idle:
        worker.end()
