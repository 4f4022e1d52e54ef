"""Where the time of a round goes: ranges of PyTorch's profiler around the engine's functions, and their sums.

For the duration of a `with` block the functions that matter open a range (`torch.profiler.record_function`). A phase
is a stretch of the round, a part is what is done in it: a second belongs to the innermost of both, so that all
together are the whole round. The engine's own ranges (`ssdkd::…`) are phases too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from statistics import fmean
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.hooks import RemovableHandle

from laboratory.common import Environments, timed, wait_for
from ssdkd_env.distillation import DistillationRun, grouped, objective, priority, sources, student, updates
from ssdkd_env.distillation import run as run_module
from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.batch_norm import BatchNormStatistics
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.distillation.objective import Objective
from ssdkd_env.distillation.student import StudentTrainer
from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.distillation.work import LogitsWork, SynthesisWork, TrainingWork
from ssdkd_env.envs.observations import Observer
from ssdkd_env.networks.grouping import NetworkGroup

#: How the names of ranges begin, and the range of a whole round.
PHASE, PART, ROUND = "ssdkd::", "part::", "ssdkd::round"
#: Seconds of a round outside every phase, and those of a phase outside every part.
REST, OTHER = "rest", "other"
#: Phases in the order of a round, and the functions that open them.
PHASES: dict[str, tuple[tuple[Any, str], ...]] = {
    "synthesis": ((SynthesisWork, "alone"), (GroupedRuns, "_synthesize")),
    "logits": ((LogitsWork, "alone"), (GroupedRuns, "_answer")),
    "comparison": tuple((priority, name) for name in ("class_share", "confidence", "discrepancy", "agreement")),
    "buffer": ((DistillationRun, "_update_buffer"),),
    "sampling": tuple((priority, f) for f in ("sampling_probabilities", "importance_weights", "draw_with_replacement")),
    "training": ((TrainingWork, "alone"), (GroupedRuns, "_train")),
    "observation": ((run_module, "make_report"), (Observer, "see"), (Observer, "observation")),
    REST: (),
}
#: Parts and the functions that open them; teacher, student and generator are told by their networks.
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "gather": ((StudentTrainer, "look_at"),),
    "augmentation": ((objective, "random_crop_flip"), (student, "random_crop_flip"), (Normalize, "__call__")),
    "loss": (
        *((Objective, "__call__"), (StudentTrainer, "loss")),
        *((updates, "loss_gradient"), (updates, "distillation_loss")),
    ),
    "statistics": ((BatchNormStatistics, "loss"),),
    "backward": ((Tensor, "backward"),),
    "optimiser": (
        *((torch.optim.Adam, "step"), (torch.optim.SGD, "step"), (FastUpdate, "_descend")),
        *((sources, "make_adam"), (grouped, "make_adam")),
    ),
    "grouping": (
        *((NetworkGroup, "gather"), (NetworkGroup, "scatter"), (FastUpdate, "join"), (FastUpdate, "part")),
        (grouped, "_by_minibatch"),
    ),
}


@contextmanager
def ranges(side: Environments) -> Iterator[None]:
    """Let the engine's functions open ranges, and put all back at the end. Numbers do not change."""

    @contextmanager
    def opened(name: str) -> Iterator[None]:
        wait_for(side.device)
        with record_function(name):
            yield
            wait_for(side.device)

    with ExitStack() as undo:
        for prefix, places in ((PHASE, PHASES), (PART, PARTS)):
            for label, functions in places.items():
                for owner, name in functions:
                    wrapped = opened(prefix + label)(getattr(owner, name))
                    undo.enter_context(mock.patch.object(owner, name, wrapped))
        for hook in _network_hooks(side.runs, opened):
            undo.callback(hook.remove)
        yield


def _network_hooks(runs: Sequence[DistillationRun], opened: Callable[[str], Any]) -> list[RemovableHandle]:
    """Hooks that make parts of the passes of the runs' networks, and of groups of them, by their roles."""
    roles = {id(network): "teacher" for run in runs for network in (run.teacher, run._logits_teacher)}
    roles |= {id(network): "student" for run in runs for network in (run.student, run._answering.network)}
    generators = {type(run.task.build_generator(0)) for run in runs}  # which work on clones
    passing: list[tuple[nn.Module, Any]] = []

    def before(network: nn.Module, _: Any) -> None:
        if torch.compiler.is_compiling() or passing:  # what is compiled here keeps no range
            return
        own = getattr(network, "_orig_mod", network)  # of a compiled network
        is_group = isinstance(own, NetworkGroup)
        is_generator = type(own.network if is_group else own) in generators
        name = "generator" if is_generator else "student" if is_group else roles.get(id(own))
        if name is not None:
            passing.append((network, opened(PART + name)))
            passing[-1][1].__enter__()

    def after(network: nn.Module, *_: Any) -> None:
        if not torch.compiler.is_compiling() and passing and passing[-1][0] is network:
            passing.pop()[1].__exit__(None, None, None)

    return [register_module_forward_pre_hook(before), register_module_forward_hook(after, always_call=True)]


def begin(side: Environments, marked: bool) -> None:
    """Do the first round, in which things are set up that stay; compilers want its ranges then."""
    side.ready()
    with ranges(side) if marked else nullcontext():
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
                labels = exclusive(profiled(side, 1).events())
        yield {"wall": sum(label["seconds"] for label in labels.values()), "bare": bare, "labels": labels}


def profiled(side: Environments, rounds: int) -> profile:
    """What PyTorch's profiler saw of some rounds, with the ranges."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if side.device.type == "cuda" else [])
    profiler: profile = profile(activities=activities)
    with ranges(side), profiler:
        for _ in range(rounds):
            with record_function(ROUND):
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
    return sorted(rows, key=lambda row: ([*PHASES].index(row.phase), -row.seconds))


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
    names = {getattr(row, by) for row in rows}
    sums = {name: sum(row.seconds for row in rows if getattr(row, by) == name) for name in names}
    lines = [f"| {name} | {_cells(sums[name], sum(sums.values()))} |" for name in sorted(sums, key=lambda n: -sums[n])]
    return "\n".join([f"| {by} | ms a round | share |", "|---|---:|---:|", *lines])


def _cells(seconds: float, whole: float) -> str:
    return f"{1000 * seconds:.2f} | {100 * seconds / whole:.1f} %"
