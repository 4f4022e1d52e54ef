"""Paths in what is kept: relative below the project, refused elsewhere, and nothing else touched."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.keeping.entry import Played, keep
from ssdkd_agents.keeping.manifest import read_manifest
from ssdkd_agents.keeping.portable import portable, portable_lines
from ssdkd_agents.lines import append_line, encode_line, read_lines

from ssdkd_env.errors import InvalidInputError

ROOT = Path("/a/project")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/a/project/data/t.pt", "data/t.pt"),
        ("--teacher=/a/project/t.pt and '/a/project/u.pt'", "--teacher=t.pt and 'u.pt'"),
        ("random-replacement:/a/project/s", "random-replacement:s"),
        ("/a/projects/t.pt", "/a/projects/t.pt"),
        ("/b/a/project/t.pt", "/b/a/project/t.pt"),
        ("../a/project/t.pt", "../a/project/t.pt"),
    ],
)
def test_paths_below_a_folder_are_relative_to_it(text: str, kept: str) -> None:
    assert portable(text, ROOT) == kept


def test_folder_is_found_as_json_spells_it() -> None:
    text = json.dumps({"teacher": "/ä/projekt/t.pt"})
    assert json.loads(portable(text, Path("/ä/projekt"))) == {"teacher": "t.pt"}


def test_lines_that_name_no_path_stay_byte_for_byte() -> None:
    old = b'{"score":1.50,  "x": NaN}\n'
    here = encode_line({"teacher": "/a/project/t.pt", "inputs": {"/a/project/t.pt": "ab"}})
    kept = portable_lines(old + here, Path("r.jsonl"), ROOT)
    assert kept == old + encode_line({"teacher": "t.pt", "inputs": {"t.pt": "ab"}})


@pytest.mark.parametrize("line", [{"teacher": "/b/t.pt"}, {"inputs": {"/b/t.pt": "ab"}}, {"x": [{"y": "/b/t.pt"}]}])
def test_path_elsewhere_is_refused(line: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"r\.jsonl names /b/t\.pt, which .* the folder above it with --root"):
        portable_lines(encode_line(line), Path("r.jsonl"), ROOT)


def _run(project: Path) -> Path:
    """A run whose lines, table, command and configuration name a teacher of this project by its absolute path."""
    run, teacher = project / "run", f"{project}/data/t.pt"
    append_line(run / "results.jsonl", {"seed": 1, "env_kwargs": {"teacher": teacher}})
    for name in ("table.md", "config.json", "picture.png"):
        (run / name).write_text(f'"{teacher}"')
    (run / "command.txt").write_text(f"ssdkd benchmark --env.teacher {teacher}\n")
    return run


def test_kept_run_names_nothing_of_the_machine(tmp_path: Path) -> None:
    files = ("table.md", "config.json", "picture.png")
    kept = keep(Played(_run(tmp_path), files=files, root=tmp_path), "x", tmp_path / "results")
    assert kept.command == "ssdkd benchmark --env.teacher data/t.pt"
    (line,) = read_lines(tmp_path / "results" / "x.jsonl.gz")
    assert line == {"seed": 1, "env_kwargs": {"teacher": "data/t.pt"}}
    assert (tmp_path / "results" / "x.md").read_text() == '"data/t.pt"'
    assert (tmp_path / "results" / "x-config.json").read_text() == '"data/t.pt"'
    assert str(tmp_path) in (tmp_path / "results" / "x-picture.png").read_text()  # what is no text is not touched


def test_run_elsewhere_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--root"):
        keep(Played(_run(tmp_path), root=tmp_path / "other"), "x", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_unfinished_run_keeps_the_paths_with_which_it_goes_on(tmp_path: Path) -> None:
    run = _run(tmp_path)
    keep(Played(run, unfinished=True, root=tmp_path / "other"), "x", tmp_path / "results")
    assert (tmp_path / "results" / "x.jsonl").read_bytes() == (run / "results.jsonl").read_bytes()
    keep(Played(run, root=tmp_path), "x", tmp_path / "results", overwrite=True)
    assert str(tmp_path).encode() not in gzip.decompress((tmp_path / "results" / "x.jsonl.gz").read_bytes())
    assert read_manifest(tmp_path / "results")["x"].lines == 1
