"""An executor whose workers die when they are told to."""

from __future__ import annotations

import pickle
from collections.abc import Collection
from typing import Any

from ssdkd_env.executors import Answer, WorkerDied


def copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


class Fragile:
    """Workers of this process that share nothing with who asks, some of which die instead of an answer.

    Args:
        deaths: numbers of answers, counted over all workers.
    """

    count, tries, is_here = 2, 3, False

    def __init__(self, deaths: Collection[int] = ()) -> None:
        self.deaths, self.answers, self.started = deaths, 0, 0

    def start(self, answer: Answer, purpose: str, remedy: str) -> FragileWorker:
        self.started += 1
        return FragileWorker(self, copied(answer))

    def ready(self, workers: Collection[Any], timeout: float) -> list[Any]:
        return list(workers)


class FragileWorker:
    """See `Fragile`."""

    is_alive = True

    def __init__(self, executor: Fragile, answer: Answer) -> None:
        self.executor, self.answer = executor, answer
        self.question: Any = None

    def ask(self, question: Any) -> None:
        self.question = copied(question)

    def take(self) -> Any:
        number, self.executor.answers = self.executor.answers, self.executor.answers + 1
        if number in self.executor.deaths:
            raise WorkerDied("a worker has died")
        return copied(self.answer(self.question, lambda: False))

    def leave(self) -> None: ...

    def close(self, patience: float | None = None) -> None: ...
