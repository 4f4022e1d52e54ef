"""Processes that answer questions: what of one that dies, and of one whose parent does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ssdkd_env import processes
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import Reply, WorkerDied
from ssdkd_env.processes import Processes, ProcessWorker, serve
from tests.parents import outliving


def answer(question: Any, stop: Callable[[], bool]) -> Any:
    """What the question says."""
    if question == "fail":
        raise ValueError("no such thing")
    if question == "die":
        os._exit(7)
    if question == "compute":
        while True:
            torch.ones(64, 64) @ torch.ones(64, 64)
    if question == "wait until stopped":
        while not stop():
            time.sleep(0.01)
        return "stopped"
    return os.getpid(), torch.get_num_threads(), question


@pytest.fixture
def worker() -> Iterator[ProcessWorker]:
    worker = ProcessWorker(answer, "of a test", "Try again")
    yield worker
    worker.close(patience=0)


def ask(worker: ProcessWorker, question: Any) -> Any:
    worker.ask(question)
    return worker.take()


def test_answers_come_from_a_process_of_one_thread_that_leaves_ctrl_c_to_its_parent(worker: ProcessWorker) -> None:
    process, threads, question = ask(worker, "a")
    assert process != os.getpid()
    assert (threads, question) == (1, "a")
    os.kill(process, signal.SIGINT)
    with pytest.raises(ValueError, match="no such thing") as caught:
        ask(worker, "fail")
    assert "in answer" in str(caught.value.__cause__), "the other process's traceback"
    worker.ask("lost")
    assert ask(worker, "b") == (process, 1, "b")
    assert Processes().ready([worker], timeout=0.1) == []
    worker.ask("wait until stopped")
    worker.leave()
    assert worker.take() == "stopped"
    worker.close()
    assert worker._process.exitcode == 0, "it ended by itself"
    worker.leave()
    worker.close()


def test_death_is_told_in_one_line_as_often_as_it_is_asked(worker: ProcessWorker) -> None:
    process, *_ = ask(worker, "a")
    threading.Timer(0.2, os.kill, (process, signal.SIGKILL)).start()
    worker.ask("compute")
    assert Processes().ready([worker], timeout=60) == [worker]
    for _ in range(2):
        with pytest.raises(WorkerDied) as caught:
            worker.take()
        assert str(caught.value) == f"process {process} of a test has died (exit code -9: Killed). Try again"
        assert isinstance(caught.value, InvalidInputError), "a command says no more than that line"
        assert caught.value.__cause__ is caught.value.__context__ is None
        worker.ask("b")
    assert not worker.is_alive
    worker.leave()
    worker.close()


def test_death_of_a_process_that_has_answered_nothing_may_lie_in_the_main_file(worker: ProcessWorker) -> None:
    with pytest.raises(WorkerDied, match=r'has died \(exit code 7\)\. Is what .* under `if __name__ == "__main__":`\?'):
        ask(worker, "die")


def test_process_that_does_not_end_by_itself_is_ended(worker: ProcessWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.01)
    worker.leave()  # while it is still starting
    worker.close()
    assert worker._process.exitcode == -signal.SIGTERM


@pytest.mark.parametrize("question", ["a", "compute"])
def test_process_ends_soon_after_its_parent_was_killed(question: str) -> None:
    code = (
        "import time; from ssdkd_env.processes import ProcessWorker; from tests.test_processes import answer\n"
        "worker = ProcessWorker(answer, '', ''); worker.ask('a'); worker.take()\n"
        f"worker.ask({question!r}); print('there')\nimport sys; sys.stdout.flush(); time.sleep(600)"
    )
    assert outliving(code, processes=1, computing_for=0.5) == []


def test_serving_ends_with_the_other_end_of_the_pipe() -> None:
    """Run here, where its threads can be seen."""
    ours, theirs = multiprocessing.Pipe()
    answers: list[Any] = []

    def ask() -> None:
        for number, question in enumerate(("a", "fail", "what cannot be sent")):
            ours.send((number, question))
            answers.append(ours.recv())
        ours.close()

    def answer_or_not(question: str, stop: Callable[[], bool]) -> Any:
        return (lambda: 1) if question == "what cannot be sent" else answer(question, stop)

    asking = threading.Thread(target=ask)
    handler = signal.getsignal(signal.SIGINT)
    torch.set_num_threads(3)
    try:
        asking.start()
        serve(answer_or_not, theirs, modules=())
        assert torch.get_num_threads() == 1
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, handler)
        asking.join()
    first, second, third = answers
    assert first == (0, Reply((os.getpid(), 1, "a")))
    assert (second[0], second[1].answer) == (1, None)
    assert isinstance(second[1].error, ValueError) and "no such thing" in second[1].trace
    assert (third[0], third[1].answer) == (2, None)
    assert "lambda" in str(third[1].error)
