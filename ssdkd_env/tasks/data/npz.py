"""Real images from an `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from ssdkd_env.errors import InvalidInputError
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
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InvalidInputError(f"{argument}={str(path)!r} is a single array without 'images' and 'labels'; {hint}")
        with loaded as file:
            if not {"images", "labels"} <= set(file.files):
                raise InvalidInputError(f"{argument}={str(path)!r} lacks an array 'images' or 'labels'; {hint}")
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
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
