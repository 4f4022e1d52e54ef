"""Data for a task: of its classes, its size and its channels, in whatever form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data.readers import read_both, read_split
from ssdkd_env.tasks.digits import DIGITS
from tests.tasks.data_forms import Files, encoded, random_images, write_files, write_tar, write_zip

TASK = replace(DIGITS, num_classes=3, image_shape=(3, 6, 5), mean=(0.5,) * 3, std=(0.5,) * 3)
IMAGES = random_images(3, size=(6, 5))
LABELS = np.array([0, 1, 2])


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))


def class_folders(count: int, size: tuple[int, int] = (6, 5)) -> Files:
    images = random_images(count, size=size)
    splits = ("train", "test")
    return {f"{split}/c{label}/0.png": encoded(image) for split in splits for label, image in enumerate(images)}


def folder(path: Path, files: Files) -> Path:
    return write_files(path / "data", files)


def tar(path: Path, files: Files) -> Path:
    return write_tar(path / "data.tar", {**files})


def zipped(path: Path, files: Files) -> Path:
    return write_zip(path / "data.zip", files)


FORMS = pytest.mark.parametrize("form", [folder, tar, zipped])
Form = Callable[[Path, Files], Path]


def refused(source: Path, match: str, **changes: Any) -> None:
    with pytest.raises(InvalidInputError, match=match) as error:
        read_split("--data", source, "test", replace(TASK, **changes))
    assert str(error.value).startswith(f"--data={str(source)!r}")
    assert "\n" not in str(error.value)


@FORMS
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_class_folders_of_another_number_than_the_task_has_are_refused(
    tmp_path: Path, form: Form, classes: int
) -> None:
    """A folder of two classes was measured as a data set of ten: accuracy 0."""
    source = form(tmp_path, class_folders(classes))
    refused(source, rf"has {classes} classes \(c0.*\), and the task has 3; give data of the task's classes")
    assert read_split("--data", source, "test", replace(TASK, num_classes=classes))[1].tolist() == list(range(classes))
    refused(source, "and the task has 3")  # though it is kept


@FORMS
def test_images_of_another_size_than_the_tasks_are_refused_at_the_first(tmp_path: Path, form: Form) -> None:
    """Twelve photographs of 25 megapixels were all decoded first."""
    files = class_folders(3, size=(60, 50)) | {"test/c2/0.png": b"not looked at"}
    refused(form(tmp_path, files), r"c0/0\.png is 50×60 but an image of the task is 5×6; bring all images to one size")


def test_channels_may_come_last(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for shape in ((3, 6, 5), (6, 5, 3)):
        axes = (0, 1, 2, 3) if shape[0] == 3 else (0, 2, 3, 1)
        np.savez(path, images=IMAGES.transpose(axes), labels=LABELS)
        assert np.array_equal(read_split("--data", path, "test", TASK)[0].numpy(), IMAGES)
    np.savez(path, images=IMAGES[:, :1].transpose(0, 2, 3, 1), labels=LABELS)
    assert np.array_equal(read_split("--data", path, "test", TASK)[0].numpy(), IMAGES[:, :1].repeat(3, axis=1))
    four = np.concatenate([IMAGES, IMAGES[:, :1]], axis=1)
    np.savez(path, images=four.transpose(0, 2, 3, 1), labels=LABELS)
    task = replace(TASK, image_shape=(4, 6, 5), mean=(0.5,) * 4, std=(0.5,) * 4)
    assert np.array_equal(read_split("--data", path, "test", task)[0].numpy(), four)
    refused(path, r"images \(3, 6, 5, 4\) have 6 channels, 3 are needed")


def test_arrays_as_medmnist_has_them(tmp_path: Path) -> None:
    path = tmp_path / "pathmnist.npz"
    arrays: dict[str, Any] = {
        f"{split}_images": IMAGES.transpose(0, 2, 3, 1) // part for part, split in enumerate(("train", "val"), 1)
    }
    np.savez(path, **arrays, train_labels=LABELS[:, None], val_labels=LABELS[::-1, None])
    train, test = read_both("--data", path, TASK)
    assert np.array_equal(train[0].numpy(), IMAGES) and np.array_equal(test[0].numpy(), IMAGES // 2)
    assert (train[1].tolist(), test[1].tolist()) == ([0, 1, 2], [2, 1, 0])


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_npz_files_by_split(tmp_path: Path, name: str) -> None:
    for label, split in enumerate(("training", name)):
        np.savez(tmp_path / f"{split}.npz", images=IMAGES // (label + 1), labels=LABELS)
    assert [int(part[0].max()) for part in read_both("--data", tmp_path, TASK)] == [IMAGES.max(), IMAGES.max() // 2]


def test_a_source_without_splits_is_not_both_learnt_from_and_measured_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    classes = {name.removeprefix("train/"): content for name, content in class_folders(3).items() if "train" in name}
    for source in (tmp_path / "a.npz", folder(tmp_path, classes), tar(tmp_path, classes), zipped(tmp_path, classes)):
        assert read_split("--data", source, "test", TASK)[1].tolist() == [0, 1, 2]
        with pytest.raises(InvalidInputError, match=r"has no splits: .*; give train and test apart or so"):
            read_both("--data", source, TASK, "or so")
