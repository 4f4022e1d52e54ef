"""Jobs side by side: one that fails, or kills its process, costs nothing but itself."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ssdkd_agents.stopping import Stopper
from ssdkd_agents.workers import Outcome, run_jobs

from ssdkd_env.processes import Processes
from tests.parents import outliving


def work(job: str, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """What a job's name says."""
    if job == "fail":
        raise ValueError("no such thing")
    if job == "die":
        os._exit(7)
    if job.startswith("die at first ") and not Path(job.removeprefix("die at first ")).exists():
        Path(job.removeprefix("die at first ")).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "give what cannot be sent":
        return {"job": lambda: job}
    if job == "compute":
        while True:
            torch.ones(64, 64) @ torch.ones(64, 64)
    if job == "wait until stopped":
        while not stop():
            time.sleep(0.01)
        return None
    if job.startswith("touch "):
        Path(job.removeprefix("touch ")).touch()
    return {"job": job, "process": os.getpid()}


def outcomes(jobs: list[str], processes: int, stop: Stopper | None = None) -> dict[str, Outcome[str]]:
    return {outcome.job: outcome for outcome in run_jobs(work, jobs, Processes(processes), stop or Stopper())}


def test_failure_is_told_and_the_others_go_on() -> None:
    made = outcomes(["a", "fail", "b"], 1)
    assert list(made) == ["a", "fail", "b"]
    assert made["fail"].error == "ValueError: no such thing"
    assert "Traceback" in made["fail"].details
    assert made["fail"].result is None
    assert made["b"].result == {"job": "b", "process": os.getpid()}


def test_process_that_dies_costs_its_job_only(capfd: pytest.CaptureFixture[str]) -> None:
    made = outcomes(["a", "fail", "die", "give what cannot be sent", "b", "c"], 2)
    assert sorted(job for job, outcome in made.items() if outcome.result) == ["a", "b", "c"]
    assert made["fail"].error == "ValueError: no such thing"
    assert "lambda" in made["give what cannot be sent"].error
    assert re.fullmatch(
        r"after 2 tries: process \d+ of a job has died \(exit code 7\)\..* Was there enough memory\? Use fewer "
        "processes",
        made["die"].error,
    )
    assert all(outcome.result["process"] != os.getpid() for outcome in made.values() if outcome.result)
    said = capfd.readouterr().err
    assert said.startswith("a job is done once more: process ") and said.count("\n") == 1


def test_job_whose_process_was_killed_is_done_once_more(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    jobs = [f"die at first {tmp_path / 'a'}", "b"]
    made = outcomes(jobs, 2)
    assert [made[job].error for job in jobs] == ["", ""]
    assert made[jobs[0]].result is not None
    said = capfd.readouterr().err
    assert "(exit code -9: Killed)" in said and said.count("\n") == 1


def test_process_that_is_killed_between_two_jobs_costs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    made = run_jobs(work, ["a", "b", "c", "d"], Processes(2), Stopper())
    seen = [next(made)]
    assert seen[0].result is not None
    (killed,) = [each for each in multiprocessing.active_children() if each.pid == seen[0].result["process"]]
    killed.kill()
    killed.join(timeout=10)
    seen += list(made)
    assert sorted(outcome.job for outcome in seen if outcome.result) == ["a", "b", "c", "d"]
    assert capfd.readouterr().err == ""


def test_dying_when_asked_to_stop_is_the_end_of_a_job() -> None:
    asked = iter([False, *[True] * 1000])
    made = list(run_jobs(work, ["die", "b", "c"], Processes(2), lambda: next(asked)))
    assert sorted(outcome.job for outcome in made) == ["b", "die"]
    assert [outcome.error[:8] for outcome in made if outcome.job == "die"] == ["process "]


def test_nothing_goes_on_computing_when_nobody_wants_the_outcomes() -> None:
    made = run_jobs(work, ["a", "compute"], Processes(2), Stopper())
    assert next(made).job == "a"
    processes = multiprocessing.active_children()
    assert processes
    made.close()  # type: ignore[attr-defined]
    assert not set(processes) & set(multiprocessing.active_children())


@pytest.mark.parametrize("jobs", [["a", "b"], ["a", "compute"]], ids=["idle", "computing"])
def test_processes_end_soon_after_their_parent_was_killed(jobs: list[str]) -> None:
    # After one outcome, for idle processes are ended as soon as another is asked for and no job waits.
    code = (
        "import time; from ssdkd_agents.workers import run_jobs; from ssdkd_env.processes import Processes\n"
        "from tests.agents.test_workers import work\n"
        f"made = run_jobs(work, {jobs}, Processes(2), lambda: False)\nnext(made)\n"
        "print('there', flush=True); time.sleep(600)"
    )
    assert outliving(code, processes=2, computing_for=0.5) == []


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
            made.extend(run_jobs(work, ["a"], Processes(1), stop))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert [outcome.job for outcome in made] == ["a"]
