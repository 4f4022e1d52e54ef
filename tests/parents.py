"""Parents that are killed, and what becomes of the processes that they have started."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
#: Seconds that a process may live longer than its parent; far more than it needs, for the machine may be busy.
LONGEST = 20.0


def outliving(code: str, processes: int, computing_for: float = 0.0) -> list[int]:
    """Kill a parent with SIGKILL; gives those of its processes that are alive `LONGEST` seconds later, and kills them.

    Args:
        code: of the parent, which prints a line as soon as its processes are doing what they are to be killed at.
        processes: how many it then has.
        computing_for: seconds between that line and the parent's death.
    """
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline(), "it has failed before its processes were there"
            time.sleep(computing_for)
            started = psutil.Process(parent.pid).children(recursive=True)
            working = [process for process in started if "resource_tracker" not in " ".join(process.cmdline())]
        finally:
            parent.kill()
        assert len(working) == processes
        _, alive = psutil.wait_procs(working, timeout=LONGEST)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return [process.pid for process in alive]
