"""Real images of the user's own, from .npz files."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks import load_task
from ssdkd_env.tasks.data import load_npz, load_split

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
        ({"images": IMAGES > 9, "labels": LABELS}, "are bool; expected whole numbers"),
        ({"images": IMAGES, "labels": LABELS[:2]}, "3 images but labels of shape"),
        ({"images": IMAGES, "labels": np.ones((3, 4))}, "not one-hot"),
        ({"images": IMAGES, "labels": np.eye(3) / 2}, "not one-hot"),
        ({"images": IMAGES / 255 - 0.1, "labels": LABELS}, r"\[0, 1\]"),
        ({"images": np.full((3, 1, 4, 4), np.nan), "labels": LABELS}, r"\[0, 1\]"),
        ({"images": IMAGES, "labels": LABELS / 2}, "whole numbers"),
        ({"images": IMAGES, "labels": np.array(["a", "b", "c"])}, "whole numbers"),
        (
            {"images": np.array([*IMAGES, None], dtype=object)[:3], "labels": LABELS},
            "images holds Python objects",
        ),
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


# --- what people bring ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
def test_whole_numbers_up_to_255_are_what_they_are(tmp_path: Path, dtype: type) -> None:
    images, _ = load_npz("evaluation", write(tmp_path, images=IMAGES.astype(dtype), labels=LABELS))
    assert images.dtype == torch.uint8 and np.array_equal(images.numpy(), IMAGES)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:, None],
        LABELS[:, None].astype(np.uint8),
        LABELS.astype(np.float32),
        np.eye(3)[LABELS],
        np.eye(3, dtype=np.uint8)[LABELS],
        np.eye(3, dtype=bool)[LABELS],
        np.array([[0], [2], [1]], dtype=">i2"),
    ],
)
def test_labels_in_a_column_or_one_hot(tmp_path: Path, labels: Any) -> None:
    read = load_npz("evaluation", write(tmp_path, images=IMAGES, labels=labels))[1]
    assert read.dtype == torch.int64 and read.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("images", "labels"), [("{}_images", "{}_labels"), ("x_{}", "y_{}"), ("X_{}", "y_{}"), ("{}_x", "{}_y")]
)
@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_both_splits_in_one_file(tmp_path: Path, images: str, labels: str, test: str) -> None:
    """As in MedMNIST, Keras and others; of test and validation data the test data are preferred."""
    arrays = {images.format(name): IMAGES + index for index, name in enumerate(("train", test))}
    arrays |= {labels.format(name): (LABELS + index)[:, None] for index, name in enumerate(("train", test))}
    path = write(tmp_path, **arrays, unread=np.array([{}]))
    for index, split in enumerate(("train", "test")):
        read = load_npz("evaluation", path, split)
        assert np.array_equal(read[0].numpy(), IMAGES + index)
        assert read[1].tolist() == (LABELS + index).tolist()
    path = write(tmp_path, **{**arrays, images.format("test"): IMAGES + 9, labels.format("test"): LABELS})
    assert np.array_equal(load_npz("evaluation", path)[0].numpy(), IMAGES + 9)


def test_a_split_that_a_file_lacks_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, train_images=IMAGES, train_labels=LABELS)
    assert load_npz("evaluation", path, "train")[0].shape == (3, 2, 4, 4)
    refused(path, "has the arrays train_images, train_labels, and no images and labels of a test part")


@pytest.mark.parametrize("names", [("x", "y"), ("X", "y"), ("data", "labels"), ("data", "target")])
def test_arrays_under_other_names(tmp_path: Path, names: tuple[str, str]) -> None:
    arrays = dict(zip(names, (IMAGES, LABELS), strict=True))
    assert np.array_equal(load_npz("evaluation", write(tmp_path, **arrays))[0].numpy(), IMAGES)


# --- what a stranger may send ---


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


def test_labels_of_another_number_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """As int64 they would take eight times as much."""
    labels = array((60_000_000,), bytes(60_000_000))
    path = archive(tmp_path, zipfile.ZIP_DEFLATED, images=array((3, 1, 2, 2), bytes(12)), labels=labels)
    tracemalloc.start()
    try:
        refused(path, r"3 images but labels of shape \(60000000,\)")
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_a_single_array_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for name in ("data.npy", "data.npz"):
        (tmp_path / name).write_bytes(array((320 * 10**9,), b""))
        refused(tmp_path / name, "cannot be read: .*is it a single array")


def test_an_archive_with_a_list_of_members_beyond_all_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, zipfile.ZIP_STORED, images=array((3, 1, 2, 2), bytes(12)), labels=array((3,), bytes(3)))
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    size = 17 * 2**20
    path.write_bytes(content[:end] + bytes(size) + content[end : end + 12] + struct.pack("<LL", size, end) + bytes(2))
    refused(path, "its list of members has 17,825,792 bytes, at most 16,777,216 are read")


def test_an_archive_of_nothing_but_zeros_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    images = array((70_000_000, 1, 1, 1), bytes(70_000_000))
    path = archive(tmp_path, zipfile.ZIP_DEFLATED, images=images, labels=array((3,), bytes(3)))
    refused(path, "to 70,000,128 bytes; if you trust it, unpack it, and save it anew without compression")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.npz")
    refused(tmp_path / "data.npz", "it is a named pipe")


@pytest.mark.parametrize("name", ["x.npz", "x.zip", "x.tar.gz", "train/c/x.png"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"), (b"<!DOCTYPE html>", "web page")],
)
def test_what_stands_for_a_download_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    for path in (tmp_path / name, tmp_path / "test/c/x.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=f"x[.a-z]*'? is a {said}") as caught:
        load_split("data", tmp_path / name.removesuffix("train/c/x.png"), "train", 1)
    assert str(tmp_path) in str(caught.value)
