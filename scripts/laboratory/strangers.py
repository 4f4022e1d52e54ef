"""Files that a stranger might send: harmless ones, each read by the command that a user would read it with."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from ssdkd_agents.machine import MIB

from laboratory.durability import COMMANDS, TINY, AuditHook, become, run
from ssdkd_env.errors import InvalidInputError

#: Modules that nothing of ours imports: one of our own making, and two of the standard library.
CANARIES = ("stranger", "antigravity", "this")
#: Audited events by which a process reaches for something outside itself.
_REACHES = ("socket.connect", "socket.getaddrinfo", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
#: Beyond these a command is killed, so that a file which we fail to refuse costs the machine nothing: MiB, seconds.
_MOST_MEMORY, _MOST_SECONDS = 3000.0, 60.0
#: How often a command's memory is read, in seconds.
_EVERY = 0.02
#: Sound runs that strangers' files are made of → words of their commands, but for --out.
_SOUND: dict[str, list[str]] = {
    **COMMANDS,
    "evaluate": ["--samplers", "paper", "--episodes", "1", "--processes", "1", *TINY],
}


class Watched(NamedTuple):
    """What a command did with a file.

    Attributes:
        code: its exit code, or minus the signal.
        text: what it printed.
        reached: canaries that it imported, and events by which it reached for something outside itself.
        memory: largest resident memory above what it had when it began, in MiB.
        seconds: wall time.
    """

    code: int
    text: str
    reached: tuple[str, ...]
    memory: float
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What it printed; a carriage return takes a progress bar away."""
        return self.text.replace("\r", "\n").splitlines()

    @property
    def printable(self) -> bool:
        """Whether no character that it printed acts on a terminal."""
        return all(character.isprintable() for line in self.lines for character in line)

    @property
    def one_line(self) -> bool:
        """Whether it was refused in one line that names a remedy, without a traceback or a character of control."""
        errors = [line for line in self.lines if line.startswith("error: ")]
        return self.code == 2 and len(errors) == 1 and "Traceback" not in self.text and self.printable


def sound_runs(folder: Path) -> dict[str, Path]:
    """Make a tiny run of each kind, and what is exported from one; the kind → its folder.

    Raises:
        InvalidInputError: when a command does not run here.
    """
    made: dict[str, Path] = {}
    for kind, words in _SOUND.items():
        made[kind] = folder / kind
        _do([kind, "--out", str(made[kind]), *words], folder)
    made["export"] = folder / "export"
    _do(["export", "--sampler", str(made["train"]), "--out", str(made["export"])], folder)
    return made


def _do(words: list[str], folder: Path) -> None:
    ended = run(words, folder / "log")
    if ended.code != 0:
        raise InvalidInputError(f"{words[0]} does not run here: {ended.text[-300:]}")


def watch(words: list[str], log: Path) -> Watched:
    """Run `ssdkd` with these words in a process forked from this one, and watch it.

    Args:
        words: of the command.
        log: file for what it prints; what it reaches for is listed beside it.
    """
    reached = log.with_suffix(".reached")
    reached.unlink(missing_ok=True)
    started = time.perf_counter()
    process = os.fork()
    if process == 0:
        become(words, log, _listing(reached))
    child = psutil.Process(process)
    first, peak, seconds, ended = child.memory_info().rss, 0, 0.0, (0, 0)
    while ended[0] == 0:
        time.sleep(_EVERY)
        ended = os.waitpid(process, os.WNOHANG)
        seconds = time.perf_counter() - started
        if ended[0] == 0:
            peak = max(peak, child.memory_info().rss)
            if peak - first > _MOST_MEMORY * MIB or seconds > _MOST_SECONDS:
                child.kill()
    names = reached.read_text().split() if reached.exists() else []
    text = log.read_text(errors="replace")
    return Watched(os.waitstatus_to_exitcode(ended[1]), text, tuple(names), max(peak - first, 0) / MIB, seconds)


def _listing(reached: Path) -> AuditHook:
    """An audit hook that lists what is reached for."""
    handle = os.open(reached, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and str(arguments[0]) == "uname":
            return  # by which Python's `platform` says what machine this is
        found = f"{event}:{str(arguments[0])[:60]}".replace(" ", "_") if event in _REACHES else ""
        # Not the event `import`, which `importlib.import_module` does not raise.
        if event == "exec" and (name := Path(getattr(arguments[0], "co_filename", "")).stem) in CANARIES:
            found = f"import:{name}"
        if found:
            os.write(handle, f"{found}\n".encode())

    return hook


def plant(folder: Path) -> None:
    """Put a module `stranger` where imports find it: what a careless reader would import."""
    (folder / "stranger.py").write_text("def __getattr__(name):\n    return dict\n")
    sys.path.insert(0, str(folder))
