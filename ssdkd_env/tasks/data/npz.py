"""Real images from an `.npz` file."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import check_regular, check_unpacked
from ssdkd_env.tasks.task import LabelledImages


def load_npz(argument: str, path: str | Path) -> LabelledImages:
    """Read an `.npz` with `images` and `labels`.

    Args:
        argument: name of the user's argument, for error messages.
        path: the file. `images` is (N, C, H, W) or (N, H, W), uint8 in [0, 255] or float in [0, 1]; `labels` is
            (N,) integers, or (N, H, W) for dense prediction. Pickled arrays are refused.

    Returns:
        Images (N, C, H, W) uint8 and labels int64.

    Raises:
        InvalidInputError: when the file is missing, unreadable, lacks an array, or an array does not fit.
    """
    hint = "expected an .npz with images (N, C, H, W) and labels (N,)"
    check_regular(path, where=f"{argument}={str(path)!r}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InvalidInputError(f"{argument}={str(path)!r} is a single array without 'images' and 'labels'; {hint}")
        with loaded as file:
            if not {"images", "labels"} <= set(file.files):
                raise InvalidInputError(f"{argument}={str(path)!r} lacks an array 'images' or 'labels'; {hint}")
            images, labels = (_array(f"{argument}={str(path)!r}", file, name) for name in ("images", "labels"))
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{argument}={str(path)!r} cannot be read ({error}); {hint}") from error
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or len(images) == 0:
        raise InvalidInputError(f"{argument}={str(path)!r}: images have shape {images.shape}; {hint}")
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating) or not (images.min() >= 0 and images.max() <= 1):
            raise InvalidInputError(
                f"{argument}={str(path)!r}: images are {images.dtype} from {images.min()} to {images.max()}; "
                "expected uint8 in [0, 255] or float in [0, 1]"
            )
        images = (images * 255.0).round().astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InvalidInputError(f"{argument}={str(path)!r}: labels are {labels.dtype}; expected whole numbers")
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))


def _array(where: str, file: np.lib.npyio.NpzFile, name: str) -> npt.NDArray[Any]:
    """An array of the archive, which says what memory it needs before it has it."""
    assert file.zip is not None  # the archive is open
    entry = file.zip.getinfo(name if name in file.zip.namelist() else f"{name}.npy")
    check_unpacked(where, entry.file_size, entry.compress_size)
    with file.zip.open(entry) as content:
        first = np.lib.format.read_magic(content) == (1, 0)  # later ones have more bytes for the header's length
        read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(content)
    declared = math.prod(shape) * dtype.itemsize
    if declared > entry.file_size:
        raise InvalidInputError(
            f"{where}: {name} says that it has {declared:,} bytes, and has at most {entry.file_size:,}; make it anew"
        )
    return np.asarray(file[name])
