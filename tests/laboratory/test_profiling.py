"""The table of a round, what measuring it costs, and its trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from laboratory.profiling import (
    ROUND,
    MeasuredRound,
    Row,
    check_rounds,
    measure,
    overhead_of,
    rows_of,
    sums_of,
    table_of,
    write_trace,
)
from laboratory.stopwatch import OTHER, PHASES, Label

from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import BUDGET
from tests.laboratory.test_labelling import MINIBATCHES, STEPS, begun, snapshot

# --- table ---


def measured(*seconds: float, wall: float = 0.0, bare: float = 1.0) -> MeasuredRound:
    labels = (Label("buffer", "update"), Label("synthesis", OTHER), Label("synthesis", "teacher"))
    times = dict(zip(labels, seconds, strict=False))
    return MeasuredRound(times, dict.fromkeys(times, 2), wall, bare)


def test_rows_are_means_over_the_rounds_in_the_order_of_a_round() -> None:
    rows = rows_of([measured(0.1, 0.2, 0.3), measured(0.3, 0.4)])
    assert [(row.phase, row.part) for row in rows] == [
        ("synthesis", OTHER), ("synthesis", "teacher"), ("buffer", "update"),
    ]  # fmt: skip
    assert [row.seconds for row in rows] == pytest.approx([0.3, 0.15, 0.2])
    assert [row.calls for row in rows] == [2, 1, 2]


def test_tables_show_milliseconds_shares_and_sums() -> None:
    rows = [
        Row("synthesis", "teacher", 0.0625, 1.5),
        Row("synthesis", OTHER, 0.03125, 2),
        Row("refresh", OTHER, 0.03125, 1),
    ]
    assert table_of(rows).splitlines() == [
        "| phase | part | ms a round | share | calls a round |",
        "|---|---|---:|---:|---:|",
        "| synthesis | teacher | 62.50 | 50.0 % | 1.5 |",
        "| synthesis | other | 31.25 | 25.0 % |  |",
        "| refresh | other | 31.25 | 25.0 % |  |",
        "| all | | 125.00 | 100.0 % | |",
    ]
    by_phase, by_part = sums_of(rows, "phase").splitlines(), sums_of(rows, "part").splitlines()
    assert by_phase[2:] == ["| synthesis | 93.75 | 75.0 % |", "| refresh | 31.25 | 25.0 % |"]
    assert by_part[2:] == ["| teacher | 62.50 | 50.0 % |", "| other | 62.50 | 50.0 % |"]


def test_the_cost_of_measuring_is_that_of_the_same_rounds() -> None:
    overhead = overhead_of([measured(wall=2.0, bare=1.0), measured(wall=4.0, bare=4.0)])
    assert overhead.mean == 1.5
    assert (overhead.low, overhead.high) == (1.0, 2.0)


def test_both_sides_do_the_same_rounds() -> None:
    marked, plain = begun(), begun()
    lines = [one.line() for one in measure(marked, plain, rounds=2)]
    assert marked.runs[0].round == plain.runs[0].round == BUDGET["rounds"]
    for line in lines:
        assert json.loads(json.dumps(line)) == line
        assert sum(label["seconds"] for label in line["labels"].values()) == pytest.approx(line["wall"])
        assert line["bare"] > 0
    for one, same in zip(marked.runs[0].student.parameters(), plain.runs[0].student.parameters(), strict=True):
        assert torch.equal(one, same)


@pytest.mark.parametrize(
    ("rounds", "traced", "match"),
    [
        (0, 1, "--rounds 0: expected at least 1"),
        (1, 0, "--trace-rounds 0: expected at least 1"),
        (2, 1, r"--rounds 2: .* more than the budget's 3; .*\"rounds\": 4"),
    ],
)
def test_rounds_that_an_episode_does_not_have_are_refused(rounds: int, traced: int, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        check_rounds(3, rounds, traced)
    check_rounds(3, 1, 1)


# --- trace ---


def label_events(path: Path) -> list[dict[str, Any]]:
    """Events of labels in a trace, outer ones before inner ones."""
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("cat") == "user_annotation"]
    return sorted(events, key=lambda event: (event["ts"], -event["dur"]))


@pytest.mark.parametrize("count", [1, 2])
def test_a_trace_holds_the_labels_properly_nested(count: int, tmp_path: Path) -> None:
    environments = begun(count)
    before = snapshot(environments)
    path = tmp_path / "new" / "trace.json"
    mebibytes = write_trace(path, environments, rounds=1)
    assert mebibytes == path.stat().st_size / 2**20
    assert snapshot(environments) == before
    events = label_events(path)
    names = [event["name"] for event in events]
    assert names[0] == ROUND and names.count(ROUND) == 1
    assert names.count("synthesis: backward") == STEPS
    assert names.count("distillation: backward") == MINIBATCHES
    assert {phase for phase in PHASES if phase != "rest"} <= set(names)
    open_events: list[dict[str, Any]] = []
    for event in events:
        while open_events and open_events[-1]["ts"] + open_events[-1]["dur"] <= event["ts"]:
            open_events.pop()
        if open_events:
            assert event["ts"] + event["dur"] <= open_events[-1]["ts"] + open_events[-1]["dur"] + 1e-3
        open_events.append(event)


def test_a_trace_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"cannot write .*trace\.json"):
        write_trace(tmp_path / "file" / "trace.json", begun(), rounds=1)
