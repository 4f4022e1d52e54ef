"""Jobs side by side: one that fails, or kills its process, costs nothing but itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.stopping import Stopper
from ssdkd_agents.workers import Outcome, run_jobs


def work(job: str, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """What a job's name says."""
    if job == "fail":
        raise ValueError("no such thing")
    if job == "die":
        os._exit(7)
    if job == "wait until stopped":
        while not stop():
            time.sleep(0.01)
        return None
    if job.startswith("touch "):
        Path(job.removeprefix("touch ")).touch()
    return {"job": job, "process": os.getpid()}


def outcomes(jobs: list[str], processes: int, stop: Stopper | None = None) -> dict[str, Outcome[str]]:
    return {outcome.job: outcome for outcome in run_jobs(work, jobs, processes, stop or Stopper())}


def test_failure_is_told_and_the_others_go_on() -> None:
    made = outcomes(["a", "fail", "b"], 1)
    assert list(made) == ["a", "fail", "b"]
    assert made["fail"].error == "ValueError: no such thing"
    assert "Traceback" in made["fail"].details
    assert made["fail"].result is None
    assert made["b"].result == {"job": "b", "process": os.getpid()}


def test_process_that_dies_costs_its_job_only() -> None:
    made = outcomes(["a", "fail", "die", "b", "c"], 2)
    assert sorted(job for job, outcome in made.items() if outcome.result) == ["a", "b", "c"]
    assert made["fail"].error == "ValueError: no such thing"
    assert made["die"].error == "its process died (exit code 7); was there enough memory?"
    assert all(outcome.result["process"] != os.getpid() for outcome in made.values() if outcome.result)


def test_stopping_begins_no_more_jobs_and_tells_those_in_progress(tmp_path: Path) -> None:
    stop = Stopper(seconds=4)
    began = time.monotonic()
    made = outcomes([f"touch {tmp_path / 'a'}", "wait until stopped", "b"], 2, stop)
    assert time.monotonic() - began < 30
    assert (tmp_path / "a").exists()
    assert made["wait until stopped"] == Outcome("wait until stopped")


def test_nothing_begins_when_the_time_is_up() -> None:
    assert outcomes(["a", "b"], 1, Stopper(seconds=0)) == {}
    assert outcomes(["a", "b"], 2, Stopper(seconds=0)) == {}


def test_ctrl_c_asks_to_stop_and_twice_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = Stopper()
    with stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert stop.interrupted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_stopper_works_where_signals_cannot_be_caught() -> None:
    made: list[Any] = []

    def elsewhere() -> None:
        with Stopper() as stop:
            made.extend(run_jobs(work, ["a"], 1, stop))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert [outcome.job for outcome in made] == ["a"]
