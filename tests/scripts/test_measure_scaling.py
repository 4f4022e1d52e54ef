"""`measure_scaling`: growth over sizes, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.scripts.commands import assert_refused, in_process_of_its_own, in_this_process

SMALL = ("--largest", 5000, "--repeats", 5)


def test_a_small_run_ends_in_tables_and_lines(tmp_path: Path) -> None:
    out = tmp_path / "scaling.jsonl"
    result = in_process_of_its_own("measure_scaling", "--out", out, *SMALL)
    assert result.code == 0, result.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    points = [line for line in lines if "cpu" in line]
    assert [line["point"]["size"] for line in points if line["sweep"] == "buffer"] == [180, 1000, 5000]
    assert {line["sweep"] for line in points} == {"buffer", "candidates", "classes"}
    assert all(line["nbytes"] == line["expected_bytes"] for line in points)
    assert all(len(seconds) == 5 for line in points for seconds in line["cpu"].values())
    fits = {(line["sweep"], line["part"]): line for line in lines if "exponent" in line}
    assert {part for sweep, part in fits if sweep == "candidates"} == {"weigh", "update"}
    assert all(fit["linear"] == (fit["exponent"]["high"] <= 1.15) for fit in fits.values())
    assert lines[-1]["machine"]["torch_threads"] == 1
    assert "| images in the buffer | weigh ms |" in result.stdout
    assert "| 5,000 |" in result.stdout
    if all(fit["linear"] for fit in fits.values()):
        assert "Every part grows no faster than linearly." in result.stdout
    else:
        assert "FASTER than linearly" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--largest", "4999"), "--largest 4999: expected at least 5000"),
        (("--repeats", "2"), "--repeats 2: expected at least 5"),
    ],
)
def test_bad_numbers_are_refused(arguments: tuple[str, str], match: str, tmp_path: Path) -> None:
    result = in_this_process("measure_scaling", "--out", tmp_path / "scaling.jsonl", *arguments)
    assert_refused(result, match)
    assert not any(tmp_path.iterdir())


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "scaling.jsonl"
    out.write_text("mine\n")
    assert_refused(in_this_process("measure_scaling", "--out", out, *SMALL), "exists; choose another file")
    assert out.read_text() == "mine\n"


def test_a_buffer_beyond_the_memory_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 30))
    result = in_this_process("measure_scaling", "--out", tmp_path / "scaling.jsonl", *SMALL)
    assert_refused(result, "give a smaller --largest")
    assert not any(tmp_path.iterdir())
