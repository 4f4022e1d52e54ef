"""Real images from an `.npz` file."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.reading import check_unpacked
from ssdkd_env.tasks.data.trees import SPLIT_NAMES
from ssdkd_env.tasks.data.zips import open_zip
from ssdkd_env.tasks.task import LabelledImages

#: Names of images and labels without a split, the preferred first, and with `{}` for one.
_ALONE = (("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels"), ("data", "target"))
_OF_SPLITS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"), ("X_{}", "y_{}"), ("{}_x", "{}_y"))
_HINT = (
    "expected an .npz with images (N, C, H, W) and labels (N,), or train_images, train_labels, test_images and so on"
)

_Array = npt.NDArray[Any]


def load_npz(argument: str, path: str | Path, split: str = "test") -> LabelledImages:
    """Read images and labels of an `.npz`.

    Args:
        argument: name of the user's argument, for error messages.
        path: the file. Its arrays are `images` and `labels` (or `x` and `y`, or `data` and `target`), or one such pair
            a split: `train_images` and `train_labels` as in MedMNIST, `x_train` and `y_train` as in Keras, `val` (or
            `valid`) standing in for a test part. Images are (N, C, H, W), (N, H, W, C) or (N, H, W), of whole numbers
            in [0, 255] or floats in [0, 1]; labels (N,), (N, 1) or one-hot (N, classes), or (N, H, W) for dense
            prediction. Pickled arrays are refused.
        split: "train" or "test", where the file has both.

    Returns:
        Images (N, C, H, W) uint8, or (N, H, W, C) as they are, and labels int64.

    Raises:
        InvalidInputError: when the file is missing, unreadable, lacks an array, or an array does not fit.
    """
    where = f"{argument}={os.fspath(path)!r}"
    try:
        with open_zip(where, Path(path)) as file:
            images_name, labels_name = _pair(where, [Path(name).stem for name in file.namelist()], split)
            shape = _declared(where, file, images_name)
            if len(shape) not in (3, 4) or shape[0] == 0:
                raise InvalidInputError(f"{where}: {images_name} have shape {shape}; {_HINT}")
            of_labels = _declared(where, file, labels_name)
            if of_labels[:1] != shape[:1] or len(of_labels) > 3:
                raise InvalidInputError(
                    f"{where}: {shape[0]} images but {labels_name} of shape {of_labels}; give one label an image"
                )
            images, labels = (_read(file, name) for name in (images_name, labels_name))
    except InvalidInputError:
        raise
    except Exception as error:  # of a damaged file NumPy raises whatever its parser meets
        single = " (is it a single array?)" if isinstance(error, zipfile.BadZipFile) else ""
        raise InvalidInputError(f"{where} cannot be read: {one_line(error)}{single}; {_HINT}") from error
    pixels = _pixels(where, images[:, None] if images.ndim == 3 else images)
    return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(_classes(where, labels))


def _pair(where: str, there: Sequence[str], split: str) -> tuple[str, str]:
    """Names of the images and of the labels among those of an archive."""
    own = [(images.format(name), labels.format(name)) for name in SPLIT_NAMES[split] for images, labels in _OF_SPLITS]
    for images, labels in (*_ALONE, *own):
        if images in there and labels in there:
            return images, labels
    shown = ", ".join(there[:6]) + (", …" if len(there) > 6 else "")
    raise InvalidInputError(f"{where} has the arrays {shown}, and no images and labels of a {split} part; {_HINT}")


def _declared(where: str, file: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape of an array of the archive, which says what memory it needs before it has it."""
    entry = file.getinfo(f"{name}.npy")
    check_unpacked(where, entry.file_size, entry.compress_size)
    with file.open(entry) as content:
        first = np.lib.format.read_magic(content) == (1, 0)  # later ones have more bytes for the header's length
        read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(content)
    if dtype.hasobject:
        raise InvalidInputError(f"{where}: {name} holds Python objects, which are not read; save an array of numbers")
    size = math.prod(shape) * dtype.itemsize
    if size > entry.file_size:
        raise InvalidInputError(
            f"{where}: {name} says that it has {size:,} bytes, and has at most {entry.file_size:,}; make it anew"
        )
    return tuple(shape)


def _read(file: zipfile.ZipFile, name: str) -> _Array:
    with file.open(f"{name}.npy") as content:
        return np.asarray(np.lib.format.read_array(content, allow_pickle=False))


def _pixels(where: str, images: _Array) -> npt.NDArray[np.uint8]:
    """Images of whole numbers in [0, 255], or of shares of 255, as uint8."""
    if images.dtype == np.uint8:
        return images
    number = np.issubdtype(images.dtype, np.floating) or np.issubdtype(images.dtype, np.integer)
    if not number:
        raise InvalidInputError(f"{where}: images are {images.dtype}; expected whole numbers or floating point")
    low, high = images.min(), images.max()
    if low >= 0 and 1 < high <= 255 and not (images % 1).any():
        return images.astype(np.uint8)
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:
        return np.asarray((images * 255.0).round().astype(np.uint8))
    raise InvalidInputError(
        f"{where}: images are {images.dtype} from {low} to {high}; expected whole numbers in [0, 255] or float in "
        "[0, 1]: undo a normalisation first"
    )


def _classes(where: str, labels: _Array) -> npt.NDArray[np.int64]:
    """Labels int64, out of numbers, a column of them, or one-hot rows."""
    if labels.ndim == 2:
        if labels.shape[1] == 1:
            labels = labels[:, 0]
        elif ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all():
            labels = labels.argmax(axis=1)
        else:
            raise InvalidInputError(f"{where}: labels {labels.shape} are not one-hot; give one class an image")
    if np.issubdtype(labels.dtype, np.floating) and not (labels % 1).any():
        labels = labels.astype(np.int64)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InvalidInputError(f"{where}: labels are {labels.dtype}; expected whole numbers")
    return labels.astype(np.int64)
