"""Decoded images on disk, so that they are decoded once a machine."""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import cache_folder, write_atomically
from ssdkd_env.tasks.task import LabelledImages

#: Raised whenever decoding changes, so that older files are made anew.
_FORMAT = 2


def load_cached(source: str, split: str, channels: int, stamp: str) -> LabelledImages | None:
    """Images and labels that `save_cached` wrote, mapped into memory; None when there are none, or damaged ones.

    Args:
        source: absolute path or Hub name of what was decoded.
        split: "train" or "test".
        channels: of the images.
        stamp: state of the source (sizes, times); another state's images are not used.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_path(source, split, channels), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("stamp") != stamp:
                return None
            images, labels = file.get_tensor("images"), file.get_tensor("labels")
    except (OSError, RuntimeError, SafetensorError):  # RuntimeError: there is no home folder
        return None
    if images.dtype != torch.uint8 or labels.dtype != torch.int64:
        return None
    return (images, labels) if metadata.get("checksum") == _checksum(images, labels) else None


def save_cached(source: str, split: str, channels: int, stamp: str, data: LabelledImages) -> None:
    """Keep images and labels for `load_cached`, in place of those of an earlier state; warns where that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    images, labels = (tensor.contiguous() for tensor in data)
    readable = os.fsencode(source).decode(errors="replace")  # a path need not be valid text
    metadata = {"source": readable, "stamp": stamp, "checksum": _checksum(images, labels)}
    try:
        write_atomically(
            _path(source, split, channels),
            lambda temporary: save_file({"images": images, "labels": labels}, temporary, metadata),
        )
    except (InvalidInputError, RuntimeError, SafetensorError) as error:
        warnings.warn(
            f"the {split} images of {source} are decoded anew in every process: {error} (set SSDKD_CACHE to a folder "
            "that you may write)",
            stacklevel=2,
        )


def _path(source: str, split: str, channels: int) -> Path:
    key = hashlib.sha256(repr((_FORMAT, source, split, channels)).encode()).hexdigest()[:16]
    return cache_folder() / f"images-{key}.safetensors"


def _checksum(images: Tensor, labels: Tensor) -> str:
    """CRC-32 of both: 0.05 s for CIFAR-10, and a flipped bit is not taken for a pixel."""
    checksum = zlib.crc32(repr((images.shape, labels.shape)).encode())
    for tensor in (images, labels):
        checksum = zlib.crc32(tensor.numpy().data, checksum)
    return f"{checksum:08x}"
