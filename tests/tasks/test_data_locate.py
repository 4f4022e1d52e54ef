"""Finding a data set under a folder, and recognising what a path holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import find_dataset, load_split
from tests.tasks.data_forms import cifar10_files, cifar100_files, image_files, refused, write_files, write_tar

IMAGES = np.arange(3 * 3 * 4 * 4, dtype=np.uint8).reshape(3, 3, 4, 4)


@pytest.fixture(autouse=True)
def private_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSDKD_DATA", raising=False)


def write_npz(path: Path, labels: Any = (0, 1, 2), images: Any = IMAGES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=images, labels=np.array(labels))
    return path


def test_forms_are_found_in_the_documented_order(tmp_path: Path) -> None:
    root = tmp_path / "data"
    folder = write_files(root, cifar10_files()[0]) / "cifar-10-batches-py"
    original = write_tar(root / "cifar-10-python.tar.gz", {}, "w:gz")
    images = write_files(root / "cifar10", image_files()[0])
    archives = [root / f"cifar10{end}" for end in (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")]
    archives += [root / f"cifar10-jpeg{end}" for end in (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")]
    for path in archives:
        path.touch()
    for split in ("train", "test"):
        write_npz(root / "cifar10" / f"{split}.npz")
    write_files(root, image_files()[0])

    for found in (folder, original, images, *archives, root / "cifar10", root):
        assert find_dataset("cifar10", root) == found
        if found == images and (images / "train").exists():
            shutil.rmtree(images / "train")
        elif found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()
    with pytest.raises(InvalidInputError):
        find_dataset("cifar10", root)


def test_every_form_of_folder_may_be_the_root(tmp_path: Path) -> None:
    ten = write_files(tmp_path, cifar10_files()[0]) / "cifar-10-batches-py"
    hundred = write_files(tmp_path, cifar100_files()[0]) / "cifar-100-python"
    images = write_files(tmp_path / "images", image_files()[0])
    for split in ("train", "test"):
        write_npz(tmp_path / "npz" / f"{split}.npz")
    assert find_dataset("cifar10", ten) == ten
    assert find_dataset("cifar100", hundred) == hundred
    assert find_dataset("pets", images) == images
    assert find_dataset("pets", str(tmp_path / "npz")) == tmp_path / "npz"
    for name, root in (("cifar100", ten), ("cifar10", hundred), ("pets", ten), ("pets", hundred)):
        with pytest.raises(InvalidInputError):
            find_dataset(name, root)


def test_the_variable_stands_in_for_the_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_dataset("pets", None) is None
    for place in ("one", "two"):
        write_files(tmp_path / place / "pets", image_files()[0])
    monkeypatch.setenv("SSDKD_DATA", str(tmp_path / "one"))
    assert find_dataset("pets", None) == tmp_path / "one" / "pets"
    assert find_dataset("pets", tmp_path / "two") == tmp_path / "two" / "pets"
    monkeypatch.setenv("SSDKD_DATA", "")
    assert find_dataset("pets", None) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_dataset("pets", "~/one") == tmp_path / "one" / "pets"


@pytest.mark.parametrize("half", ["pets/train/ant/0.png", "pets/train.npz", "pets", "pets.tar/x", "pets.rar"])
def test_where_nothing_is_found_the_error_says_what_was_looked_for(
    tmp_path: Path, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_files(tmp_path / "data", {half: b"x"})
    with pytest.raises(
        InvalidInputError, match=r"data_root='.*data' holds no data set 'pets'; looked for pets/"
    ) as error:
        find_dataset("pets", root)
    assert "pets-jpeg.tar*" in str(error.value) and "cifar-10" not in str(error.value)
    monkeypatch.setenv("SSDKD_DATA", str(root))
    with pytest.raises(InvalidInputError, match=r"SSDKD_DATA='.*looked for cifar-100-python/, cifar-100-python.tar.gz"):
        find_dataset("cifar100", None)


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"data_root=.* does not exist"):
        find_dataset("pets", tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="is a file, expected a folder"):
        find_dataset("pets", tmp_path / "file")


# --- what load_split makes of a path ---


def test_npz_by_split_and_alone(tmp_path: Path) -> None:
    write_npz(tmp_path / "train.npz")
    write_npz(tmp_path / "test.npz", labels=[2, 2, 2])
    images, labels = load_split("data", tmp_path, "test")
    assert np.array_equal(images.numpy(), IMAGES)
    assert labels.tolist() == [2, 2, 2]
    assert load_split("data", tmp_path / "train.npz", "test")[1].tolist() == [0, 1, 2]


def test_npz_images_get_the_channels_asked_for(tmp_path: Path) -> None:
    grey = write_npz(tmp_path / "grey.npz", images=IMAGES[:, :1])
    assert np.array_equal(load_split("data", grey, "test")[0].numpy(), IMAGES[:, :1].repeat(3, axis=1))
    assert load_split("data", grey, "test", 1)[0].shape == (3, 1, 4, 4)
    assert load_split("data", write_npz(tmp_path / "rgb.npz"), "test", 1)[0].shape == (3, 1, 4, 4)
    refused(write_npz(tmp_path / "two.npz", images=IMAGES[:, :2]), "2 channels, 3 are needed")


@pytest.mark.parametrize(
    ("labels", "match"), [([0, 1], "3 images but labels of shape"), ([-1, 0, 1], "start at -1"), (3, "of shape")]
)
def test_npz_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: Any, match: str) -> None:
    refused(write_npz(tmp_path / "a.npz", labels=labels), match)


def test_an_npz_folder_without_the_split_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "train.npz")
    refused(tmp_path, r"test\.npz", "test")


def test_paths_that_hold_no_data_set_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "does not exist; give a folder, a tar or zip archive")
    refused(tmp_path, "holds no images; expected {train,test}/<class>/")
    refused("a\0b", "does not exist")
    refused("x" * 5000, "does not exist")


def test_splits_are_train_and_test(tmp_path: Path) -> None:
    refused(write_npz(tmp_path / "a.npz"), "split='val' is unknown; choose one of: test, train", "val")
