"""The engine's ranges account for a whole round and change none of its numbers; the tables that they give."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from laboratory.common import Environments
from laboratory.profiling import (
    ROUND,
    Row,
    begin,
    exclusive,
    measure,
    profiled,
    rows_of,
    sums_of,
    table_of,
)
from torch.profiler import profile

from ssdkd_env.ranges import PARTS, PHASES
from tests.envs.episodes import BUDGET, SMALL_PROBE

STEPS, MINIBATCHES = BUDGET["inversion_steps"], BUDGET["student_steps"]


def begun(count: int = 1, **kwargs: Any) -> Environments:
    arguments = {"budget": BUDGET, "probe": SMALL_PROBE, "device": "cpu"} | kwargs
    environments = Environments(arguments, count, "grouped" if count > 1 else "loop")
    begin(environments)
    return environments


def calls_of(environments: Environments) -> dict[str, float]:
    return {label: entry["calls"] for label, entry in exclusive(profiled(environments).events()).items()}


# --- ranges ---


@pytest.mark.parametrize(
    ("count", "kwargs"),
    [
        (1, {}),
        (1, {"backend": "plain"}),
        (3, {}),
        (2, {"backend": "plain"}),
        (1, {"method": "deepinversion", "method_options": {"steps": 2}}),
        (1, {"method": "cmi", "method_options": {"steps": 2}}),
        (1, {"method": "vanilla_kd"}),
    ],
)
def test_ranges_change_no_number(count: int, kwargs: dict[str, Any]) -> None:
    marked, plain = begun(count, **kwargs), begun(count, **kwargs)
    with profile() as profiler:
        results = marked.once()
    expected = plain.once()
    assert list(results) == list(expected) == list(range(count))
    for index in range(count):
        np.testing.assert_array_equal(results[index][0], expected[index][0])
        assert results[index][1:] == expected[index][1:]
    for run, other in zip(marked.runs, plain.runs, strict=True):
        for one, same in zip(run.student.parameters(), other.student.parameters(), strict=True):
            assert torch.equal(one, same)
    labels = [label.partition(": ") for label in exclusive(profiler.events())]
    assert {phase for phase, _, _ in labels} <= set(PHASES)
    assert {part for _, _, part in labels} - {""} <= set(PARTS)


@pytest.mark.parametrize("backend", ["fast", "plain"])
def test_calls_of_a_round_are_those_of_its_budget(backend: str) -> None:
    calls = calls_of(begun(backend=backend))
    assert calls["synthesis: backward"] == calls["synthesis: teacher"] == calls["synthesis: student"] == STEPS
    assert calls["synthesis: generator"] == STEPS + 1  # the finished batch
    assert calls["training: backward"] == calls["training: student"] == MINIBATCHES
    assert calls["training: optimiser"] == MINIBATCHES
    assert calls["training: teacher"] == 1  # of all minibatches, which are few, at once
    assert calls["logits: teacher"] == calls["synthesis"] == calls["training"] == calls["buffer"] == 1
    assert {"synthesis: loss", "synthesis: augmentation", "synthesis: statistics", "synthesis: optimiser"} <= set(calls)
    assert {"training: gather", "training: augmentation", "training: loss", "logits: student"} <= set(calls)
    assert {"sampling", "comparison", "observation", "rest"} <= set(calls)


def test_equal_work_of_several_environments_is_one_range() -> None:
    calls = calls_of(begun(count=3))
    assert calls["synthesis: backward"] == calls["synthesis: student"] == STEPS
    assert calls["synthesis: generator"] == STEPS + 1
    assert calls["training: backward"] == calls["training: student"] == MINIBATCHES
    assert calls["training: teacher"] == 3  # each run's images are another's
    assert calls["buffer"] == 3 and calls["synthesis"] == calls["training"] == 1
    assert {"synthesis: grouping", "training: grouping", "logits: grouping"} <= set(calls)


def test_ranges_in_a_trace_are_properly_nested() -> None:
    events = [event for event in profiled(begun(2)).events() if event.name.startswith(("ssdkd::", "part::"))]
    events.sort(key=lambda event: (event.time_range.start, -event.time_range.end))
    assert events[0].name == ROUND and sum(event.name == ROUND for event in events) == 1
    ends: list[float] = []
    for event in events:
        while ends and ends[-1] <= event.time_range.start:
            ends.pop()
        assert not ends or event.time_range.end <= ends[-1]
        ends.append(event.time_range.end)


# --- sums and tables ---


def event(name: str, start: float, end: float, device: str = "CPU") -> SimpleNamespace:
    return SimpleNamespace(
        name=name, time_range=SimpleNamespace(start=start, end=end), device_type=SimpleNamespace(name=device)
    )


def test_a_second_belongs_to_the_innermost_range() -> None:
    second = 1e6
    labels = exclusive(
        [
            event("part::teacher", 3 * second, 7 * second),
            event("aten::conv2d", 3 * second, 7 * second),
            event("ssdkd::synthesis", 1 * second, 31 * second),
            event("ssdkd::round", 0, 95 * second),
            event("part::teacher", 4 * second, 5 * second),  # the same once more goes on with it
            event("ssdkd::logits", 7 * second, 15 * second),
            event("part::student", 8 * second, 14 * second),
            event("ssdkd::synthesis", 1 * second, 31 * second, device="CUDA"),
        ]
    )
    assert labels == {
        "rest": {"seconds": 65.0, "calls": 1},
        "synthesis": {"seconds": 18.0, "calls": 1},
        "synthesis: teacher": {"seconds": 4.0, "calls": 1},
        "logits": {"seconds": 2.0, "calls": 1},
        "logits: student": {"seconds": 6.0, "calls": 1},
    }


def test_both_sides_do_the_same_rounds() -> None:
    marked, plain = begun(), begun()
    lines = list(measure(marked, plain, rounds=2))
    assert marked.runs[0].round == plain.runs[0].round == BUDGET["rounds"]
    for line in lines:
        assert json.loads(json.dumps(line)) == line
        assert sum(label["seconds"] for label in line["labels"].values()) == pytest.approx(line["wall"])
        assert min(label["seconds"] for label in line["labels"].values()) >= 0
        assert line["bare"] > 0 and 0.001 < line["wall"] < 60
    for one, same in zip(marked.runs[0].student.parameters(), plain.runs[0].student.parameters(), strict=True):
        assert torch.equal(one, same)


def test_rows_are_means_over_the_rounds_in_the_order_of_a_round() -> None:
    def line(*seconds: float) -> dict[str, Any]:
        names = ("buffer", "synthesis", "synthesis: teacher")
        return {"labels": {name: {"seconds": s, "calls": 2} for name, s in zip(names, seconds, strict=False)}}

    rows = rows_of([line(0.1, 0.2, 0.3), line(0.3, 0.4)])
    assert [row[:2] for row in rows] == [("synthesis", "other"), ("synthesis", "teacher"), ("buffer", "other")]
    assert [row.seconds for row in rows] == pytest.approx([0.3, 0.15, 0.2])
    assert [row.calls for row in rows] == [2, 1, 2]


def test_tables_show_milliseconds_shares_and_sums() -> None:
    rows = [Row("synthesis", "teacher", 0.0625, 1.5), Row("synthesis", "other", 0.03125, 2)]
    rows.append(Row("logits", "other", 0.03125, 1))
    assert table_of(rows).splitlines() == [
        "| phase | part | ms a round | share | calls a round |",
        "| --- | --- | --- | --- | --- |",
        "| synthesis | teacher | 62.50 | 50.0 % | 1.5 |",
        "| synthesis | other | 31.25 | 25.0 % |  |",
        "| logits | other | 31.25 | 25.0 % |  |",
        "| all |  | 125.00 | 100.0 % |  |",
    ]
    by_phase, by_part = sums_of(rows, "phase").splitlines(), sums_of(rows, "part").splitlines()
    assert by_phase[2:] == ["| synthesis | 93.75 | 75.0 % |", "| logits | 31.25 | 25.0 % |"]
    assert sorted(by_part[2:]) == ["| other | 62.50 | 50.0 % |", "| teacher | 62.50 | 50.0 % |"]
