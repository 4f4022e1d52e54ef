"""Archives that are absurd are refused at little cost, whatever a header in them says."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import tar
from ssdkd_env.tasks.data.images import check_decoded
from ssdkd_env.tasks.data.members import list_members, read_members
from tests.tasks.data_forms import write_tar, write_zip

OPENERS: dict[str, Callable[..., io.BufferedIOBase]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}


@contextmanager
def cheaply(mib: float = 20.0, seconds: float = 5.0) -> Iterator[None]:
    started = time.process_time()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mib * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < seconds


def refused(path: Path, match: str) -> None:
    with cheaply(), pytest.raises(InvalidInputError, match=match) as error:
        list_members("data='x'", path)
    assert "data='x'" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def packed(path: Path, parts: Iterator[bytes]) -> Path:
    """A tar archive compressed with gzip, out of its parts and the blocks that end it."""
    with gzip.open(path, "wb", 1) as file:
        for part in parts:
            file.write(part)
        file.write(bytes(10240))
    return path


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_without_end_is_not_read(tmp_path: Path, kind: bytes, compressed: bool) -> None:
    path, size = tmp_path / "a.tar", 2**35
    if compressed:
        refused(packed(path, iter([header("x", size, kind), *[b"x" * 2**20] * 60])), "a header inside has more than")
    else:
        path.write_bytes(header("x", size, kind))
        os.truncate(path, size)  # without taking room on the disk
        refused(path, "a header inside has more than 262,144 bytes")


def test_headers_within_headers_are_not_followed_for_ever(tmp_path: Path) -> None:
    chain = [header("x", 1, tarfile.GNUTYPE_LONGNAME) + bytes(512)] * 200
    refused(packed(tmp_path / "a.tar", iter(chain * 5)), "cannot be read as a tar archive")


def test_a_sparse_files_map_counts_as_its_header(tmp_path: Path) -> None:
    fields = b"".join(
        f"{len(text) + len(str(len(text) + 3)) + 1} {text}".encode()
        for text in ("GNU.sparse.major=1\n", "GNU.sparse.minor=0\n", "GNU.sparse.realsize=9\n")
    )
    content = b"9999999\n" + b"0\n" * 20_000_000
    parts = [header("x", len(fields), tarfile.XHDTYPE), fields.ljust(1024, b"\0"), header("x", len(content)), content]
    refused(packed(tmp_path / "a.tar", iter(parts)), "cannot be read as a tar archive")


def test_a_long_name_is_refused(tmp_path: Path) -> None:
    for length in (5_000, 200_000):
        name = "train/" + "x" * length
        refused(write_tar(tmp_path / "a.tar", {name: b""}), f"a name inside has {length + 6:,} letters, at most 1,000")
    refused(
        write_zip(tmp_path / "a.zip", {"train/" + "x" * 5_000: b""}), "a name inside has 5,006 letters, at most 1,0"
    )


def test_members_without_end_are_not_gone_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "_SURELY_FINE", 1_000)
    empty = [header(f"{number}", 0) for number in range(2_000)]
    refused(packed(tmp_path / "a.tar", iter(empty)), "more than 1,.{3} members, most of them empty")
    path = write_zip(tmp_path / "a.zip", {f"{number}": b"" for number in range(3_000)})
    assert (
        len(list_members("data", write_tar(tmp_path / "b.tar", {f"{number}": b"" for number in range(2_000)}))) == 2_000
    )
    monkeypatch.setattr(tar, "_LEAST_PACKED", 2_000)
    refused(path, "more than 2,999 members, most of them empty")


@pytest.mark.parametrize("kind", OPENERS)
def test_an_archive_that_unpacks_to_a_hundred_times_its_size_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    with OPENERS[kind](path, "wb") as file:
        file.write(header("train/a/0.png", 66 * 2**20))
        for _ in range(66):
            file.write(bytes(2**20))
        file.write(bytes(10240))
    refused(path, "unpacks from .* bytes; if you trust it, unpack it")


def test_a_zip_archive_of_zeros_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"train/a/{number}.png": bytes(10**7) for number in range(8)})
    refused(path, "unpacks from .* bytes; if you trust it, unpack it")


def test_a_zip_archive_that_is_damaged_cut_short_or_encrypted(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"train/a/0.png": b"content" * 100, "train/a/1.png": b"x"})
    content = path.read_bytes()
    for end in (0, 4, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        refused(path, "cannot be read as a (zip|tar) archive")
    wanted = [("train", "a", "0.png")]
    encrypted = content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    for broken in (content[:46] + b"\xff" * 8 + content[54:], encrypted):
        assert broken != content
        path.write_bytes(broken)
        with pytest.raises(InvalidInputError, match="cannot be read as a zip archive"):
            list(read_members("data", path, wanted, 10**6))


def test_a_file_in_a_zip_archive_may_be_too_large(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"0.png": b"content"})
    assert list(read_members("data", path, [("0.png",)], 7)) == [(("0.png",), b"content")]
    with pytest.raises(InvalidInputError, match=r"0\.png inside has 7 bytes, at most 6 are read; pack images"):
        list(read_members("data", path, [("0.png",)], 6))


def test_a_list_of_members_that_a_zip_archive_makes_up_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    size = 2**31
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 4, 0)
    path.write_bytes(b"PK\x03\x04")
    os.truncate(path, size + 4)
    with open(path, "ab") as file:
        file.write(end)
    refused(path, "its list of members has 2,147,483,648 bytes, at most 16,777,216 are read")


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_a_file_that_is_there_twice_is_named(tmp_path: Path, name: str) -> None:
    path = (
        write_tar(tmp_path / name, {"a/0.png": b"x"})
        if name.endswith("tar")
        else write_zip(tmp_path / name, {"a/0.png": b"x"})
    )
    if name == "a.tar":
        with tarfile.open(path, "a") as archive:
            archive.addfile(tarfile.TarInfo("./a//0.png"))
    else:
        with zipfile.ZipFile(path, "a") as archive_of_zip, pytest.warns(UserWarning, match="Duplicate"):
            archive_of_zip.writestr("a/0.png", b"y")
    refused(path, r"holds a/0\.png twice; pack it anew")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    refused(tmp_path / "a.tar", "it is a named pipe")


def test_images_of_far_more_than_their_files_are_refused() -> None:
    check_decoded("data", 256 * 2**20, 1)
    check_decoded("data", 10**10, 10**8)
    with pytest.raises(InvalidInputError, match="decode from 1,000,000 to 900,000,000 bytes, more than a data set's"):
        check_decoded("data", 9 * 10**8, 10**6)
