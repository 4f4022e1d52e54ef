"""Running command lines, in a process of their own or inside this one."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from ssdkd_agents.ownership import LOCK

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
SIZES = {
    "rounds": 3,
    "warmup-rounds": 1,
    "candidates": 16,
    "inversion-steps": 2,
    "student-steps": 2,
    "batch-size": 8,
    "buffer-capacity": 24,
}
#: Of `distill`, and of the commands that make environments of an id.
BUDGET = tuple(word for name, size in SIZES.items() for word in (f"--budget.{name}", str(size)))
ENV_BUDGET = tuple(word for name, size in SIZES.items() for word in (f"--env.budget.{name}", str(size)))
SMALL_PPO = ("n_envs=1", "n_steps=6", "batch_size=6", "n_epochs=1")


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The last line on stderr; progress bars come before it."""
        return self.stderr.strip().splitlines()[-1]


def environment() -> dict[str, str]:
    """With the packages of this checkout, whichever is installed."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")])}


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(Path("scripts") / f"{script}.py"), *map(str, arguments)]


def in_process_of_its_own(script: str, *arguments: object) -> Result:
    """Run as a user does: from the repository's root."""
    done = subprocess.run(
        command(script, *arguments), capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=200
    )
    return Result(done.returncode, done.stdout, done.stderr)


def children(process: int) -> list[int]:
    """Process ids of the workers of a process; none where the system does not tell."""
    listing = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def press_ctrl_c(appears: Path, script: str, *arguments: object) -> Result:
    """Start a command, press Ctrl-C once the file appears, wait for the end.

    As in a terminal, every process of the command's group receives the signal.
    """
    process = subprocess.Popen(
        command(script, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        # A shell's background job, in which these tests may run, ignores Ctrl-C and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 120
        while not appears.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for worker in children(process.pid):  # first, because which process the signal reaches first is chance
            os.kill(worker, signal.SIGINT)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Result(process.returncode, stdout, stderr)


def in_this_process(script: str, *arguments: object) -> Result:
    """Run the same file as `__main__` here, which saves the seconds of importing PyTorch."""
    path = SCRIPTS / f"{script}.py"
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", [str(path), *map(str, arguments)]),
        mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except Exception:
            traceback.print_exc()
            code = 1
    return Result(code, stdout.getvalue(), stderr.getvalue())


def assert_resumes(result: Result, script: str, folder: Path) -> None:
    """The output ends in a command that continues the folder, quoted for a shell and good from any directory.

    Modules in which the tests' own networks lie, named by import paths, are named once more: the folder's settings have
    the paths, and names out of files import nothing.
    """
    (line,) = (line for line in result.stdout.splitlines() if " --resume" in line)
    words = shlex.split(line.rpartition("continue with: ")[2])
    expected = [sys.executable, str(SCRIPTS / f"{script}.py"), "--out", str(folder.resolve()), "--resume"]
    assert words[: len(expected)] == expected
    plugins = words[len(expected) :]
    assert not plugins or (plugins[0] == "--plugins" and len(plugins) > 1)
    assert all(module.startswith("tests.") for module in plugins[1:])


def assert_refused(result: Result, match: str) -> None:
    """Exit code 2 and one clear line that says `match`."""
    assert result.code == 2, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    assert result.complaint.startswith("error: "), result.stderr
    assert result.stderr.count("error: ") == 1
    assert match in result.complaint


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)  # which names its last owner
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
