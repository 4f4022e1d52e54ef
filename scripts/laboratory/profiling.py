"""Where the time of a round goes: sums over the ranges that the engine opens for PyTorch's profiler.

A phase is a stretch of the round, a part is what is done in it: a second belongs to the innermost of both, so that all
together are the whole round. See `ssdkd_env.ranges`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

from ssdkd_agents.analysis.markdown import markdown_table
from torch.profiler import ProfilerActivity, profile, record_function

from laboratory.common import Environments, timed, wait_for
from ssdkd_env import ranges
from ssdkd_env.ranges import PART, PHASE

#: Seconds of a round outside every phase, and those of a phase outside every part.
REST, OTHER = "rest", "other"
#: Rows of a table in this order.
ROWS = (*ranges.PHASES, REST)
#: The range of a whole round.
ROUND = PHASE + "round"


def begin(side: Environments) -> None:
    """Do the first round, in which things are set up that stay."""
    side.ready()
    side.once()


def measure(marked: Environments, plain: Environments, rounds: int) -> Iterator[dict[str, Any]]:
    """Do the same rounds on two equal sides that have begun, in turns: under the profiler, and without it.

    Yields:
        A line a round: `wall` and `bare`, its seconds with the profiler and without; `labels`, see `exclusive`.
    """
    for index in range(rounds):
        for side in (marked, plain)[:: 1 if index % 2 else -1]:  # each is first equally often
            if side is plain:
                _, bare = timed(side.device, side.once)
            else:
                labels = exclusive(profiled(side).events())
        yield {"wall": sum(label["seconds"] for label in labels.values()), "bare": bare, "labels": labels}


def profiled(side: Environments) -> profile:
    """What PyTorch's profiler saw of a round. On a GPU every range waits for the device."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if side.device.type == "cuda" else [])
    profiler: profile = profile(activities=activities)
    with ranges.waiting(partial(wait_for, side.device)), profiler, record_function(ROUND):
        side.once()
        wait_for(side.device)
    return profiler


def exclusive(events: Iterable[Any]) -> dict[str, dict[str, float]]:
    """`phase` or `phase: part` → `seconds`, without those of the labels inside it, and `calls`.

    Args:
        events: of the profiler.
    """
    spans = [(event.time_range.start, -event.time_range.end, event.name) for event in events if _is_range(event)]
    labels: dict[str, dict[str, float]] = {}
    around: list[tuple[float, str, str]] = []  # end, phase, label
    for start, minus_end, name in sorted(spans):
        while around and around[-1][0] <= start:
            around.pop()
        phase = around[-1][1] if name.startswith(PART) else name.replace(ROUND, REST).removeprefix(PHASE)
        label = f"{phase}: {name.removeprefix(PART)}" if name.startswith(PART) else phase
        entry = labels.setdefault(label, {"seconds": 0.0, "calls": 0})
        entry["seconds"] += (-minus_end - start) / 1e6
        if around:
            labels[around[-1][2]]["seconds"] -= (-minus_end - start) / 1e6
        if not around or around[-1][2] != label:  # the same label once more goes on with it
            entry["calls"] += 1
        around.append((-minus_end, phase, label))
    return labels


def _is_range(event: Any) -> bool:
    return bool(event.device_type.name == "CPU" and event.name.startswith((PHASE, PART)))


class Row(NamedTuple):
    """A part of a phase: seconds and calls a round, the mean of the measured ones."""

    phase: str
    part: str
    seconds: float
    calls: float


def rows_of(measured: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each label, phase by phase, the largest part first; their seconds sum to the mean round."""
    rows = []
    for label in {label for one in measured for label in one["labels"]}:
        phase, _, part = label.partition(": ")
        found = [one["labels"].get(label, {"seconds": 0.0, "calls": 0}) for one in measured]
        rows.append(
            Row(phase, part or OTHER, *(fmean(entry[name] for entry in found) for name in ("seconds", "calls")))
        )
    return sorted(rows, key=lambda row: (ROWS.index(row.phase), -row.seconds))


def table_of(rows: Sequence[Row]) -> str:
    """Markdown: a line for each row, and the whole round."""
    whole = sum(row.seconds for row in rows)
    calls = ["" if row.part == OTHER else f"{row.calls:g}" for row in rows]  # what is left over is not called
    cells = [[row.phase, row.part, *_cells(row.seconds, whole), n] for row, n in zip(rows, calls, strict=True)]
    columns = ["phase", "part", "ms a round", "share", "calls a round"]
    return markdown_table(columns, [*cells, ["all", "", *_cells(whole, whole), ""]])


def sums_of(rows: Sequence[Row], by: str) -> str:
    """Markdown: the sums by `"phase"` or by `"part"`, the largest first."""
    names = {getattr(row, by) for row in rows}
    sums = {name: sum(row.seconds for row in rows if getattr(row, by) == name) for name in names}
    cells = [[name, *_cells(sums[name], sum(sums.values()))] for name in sorted(sums, key=lambda n: -sums[n])]
    return markdown_table([by, "ms a round", "share"], cells)


def _cells(seconds: float, whole: float) -> list[str]:
    return [f"{1000 * seconds:.2f}", f"{100 * seconds / whole:.1f} %"]
