"""Finding a data set on the user's disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data.batches import BATCH_LAYOUTS, has_batches
from ssdkd_env.tasks.data.trees import split_names

#: Where data sets are looked for when no argument says it.
DATA_VARIABLE = "SSDKD_DATA"
#: Endings of an archive's name, in the order in which they are looked for.
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")

#: Data sets of label maps, and what tells a folder of theirs.
OF_MAPS = {
    "camvid": ("train.txt", "train/images", "trainannot", "train_labels", "701_StillsRaw_full"),
    "nyuv2": ("nyu_depth_v2_labeled.mat", "labels13", "train_labels_13", "test_labels_13", "seg13", "train/images"),
}


def find_dataset(name: str, data_root: str | Path | None) -> Path | None:
    """Find the data set `name` in `data_root`, else in the folder that `SSDKD_DATA` names.

    Looked for, in this order:

    0. `camvid` and `nyuv2`: a folder of the name, an archive whose name begins with it, or `data_root` itself, when it
       is such a folder (`nyu_depth_v2_labeled.mat` may lie in either);
    1. `cifar10` and `cifar100` only: the original python batches, as a folder (`cifar-10-batches-py`,
       `cifar-100-python`) or as the archive downloaded (`cifar-10-python.tar.gz`, `cifar-100-python.tar.gz`);
    2. an image folder, `<name>/{train,test}/<class>/*.{png,jpg,…}`; in place of `test` it may have `val` and so on (see
       `load_split`);
    3. an archive, `<name>.tar`, `.tar.gz`, `.tgz`, `.tar.bz2`, `.tar.xz` or `.zip`, then `<name>-jpeg.tar` and so on;
    4. a folder with `<name>/train.npz` and `<name>/test.npz`;
    5. `data_root` itself, when it is such a folder of batches, images or `.npz` files.

    Args:
        name: of the data set.
        data_root: a folder; None and "" mean that none is given.

    Returns:
        What `load_split` reads; None when neither `data_root` nor `SSDKD_DATA` is set.

    Raises:
        InvalidInputError: when the folder is missing or holds no such data set.
    """
    if data_root:
        where, root = f"data_root={str(data_root)!r}", Path(os.path.expanduser(data_root))
    elif chosen := os.environ.get(DATA_VARIABLE):
        where, root = f"{DATA_VARIABLE}={chosen!r}", Path(os.path.expanduser(chosen))
    else:
        return None
    if not os.path.isdir(root):
        problem = "is a file, expected a folder" if os.path.isfile(root) else "does not exist"
        raise InvalidInputError(f"{where} {problem}; give the folder in which to look for the data set {name!r}")
    for path, matches in _maps(name, root) if name in OF_MAPS else _candidates(name, root):
        if matches:
            return path
    if name in OF_MAPS:
        raise InvalidInputError(
            f"{where} holds no data set {name!r}; looked for {name}/, {name}*.tar*, {name}*.zip, "
            f"{', '.join(OF_MAPS[name])}: put one of them there or give another folder"
        )
    layout = BATCH_LAYOUTS.get(name)
    originals = f"{layout.folder}/, {layout.archive}, " if layout else ""
    raise InvalidInputError(
        f"{where} holds no data set {name!r}; looked for {originals}{name}/{{train,test}}/<class>/, {name}.tar*, "
        f"{name}.zip, {name}-jpeg.tar* and {name}/{{train,test}}.npz: put one of them there or "
        "give another folder"
    )


def _maps(name: str, root: Path) -> Iterator[tuple[Path, bool]]:
    """Every place where a data set of label maps may be, in order, and whether it is there."""
    yield root / name, os.path.isdir(root / name)
    for path in (*sorted(root.glob(f"{name}*.tar*")), *sorted(root.glob(f"{name}*.zip"))):
        yield path, os.path.isfile(path)
    yield root, any(os.path.exists(root / mark) for mark in OF_MAPS[name])


def _candidates(name: str, root: Path) -> Iterator[tuple[Path, bool]]:
    """Every place where the data set may be, in order, and whether it is there."""
    layout = BATCH_LAYOUTS.get(name)
    if layout is not None:
        yield root / layout.folder, has_batches(root / layout.folder, layout)
        yield root / layout.archive, os.path.isfile(root / layout.archive)
    yield root / name, len(image_splits(root / name)) == 2
    for kind in ("", "-jpeg"):
        for suffix in ARCHIVE_SUFFIXES:
            path = root / f"{name}{kind}{suffix}"
            yield path, os.path.isfile(path)
    yield root / name, len(npz_splits(root / name)) == 2
    yield root, layout is not None and has_batches(root, layout)
    yield root, len(image_splits(root)) == 2 or len(npz_splits(root)) == 2


def image_splits(folder: Path) -> dict[str, str]:
    """Split → the folder in it that holds its images."""
    return split_names(entry.name for entry in _entries(folder) if entry.is_dir())


def npz_splits(folder: Path) -> dict[str, Path]:
    """Split → its `.npz` in a folder."""
    files = [Path(entry.path) for entry in _entries(folder) if entry.name.endswith(".npz") and entry.is_file()]
    return {split: folder / f"{stem}.npz" for split, stem in split_names(file.stem for file in files).items()}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing where there is none."""
    if not os.path.isdir(folder):
        return []
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise InvalidInputError(f"{folder} cannot be listed ({error.strerror}); make it readable") from error
