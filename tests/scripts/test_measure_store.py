"""`measure_store`: few lines, both ways, equal tables."""

from __future__ import annotations

import json
from pathlib import Path

from tests.scripts.commands import assert_refused, in_process_of_its_own, in_this_process


def test_a_small_run_takes_every_step_and_finds_equal_tables(tmp_path: Path) -> None:
    out = tmp_path / "store.jsonl"
    result = in_process_of_its_own("measure_store", "--out", out, "--lines", 40, "--rows", 4)
    assert result.code == 0, result.stderr
    *steps, about = [json.loads(line) for line in out.read_text().splitlines()]
    taken = [("import", "store"), *((step, source) for source in ("store", "lines") for step in ("compare", "rank"))]
    assert [(line["step"], line["from"]) for line in steps] == taken
    assert all(line["seconds"] > 0 and line["processor_seconds"] > 0 and line["peak_mib"] > 50 for line in steps)
    assert about["lines"] == 40 and about["store_mib"] < about["lines_mib"]


def test_fewer_lines_than_two_a_row_are_refused(tmp_path: Path) -> None:
    result = in_this_process("measure_store", "--out", tmp_path / "a.jsonl", "--lines", 5, "--rows", 4)
    assert_refused(result, "--lines 5: expected at least 8")
