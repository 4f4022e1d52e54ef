"""`measure_nyuv2`: both sides read the same from a file of the official layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from laboratory import nyuv2

from tests.scripts.commands import assert_refused, in_this_process


def test_both_sides_read_the_same_in_each_chunking(tmp_path: Path) -> None:
    out = tmp_path / "nyuv2.jsonl"
    result = in_this_process("measure_nyuv2", "--out", out, "--turns", 1, "--size", 6, 9)
    assert result.code == 0, result.stderr
    *lines, last = (json.loads(line) for line in out.read_text().splitlines())
    assert [(line["chunking"], line["way"]) for line in lines] == [
        (chunking, way) for chunking in nyuv2.CHUNKS for way in (nyuv2.OURS, nyuv2.ALONE)
    ]
    assert len({json.dumps(line["digests"]) for line in lines}) == 1
    assert last["images"] == 1449
    assert "Both sides read the same images, classes and splits." in result.stdout


def test_sides_that_read_something_else_give_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(way: str, path: Path) -> dict[str, Any]:
        return {"way": way, "seconds": 1.0, "mib": 1.0, "digests": [way]}

    monkeypatch.setattr(nyuv2, "read_in_process", read)
    result = in_this_process("measure_nyuv2", "--out", tmp_path / "n.jsonl", "--turns", 1, "--size", 2, 2)
    assert_refused(result, "the two sides read other images, classes or splits: no figure")


def test_images_of_no_size_are_refused(tmp_path: Path) -> None:
    result = in_this_process("measure_nyuv2", "--out", tmp_path / "n.jsonl", "--size", 0, 2)
    assert_refused(result, "--size 0 2: expected a height and a width of at least 1")
