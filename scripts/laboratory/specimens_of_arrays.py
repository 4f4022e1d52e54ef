"""What weights, archives and images of a stranger may hold, and cards of teachers."""

from __future__ import annotations

import io
import json
import math
import pickle
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from laboratory.specimens import (
    DEEP,
    ESCAPES,
    HUGE,
    SAFETENSORS,
    STRANGER,
    Hostile,
    Make,
    Specimen,
    Words,
    holding,
    out,
    pipe,
)
from ssdkd_env.tasks.digits import DIGITS

#: How old files of PyTorch begin.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


def of_arrays() -> Iterator[Specimen]:
    """All of them."""
    for table in (_archives, _cards, _weights, _images):
        yield from table()


def _zip(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return made.getvalue()


def _archives() -> Iterator[Specimen]:
    """Archives of Stable-Baselines3."""

    def export(path: Path) -> list[str]:
        return ["export", "--sampler", str(path), "--algo", "ppo", *out(path.parent)]

    entries = {
        "a call in policy.pth": {"policy.pth": pickle.dumps(Hostile())},
        "zeros, 800 MB of them": {"policy.pth": bytes(800_000_000)},
        "no policy": {"data": b"{}"},
    }
    for holds, content in entries.items():

        def make(runs: Mapping[str, Path], folder: Path, content: Mapping[str, bytes] = content) -> list[str]:
            (folder / "a.zip").write_bytes(_zip(content))
            return export(folder / "a.zip")

        yield Specimen("archive", holds, make)


def _teacher(path: Path) -> list[str]:
    return ["distill", "--teacher", str(path), "--budget.rounds", "1", *out(path.parent)]


def _cards() -> Iterator[Specimen]:
    """Cards beside a teacher's weights."""
    sound = {"arch": DIGITS.teacher_arch, "options": dict(DIGITS.teacher_options)}
    for holds, card in {
        "nesting without end": None,
        "a list": [1],
        "an import path as network": sound | {"arch": STRANGER},
        "an object as network": sound | {"arch": {"a": 1}},
        "escapes as network": sound | {"arch": ESCAPES},
        "a network of a billion channels": sound | {"options": {"channels": [HUGE, HUGE, HUGE]}},
        "an unknown option": sound | {"options": {"stranger": 1}},
        "text as an option": sound | {"options": {"channels": "many"}},
        "text as options": sound | {"options": "many"},
        "no number as mean": sound | {"normalization": {"mean": [math.nan], "std": [1.0]}},
        "text as classes": sound | {"num_classes": "ten"},
    }.items():
        content = (DEEP if card is None else json.dumps(card)).encode()
        yield Specimen("teacher's card", holds, holding("t.json", content, _beside_weights))
    yield Specimen("teacher's card", "a named pipe", pipe("t.json", _beside_weights))


def _beside_weights(card: Path) -> list[str]:
    shutil.copy(DIGITS.teacher_weights, card.with_suffix(".safetensors"))
    return _teacher(card.with_suffix(".safetensors"))


def _weights() -> Iterator[Specimen]:
    """A teacher's weights."""
    for holds, content in list(SAFETENSORS.items())[:2]:
        yield Specimen("weights", holds, holding("t.safetensors", content, _teacher))
    yield Specimen("weights", "a named pipe", pipe("t.safetensors", _teacher))
    yield Specimen("weights", "a named pipe, of PyTorch's", pipe("t.pth", _teacher))
    yield Specimen("weights", "a call", holding("t.pth", pickle.dumps({"state_dict": Hostile()}), _teacher))
    yield Specimen("weights", "a call, in an old file", holding("t.pth", _LEGACY + pickle.dumps(Hostile()), _teacher))
    yield Specimen("weights", "800 MB of zeros, compressed", _torch_file(torch.zeros(200_000_000), compressed=True))
    yield Specimen("weights", "one number seen as 10^12", _torch_file(torch.zeros(1).expand(10**6, 10**6)))
    yield Specimen(
        "weights",
        "a sparse tensor of 10^12",
        _torch_file(torch.zeros(1, 1).to_sparse().sparse_resize_((10**6, 10**6), 2, 0)),
    )
    yield Specimen("weights", "escapes as a name", _torch_file(torch.zeros(1), name=ESCAPES))


def _torch_file(tensor: torch.Tensor, compressed: bool = False, name: str = "conv1.weight") -> Make:
    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        torch.save({name: tensor}, folder / "plain.pth")
        if compressed:
            with zipfile.ZipFile(folder / "plain.pth") as plain:
                (folder / "t.pth").write_bytes(_zip({entry: plain.read(entry) for entry in plain.namelist()}))
            (folder / "plain.pth").unlink()
        else:
            (folder / "plain.pth").rename(folder / "t.pth")
        return _teacher(folder / "t.pth")

    return make


def _npy(shape: str, content: bytes = b"", dtype: str = "|u1") -> bytes:
    """An array's file that declares a shape, whatever its content."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def _images() -> Iterator[Specimen]:
    """Real images, for the reported accuracy."""

    def distill(path: Path) -> list[str]:
        return ["distill", "--evaluation", str(path), "--budget.rounds", "1", *out(path.parent)]

    few = np.zeros(3, dtype=np.int64)
    labels = io.BytesIO()
    np.save(labels, few)
    for holds, entries in {
        "40 GB declared": {"images.npy": _npy("(40000000000, 1, 1, 1)"), "labels.npy": labels.getvalue()},
        "2 GB of zeros, compressed": {
            "images.npy": _npy("(2000000000, 1, 1, 1)", bytes(2_000_000_000)),
            "labels.npy": labels.getvalue(),
        },
        "pickled objects": {
            "images.npy": _npy("(1,)", pickle.dumps(Hostile()), "|O"),
            "labels.npy": labels.getvalue(),
        },
    }.items():

        def make(runs: Mapping[str, Path], folder: Path, entries: Mapping[str, bytes] = entries) -> list[str]:
            (folder / "i.npz").write_bytes(_zip(entries))
            return distill(folder / "i.npz")

        yield Specimen("images", holds, make)
    yield Specimen("images", "a named pipe", pipe("i.npz", distill))
    yield Specimen("images", "an image of 10^9 pixels", _in_tar(_png(31_000, 33_000), distill))
    yield Specimen(
        "images",
        "escapes as the name of a class",
        _in_tar(b"no image", distill, name=f"test/{ESCAPES.replace('/', '')}/a.png"),
    )
    yield Specimen("images", "a link out of the archive", _in_tar(None, distill))
    yield Specimen("images", "600 MB of zeros in a compressed archive", _in_tar(bytes(600_000_000), distill))
    yield Specimen(
        "images",
        "a call in CIFAR's batches",
        _in_tar(
            pickle.dumps(Hostile()),
            lambda path: [
                "distill",
                "--task",
                "cifar10",
                "--data-root",
                str(path),
                "--teacher",
                str(DIGITS.teacher_weights),
                "--teacher-arch",
                "resnet20",
                *out(path.parent),
            ],
            name="cifar-10-batches-py/test_batch",
        ),
    )


def _in_tar(content: bytes | None, words: Words, name: str = "test/0/a.png") -> Make:
    def make(runs: Mapping[str, Path], folder: Path) -> list[str]:
        with tarfile.open(folder / "i.tar.gz", "w:gz", compresslevel=1) as archive:
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
