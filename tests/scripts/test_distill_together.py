"""`distill` in two processes of torchrun, which share the student's minibatches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ssdkd_agents.lines import read_lines

from tests.scripts.commands import BUDGET, ROOT, SIZES, Result, environment, in_process_of_its_own

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "scripts/distill.py"]
#: Seconds that any of this may take, on a busy machine.
LONGEST = 200
#: What a set of instances leaves to choose.
INSTANCE_BUDGET = tuple(
    word for name in ("student-steps", "batch-size") for word in (f"--budget.{name}", str(SIZES[name]))
)
#: Bytes of curves that begin after the first picture.
SOME = 20_000


def written(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("tensorboard/**/*"))


def together(*arguments: object, interrupted: Path | None = None) -> Result:
    """Run to the end; or press Ctrl-C, as a terminal does, once a folder has some curves."""
    process = subprocess.Popen(
        [*TORCHRUN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        if interrupted is not None:
            began, before = time.monotonic(), written(interrupted)
            while written(interrupted) < before + SOME:
                assert process.poll() is None and time.monotonic() - began < LONGEST
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=LONGEST)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Result(process.returncode, stdout, stderr)


def test_processes_make_one_student(tmp_path: Path) -> None:
    result = together("--out", tmp_path / "shared", *BUDGET)
    assert result.code == 0, result.stderr
    assert result.stdout.count("student: ") == 1  # the others say nothing
    alone = in_process_of_its_own("distill", "--out", tmp_path / "alone", *BUDGET)
    assert alone.code == 0, alone.stderr
    (shared,), (single,) = (read_lines(tmp_path / name / "results.jsonl") for name in ("shared", "alone"))
    assert shared["final"].keys() == single["final"].keys()
    assert shared["final"]["synthesized"] == single["final"]["synthesized"]
    assert abs(shared["final"]["probe_agreement"] - single["final"]["probe_agreement"]) < 0.05  # after 6 minibatches


def test_what_is_refused_is_said_once(tmp_path: Path) -> None:
    result = together("--out", tmp_path / "out", *BUDGET, "--sampler", "nonsense")
    assert result.code != 0
    assert [line for line in result.stderr.splitlines() if line.startswith("error:")] == [
        line for line in result.stderr.splitlines() if "sampler='nonsense' is neither" in line
    ]
    assert "[rank" not in result.stderr  # a traceback of ours; what follows is torchrun's own
    result = together("--out", tmp_path / "out", *BUDGET, "--budget.batch-size", "1")
    assert "minibatches of 1 cannot be shared by 2 processes" in result.stderr
    assert "[rank" not in result.stderr


def test_an_episode_of_an_instance_is_shared(tmp_path: Path) -> None:
    result = together("--out", tmp_path / "out", "--instances", "digits-train", "--seed", "1", *INSTANCE_BUDGET)
    assert result.code == 0, result.stderr
    (line,) = read_lines(tmp_path / "out" / "results.jsonl")
    assert line["final"]["instance"] > 0


def test_interrupted_it_goes_on_with_any_number_of_processes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = together("--out", out, *BUDGET, "--budget.rounds", "400", interrupted=out)
    assert "stopped after" in stopped.stdout, stopped.stderr
    assert "[rank" not in stopped.stderr
    again = together("--out", out, "--resume", interrupted=out)
    assert "stopped after" in again.stdout, again.stderr
    alone = in_process_of_its_own("distill", "--out", out, "--resume")
    assert alone.code == 0, alone.stderr
    (line,) = read_lines(out / "results.jsonl")
    assert line["final"]["round"] == len(line["actions"]) == 400
