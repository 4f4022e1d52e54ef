"""Real images of the user's own, from .npz files."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.data import load_npz

IMAGES = np.arange(3 * 2 * 4 * 4, dtype=np.uint8).reshape(3, 2, 4, 4)
LABELS = np.array([0, 2, 1])


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


def refused(path: Path, match: str | None = None) -> None:
    with pytest.raises(InvalidInputError, match=match) as error:
        load_npz("evaluation", path)
    assert "evaluation=" in str(error.value)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


def test_uint8_images_arrive_as_they_are(tmp_path: Path) -> None:
    images, labels = load_npz("evaluation", write(tmp_path, images=IMAGES, labels=LABELS.astype(np.int16)))
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert np.array_equal(images.numpy(), IMAGES)
    assert labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_images_are_shares_of_255(tmp_path: Path, dtype: type) -> None:
    images, _ = load_npz("evaluation", write(tmp_path, images=(IMAGES / 255).astype(dtype), labels=LABELS))
    assert np.array_equal(images.numpy(), IMAGES)


def test_grey_images_get_a_channel(tmp_path: Path) -> None:
    images, _ = load_npz("evaluation", write(tmp_path, images=IMAGES[:, 0], labels=LABELS))
    assert images.shape == (3, 1, 4, 4)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"images": IMAGES}, "labels"),
        ({"a": IMAGES, "b": LABELS}, "has the arrays a, b, and no images and labels of a test part"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, "shape"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "shape"),
        (
            {"images": IMAGES.astype(np.int64) * 3, "labels": LABELS},
            r"from 0 to 285; expected whole numbers in \[0, 255\]",
        ),
        ({"images": IMAGES / 127.5 - 1, "labels": LABELS}, "undo a normalisation first"),
        ({"images": IMAGES + 0.5, "labels": LABELS}, r"\[0, 1\]"),
        ({"images": (IMAGES > 9).astype(np.int64), "labels": LABELS}, "are int64 from 0 to 1"),
        ({"images": IMAGES > 9, "labels": LABELS}, "are bool"),
        ({"images": IMAGES, "labels": LABELS[:2]}, "3 images but labels of shape"),
        ({"images": IMAGES, "labels": np.ones((3, 4))}, "not one-hot"),
        ({"images": IMAGES, "labels": np.eye(3) / 2}, "not one-hot"),
        ({"images": IMAGES / 255 - 0.1, "labels": LABELS}, r"\[0, 1\]"),
        ({"images": np.full((3, 1, 4, 4), np.nan), "labels": LABELS}, r"\[0, 1\]"),
        ({"images": IMAGES, "labels": LABELS / 2}, "whole numbers"),
        ({"images": IMAGES, "labels": np.array(["a", "b", "c"])}, "whole numbers"),
        ({"images": np.array([{}], dtype=object), "labels": LABELS}, None),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], match: str | None) -> None:
    refused(write(tmp_path, **arrays), match)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.npz")
    refused(tmp_path)
    path = write(tmp_path, images=IMAGES, labels=LABELS)
    content = path.read_bytes()
    for broken in (b"", b"text", content[:-40], content[: len(content) // 2], pickle.dumps([1])):
        path.write_bytes(broken)
        refused(path)


@pytest.mark.parametrize("position", range(60, 160, 10))
def test_a_damaged_file_is_refused(tmp_path: Path, position: int) -> None:
    path = write(tmp_path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[position : position + 4] = bytes(255 - b for b in content[position : position + 4])
    path.write_bytes(bytes(content))
    refused(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    refused(tmp_path / "images.npy", "images")


def test_a_task_takes_evaluation_data_of_the_users_own(tmp_path: Path) -> None:
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    path = write(tmp_path, images=images, labels=np.array([1, 1, 1, 1]))
    task = load_task("digits", evaluation=str(path))
    data = task.evaluation(torch.device("cpu"))
    assert data is not None
    assert data[0].shape == (4, 1, 8, 8)
    assert task.accuracy(task.teacher_on(torch.device("cpu")), "cpu") in (0.0, 1.0)
    assert load_task("digits", evaluation=str(path)).evaluation(torch.device("cpu")) is data
    assert load_task("digits").evaluation(torch.device("cpu")) is not data


def test_evaluation_data_of_another_size_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, images=IMAGES[:, :1], labels=LABELS)
    with pytest.raises(InvalidInputError, match="8, 8"):
        load_task("digits", evaluation=str(path)).evaluation(torch.device("cpu"))


def archive(folder: Path, compression: int, **entries: bytes) -> Path:
    """An `.npz` whose arrays' files are given as bytes."""
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, content in entries.items():
            made.writestr(f"{name}.npy", content)
    return path


def array(shape: tuple[int, ...], content: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """An array's file that declares this shape, whatever its content."""
    made = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    made.write(np.lib.format.magic(*version))
    text = repr(header).ljust(117) + "\n"
    made.write(len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text.encode())
    return made.getvalue() + content


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_array_that_says_it_is_larger_than_its_file_takes_no_memory(
    tmp_path: Path, version: tuple[int, int]
) -> None:
    """40 GB, which NumPy would ask the system for before it finds that they are not there."""
    labels = array((3,), bytes(3), version)
    huge = archive(tmp_path, zipfile.ZIP_STORED, images=array((4 * 10**10, 1, 1, 1), bytes(8), version), labels=labels)
    refused(huge, "images says that it has 40,000,000,000 bytes, and has at most")
    small = archive(tmp_path, zipfile.ZIP_STORED, images=array((3, 1, 2, 2), bytes(12), version), labels=labels)
    assert load_npz("evaluation", small)[0].shape == (3, 1, 2, 2)


def test_an_archive_of_nothing_but_zeros_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    images = array((70_000_000, 1, 1, 1), bytes(70_000_000))
    path = archive(tmp_path, zipfile.ZIP_DEFLATED, images=images, labels=array((3,), bytes(3)))
    refused(path, "to 70,000,128 bytes; if you trust it, unpack it, and save it anew without compression")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.npz")
    refused(tmp_path / "data.npz", "it is a named pipe")
