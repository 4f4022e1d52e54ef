"""The original "python version" of CIFAR-10 and CIFAR-100: pickles, of which only arrays, numbers and text are read.

Nothing of a pickle is trusted. The names that numpy's arrays need stand for small readers of our own, which build
arrays of whole numbers and cannot do anything else; every other name is refused before anything is called.
"""

from __future__ import annotations

import io
import math
import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.tasks.data.members import read_members
from ssdkd_env.tasks.data.tar import Parts
from ssdkd_env.tasks.data.trees import check_count
from ssdkd_env.tasks.task import LabelledImages

#: Bytes of a batch's file: those of CIFAR-100's training images are 155 million.
_MOST_BATCH = 256 * 2**20
#: (3, height, width) of an image; a row of a batch holds its red, then its green, then its blue pixels.
_IMAGE_SHAPE = (3, 32, 32)

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class BatchLayout:
    """Where one of the data sets keeps what.

    Attributes:
        folder: name of the folder, also inside the archive.
        archive: name of the archive as downloaded.
        files: split → its batches, in order.
        label_key: key of the labels in a batch.
        num_classes: number of classes.
    """

    folder: str
    archive: str
    files: Mapping[str, tuple[str, ...]]
    label_key: str
    num_classes: int


BATCH_LAYOUTS = {
    "cifar10": BatchLayout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        label_key="labels",
        num_classes=10,
    ),
    "cifar100": BatchLayout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        files={"train": ("train",), "test": ("test",)},
        label_key="fine_labels",
        num_classes=100,
    ),
}
_COARSE = replace(BATCH_LAYOUTS["cifar100"], label_key="coarse_labels", num_classes=20)


def batches_in(names: Iterable[Parts]) -> tuple[str, dict[Parts, str]]:
    """The data set whose batches are among the names of an archive, and these; of none an empty name."""
    files = list(names)
    for dataset, layout in BATCH_LAYOUTS.items():
        known = {(layout.folder, name) for own in layout.files.values() for name in own}
        if found := {parts: parts[-1] for parts in files if parts[-2:] in known}:
            return dataset, found
    return "", {}


def has_batches(folder: Path, layout: BatchLayout) -> bool:
    """Whether a folder has any of the original batches of a data set."""
    return any(os.path.isfile(folder / name) for names in layout.files.values() for name in names)


def read_batches(
    where: str, path: Path, found: Mapping[Parts, str], dataset: str, num_classes: int | None = None
) -> dict[str, LabelledImages]:
    """Read the splits of which there are batches.

    Args:
        where: the user's argument and its value, for error messages.
        path: folder or archive that holds them.
        found: where each batch lies in it.
        dataset: whose they are.
        num_classes: of the task; with 20 the labels of CIFAR-100 are its coarse ones.

    Raises:
        InvalidInputError: when a batch is missing, damaged, hostile or does not fit, or the task has other classes.
    """
    layout = BATCH_LAYOUTS[dataset]
    if dataset == "cifar100" and num_classes == _COARSE.num_classes:
        layout = _COARSE
    check_count(where, [dataset], layout.num_classes, num_classes)
    batches = {
        found[parts]: read_batch(where, "/".join(parts), content, layout)
        for parts, content in read_members(where, path, found, _MOST_BATCH)
    }
    splits = [split for split, files in layout.files.items() if set(files) & set(found.values())]
    return {split: join_batches(where, batches, split, layout) for split in splits}


def join_batches(where: str, batches: Mapping[str, Batch], split: str, layout: BatchLayout) -> LabelledImages:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of a split, out of batches by name.

    Raises:
        InvalidInputError: when a batch is missing.
    """
    missing = [name for name in layout.files[split] if name not in batches]
    if missing:
        raise InvalidInputError(
            f"{where} lacks {', '.join(missing)}; the {split} split needs {', '.join(layout.files[split])}: unpack "
            f"{layout.archive} anew"
        )
    images, labels = zip(*(batches[name] for name in layout.files[split]), strict=True)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


def read_batch(where: str, name: str, content: bytes, layout: BatchLayout) -> Batch:
    """Read one batch.

    Args:
        where: the user's argument and its value, for error messages.
        name: of the batch, likewise.
        content: the pickle: a dict with `data` (N, 3072) uint8 and labels (N,), keys as text or bytes.
        layout: which data set it belongs to.

    Returns:
        Images (N, 3, 32, 32) uint8 and labels (N,) int64.

    Raises:
        InvalidInputError: when the pickle is damaged, asks for anything but arrays, or does not fit the data set.
    """
    remedy = f"unpack {layout.archive} anew"
    try:
        loaded = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged or hostile pickle may raise anything
        raise InvalidInputError(
            f"{where}: {name} cannot be read as a CIFAR batch ({one_line(error)}); was it cut short? {remedy}"
        ) from error
    if not isinstance(loaded, dict):
        raise InvalidInputError(f"{where}: {name} holds a {type(loaded).__name__}, expected a dict; {remedy}")
    fields = {key.decode(errors="replace") if isinstance(key, bytes) else key: item for key, item in loaded.items()}
    if not {"data", layout.label_key} <= set(fields):
        raise InvalidInputError(
            f"{where}: {name} holds {', '.join(sorted(map(repr, fields)))[:200]}, expected 'data' and "
            f"{layout.label_key!r}; {remedy}"
        )
    data, labels = _as_array(fields["data"]), _as_array(fields[layout.label_key])
    width = math.prod(_IMAGE_SHAPE)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != width or len(data) == 0:
        raise InvalidInputError(
            f"{where}: {name} has data {data.shape} {data.dtype}, expected (N, {width}) uint8; {remedy}"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(data),):
        raise InvalidInputError(
            f"{where}: {name} has labels {labels.shape} {labels.dtype} for {len(data)} images, expected one whole "
            f"number an image; {remedy}"
        )
    if labels.min() < 0 or labels.max() >= layout.num_classes:
        raise InvalidInputError(
            f"{where}: {name} has labels from {labels.min()} to {labels.max()}, expected 0 to "
            f"{layout.num_classes - 1}; {remedy}"
        )
    return data.reshape(-1, *_IMAGE_SHAPE), labels.astype(np.int64)


def _as_array(value: Any) -> npt.NDArray[Any]:
    """An array out of a pickle, or a list of numbers out of it as an array; what is neither has dtype object."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, list) and all(type(item) is int for item in value):
        return np.array(value, dtype=np.int64 if all(abs(item) < 2**63 for item in value) else object)
    return np.array(None, dtype=object)


class _Dtype:
    """Stands for `numpy.dtype`: whole numbers only."""

    def __init__(self, name: str | bytes, align: bool = False, copy: bool = False) -> None:
        text = name.decode() if isinstance(name, bytes) else name
        if text not in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"):
            raise pickle.UnpicklingError(f"it holds an array of {text!r}, expected whole numbers")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands for `numpy.ndarray`: takes shape, type and bytes."""

    def __init__(self) -> None:
        self.array: npt.NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it holds an array without bytes or type")
        self.array = np.frombuffer(content, dtype=dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    """Stands for numpy's function of this name: an empty array, to be filled by the state that follows."""
    return _Array()


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    """Stands for numpy's `_frombuffer`, which pickles of protocol 5 call."""
    array = _Array()
    array.fill(content, dtype, shape, order)
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stands for `codecs.encode`, through which Python 3 writes bytes in old protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds bytes in the encoding {encoding!r}")
    return text.encode("latin1")


#: All that a batch may ask for, under the names of numpy 1 and 2 → what it gets.
_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _ArrayUnpickler(pickle._Unpickler):
    """Python's unpickler in Python: in the one in C, six damaged bytes (a memo index) are enough to fill the memory."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR batch does: it may be hostile")
        return _ADMITTED[module, name]

    def _load_bytearray(self: Any) -> None:
        self.append(self.read(int.from_bytes(self.read(8), "little")))  # allocates no more than the file has

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray}
