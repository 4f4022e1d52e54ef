"""Data sets of the Hub, through the real package `datasets` with a loader that needs no network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import load_split
from tests.tasks.data_forms import random_images, refused

datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")

IMAGES = random_images(4, size=(6, 5))
LABELS = [2, 0, 1, 2]
Loader = Callable[..., None]


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Let the Hub hold a data set, "owner/pets", with these columns in each of these splits."""

    def set_up(columns: dict[str, Any], splits: tuple[str, ...] = ("train", "test")) -> None:
        kinds = {name: datasets.Image() for name in columns if name in ("image", "img")}
        counts = {"label": 3, "fine_label": 3, "coarse_label": 20}
        kinds |= {name: datasets.ClassLabel(num_classes=counts[name]) for name in columns if name in counts}
        features = datasets.Features({name: kinds.get(name, datasets.Value("int64")) for name in columns})
        held = {split: datasets.Dataset.from_dict(columns, features=features) for split in splits}

        def load_dataset(name: str, split: str) -> Any:
            if name != "owner/pets":
                raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist\non the Hub.")
            if split not in held:
                raise ValueError(f'Unknown split "{split}". Should be one of {list(held)}.')
            return held[split]

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    return set_up


def pictures(mode: str = "RGB") -> list[Image.Image]:
    return [Image.fromarray(image.transpose(1, 2, 0)).convert(mode) for image in IMAGES]


@pytest.mark.parametrize("image", ["image", "img"])
@pytest.mark.parametrize("label", ["label", "fine_label"])
def test_columns_under_their_usual_names(loads: Loader, image: str, label: str) -> None:
    loads({"id": [7, 8, 9, 10], label: LABELS, image: pictures()})
    images, labels = load_split("data", "hub:owner/pets", "train")
    assert np.array_equal(images.numpy(), IMAGES)
    assert labels.tolist() == LABELS


def test_fine_labels_are_preferred(loads: Loader) -> None:
    loads({"coarse_label": [0, 0, 0, 0], "img": pictures(), "fine_label": LABELS})
    assert load_split("data", "hub:owner/pets", "test")[1].tolist() == LABELS


def test_coarse_labels_alone_are_taken(loads: Loader) -> None:
    loads({"coarse_label": LABELS, "img": pictures()})
    assert load_split("data", "hub:owner/pets", "test")[1].tolist() == LABELS


def test_the_labels_of_as_many_classes_as_the_task_has_are_taken(loads: Loader) -> None:
    loads({"coarse_label": [19, 0, 0, 0], "img": pictures(), "fine_label": LABELS})
    assert load_split("data", "hub:owner/pets", "test", num_classes=20)[1].tolist() == [19, 0, 0, 0]
    assert load_split("data", "hub:owner/pets", "test", num_classes=3)[1].tolist() == LABELS
    with pytest.raises(InvalidInputError, match=r"has 3 classes \(0, 1, 2\), and the task has 10"):
        load_split("data", "hub:owner/pets", "test", num_classes=10)


def test_grey_images_get_three_channels(loads: Loader) -> None:
    loads({"image": pictures("L"), "label": LABELS})
    images, _ = load_split("data", "hub:owner/pets", "train")
    assert images.shape == (4, 3, 6, 5)
    assert np.array_equal(images[:, 0].numpy(), images[:, 2].numpy())


def test_a_data_set_is_fetched_once(loads: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    loads({"image": pictures(), "label": LABELS})
    load_split("data", "hub:owner/pets", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert np.array_equal(load_split("data", "hub:owner/pets", "train")[0].numpy(), IMAGES)
    refused("hub:owner/pets", "needs the package", "test")


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refused("hub:owner/pets", "needs the package 'datasets'").endswith("pip install 'ssdkd-env[hub]'")


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "owner/", "/etc/passwd", "a b"])
def test_names_that_are_none_are_refused(name: str) -> None:
    refused(f"hub:{name}", "hub:owner/name")


def test_what_cannot_be_fetched_is_refused(loads: Loader) -> None:
    loads({"image": pictures(), "label": LABELS}, splits=("train",))
    refused("hub:owner/cars", "cannot be fetched.*doesn't exist.*check the name")
    refused("hub:owner/pets", "test split cannot be fetched.*Unknown split", "test")


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"text": [1, 2], "label": [0, 1]}, "columns text, label; expected one of image, img"),
        ({"image": pictures()[:2], "target": [0, 1]}, "expected one of label, fine_label, coarse_label"),
        ({"image": pictures()[:1], "label": [None]}, "whole numbers"),
        ({"image": pictures()[:1], "label": [-1]}, "labels start at -1"),
        ({"image": [None], "label": [0]}, "NoneType, expected images"),
        ({"image": [], "label": []}, "split is empty"),
        (
            {"image": [pictures()[0], pictures()[0].resize((3, 3))], "label": [0, 1]},
            "image 1 is 3×3 but image 0 is 5×6",
        ),
        (
            {"image": [{"bytes": b"damaged", "path": None}], "label": [0]},
            "image 0 of the train split cannot be decoded",
        ),
    ],
)
def test_data_sets_that_do_not_fit_are_refused(loads: Loader, columns: dict[str, Any], match: str) -> None:
    loads(columns)
    refused("hub:owner/pets", match)
