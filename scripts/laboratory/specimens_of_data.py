"""What images, label maps and archives of them from a stranger may hold."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

import numpy as np

from laboratory.nyuv2 import official_names, write_labelled
from laboratory.specimens import ESCAPES, Hostile, Make, Specimen, Words, holding, out, pipe, zipped
from ssdkd_env.tasks.data.nyuv2 import LABELLED_FILE

#: Bytes that are written at a time of what has gigabytes.
_CHUNK = 2**20


def of_data() -> Iterator[Specimen]:
    """All of them."""
    for table in (_images, _tars, _zips, _maps, _labelled_files):
        yield from table()


def _distill(path: Path) -> list[str]:
    return ["distill", "--evaluation", str(path), "--budget.rounds", "1", *out(path.parent)]


def _teacher(task: str) -> Words:
    return lambda path: ["teacher", "--task", task, "--data", str(path), *out(path.parent)]


def _npy(shape: str, content: bytes = b"", dtype: str = "|u1") -> bytes:
    """An array's file that declares a shape, whatever its content."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def _images() -> Iterator[Specimen]:
    """Real images, for the reported accuracy."""
    few = np.zeros(3, dtype=np.int64)
    labels = io.BytesIO()
    np.save(labels, few)
    for holds, entries in {
        "40 GB declared": {"images.npy": _npy("(40000000000, 1, 1, 1)"), "labels.npy": labels.getvalue()},
        "2 GB of zeros, compressed": {
            "images.npy": _npy("(2000000000, 1, 1, 1)", bytes(2_000_000_000)),
            "labels.npy": labels.getvalue(),
        },
        "800 million labels for three images, compressed": {
            "images.npy": _npy("(3, 1, 8, 8)", bytes(192)),
            "labels.npy": _npy("(800000000,)", bytes(800_000_000)),
        },
        "pickled objects": {
            "images.npy": _npy("(1,)", pickle.dumps(Hostile()), "|O"),
            "labels.npy": labels.getvalue(),
        },
    }.items():

        def make(runs: Mapping[str, Path], folder: Path, entries: Mapping[str, bytes] = entries) -> list[str]:
            (folder / "i.npz").write_bytes(zipped(entries))
            return _distill(folder / "i.npz")

        yield Specimen("images", holds, make)
    yield Specimen("images", "a single array of 320 GB declared", holding("i.npz", _npy("(320000000000,)"), _distill))
    yield Specimen("images", "a folder in place of an archive", _as_folder("i.npz"))
    yield Specimen("images", "an empty file", holding("i.npz", b"", _distill))
    yield Specimen("images", "a path of 5,000 letters", lambda runs, folder: _distill(folder / ("x" * 5_000)))
    yield Specimen("images", "a named pipe", pipe("i.npz", _distill))
    yield Specimen("images", "an image of 10^9 pixels", _in_tar(_png(31_000, 33_000), _distill))
    yield Specimen(
        "images",
        "escapes as the name of a class",
        _in_tar(b"no image", _distill, name=f"test/{ESCAPES.replace('/', '')}/a.png"),
    )
    yield Specimen("images", "a link out of the archive", _in_tar(None, _distill))
    yield Specimen("images", "600 MB of zeros in a compressed archive", _in_tar(bytes(600_000_000), _distill))
    yield Specimen(
        "images",
        "a call in CIFAR's batches",
        _in_tar(
            pickle.dumps(Hostile()),
            _teacher("cifar10"),
            name="cifar-10-batches-py/test_batch",
        ),
    )


def _tars() -> Iterator[Specimen]:
    """Archives by tar, with other things in their headers than any has."""
    gigabyte = 2**30
    for holds, parts in {
        "a name of a gigabyte": [_header("n", gigabyte, tarfile.GNUTYPE_LONGNAME), *_zeros(gigabyte)],
        "attributes of a gigabyte": [_header("n", gigabyte, tarfile.XHDTYPE), *_zeros(gigabyte)],
        "attributes of a gigabyte, for all": [_header("n", gigabyte, tarfile.XGLTYPE), *_zeros(gigabyte)],
        "a thousand names for one file": [_header("n", 1, tarfile.GNUTYPE_LONGNAME) + bytes(512)] * 1000,
        "a map of ten million holes": _sparse(10_000_000),
        "half a million members that nobody wants": (_header(f"{number}", 0) for number in range(500_000)),
        "a member of a gigabyte that nobody wants": [_header("README", gigabyte), *_zeros(gigabyte)],
        "a member of 2^60 bytes": [_header("test/0/a.png", 2**60)],
        "a name of 5,000 letters": [_header("n", 5_000, tarfile.GNUTYPE_LONGNAME), b"x" * 5_120, _header("n", 0)],
        "the same image twice": [_header("test/0/a.png", 0)] * 2,
    }.items():
        yield Specimen("archive of images", holds, _packed(parts, _distill))
    yield Specimen("archive of images", "a name of 32 gigabytes, not compressed", _hollow)
    yield Specimen("archive of images", "twelve images of 25 megapixels", _large_images)


def _zips() -> Iterator[Specimen]:
    """Archives by zip."""
    zeros = {f"test/{number}/a.png": bytes(100_000_000) for number in range(6)}
    yield Specimen("zip archive of images", "600 MB of zeros", lambda runs, folder: _put_zip(folder, zipped(zeros)))
    yield Specimen("zip archive of images", "a list of members of 2 GB", _long_list)
    encrypted = zipped({**_other_classes(), "test/0/a.png": b"x"}).replace(
        b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1"
    )
    yield Specimen("zip archive of images", "encrypted", lambda runs, folder: _put_zip(folder, encrypted))
    link = zipfile.ZipInfo("test/0/a.png")
    link.external_attr = 0o120777 << 16
    yield Specimen("zip archive of images", "a link out of it", lambda runs, folder: _put_zip(folder, _linked(link)))


def _maps() -> Iterator[Specimen]:
    """Archives and folders of images with label maps."""
    many = (
        part
        for number in range(20)
        for part in (_header(f"train/images/{number}.png", 100 * _CHUNK), *_zeros(100 * _CHUNK))
    )
    yield Specimen("label maps", "two gigabytes of images without label maps", _packed(many, _teacher("camvid")))
    pair = [("train/images/a.png", _png(31_000, 33_000)), ("train/labels/a.png", _png(31_000, 33_000))]
    for holds, files in {
        "an image of 10^9 pixels": pair,
        "a label map of 10^9 pixels": [("train/images/a.png", _png(8, 8)), pair[1]],
        "a list of images in UTF-16": [
            ("images/a.png", _png(8, 8)),
            ("labels/a.png", _png(8, 8)),
            ("train.txt", "a".encode("utf-16")),
        ],
    }.items():
        parts = [part for name, content in files for part in (_header(name, len(content)), _blocks(content))]
        yield Specimen("label maps", holds, _packed(parts, _teacher("camvid")))


def _labelled_files() -> Iterator[Specimen]:
    """NYUv2's file, in which HDF5 declares what it has not."""
    for holds, shape in {
        "a terabyte declared": (795, 3, 20_000, 20_000),
        "all official images declared, none stored": (1449, 3, 640, 480),
        "a hundred thousand images declared": (100_000, 3, 640, 480),
    }.items():

        def make(runs: Mapping[str, Path], folder: Path, shape: tuple[int, ...] = shape) -> list[str]:
            import h5py

            path = _labelled(folder)
            with h5py.File(path, "r+") as file:
                for name, sides, kind in (("images", shape, "u1"), ("labels", (shape[0], *shape[2:]), "u2")):
                    del file[name]
                    file.create_dataset(name, shape=sides, dtype=kind, chunks=(1, *sides[1:-2], 60, 60))
            return _teacher("nyuv2")(path)

        yield Specimen("NYUv2's file", holds, make)
    for holds, content in {
        "2 GB of splits": b"MATLAB 5.0".ljust(124) + b"\0\1IM" + struct.pack("<2L", 14, 2**31),
        "splits in a file of a megabyte": bytes(2**20),
    }.items():

        def beside(runs: Mapping[str, Path], folder: Path, content: bytes = content) -> list[str]:
            path = _labelled(folder)
            (folder / "splits.mat").write_bytes(content)
            return _teacher("nyuv2")(path)

        yield Specimen("NYUv2's file", holds, beside)


def _other_classes() -> dict[str, bytes]:
    """Sound images of nine of digits' ten classes; the tenth has what no honest one has."""
    return {f"test/{label}/a.png": _png(8, 8) for label in range(1, 10)}


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def _zeros(size: int) -> Iterator[bytes]:
    return repeat(bytes(_CHUNK), size // _CHUNK)


def _blocks(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def _sparse(holes: int) -> list[bytes]:
    """A file of nothing but holes, as GNU tar writes it in version 1.0."""
    lines = ("GNU.sparse.major=1\n", "GNU.sparse.minor=0\n", "GNU.sparse.realsize=9\n")
    attributes = "".join(f"{len(line) + 3} {line}" for line in lines).encode()
    content = f"{holes}\n".encode() + b"0\n" * (2 * holes)
    first = _header("n", len(attributes), tarfile.XHDTYPE) + _blocks(attributes)
    return [first, _header("test/0/a.png", len(content)), _blocks(content)]


def _packed(parts: Iterable[bytes], words: Words) -> Make:
    """A tar archive compressed with gzip, of these parts."""

    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        with gzip.open(folder / "i.tar.gz", "wb", 1) as file:
            for part in parts:
                file.write(part)
            file.write(bytes(10240))
        return words(folder / "i.tar.gz")

    return make


def _hollow(runs: Mapping[str, Path], folder: Path) -> list[str]:
    """A file of 32 GB that takes no room on the disk."""
    (folder / "i.tar").write_bytes(_header("n", 2**35, tarfile.GNUTYPE_LONGNAME))
    os.truncate(folder / "i.tar", 2**35)
    return _distill(folder / "i.tar")


def _large_images(runs: Mapping[str, Path], folder: Path) -> list[str]:
    picture = _png(5_000, 5_000)
    parts = [_header(f"test/{number % 10}/{number}.png", len(picture)) + _blocks(picture) for number in range(12)]
    return _packed(parts, _distill)(runs, folder)


def _put_zip(folder: Path, content: bytes) -> list[str]:
    (folder / "i.zip").write_bytes(content)
    return _distill(folder / "i.zip")


def _long_list(runs: Mapping[str, Path], folder: Path) -> list[str]:
    size = 2**31
    (folder / "i.zip").write_bytes(b"PK\x03\x04")
    os.truncate(folder / "i.zip", size + 4)
    with open(folder / "i.zip", "ab") as file:
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 4, 0))
    return _distill(folder / "i.zip")


def _linked(link: zipfile.ZipInfo) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, picture in _other_classes().items():
            archive.writestr(name, picture)
        archive.writestr(link, "/etc/passwd")
    return made.getvalue()


def _as_folder(name: str) -> Make:
    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        (folder / name).mkdir()
        return _distill(folder / name)

    return make


def _labelled(folder: Path) -> Path:
    """NYUv2's file with one small image."""
    path = folder / LABELLED_FILE
    pair = np.zeros((3, 6, 8), dtype=np.uint8), np.zeros((6, 8), dtype=np.uint16)
    write_labelled(path, [pair], 1, (6, 8), (1, 1), official_names())
    return path


def _in_tar(content: bytes | None, words: Words, name: str = "test/0/a.png") -> Make:
    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        with tarfile.open(folder / "i.tar.gz", "w:gz", compresslevel=1) as archive:
            for other, picture in _other_classes().items():
                small = tarfile.TarInfo(other)
                small.size = len(picture)
                archive.addfile(small, io.BytesIO(picture))
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return words(folder / "i.tar.gz")

    return make


def _png(width: int, height: int) -> bytes:
    """A grey picture that is all black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes((width + 1) * height), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
