"""JSON lines: whole, in order, and noticed where they are not what was written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Annotated, TypedDict

import pytest
from msgspec import Meta
from ssdkd_agents.lines import append_line, drop_lines, read_lines
from ssdkd_agents.runs import RunFolder

from ssdkd_env.errors import InvalidInputError
from tests.agents.test_runs import CONFIG


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", CONFIG)
    lines = [{"return": 0.1, "final": {"accuracy": 0.5}}, {"return": -1e-9, "text": "ψ\nline\u2028"}, {}]
    for line in lines:
        run.append(line)
    run.append({"other": 1}, file="episodes.jsonl")
    assert read_lines(run.path / "results.jsonl") == lines
    assert read_lines(run.path / "episodes.jsonl") == [{"other": 1}]
    assert (run.path / "results.jsonl").read_text().count("\n") == 3


def test_numbers_survive_exactly(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 2**53 + 1]
    append_line(tmp_path / "x.jsonl", {"values": values})
    assert read_lines(tmp_path / "x.jsonl") == [{"values": values}]


def test_folders_of_a_line_are_made(tmp_path: Path) -> None:
    append_line(tmp_path / "a" / "b.jsonl", {"x": 1})
    assert read_lines(str(tmp_path / "a" / "b.jsonl")) == [{"x": 1}]


def test_line_that_is_no_json_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    append_line(path, {"x": 1})
    with pytest.raises(TypeError):
        append_line(path, {"x": 2, "object": object()})
    assert read_lines(path) == [{"x": 1}]


def test_empty_file_and_blank_lines_hold_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("")
    assert read_lines(path) == []
    path.write_text('\n{"x": 1}\n\n')
    assert read_lines(path) == [{"x": 1}]


def test_line_in_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.jsonl", tmp_path):
        with pytest.raises(InvalidInputError, match="cannot write"):
            append_line(path, {})


def test_missing_lines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read .*none\.jsonl"):
        read_lines(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_lines(tmp_path)


OTHERS = (b'{"x": 1}\n{"x": \n', b"text\n", b"\xff\xfe\x00\n", b"3\n", b"[1]\n", b"{}\n[\n{}")


@pytest.mark.parametrize("content", OTHERS)
def test_file_with_other_lines_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"x\.jsonl, line [12] ") as caught:
        read_lines(tmp_path / "x.jsonl")
    assert "\n" not in str(caught.value)


def written(path: Path, count: int = 3) -> bytes:
    for number in range(count):
        append_line(path, {"number": number, "text": "ψ"})
    return path.read_bytes()


@pytest.mark.parametrize("cut", range(1, 46))
def test_line_cut_short_is_left_out_and_said_and_the_next_one_stands_in_its_place(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.jsonl"
    content = written(path)
    path.write_bytes(content[:-cut])
    expected = [{"number": number, "text": "ψ"} for number in range(3 if cut == 1 else 2)]
    if cut == 1 or content[:-cut].endswith(b"\n"):
        assert read_lines(path) == expected
    else:
        with pytest.warns(UserWarning, match=r"x\.jsonl, line 3 is cut short, and left out"):
            assert read_lines(path) == expected
    append_line(path, {"next": 1})
    assert read_lines(path) == [*expected, {"next": 1}]


def test_line_of_someone_elses_without_a_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}')
    append_line(path, {"c": 3})
    assert read_lines(path) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    content = written(path)
    second = range(content.index(b"\n") + 1, content.index(b"\n", content.index(b"\n") + 1))
    for place in second:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if path.read_bytes()[second.start : second.stop].find(b'"crc32"') < 0:
            continue  # without the name of the checksum it is a line that has none
        with pytest.raises(InvalidInputError, match=r"x\.jsonl, line 2 "):
            read_lines(path)


def test_doubled_line_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    first = written(path).splitlines(keepends=True)[0]
    with path.open("ab") as file:
        file.write(b"\n" + first)
    with pytest.raises(InvalidInputError, match=r"x\.jsonl, line 5 is line 1 once more; delete one of them"):
        read_lines(path)


def test_lines_without_a_checksum_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"x": 1}\n{"x": 1}\n')
    assert read_lines(path) == [{"x": 1}, {"x": 1}]


class Numbered(TypedDict):
    """A schema of lines."""

    number: Annotated[int, Meta(ge=0)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"other": 1}', "it lacks number"),
        ('{"number": "one"}', "number: expected int, got str"),
        ('{"number": -1}', "number: expected int >= 0"),
        ('{"number": true}', "number: expected int, got bool"),
    ],
)
def test_line_of_another_schema_is_refused_with_its_number(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"number": 1, "more": [2]}}\n{line}\n')
    for read in (lambda: read_lines(path, Numbered), lambda: drop_lines(path, lambda line: True, Numbered)):
        with pytest.raises(InvalidInputError, match=rf"x\.jsonl, line 2: {said}; delete that line"):
            read()
    path.write_text('{"number": 1, "more": [2]}\n')
    assert read_lines(path, Numbered) == [{"number": 1, "more": [2]}]


def test_disk_that_fills_up_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file grows to the limit in the middle of a line, as on a full disk, and stays as it was before."""
    import resource

    path = tmp_path / "x.jsonl"
    content = written(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 20, hard))
    try:
        with pytest.raises(InvalidInputError, match=rf"cannot write .*x\.jsonl: {os.strerror(errno.EFBIG)}; free some"):
            append_line(path, {"number": 3, "text": "long enough"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == content


def test_dropped_lines_leave_the_others_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    content = written(path).splitlines(keepends=True)
    with path.open("ab") as file:
        file.write(b'{"number": 9')
    with pytest.warns(UserWarning, match="line 4 is cut short"):
        drop_lines(path, lambda line: line["number"] != 1, Numbered)
    assert path.read_bytes() == content[0] + content[2]
    drop_lines(tmp_path / "none.jsonl", lambda line: False)
    assert not (tmp_path / "none.jsonl").exists()


def test_checksum_is_the_lines_own(tmp_path: Path) -> None:
    append_line(tmp_path / "x.jsonl", {})
    raw = json.loads((tmp_path / "x.jsonl").read_text())
    assert [*raw] == ["crc32"]
    append_line(tmp_path / "x.jsonl", raw | {"more": 1})  # of a line that was read by other means
    assert read_lines(tmp_path / "x.jsonl") == [{}, {"more": 1}]
