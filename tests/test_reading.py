"""Reading files that may be anybody's."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import pytest
import torch
from msgspec import convert

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import (
    Count,
    Seed,
    check_bounds,
    check_no_stand_in,
    check_regular,
    check_unpacked,
    conform,
    printable,
    read_bytes,
    read_json,
    read_text,
)


class Schema(TypedDict):
    """Of a file of these tests."""

    seed: Seed
    parts: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Of a run of these tests."""

    share: float
    counts: list[Count] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.share > 1:
            raise InvalidInputError(f"share={self.share}: expected at most 1")


@dataclass(frozen=True)
class Several:
    """Settings of several runs."""

    all: tuple[Settings, ...]


def test_value_that_conforms_is_what_it_was() -> None:
    value = {"seed": 3, "parts": {"weights": torch.ones(2)}, "more": [1]}
    assert conform(value, Schema, "x.json", "mend it") is value


def test_dataclass_is_made_of_a_value_that_conforms() -> None:
    assert conform({"share": 1, "counts": [2]}, Settings, "x.json", "mend it") == Settings(1.0, [2])


@pytest.mark.parametrize(
    ("value", "schema", "said"),
    [
        ({"parts": {}}, Schema, "it lacks seed"),
        ({"seed": "3", "parts": {}}, Schema, "seed: expected int, got str"),
        ({"seed": True, "parts": {}}, Schema, "seed: expected int, got bool"),
        ({"seed": 2**80, "parts": {}}, Schema, f"seed: expected int <= {2**63 - 1}"),
        ({"seed": -1, "parts": {}}, Schema, "seed: expected int >= 0"),
        ([1], Schema, "expected object, got array"),
        ({"share": 0.5, "counts": [1, 2.5]}, Settings, "counts[1]: expected int, got float"),
        ({"share": 2.0}, Settings, "share=2.0: expected at most 1"),
        ({"share": 0.5, "shares": 2}, Settings, "shares is no setting here"),
        ({"all": [{"share": 0.5}, {"share": 0.5, "x": 1}]}, Several, "x is no setting here"),
    ],
)
def test_value_of_another_schema_is_refused_with_its_place(value: Any, schema: type, said: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(f"x.json: {said}; mend it")):
        conform(value, schema, "x.json", "mend it")


def test_seeds_are_those_that_gymnasium_takes() -> None:
    import gymnasium

    gymnasium.utils.seeding.np_random(2**63 - 1)
    assert convert(2**63 - 1, Seed) == 2**63 - 1


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to a device"])
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)  # opened, it would wait for ever
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path(os.devnull)
    else:
        path.symlink_to(os.devnull)
    for read in (check_regular, read_bytes, read_json):
        with pytest.raises(InvalidInputError, match=f"cannot read .*: it is a.* {kind.split()[-1]}; give a file"):
            read(path)


def test_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    assert read_json(tmp_path / "b.json") == [1]


def test_file_that_is_larger_than_its_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" + " " * 98 + "]")
    assert read_json(path, 100) == []
    with pytest.raises(
        InvalidInputError, match="has 100 bytes, and a file of its kind at most 99; give the right file"
    ):
        read_json(path, 99)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[" * 200_000, "is not valid JSON"), (b'{"a": "\xff"}', "is not valid JSON"), (b"{", "is not valid JSON")],
    ids=["nested without end", "no text", "cut short"],
)
def test_what_is_no_json_is_said_in_a_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=said) as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_missing_file_is_said() -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read none\.json: No such file"):
        read_json("none.json")
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_json("no\0name.json")


def test_settings_within_all_bounds_pass() -> None:
    check_bounds({"net_arch": [256] * 8, "lr": 1e-4, "nothing": None, "n": math.nan}, "x.json", 256)
    check_bounds({"work": 10**15}, "x.json")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"a": {"n_steps": 10**9}}, "'n_steps' has 1000000000"),
        ({"a": [1, -math.inf]}, "'a' has -inf"),
        ({"layers": [32] * 10_001}, "'layers' has more in it"),
        ({"name": "x" * 10_001}, "'name' has more in it"),
        (json.loads('{"a": ' + "[" * 30 + "]" * 30 + "}"), "'a' has more in it"),
        ({"a": [[0] * 1_000] * 1_000}, "'a' has more in it"),
    ],
    ids=["a number", "infinity", "a list", "text", "nesting", "all together"],
)
def test_settings_beyond_all_bounds_are_refused_by_name(value: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=f"x.json: {named}"):
        check_bounds(value, "x.json", 10**8)


def test_what_is_compressed_to_nothing_is_refused() -> None:
    check_unpacked("x.npz", 2**26, 10)  # a hundredth of little is little
    check_unpacked("x.npz", 10**10, 10**8)
    with pytest.raises(
        InvalidInputError, match=r"x\.npz unpacks from 10 to 67,108,865 bytes; if you trust it, unpack it"
    ):
        check_unpacked("x.npz", 2**26 + 1, 10)


def test_nothing_that_is_printed_acts_on_the_terminal() -> None:
    assert printable("é–φ μ\nline\x1b[2J\x07\u202e|") == "é–φ μ\nline\\x1b[2J\\x07\\u202e|"


#: Readers of files of our own, of the system's, or that look at what they read beforehand.
READERS = {
    "ssdkd_env/reading.py",
    "agents/ssdkd_agents/curves.py",
    "agents/ssdkd_agents/machine.py",
    "agents/ssdkd_agents/ownership.py",
    "agents/ssdkd_agents/policies/algorithms.py",
    "agents/ssdkd_agents/runs.py",
    "agents/ssdkd_agents/commands/rank.py",
}


def test_what_is_read_goes_through_one_door() -> None:
    """A file that is read elsewhere may be a pipe, or without end."""
    root = Path(__file__).parents[1]
    files = [path for folder in ("ssdkd_env", "agents") for path in (root / folder).rglob("*.py")]
    found = {str(path.relative_to(root)) for path in files if re.search(r"\.read_(bytes|text)\(", path.read_text())}
    assert found == READERS


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match=r"x\.md is no text in UTF-8"):
        read_text(tmp_path / "x.md")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "x is a Git LFS pointer"),
        (b"<!DOCTYPE html>", "x is a web page"),
        (b"\r\n <?xml version='1.0'?><Error>", "x is a web page"),
        (b"<\0\0\0\0\0\0\0{", None),
        (b"", None),
        (b"PK\x03\x04", None),
    ],
)
def test_text_that_stands_for_a_file_is_told_from_bytes(start: bytes, said: str | None) -> None:
    if said is None:
        check_no_stand_in("x", start)
        return
    with pytest.raises(InvalidInputError, match=said):
        check_no_stand_in("x", start)
