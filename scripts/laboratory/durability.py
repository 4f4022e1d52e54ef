"""Tiny runs that are killed, and what is left of them beside what an uninterrupted run leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from safetensors import safe_open
from ssdkd_agents.commands.main import main as ssdkd
from ssdkd_agents.lines import read_lines
from ssdkd_agents.ownership import LOCK
from tqdm import tqdm

#: Of an episode that takes a moment.
_BUDGET = {"rounds": 3, "warmup_rounds": 1, "candidates": 8, "inversion_steps": 1, "student_steps": 2, "batch_size": 8}
TINY = [word for name, value in _BUDGET.items() for word in (f"--env.budget.{name}", str(value))]
_STEPS = ["--evaluate-every-steps", "6", "--evaluation-episodes", "1", "--no-progress-bar"]
_PPO = ["n_envs=1", "n_steps=4", "batch_size=4", "n_epochs=1"]
#: Subcommand of `ssdkd` → the rest of a command that takes a second or two, but for --out.
COMMANDS = {
    "train": ["--timesteps", "12", "--checkpoint-every-steps", "4", *_STEPS, *TINY, "--hyperparameters", *_PPO],
    "search": ["--searcher", "random", "--episodes", "4", "--num-envs", "1", *_STEPS, *TINY],
    "benchmark": ["--methods", "ssdkd", "fast2", "--seeds", "2", "--processes", "1", *TINY],
    "distill": [word.replace("--env.", "--") for word in TINY],
    "teacher": [
        *("--task", "digits", "--settings.epochs", "3", "--settings.batch-size", "500", "--no-progress-bar"),
        *("--checkpoint-every-epochs", "1", "--evaluate-every-epochs", "1"),
    ],
}
#: Audited events that change what is on the disk; `open` does where it is for writing.
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Entries of JSON that the clock, the machine and the command give.
_VOLATILE = {
    *(
        "seconds",
        "wall",
        "processor",
        "synthesis",
        "distillation",
        "wall_seconds",
        "processor_seconds",
        "command",
        "run",
        "out",
    ),
    *("peak_memory_mib", "machine", "versions", "created", "time", "t"),
}
#: Beside a finished run these are no left-overs.
_ALWAYS = {LOCK, "command.txt"}


#: Takes the name of an audited event and its arguments.
AuditHook = Callable[[str, tuple[Any, ...]], None]


class Ended(NamedTuple):
    """How a command ended: its exit code, or minus the signal; what it printed; the events that it had."""

    code: int
    text: str
    events: int


class Command:
    """`ssdkd` in a process forked from this one, which has imported everything.

    Args:
        words: of the command.
        folder: whose files' events count.
        at_event: the process kills itself with SIGKILL right before its event of this number, from 0.
        log: what its own files are called, but for their endings; they lie beside the folder where None.
    """

    def __init__(self, words: list[str], folder: Path, at_event: int | None = None, log: Path | None = None) -> None:
        self._log, self._counter = ((log or folder).with_suffix(f".{kind}") for kind in ("log", "events"))
        self.process = os.fork()
        if self.process == 0:
            become(words, self._log, _counter(folder, self._counter, at_event))

    def wait(self) -> Ended:
        """Until it ends."""
        _, status = os.waitpid(self.process, 0)
        events = self._counter.stat().st_size if self._counter.exists() else 0
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return Ended(os.waitstatus_to_exitcode(status), text, events)


def run(words: list[str], folder: Path, after: float | None = None, **options: Any) -> Ended:
    """Run a `Command` to its end, or kill it `after` so many seconds."""
    command = Command(words, folder, **options)
    if after is not None:
        time.sleep(after)
        os.kill(command.process, signal.SIGKILL)
    return command.wait()


def become(words: list[str], log: Path, hook: AuditHook) -> NoReturn:
    """In a forked child: be the command with these words, which prints into a file and whose events are audited."""
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.argv = ["ssdkd", *words]
        tqdm._instances.clear()  # type: ignore[attr-defined]  # bars of the parent's, below which this one's would be
        sys.addaudithook(hook)
        ssdkd(words)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException as error:
        print(f"Traceback: {type(error).__name__}: {error}", flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _counter(folder: Path, counter: Path, at_event: int | None) -> AuditHook:
    """An audit hook that writes a byte for each event in the folder, and kills the process at one of them."""
    count, prefix = 0, str(folder)
    handle = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & _WRITES:
                return
        elif event not in _CHANGES:
            return
        paths = (os.fsdecode(word) for word in arguments if isinstance(word, str | bytes | os.PathLike))
        if not any(path.startswith(prefix) for path in paths):
            return
        if count == at_event:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        os.write(handle, b".")

    return hook


def essence(folder: Path) -> dict[str, Any]:
    """What a run has left, but for what the clock and the machine give: file → its content, of pictures their names."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name in _ALWAYS or "tfevents" in name:
            continue
        if path.suffix == ".jsonl":
            lines = [_stable(line) for line in read_lines(path)]
            if all("label" in line for line in lines):  # a benchmark's, in the order in which its processes ended them
                lines.sort(key=lambda line: (line["label"], line["seed"]))
            found[name] = lines
        elif path.suffix == ".json" and not name.endswith(".manifest.json"):  # its digests are of files with times
            found[name] = _stable(json.loads(path.read_text()))
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                found[name] = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
        else:
            found[name] = None
    return found


def _stable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _stable(item) for name, item in value.items() if name not in _VOLATILE and "second" not in name}
    return [_stable(item) for item in value] if isinstance(value, list) else value


class Fate(NamedTuple):
    """What became of a run that was disturbed.

    Attributes:
        resumed: whether it could be resumed, to its end.
        differs: where it differs from one that nobody disturbed; empty where it does not.
        left_over: files that such a one has not.
        text: what was printed.
    """

    resumed: bool
    differs: str
    left_over: tuple[str, ...]
    text: str

    @property
    def identical(self) -> bool:
        """Whether it is the run that nobody disturbed."""
        return not self.differs


def resume(command: str, folder: Path, expected: Mapping[str, Any]) -> Fate:
    """Resume a run as its user would, and compare it with one that nobody disturbed."""
    ended = run([command, "--out", str(folder), "--resume"], folder)
    if not folder.exists() or (ended.code == 2 and "holds no run" in ended.text):
        ended = run([command, "--out", str(folder), *COMMANDS[command]], folder)
    done = ended.code == 2 and "has already done" in ended.text  # it had ended before it was disturbed
    if (ended.code != 0 and not done) or "Traceback" in ended.text:
        return Fate(False, "", (), ended.text)
    found = essence(folder)
    places = [place for name in expected if (place := difference(found.get(name), expected[name], name))]
    return Fate(True, ", ".join(places), tuple(sorted(found.keys() - expected.keys())), ended.text)


def damaged(checkpoints: Path) -> Iterator[tuple[str, str, bytes]]:
    """Part of the newest checkpoint, what is done to it, and what it then holds."""
    newest, before = sorted({int(path.name.partition(".")[0]) for path in checkpoints.iterdir()}, reverse=True)[:2]
    for path in sorted(checkpoints.rglob("*")):
        part = str(path.relative_to(checkpoints))
        if not path.is_file() or not part.startswith(f"{newest}."):
            continue
        content = path.read_bytes()
        for place in (8, len(content) // 2, len(content) - 2):
            changed = bytearray(content)
            changed[place] ^= 1
            yield part, "one bit", bytes(changed)
        older = checkpoints / part.replace(f"{newest}.", f"{before}.", 1)
        yield part, "the part of the checkpoint before", older.read_bytes()


def difference(found: Any, expected: Any, place: str) -> str:
    """Where two contents differ first, as a path from `place`; empty where they do not."""
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        pairs = [(found[key], expected[key], f"{place}.{key}") for key in expected]
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = [
            (mine, other, f"{place}[{number}]")
            for number, (mine, other) in enumerate(zip(found, expected, strict=True))
        ]
    else:
        return "" if found == expected else place
    return next((deeper for pair in pairs if (deeper := difference(*pair))), "")
