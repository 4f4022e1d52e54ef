"""Real images from whatever form the user has them in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.registry import HUB_PREFIX, trust
from ssdkd_env.tasks.data.archives import read_archive
from ssdkd_env.tasks.data.batches import BATCH_LAYOUTS, read_batch_folder
from ssdkd_env.tasks.data.cache import load_cached, save_cached
from ssdkd_env.tasks.data.folders import SPLITS, ImageFolder
from ssdkd_env.tasks.data.hub import read_hub
from ssdkd_env.tasks.data.images import to_channels
from ssdkd_env.tasks.data.locate import has_batches, image_splits, npz_splits
from ssdkd_env.tasks.data.npz import load_npz
from ssdkd_env.tasks.task import LabelledImages


def load_split(argument: str, source: str | Path, split: Literal["train", "test"], channels: int = 3) -> LabelledImages:
    """Read one split of a data set.

    What has to be decoded (image folders, archives, Hub data sets) is decoded once, with a progress bar, and kept in
    the cache folder (`SSDKD_CACHE`, else `~/.cache/ssdkd_env`): one file a split, mapped into memory by the next call.
    It is decoded anew when a file's name, size or time has changed. A data set of the Hub is kept as it was when
    first fetched; delete its file to fetch it anew. Reading an archive keeps both its splits.

    Args:
        argument: name of the user's argument, for error messages.
        source: one of

            - a folder with the original batches of CIFAR-10 (`data_batch_1` to `data_batch_5`, `test_batch`) or of
              CIFAR-100 (`train`, `test`; fine labels). They are pickles, of which nothing but arrays is read;
            - an image folder, `{train,test}/<class>/*.{png,jpg,jpeg}`; classes are numbered by the order of names;
            - a folder with `train.npz` and `test.npz`, or a single `.npz`, from which `split` does not select (see
              `load_npz`);
            - a tar archive (plain, gzip, bzip2 or xz) of the batches or of an image folder; it is not unpacked;
            - "hub:owner/name", fetched with the optional package `datasets` (pip install 'ssdkd-env[hub]'). Images are
              in a column `image` or `img`, labels in `label`, `fine_label` or `coarse_label`.
        split: "train" or "test".
        channels: C of the images returned: 1 (grey), 3 (RGB), or any other that an `.npz` has. Grey images are
            repeated, colours weighed into grey (ITU-R 601-2, as Pillow does).

    Returns:
        Images (N, C, H, W) uint8 and labels (N,) int64, at least 0; from an `.npz`, labels may be (N, H, W).

    Raises:
        InvalidInputError: when the source is missing, damaged, cut short or of another form, lacks the split, has
            images of different sizes, or labels that do not fit.
    """
    check_choice("split", split, SPLITS)
    text = os.fspath(source)
    where = f"{argument}={text!r}"
    if text.startswith(HUB_PREFIX):
        name = text.removeprefix(HUB_PREFIX)
        trust([text])  # the user has named it; what files name has been refused before
        data = _through_cache(text, split, channels, "", lambda: {split: read_hub(where, name, split, channels)})
    elif os.path.isfile(path := Path(os.path.abspath(os.path.expanduser(text)))):
        data = _load_file(argument, where, path, split, channels)
    elif os.path.isdir(path):
        data = _load_folder(argument, where, path, split, channels)
    else:
        raise InvalidInputError(
            f"{where} does not exist; give a folder, a tar archive, an .npz or 'hub:owner/name', or set SSDKD_DATA"
        )
    images, labels = data
    if labels.dim() == 0 or len(images) != len(labels):
        raise InvalidInputError(
            f"{where}: {len(images)} images but labels of shape {tuple(labels.shape)}; give one label an image"
        )
    if labels.min() < 0:
        raise InvalidInputError(f"{where}: labels start at {int(labels.min())}; number the classes from 0")
    return images, labels


def _load_file(argument: str, where: str, path: Path, split: str, channels: int) -> LabelledImages:
    if path.suffix == ".npz":
        images, labels = load_npz(argument, path)
        return to_channels(where, images, channels), labels
    state = path.stat()

    def read() -> dict[str, LabelledImages]:
        splits = read_archive(where, path, channels)
        if split not in splits:
            raise InvalidInputError(f"{where} has no {split} split; give an archive that has {split}/<class>/")
        return splits

    return _through_cache(str(path), split, channels, f"{state.st_size} {state.st_mtime_ns}", read)


def _load_folder(argument: str, where: str, path: Path, split: str, channels: int) -> LabelledImages:
    if image_splits(path):
        folder = ImageFolder(where, path, split)
        return _through_cache(str(path), split, channels, folder.stamp(), lambda: {split: folder.read(channels)})
    for layout in BATCH_LAYOUTS.values():
        if has_batches(path, layout):  # not kept: they are quick to read, and a copy would take as much disk again
            images, labels = read_batch_folder(where, path, split, layout)
            return to_channels(where, images, channels), labels
    if npz_splits(path):
        images, labels = load_npz(argument, path / f"{split}.npz")
        return to_channels(where, images, channels), labels
    raise InvalidInputError(
        f"{where} is a folder without train/ and test/, the original CIFAR batches, or train.npz and test.npz; give "
        "the folder that directly holds one of these"
    )


def _through_cache(
    source: str, split: str, channels: int, stamp: str, read: Callable[[], Mapping[str, LabelledImages]]
) -> LabelledImages:
    """The split as kept; else what `read` gives, all splits of which are kept."""
    kept = load_cached(source, split, channels, stamp)
    if kept is not None:
        return kept
    splits = read()
    for name, data in splits.items():
        save_cached(source, name, channels, stamp, data)
    return splits[split]
