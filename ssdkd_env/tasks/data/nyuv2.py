"""NYU Depth v2: 1,449 indoor scenes with label maps (Silberman, Hoiem, Kohli & Fergus 2012); images and labels only."""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssdkd_env.errors import InvalidInputError, check_choice, one_line
from ssdkd_env.extras import load_extra
from ssdkd_env.files import file_digest
from ssdkd_env.progress import shown
from ssdkd_env.reading import check_regular, check_unpacked, read_start
from ssdkd_env.tasks.data.images import Size
from ssdkd_env.tasks.data.label_maps import check_size, keep, load_maps, nearest, resized
from ssdkd_env.tasks.data.map_forms import Layout, MapForm
from ssdkd_env.tasks.data.nyuv2_classes import (
    KNOWN_NAMES,
    NUM_IMAGES,
    NUM_NAMES,
    NYUV2_CLASSES,
    NYUV2_CLASSES_40,
    SPLITS_DIGEST,
    class_table,
    official_split,
)
from ssdkd_env.tasks.task import LabelledImages

__all__ = ["NYUV2_CLASSES", "NYUV2_CLASSES_40", "load_nyuv2"]

#: Name of the labelled file as downloaded.
LABELLED_FILE = "nyu_depth_v2_labeled.mat"
_SPLITS_FILE = "splits.mat"
_SPLITS = ("train", "test")
#: Most bytes of decoded chunks that HDF5 keeps of each array, and of one chunk, which it decodes whole.
_MOST_CACHE = 256 * 2**20
#: Bytes of a file of splits: the published one has two thousand.
_MOST_SPLITS = 2**16
#: Width and height of the labelled file's images, letters of a name of its classes.
_SIDES, _MOST_NAME = (640, 480), 100


def load_nyuv2(
    argument: str,
    source: str | Path,
    split: str,
    size: Size = None,
    num_classes: int = 13,
    void: int | None = None,
) -> LabelledImages:
    """Read one split of NYU Depth v2, images and label maps.

    Args:
        argument: name of the user's argument, for error messages.
        source: one of

            - the official labelled file, `nyu_depth_v2_labeled.mat` (MATLAB 7.3, 2.8 GB), or a folder that holds it,
              read with the optional package `h5py` (pip install 'ssdkd-env[segmentation]'). The split is the official
              one, unless a `splits.mat` of another content lies beside it (`trainNdxs`, `testNdxs`; needs `scipy`);
            - a folder of images and label PNGs, or a tar or zip archive of one: `images` with `labels13` (or
              `labels40`), numbered from 1 as in the labelled file, with or without files `train.txt` and `test.txt`;
              `{split}` or `nyu_{split}_rgb` with `{split}_labels_13` (Handa's); `{split}/images` with `{split}/labels`;
              in all of them 0 is no class, and the classes start at 1. `image/{split}` with `seg13/{split}` (Fang's),
              where the classes start at 0 and 255 is none. Images and label maps are paired by the number that ends
              their names.
        split: "train" (795 images) or "test" (654).
        size: (height, width) to which images and label maps are resized; None leaves them (480×640 officially). What
            is made of PNGs, and what is resized, is kept in the cache folder (see `load_split`); the labelled file at
            its own size is read each time, because a copy would take a gigabyte.
        num_classes: 13 or 40.
        void: the number that label PNGs have for no class, where it is another than above.

    Returns:
        Images (N, 3, H, W) uint8 and labels (N, H, W) uint8, classes (`NYUV2_CLASSES`) or `VOID`.

    Raises:
        InvalidInputError: when the source is missing, damaged or of another form, or lacks images of the split.
    """
    check_choice("split", split, _SPLITS)
    check_size("size", size)
    if num_classes not in (13, 40):
        raise InvalidInputError(f"num_classes={num_classes!r}: NYUv2 has 13 or 40 classes")
    where, path = f"{argument}={os.fspath(source)!r}", Path(os.path.abspath(os.path.expanduser(source)))
    if os.path.isfile(path / LABELLED_FILE):
        path = path / LABELLED_FILE
    if not os.path.exists(path):
        raise InvalidInputError(f"{where} does not exist; give {LABELLED_FILE}, or a folder or archive of label PNGs")
    if path.suffix.lower() != ".mat" or os.path.isdir(path):
        return load_maps(argument, source, split, _form(num_classes), size, void)
    if void:
        raise InvalidInputError(f"void={void} is for label PNGs; in {path.name} 0 is no class: leave it out")
    numbers, splits = _numbers(where, path.parent / _SPLITS_FILE, split)
    if size is None:
        return _read(where, path, split, numbers, num_classes, size)
    state = path.stat()
    stamp = f"{state.st_size} {state.st_mtime_ns} {splits}"
    source = f"{path} NYUv2 {num_classes} {size}"
    return keep(source, split, stamp, lambda: _read(where, path, split, numbers, num_classes, size))


def _numbers(where: str, path: Path, split: str) -> tuple[Sequence[int], str]:
    """Numbers of a split's images, from 1, and the digest of the file that gives them."""
    remedy = "remove it for the official split, or put the published one in its place"
    try:
        check_regular(path, _MOST_SPLITS)
        digest = file_digest(path)
    except FileNotFoundError:
        digest = SPLITS_DIGEST
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}; {remedy}") from error
    except OSError as error:
        raise InvalidInputError(f"{where}: {path.name} beside it cannot be read ({error.strerror})") from error
    if digest == SPLITS_DIGEST:
        return official_split(split), digest
    try:
        reader = importlib.import_module("scipy.io")
    except ImportError as error:
        raise InvalidInputError(
            f"{where}: {path.name} beside it is not the published one, and reading it needs the package 'scipy' (pip "
            f"install scipy); {remedy}"
        ) from error
    try:
        name = f"{split}Ndxs"
        # Of all that it names a file declares the shape, for which memory is asked before anything is read.
        shapes = {array: shape for array, shape, _ in reader.whosmat(path)}
        if math.prod(shapes[name]) > NUM_IMAGES:
            raise ValueError(f"it has the shape {shapes[name]}, there are {NUM_IMAGES} images")
        numbers = np.asarray(reader.loadmat(path, variable_names=[name])[name]).ravel()
    except Exception as error:  # of a damaged file scipy raises whatever its parser meets
        raise InvalidInputError(
            f"{where}: {path.name} beside it has no {split}Ndxs that can be read ({one_line(error)}); {remedy}"
        ) from error
    if not np.issubdtype(numbers.dtype, np.number) or numbers.size == 0 or (numbers % 1 != 0).any():
        raise InvalidInputError(f"{where}: {path.name} beside it has a {split}Ndxs without whole numbers; {remedy}")
    if numbers.min() < 1 or len(np.unique(numbers)) < len(numbers):
        raise InvalidInputError(
            f"{where}: {path.name} beside it has in {split}Ndxs a number below 1, or one twice; {remedy}"
        )
    return sorted(int(number) for number in numbers), digest


def _read(where: str, path: Path, split: str, numbers: Sequence[int], num_classes: int, size: Size) -> LabelledImages:
    """Read the labelled file image by image, into arrays made once."""
    if read_start(path, f"{where}: {path.name}").startswith(b"MATLAB 5.0"):
        raise InvalidInputError(
            f"{where}: {path.name} is a MATLAB 5 file, expected MATLAB 7.3 (HDF5); give {LABELLED_FILE} as "
            "downloaded, or save with -v7.3"
        )
    h5py = load_extra("h5py", where)
    try:
        with h5py.File(path, "r") as file:
            cache = max(_chunk_bytes(array) for array in _arrays(where, path.name, file, h5py))
        with h5py.File(path, "r", rdcc_nbytes=min(cache, _MOST_CACHE), rdcc_nslots=10_007) as file:
            images, labels = _arrays(where, path.name, file, h5py)
            if numbers[-1] > len(images):
                raise InvalidInputError(
                    f"{where}: {path.name} holds {len(images)} images, but image {numbers[-1]} is of the {split} "
                    f"split; give the whole file of {NUM_IMAGES}, or put a {_SPLITS_FILE} of its own beside it"
                )
            height, width = size or (images.shape[3], images.shape[2])
            made = torch.empty(len(numbers), 3, height, width, dtype=torch.uint8)
            classes = torch.empty(len(numbers), height, width, dtype=torch.uint8)
            table = class_table(num_classes)
            for index, number in enumerate(shown(numbers, f"reading NYUv2 {split}", "image")):
                # HDF5 has MATLAB's axes in reverse: (channel, column, row).
                pixels, ids = images[number - 1].transpose(0, 2, 1), labels[number - 1].T
                if size is not None:
                    pixels, ids = resized(pixels, size), nearest(ids, size)
                if ids.max() > NUM_NAMES:
                    raise InvalidInputError(
                        f"{where}: labels of image {number} in {path.name} go to {ids.max()}, expected 0 to "
                        f"{NUM_NAMES}; give {LABELLED_FILE} as downloaded"
                    )
                made.numpy()[index], classes.numpy()[index] = pixels, table[ids]
    except InvalidInputError:
        raise
    except Exception as error:  # of a damaged file h5py raises OSError, RuntimeError, KeyError and others
        raise InvalidInputError(
            f"{where}: {path.name} cannot be read as MATLAB 7.3 (HDF5) ({one_line(error)}); was it cut short? the "
            "official file has 2.8 GB: download it anew"
        ) from error
    return made, classes


def _arrays(where: str, name: str, file: Any, h5py: Any) -> tuple[Any, Any]:
    """Images (N, 3, W, H) uint8 and labels (N, W, H) of the labelled file, not yet read; its names are checked."""
    found = {key: file[key] for key in ("images", "labels", "names") if isinstance(file.get(key), h5py.Dataset)}
    if len(found) < 3:
        missing = ", ".join(key for key in ("images", "labels", "names") if key not in found)
        raise InvalidInputError(f"{where}: {name} lacks the array {missing}; give {LABELLED_FILE} as downloaded")
    images, labels = found["images"], found["labels"]
    shapes = f"{where}: {name} has images {images.shape} {images.dtype} and labels {labels.shape} {labels.dtype}"
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise InvalidInputError(f"{shapes}; expected images (N, 3, width, height) uint8, as MATLAB saves them")
    if labels.shape != (len(images), *images.shape[2:]) or not np.issubdtype(labels.dtype, np.unsignedinteger):
        raise InvalidInputError(f"{shapes}; expected labels (N, width, height) uint16 of the same images")
    for array in (images, labels):
        _check_stored(where, name, array)
    cells = found["names"]
    if h5py.check_ref_dtype(cells.dtype) is None or cells.size != NUM_NAMES:
        raise InvalidInputError(f"{where}: {name} has {cells.size} names, expected {NUM_NAMES} cells of text")
    references = np.asarray(cells).ravel()
    for known, number in KNOWN_NAMES.items():
        cell = file[references[number - 1]]
        text = "".join(map(chr, np.asarray(cell).ravel())) if cell.size <= _MOST_NAME else ""
        if text != known:
            raise InvalidInputError(
                f"{where}: {name} has {text[:40]!r} as name {number}, officially {known!r}, so its labels are numbered "
                f"otherwise; give {LABELLED_FILE} as downloaded"
            )
    return images, labels


def _check_stored(where: str, name: str, array: Any) -> None:
    """Refuse an array that is larger than the official one, or than what is stored of it can mean.

    HDF5 declares shapes without storing anything, and reads zeros then.
    """
    if len(array) > NUM_IMAGES or any(side > most for side, most in zip(array.shape[-2:], _SIDES, strict=True)):
        raise InvalidInputError(
            f"{where}: {name} has an array {array.shape}, officially {NUM_IMAGES} images of {_SIDES[0]}×{_SIDES[1]}; "
            f"give {LABELLED_FILE} as downloaded, or a folder of label PNGs"
        )
    if array.ndim == 4:  # the images; label maps are compressed to less than a hundredth at times
        check_unpacked(f"{where}: {name}", array.nbytes, array.id.get_storage_size())
    chunk = math.prod(array.chunks or (1,)) * array.dtype.itemsize
    if chunk > _MOST_CACHE:
        raise InvalidInputError(
            f"{where}: {name} has chunks of {chunk:,} bytes, at most {_MOST_CACHE:,} are read; give {LABELLED_FILE} as "
            "downloaded"
        )


def _chunk_bytes(array: Any) -> int:
    """Bytes of the chunks that one image touches: kept, none is decoded once for every image that has a part of it."""
    if array.chunks is None or array.chunks[0] == 1:
        return 0
    touched: list[int] = [
        -(-side // chunk) * chunk for side, chunk in zip(array.shape[1:], array.chunks[1:], strict=True)
    ]
    size: int = array.dtype.itemsize
    return math.prod((int(array.chunks[0]), size, *touched))


def _number(name: str) -> str:
    """The number that ends a name, without which files are paired by their names."""
    found = re.search(r"\d+$", name)
    return f"{int(found[0]):05}" if found else name


def _official(split: str, keys: Sequence[str]) -> list[str]:
    """The keys of a split; none where images are numbered from 0, which would shift them."""
    wanted = {f"{number:05}" for number in official_split(split)}
    return [] if f"{0:05}" in keys else [key for key in keys if key in wanted]


def _form(num_classes: int) -> MapForm:
    layouts = (
        *(("{split}/images", "{split}/labels", 0), ("{split}", "{split}annot", 0), ("{split}", "{split}_labels", 0)),
        *((folder, f"{{split}}_labels_{num_classes}", 0) for folder in ("{split}", "{split}_rgb", "nyu_{split}_rgb")),
        ("image/{split}", f"seg{num_classes}/{{split}}", 255),
        *(("images", f"labels{num_classes}", 0), ("images", "labels", 0)),
    )
    return MapForm(
        name="NYUv2",
        num_classes=num_classes,
        splits={split: len(official_split(split)) for split in _SPLITS},
        layouts=tuple(Layout(*layout) for layout in layouts),
        key=_number,
        official=_official,
    )
