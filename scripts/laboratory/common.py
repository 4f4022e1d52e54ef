"""What the measurements share: reading the clock and the memory, saying what was measured on, refusing numbers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from ssdkd_agents.machine import MIB, machine
from ssdkd_agents.runs import versions

from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs.distillation import StepResult
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_json
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.reading import read_json
from ssdkd_env.tasks.task import TaskSpec, build_teacher
from ssdkd_env.threads import alone

ResultT = TypeVar("ResultT")


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, call: Callable[[], ResultT]) -> tuple[ResultT, float]:
    """What a call returns, and its seconds with all the work that it gives to the device."""
    wait_for(device)
    started = time.perf_counter()
    result = call()
    wait_for(device)
    return result, time.perf_counter() - started


@contextmanager
def float64() -> Iterator[None]:
    """New numbers have double precision inside this block, so that two ways of computing them differ by little."""
    with alone():  # which puts the default away that it finds
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def memory_mib() -> float:
    """Resident memory of this process and of those that it started, in MiB."""
    here = psutil.Process()
    return sum(process.memory_info().rss for process in (here, *here.children())) / MIB


def about(device: torch.device) -> dict[str, Any]:
    """Versions and machine, as JSON."""
    return {"versions": versions(), "machine": machine(device)}


def untrained_teacher(spec: TaskSpec, path: Path) -> Path:
    """Write a teacher whose weights nobody has trained, on which times do not depend, unless it is there already."""
    if not path.exists():
        save_weights(path, build_teacher(spec, seed=0))
    return path


def check_least(args: object, **least: int) -> None:
    """Refuse numbers of a command line that are too small.

    Raises:
        InvalidInputError: when one is below what its name says here.
    """
    for name, lowest in least.items():
        if getattr(args, name) < lowest:
            raise InvalidInputError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least {lowest}")


def begun_with(path: Path, asked: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> list[str]:
    """Keep what the first call was asked to do, and name what a later call asks for otherwise.

    Args:
        path: of the file that keeps it.
        asked: JSON-able; what must stay.
        more: what is kept beside it, and may change.

    Returns:
        Names of `asked` that differ; none in the first call.

    Raises:
        InvalidInputError: when the file is of another command.
    """
    asked, more = json.loads(json.dumps(asked)), more or {}
    if not path.exists():
        write_json(path, {**asked, **more})
        return []
    before = read_json(path)
    if not isinstance(before, dict) or set(before) != {*asked, *more}:
        raise InvalidInputError(f"{path} is not of this command; give another --out")
    return [name for name, value in asked.items() if before[name] != value]


def in_turn(sides: Iterable[str], index: int) -> list[str]:
    """The sides in the order of a round: each is first, second and third equally often."""
    names = [*sides]
    turn = index % len(names)
    return names[turn:] + names[:turn]


class Environments:
    """Environments that go through their rounds side by side, with the paper's sampler.

    Args:
        kwargs: arguments of each.
        count: how many.
        backend: see `SubEnvironments`.
        processes: among which they are divided; None leaves it to the backend.

    Attributes:
        device: of their networks.
        rounds: of an episode.
    """

    def __init__(self, kwargs: dict[str, Any], count: int, backend: str, processes: int | None = None) -> None:
        if kwargs.get("work_scale") or (kwargs.get("budget") or {}).get("work"):
            raise InvalidInputError("work_scale, budget['work']: rounds are what is measured; leave them out")
        self._pool = SubEnvironments(count, kwargs, backend, processes)
        self.device, self.rounds = self._pool.first.device, self._pool.first.budget.rounds
        self._actions = dict.fromkeys(range(count), self._pool.first.paper_action)
        self._left = 0
        self.close = self._pool.close

    def ready(self) -> None:
        """Begin an episode where the last one has ended."""
        if not self._left:
            self._pool.reset({index: index for index in self._actions})
            self._left = self.rounds

    def once(self) -> dict[int, StepResult]:
        """A round of every environment; what each gave."""
        self._left -= 1
        return self._pool.step(self._actions)

    @property
    def runs(self) -> list[DistillationRun]:
        """The run of each, of those that share this process."""
        return self._pool.get([*self._actions], "run")
