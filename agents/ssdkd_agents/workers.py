"""Jobs side by side, where a failure or a dead worker costs one job and no more, whatever executor there is.

Libraries were tried, with a job that kills its process, and with a parent that is killed. The executors of the standard
library and of loky then fail every job that is not done. `multiprocessing.Pool` waits for the lost one for ever.
Pebble's pool loses one job as this one does, but its processes outlive their parent for as long as a job takes, and
its jobs cannot be asked to stop where they are. The processes of `ssdkd_env.processes` are needed for environments in
any case; what is left for this module is whose turn it is.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from ssdkd_env.errors import one_line
from ssdkd_env.executors import Executor, Worker, WorkerDied

JobT = TypeVar("JobT")
#: Does a job; the second argument says whether to stop. None: it stopped before the end.
Work = Callable[[JobT, Callable[[], bool]], dict[str, Any] | None]

#: Seconds between two looks at the clock and at Ctrl-C while processes work.
POLL = 0.2
#: What to do when the worker of a job has died.
REMEDY = "Was there enough memory? Use fewer processes"


@dataclass(frozen=True)
class Outcome(Generic[JobT]):
    """How a job ended: with a result, with an error, or stopped before its end (neither).

    Attributes:
        job: which one.
        result: what it returned.
        error: one line, of a job that failed.
        details: its traceback; empty where its process has died.
    """

    job: JobT
    result: dict[str, Any] | None = None
    error: str = ""
    details: str = ""


def run_jobs(
    work: Work[JobT], jobs: Sequence[JobT], executor: Executor, stop: Callable[[], bool]
) -> Iterator[Outcome[JobT]]:
    """Do jobs in their order, in this process or side by side by an executor's workers of one torch thread each.

    A job whose worker dies is done once more, by a new one, which a line on stderr says. When as many workers as
    `Executor.tries` have died of it, it has failed. A process that dies between two jobs costs nothing.

    Args:
        work: picklable function that does one job.
        jobs: picklable.
        executor: whose workers.
        stop: when to begin no more jobs and ask those in progress to stop.

    Yields:
        An outcome for each job that was begun, as they end.
    """
    if not executor.is_here:
        yield from _run_side_by_side(work, jobs, executor, stop)
        return
    for job in jobs:
        if stop():
            return
        yield _attempt(work, job, stop)


def _attempt(work: Work[JobT], job: JobT, stop: Callable[[], bool]) -> Outcome[JobT]:
    try:
        return Outcome(job, work(job, stop))
    except Exception as error:  # whatever it is, it is this job's and must not lose the others
        return _failure(job, error)


def _failure(job: JobT, error: Exception) -> Outcome[JobT]:
    details = "".join(traceback.format_exception(error))
    return Outcome(job, error=f"{type(error).__name__}: {one_line(error)}", details=details)


@dataclass(frozen=True)
class _Turn(Generic[JobT]):
    """A job to be done.

    Attributes:
        job: which one.
        deaths: of workers that did it.
    """

    job: JobT
    deaths: int = 0


def _run_side_by_side(
    work: Work[JobT], jobs: Sequence[JobT], executor: Executor, stop: Callable[[], bool]
) -> Iterator[Outcome[JobT]]:
    waiting = [_Turn(job) for job in reversed(jobs)]
    idle: list[Worker] = []
    busy: dict[Worker, _Turn[JobT]] = {}
    try:
        while waiting or busy:
            if stop():
                waiting.clear()
                for worker in busy:
                    worker.leave()
            while waiting and len(busy) < executor.count:
                idle = [worker for worker in idle if worker.is_alive]
                worker = idle.pop() if idle else executor.start(partial(_attempt, work), "of a job", REMEDY)
                busy[worker] = waiting.pop()
                worker.ask(busy[worker].job)
            while idle and not waiting:  # what it has reserved may be what another one waits for
                _end(idle.pop())
            for worker in executor.ready(busy, POLL):
                turn = busy.pop(worker)
                try:
                    outcome = _outcome(worker, turn.job)
                except WorkerDied as death:
                    worker.close()
                    deaths = turn.deaths + 1
                    if deaths < executor.tries and not stop():
                        tqdm.write(f"a job is done once more: {death}", file=sys.stderr)
                        waiting.append(_Turn(turn.job, deaths))
                        continue
                    outcome = Outcome(turn.job, error=f"{f'after {deaths} tries: ' if deaths > 1 else ''}{death}")
                else:
                    if outcome.error:  # what has failed once may be unusable, after an error of the GPU for one
                        _end(worker)
                    else:
                        idle.append(worker)
                yield outcome
    finally:
        for worker in (*idle, *busy):
            worker.leave()  # all of them first: a process takes a second to end
        for worker in idle:
            worker.close()
        for worker in busy:  # there are some only after an error, such as a second Ctrl-C
            worker.close(patience=0)


def _end(worker: Worker) -> None:
    worker.leave()
    worker.close()


def _outcome(worker: Worker, job: JobT) -> Outcome[JobT]:
    """What came of a job.

    Raises:
        WorkerDied: when its process has died.
    """
    try:
        outcome: Outcome[JobT] = worker.take()
    except WorkerDied:
        raise
    except Exception as error:  # such as a result that cannot be sent
        return _failure(job, error)
    return outcome
