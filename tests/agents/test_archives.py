"""Compressed lines: deterministic, read like plain ones, and refused in one line where they are damaged."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path

import pytest
import ssdkd_agents.archives as archives
from hypothesis import given
from hypothesis import strategies as st
from ssdkd_agents.archives import compress, read_content
from ssdkd_agents.lines import read_lines

from ssdkd_env.errors import InvalidInputError

LINES = b'{"x": 1}\n{"x": 0.1}\n'


@given(content=st.binary(max_size=300))
def test_content_survives(content: bytes) -> None:
    assert gzip.decompress(compress(content)) == content


def test_archive_holds_neither_time_nor_name() -> None:
    """RFC 1952: no flags, so no name; no time; the best compression; an unknown system."""
    assert compress(LINES)[:10] == b"\x1f\x8b\x08\x00" + bytes(4) + b"\x02\xff"
    assert compress(LINES) == compress(LINES)


def test_plain_and_compressed_files_are_read_alike(tmp_path: Path) -> None:
    plain, packed = tmp_path / "x.jsonl", tmp_path / "x.jsonl.gz"
    plain.write_bytes(LINES)
    packed.write_bytes(compress(LINES))
    assert read_content(plain) == read_content(packed) == LINES
    assert read_lines(plain) == read_lines(packed) == [{"x": 1}, {"x": 0.1}]
    packed.write_bytes(compress(b""))
    assert read_lines(packed) == []


def test_archives_one_after_another_are_one(tmp_path: Path) -> None:
    """As `cat a.gz b.gz` makes them, and `gunzip` reads them."""
    (tmp_path / "x.jsonl.gz").write_bytes(compress(LINES) + compress(LINES))
    assert read_content(tmp_path / "x.jsonl.gz") == LINES + LINES


WHOLE = compress(LINES)
DAMAGED = {
    "empty": b"",
    "no archive": LINES,
    "header alone": WHOLE[:10],
    "truncated": WHOLE[:-9],
    "without its length": WHOLE[:-1],
    "wrong checksum": WHOLE[:-8] + bytes(4) + WHOLE[-4:],
    "wrong length": WHOLE[:-4] + bytes(4),
    "odd block": WHOLE[:10] + b"\xff" + WHOLE[11:],
    "something behind it": WHOLE + b"more",
    "of another kind": b"\xfd7zXZ\x00" + bytes(20),
    "zlib": zlib.compress(LINES),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_archive_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(content)
    with pytest.raises(
        InvalidInputError, match=r"x\.jsonl\.gz is no whole gzip archive \(.+\); fetch it again"
    ) as caught:
        read_lines(tmp_path / "x.jsonl.gz")
    assert "\n" not in str(caught.value)


@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
def test_one_changed_byte_is_refused_or_changes_nothing(
    place: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of the header some bytes say nothing about the content."""
    path = tmp_path_factory.mktemp("changed") / "x.jsonl.gz"
    path.write_bytes(WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :])
    try:
        content = read_content(path)
    except InvalidInputError:
        return
    assert content == LINES


def test_bomb_is_refused_without_unpacking_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 2**20)
    monkeypatch.setattr(archives, "MOST_LINE", 2**21)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(compress(bytes(2**20)))
    assert len(read_content(path)) == 2**20
    path.write_bytes(compress(bytes(2**26)))
    assert path.stat().st_size < 100_000
    blank = tmp_path / "y.jsonl.gz"
    blank.write_bytes(compress(b"\n" * 2**26))
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match=r"x\.jsonl\.gz has more than 1,048,576 bytes, unpacked"):
        read_content(path)
    with pytest.raises(InvalidInputError, match=r"x\.jsonl\.gz has a line of more than 2,097,152 bytes"):
        read_lines(path)
    with pytest.raises(InvalidInputError, match=r"y\.jsonl\.gz has more than 1,048,576 bytes, unpacked"):
        read_lines(blank)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_plain_file_has_the_same_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 2**10)
    monkeypatch.setattr(archives, "MOST_LINE", 2**6)
    path = tmp_path / "x.jsonl"
    monkeypatch.setattr(archives, "MOST_LINES", 20)
    for content, said in (
        (b"\n" * 2**9, "more than 20 lines"),
        ((b'{"x": ' + b"1" * 55 + b"}\n") * 18, "more than 1,024 bytes"),
        (b"0" * 2**7, "a line of more than 64 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=rf"x\.jsonl has {said}"):
            read_lines(path)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_what_is_no_text_is_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    text = b"\xff\xfe\x00"
    path.write_bytes(compress(text) if ending.endswith("gz") else text)
    with pytest.raises(InvalidInputError, match=r"is no text \(.+\); give a \.jsonl or \.jsonl\.gz file of lines"):
        read_lines(path)


def test_lines_nested_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(compress(b'{"x": ' + b"[" * 10**6))
    with pytest.raises(InvalidInputError, match=r"x\.jsonl\.gz, line 1 is not JSON"):
        read_lines(tmp_path / "x.jsonl.gz")


def test_missing_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.gz").mkdir()
    for name in ("none.jsonl.gz", "folder.gz"):
        with pytest.raises(InvalidInputError, match=rf"cannot read .*{name}: .+; give a file that is there"):
            read_content(tmp_path / name)
