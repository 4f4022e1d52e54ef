"""Where the time of a round goes, as a table and as a trace for a browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ssdkd_agents.analysis.statistics import Interval, bootstrap_mean
from ssdkd_agents.environments import env_arguments, make_env
from ssdkd_agents.machine import MIB
from torch.profiler import ProfilerActivity, profile, record_function

from laboratory.labelling import labelled
from laboratory.machine import timed, wait_for
from laboratory.stopwatch import OTHER, PHASES, Label, Labels, Stopwatch, TraceMarks
from ssdkd_env.distillation import DistillationRun
from ssdkd_env.envs.distillation import StepResult
from ssdkd_env.envs.members import LocalMembers
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import write_atomically

#: Name of a whole round in a trace.
ROUND = "round"
#: Rounds at the beginning that are done and not measured: in the first one things are set up that stay.
UNMEASURED = 1


class Environments:
    """Environments that go through their rounds together, with the paper's sampler.

    Args:
        env_id: environment.
        env_kwargs: its arguments.
        count: how many; equal work of several is done together.
        seed: of the first, the others have the next ones.

    Attributes:
        device: of all of them.
        rounds: of an episode.

    Raises:
        InvalidInputError: when the environment cannot be made of this.
    """

    def __init__(self, env_id: str, env_kwargs: Mapping[str, Any], count: int, seed: int) -> None:
        first = make_env(env_id, dict(env_kwargs))
        self.device, self.rounds = first.device, first.budget.rounds
        self._members = LocalMembers(env_arguments(env_id, dict(env_kwargs)), count, grouped=count > 1)
        self._actions = dict.fromkeys(range(count), first.paper_action)
        self._seeds = {index: seed + index for index in range(count)}

    def begin(self, labels: Labels | None = None) -> None:
        """Reset, and do the rounds that are not measured: with labels, if those that follow have them.

        A compiler compiles anew what has been wrapped.
        """
        self._members.reset({index: {"seed": seed} for index, seed in self._seeds.items()})
        with labelled(labels, self.runs) if labels is not None else nullcontext():
            for _ in range(UNMEASURED):
                self.once()

    def once(self) -> dict[int, StepResult]:
        """A round of every environment; what each gave."""
        return self._members.step(self._actions)

    @property
    def runs(self) -> list[DistillationRun]:
        """The run of each, after `begin`."""
        return [env.run for env in self._members.envs if env.run is not None]


@dataclass(frozen=True)
class MeasuredRound:
    """One round, measured with labels and without.

    Attributes:
        seconds: of each label, without those of the labels inside it.
        calls: how often each label was entered.
        wall: seconds of the whole round, with labels.
        bare: seconds of the same round without any.
    """

    seconds: Mapping[Label, float]
    calls: Mapping[Label, int]
    wall: float
    bare: float

    def line(self) -> dict[str, Any]:
        """As JSON."""
        labels = {
            str(label): {"seconds": seconds, "calls": self.calls.get(label, 0)}
            for label, seconds in self.seconds.items()
        }
        return {"wall": self.wall, "bare": self.bare, "labels": labels}


@dataclass(frozen=True)
class Row:
    """A part of a phase: seconds and calls a round, the mean of the measured ones."""

    phase: str
    part: str
    seconds: float
    calls: float


def check_rounds(budget: int, rounds: int, traced: int) -> None:
    """Refuse more rounds than an episode has.

    Raises:
        InvalidInputError: when the budget is too small, or a number is below 1.
    """
    for name, number in (("rounds", rounds), ("trace-rounds", traced)):
        if number < 1:
            raise InvalidInputError(f"--{name} {number}: expected at least 1")
    if UNMEASURED + rounds + traced > budget:
        raise InvalidInputError(
            f"--rounds {rounds}: with {UNMEASURED} before them and --trace-rounds {traced} after them more than the "
            f"budget's {budget}; give fewer, or --env.budget.rounds {UNMEASURED + rounds + traced}"
        )


def measure(marked: Environments, plain: Environments, rounds: int) -> Iterator[MeasuredRound]:
    """Do the same rounds on two equal sides, in turns.

    Args:
        marked: with labels; has begun.
        plain: without; has begun.
        rounds: of each.
    """
    for index in range(rounds):
        watch, bare = Stopwatch(partial(wait_for, marked.device)), 0.0
        for side in (marked, plain)[:: 1 if index % 2 else -1]:  # each is first equally often
            if side is plain:
                _, bare = timed(side.device, side.once)
            else:
                with labelled(watch, side.runs), watch.running():
                    side.once()
        yield MeasuredRound(watch.seconds, watch.calls, watch.wall, bare)


def rows_of(measured: Sequence[MeasuredRound]) -> list[Row]:
    """A row for each label, phase by phase, the largest part first; their seconds sum to the mean round."""
    count = len(measured)
    rows = [
        Row(
            *label,
            seconds=sum(one.seconds.get(label, 0.0) for one in measured) / count,
            calls=sum(one.calls.get(label, 0) for one in measured) / count,
        )
        for label in {label: None for one in measured for label in one.seconds}
    ]
    return sorted(rows, key=lambda row: (PHASES.index(row.phase), -row.seconds))


def table_of(rows: Sequence[Row]) -> str:
    """Markdown: a line for each row, and the whole round."""
    whole = sum(row.seconds for row in rows)
    lines = ["| phase | part | ms a round | share | calls a round |", "|---|---|---:|---:|---:|"]
    for row in rows:
        calls = "" if row.part == OTHER else f"{row.calls:g}"  # what is left over is not called
        lines.append(f"| {row.phase} | {row.part} | {_cells(row.seconds, whole)} | {calls} |")
    return "\n".join([*lines, f"| all | | {_cells(whole, whole)} | |"])


def sums_of(rows: Sequence[Row], by: str) -> str:
    """Markdown: the sums by `"phase"` or by `"part"`, the largest first."""
    sums: dict[str, float] = {}
    for row in rows:
        name = getattr(row, by)
        sums[name] = sums.get(name, 0.0) + row.seconds
    lines = [f"| {by} | ms a round | share |", "|---|---:|---:|"]
    for name, seconds in sorted(sums.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {_cells(seconds, sum(sums.values()))} |")
    return "\n".join(lines)


def _cells(seconds: float, whole: float) -> str:
    return f"{1000 * seconds:.2f} | {100 * seconds / whole:.1f} %"


def overhead_of(measured: Sequence[MeasuredRound]) -> Interval:
    """Seconds of a round with labels over those of the same round without: what measuring costs."""
    return bootstrap_mean(one.wall / one.bare for one in measured)


def write_trace(path: Path, side: Environments, rounds: int) -> float:
    """Do rounds under PyTorch's profiler, with the same labels, and write what it saw.

    Args:
        path: JSON for Perfetto or chrome://tracing; compressed where it ends in `.gz`.
        side: which has begun.
        rounds: to do.

    Returns:
        The file's size in MiB.

    Raises:
        InvalidInputError: when the file cannot be written.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if side.device.type == "cuda" else [])
    with labelled(TraceMarks(), side.runs), profile(activities=activities) as profiler:
        for _ in range(rounds):
            with record_function(ROUND):
                side.once()
            wait_for(side.device)
    write_atomically(path, lambda temporary: profiler.export_chrome_trace(str(temporary)))
    return path.stat().st_size / MIB
