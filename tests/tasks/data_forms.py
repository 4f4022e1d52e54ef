"""Tiny data sets in every form that `load_split` reads, written byte by byte where the form is an old one."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import load_split

Pixels = npt.NDArray[np.uint8]
#: Files by their path inside a folder or an archive.
Files = dict[str, bytes]

CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def random_images(count: int, seed: int = 0, channels: int = 3, size: tuple[int, int] = (32, 32)) -> Pixels:
    """Images (count, channels, height, width) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, *size), dtype=np.uint8)


def python2_pickle(fields: Mapping[str, Any]) -> bytes:
    """A dict as Python 2 and numpy 1 pickled it (protocol 2, text as bytes): what CIFAR's files hold.

    Values are texts, lists of small numbers, or arrays (N, D) uint8.
    """
    return b"\x80\x02}(" + b"".join(_python2(name) + _python2(value) for name, value in fields.items()) + b"u."


def _python2(value: Any) -> bytes:
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    if isinstance(value, list):
        return b"](" + b"".join(_python2(item) if isinstance(item, str) else _integer(item) for item in value) + b"e"
    count, width = value.shape
    raw: bytes = value.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01"
        + (_integer(count) + _integer(width) + b"\x86")
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb")
    )


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def cifar10_batch(name: str, images: Pixels, labels: list[int]) -> bytes:
    files = [f"image_{index}.png" for index in range(len(labels))]
    rows = images.reshape(len(images), -1)
    return python2_pickle({"batch_label": name, "labels": labels, "data": rows, "filenames": files})


def cifar10_files(per_batch: int = 3) -> tuple[Files, Pixels, list[int], Pixels, list[int]]:
    """The six files of CIFAR-10, and the images and labels of both splits."""
    images = random_images(6 * per_batch)
    labels = [int(label) for label in np.random.default_rng(1).integers(0, 10, 6 * per_batch)]
    files = {}
    for index, name in enumerate(CIFAR10_FILES):
        part = slice(index * per_batch, (index + 1) * per_batch)
        files[f"cifar-10-batches-py/{name}"] = cifar10_batch(name, images[part], labels[part])
    cut = 5 * per_batch
    return files, images[:cut], labels[:cut], images[cut:], labels[cut:]


def cifar100_files() -> tuple[Files, Pixels, list[int]]:
    """The two files of CIFAR-100 with the same images in both, and these images and fine labels."""
    images, fine = random_images(4), [99, 0, 17, 50]
    fields = {"fine_labels": fine, "coarse_labels": [1, 2, 3, 4], "data": images.reshape(4, -1)}
    return {f"cifar-100-python/{name}": python2_pickle(fields) for name in ("train", "test")}, images, fine


def encoded(pixels: Pixels, kind: str = "PNG", mode: str | None = None) -> bytes:
    """An image (C, H, W) as a file, converted to one of Pillow's modes first."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    content = io.BytesIO()
    (image.convert(mode) if mode else image).save(content, kind)
    return content.getvalue()


def image_files(
    per_class: int = 2, size: tuple[int, int] = (6, 5)
) -> tuple[Files, dict[str, tuple[Pixels, list[int]]]]:
    """An image folder with the classes ant, bee, cat, and what it holds: split → images, labels."""
    files, truth = {}, {}
    for seed, split in enumerate(("train", "test")):
        images = random_images(3 * per_class, seed, size=size)
        labels = [label for label in range(3) for _ in range(per_class)]
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            files[f"{split}/{('ant', 'bee', 'cat')[label]}/{index:04}.png"] = encoded(image)
        truth[split] = images, labels
    return files, truth


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: Mapping[str, bytes | None], mode: str = "w") -> Path:
    """Pack files; None makes a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def refused(source: str | Path, match: str, split: Any = "train", channels: int = 3) -> str:
    """Check that a source is refused in one line that names the argument and the source."""
    with pytest.raises(InvalidInputError, match=match) as error:
        load_split("data", source, split, channels)
    message = str(error.value)
    assert message.startswith("data='") or "split" in match
    assert "\n" not in message
    return message
