"""What a benchmark's result lines say: a table with intervals, and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdkd_agents.analysis.markdown import EMPTY, escaped, markdown_table
from ssdkd_agents.analysis.results import SCORES
from ssdkd_agents.analysis.statistics import IN_PLACE, METHOD, bootstrap_mean, paired_differences
from ssdkd_agents.benchmarking.experiments import EPISODE_SECONDS
from ssdkd_agents.benchmarking.sampler_report import make_sampler_table, write_sampler_pictures
from ssdkd_agents.benchmarking.sampler_report import note as note_on_samplers
from ssdkd_agents.plotting.plots import plot_accuracy_seconds, plot_distributions, plot_scale
from ssdkd_env.files import write_atomically

COLUMNS = (
    "entry",
    "episodes",
    "held-out accuracy",
    "accuracy",
    "probe agreement",
    "held-out − first entry's",
    "synthesis s",
    "distillation s",
    "wall s",
    "processor s",
    "images synthesised",
    "peak memory MiB",
)
NOTE = (
    f"Means over seeds, whose intervals are {METHOD}, over the seeds; {IN_PLACE}. Medians of seconds and of memory. "
    "Held-out accuracy is on real "
    "images that neither the task's own teacher nor a student was trained on, accuracy on all of the task's evaluation "
    "data. The difference is of the held-out accuracy, paired seed by seed (where the size of the buffer varies, to "
    "the first entry of that size). The probe agreement compares students of one method: its images come from a "
    "generator like SSD-KD's, so that it does not rank methods."
)
DENSE_NOTE = (
    "The mean IoU is over one confusion matrix of all evaluation images; classes that occur nowhere are left out, void "
    "pixels do not count. Differences are of it, too."
)

#: Where a curve is read, as shares of its steps.
QUARTERS = (0.25, 0.5, 0.75, 1.0)
#: What of a curve is a cost → its column.
CURVE_COSTS = {"processor_seconds": "processor s", "seconds": "wall s", "synthesized": "images synthesised"}

Result = Mapping[str, Any]


def write_report(results: Sequence[Result], planned: int, folder: Path, scale: bool, samplers: bool = False) -> str:
    """Write `table.md` and the pictures; returns the table.

    Args:
        results: lines of a benchmark, at least one.
        planned: episodes of the whole benchmark.
        folder: where to write.
        scale: whether the entries vary the size of the buffer.
        samplers: whether the entries differ in nothing but their samplers.
    """
    if samplers:
        table = f"{make_sampler_table(results)}\n\n{describe(results, planned, note_on_samplers())}"
        write_sampler_pictures(results, folder)
    else:
        table = f"{make_table(results, scale)}\n\n{describe(results, planned)}"
    write_atomically(folder / "table.md", lambda temporary: temporary.write_text(table + "\n"))
    curves = make_curve_table(results)
    if curves:
        write_atomically(folder / "curves.md", lambda temporary: temporary.write_text(curves + "\n"))
    plot_accuracy_seconds(results, folder / "accuracy-seconds.png")
    plot_distributions(results, folder / "distributions.png")
    if scale:
        plot_scale(results, folder / "scale.png")
    return table


def make_table(results: Sequence[Result], scale: bool = False) -> str:
    """A Markdown table, a row for each entry in the order of the lines.

    Args:
        results: lines of a benchmark, at least one.
        scale: whether differences are to the first entry with the same size of the buffer; else to the first of all.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["label"], []).append(result)
    first: dict[Any, str] = {}
    rows = []
    for label, lines in groups.items():
        reference = first.setdefault(lines[0]["env_kwargs"].get("buffer_scale") if scale else None, label)
        rows.append(_row(label, lines, {} if label == reference else _held_out(groups[reference])))
    return markdown_table(_columns(results), rows)


def _columns(results: Sequence[Result]) -> tuple[str, ...]:
    """Names of the columns: of dense predictions the accuracies are the mean IoU and the share of pixels."""
    if not _is_dense(results):
        return COLUMNS
    named = {
        "held-out accuracy": "mean IoU",
        "accuracy": "pixel accuracy",
        "held-out − first entry's": "mean IoU − first entry's",
    }
    return tuple(named.get(column, column) for column in COLUMNS)


def _is_dense(results: Sequence[Result]) -> bool:
    return any("mean_iou" in result["final"] for result in results)


def make_curve_table(results: Sequence[Result]) -> str:
    """A Markdown table of the accuracy after each quarter of the steps, with what it had cost; empty without curves.

    Args:
        results: lines of a benchmark. Of dense predictions it is the mean IoU.
    """
    rows, score = [], "mean_iou" if _is_dense(results) else "accuracy"
    for label in dict.fromkeys(result["label"] for result in results):
        curves = [line["curve"] for line in results if line["label"] == label and score in line["curve"]]
        for quarter in QUARTERS if curves else ():
            at = [(curve, round(quarter * (len(curve[score]) - 1))) for curve in curves]
            cost = (_median([curve[name][step] for curve, step in at if name in curve]) for name in CURVE_COSTS)
            reached = _mean([curve[score][step] for curve, step in at])
            rows.append((label, f"{quarter:.0%}".replace("%", " %"), reached, *cost))
    reached_name = SCORES[score] if score == "mean_iou" else score
    return markdown_table(("entry", "steps", reached_name, *CURVE_COSTS.values()), rows) if rows else ""


def describe(results: Sequence[Result], planned: int, note: str = NOTE) -> str:
    """What the numbers of the table are, on what they were measured, and what is missing or odd."""
    notes = [f"{len(results)} of {planned} episodes, on {_list({result['env_id'] for result in results})}. {note}"]
    if _is_dense(results):
        notes.append(DENSE_NOTE)
    diverged = sum(result["final"]["diverged"] for result in results)
    if diverged:
        notes.append(f"Students that diverged: {diverged}; they count with the accuracy that they have.")
    machines = {
        "{cpu} ({cores} cores, {system}), device {device}, torch threads {torch_threads}".format(**result["machine"])
        for result in results
    }
    versions = {", ".join(f"{name} {version}" for name, version in result["versions"].items()) for result in results}
    notes.append(f"Measured on {_list(machines)}; {_list(versions)}.")
    return "\n\n".join(map(escaped, notes))


def _row(label: str, lines: Sequence[Result], first: Mapping[int, float]) -> tuple[str, ...]:
    held_out = _held_out(lines)
    diverged = sum(line["final"]["diverged"] for line in lines)
    return (
        label,
        f"{len(lines)}" + (f" ({diverged} diverged)" if diverged else ""),
        _mean(list(held_out.values())),
        _mean(list(_accuracies(lines).values())),
        _mean([line["final"]["probe_agreement"] for line in lines]),
        _mean(paired_differences(held_out, first)),
        *(_median_seconds(lines, part) for part in EPISODE_SECONDS),
        f"{np.median([line['final']['synthesized'] for line in lines]):.0f}",
        f"{np.median([line['peak_memory_mib'] for line in lines]):.0f}",
    )


def _median_seconds(lines: Sequence[Result], part: str) -> str:
    """Over the lines that have it: those of versions without the processor's clock do not."""
    return _median([line["seconds"][part] for line in lines if part in line["seconds"]])


def _median(values: Sequence[float]) -> str:
    return f"{np.median(values):.1f}" if values else "—"


def _accuracies(lines: Sequence[Result]) -> dict[int, float]:
    return {line["seed"]: line["final"]["accuracy"] for line in lines if "accuracy" in line["final"]}


def _held_out(lines: Sequence[Result]) -> dict[int, float]:
    if _is_dense(lines):
        return {line["seed"]: line["final"]["mean_iou"] for line in lines if "mean_iou" in line["final"]}
    return {line["seed"]: line["held_out_accuracy"] for line in lines if "held_out_accuracy" in line}


def _mean(values: Sequence[float]) -> str:
    return str(bootstrap_mean(values)) if values else EMPTY


def _list(values: set[str]) -> str:
    return " and ".join(sorted(values))
