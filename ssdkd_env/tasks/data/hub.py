"""Real images from the Hugging Face Hub, through the optional package `datasets`."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.extras import load_extra
from ssdkd_env.progress import shown
from ssdkd_env.tasks.data.images import ImageStack
from ssdkd_env.tasks.data.trees import check_count
from ssdkd_env.tasks.task import LabelledImages

#: Names under which data sets keep images and labels, the preferred first: CIFAR-100 has fine labels and coarse ones.
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label", "coarse_label")


def read_hub(where: str, name: str, split: str, channels: int, num_classes: int | None = None) -> LabelledImages:
    """Fetch and decode a split.

    Args:
        where: the user's argument and its value, for error messages.
        name: "owner/name", or "name" for the Hub's oldest sets.
        split: "train" or "test".
        channels: 1 or 3.
        num_classes: that a column of labels must have, where it says how many it has; None for any number.

    Returns:
        Images (N, channels, H, W) uint8 and labels (N,) int64.

    Raises:
        InvalidInputError: when `datasets` is not installed, the set cannot be fetched, or its columns do not fit.
    """
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise InvalidInputError(f"{where}: expected a name as in 'hub:owner/name'")
    datasets = load_extra("datasets", where)
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # of the network, the Hub, the file formats
        raise InvalidInputError(
            f"{where}: the {split} split cannot be fetched ({type(error).__name__}: {one_line(error)}); check the "
            "name, that it has this split, and the connection"
        ) from error
    image_column = _choose(where, loaded.column_names, IMAGE_COLUMNS)
    label_column = _label_column(where, loaded, num_classes)
    images = ImageStack(where, len(loaded), channels, loaded.dataset_size or math.inf)
    labels: list[int] = []
    rows = loaded.select_columns([image_column, label_column])
    try:
        for row in shown(rows, f"decoding {name} {split}", "image"):
            labels.append(_label(where, label_column, row[label_column]))
            images.put(len(labels) - 1, f"image {len(labels) - 1}", _image(where, image_column, row[image_column]))
    except InvalidInputError:
        raise
    except Exception as error:  # the images are decoded by `datasets` as they are reached
        raise InvalidInputError(
            f"{where}: image {len(labels)} of the {split} split cannot be decoded ({one_line(error)}); fetch the "
            "data set anew"
        ) from error
    if not labels:
        raise InvalidInputError(f"{where}: the {split} split is empty; choose another data set")
    return images.images, torch.tensor(labels)


def _choose(where: str, columns: list[str], known: tuple[str, ...]) -> str:
    for column in known:
        if column in columns:
            return column
    raise InvalidInputError(
        f"{where}: the data set has the columns {', '.join(columns)}; expected one of {', '.join(known)}: choose a "
        "data set for image classification"
    )


def _label_column(where: str, loaded: Any, num_classes: int | None) -> str:
    """The preferred column of labels among those that have as many classes as the task."""
    counts = {name: getattr(loaded.features[name], "num_classes", None) for name in loaded.column_names}
    fitting = [name for name in loaded.column_names if num_classes is None or counts[name] in (None, num_classes)]
    if not set(fitting) & set(LABEL_COLUMNS):
        column = _choose(where, loaded.column_names, LABEL_COLUMNS)
        check_count(where, loaded.features[column].names, len(loaded.features[column].names), num_classes)
    return _choose(where, fitting, LABEL_COLUMNS)


def _label(where: str, column: str, value: Any) -> int:
    if not isinstance(value, int):
        raise InvalidInputError(f"{where}: column {column!r} holds {value!r:.40}, expected whole numbers")
    return value


def _image(where: str, column: str, value: Any) -> Any:
    from PIL import Image

    if not isinstance(value, Image.Image):
        raise InvalidInputError(f"{where}: column {column!r} holds a {type(value).__name__}, expected images")
    return value
