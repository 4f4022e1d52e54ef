"""Real images from whatever form the user has them in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.registry import HUB_PREFIX, trust
from ssdkd_env.tasks.data.batches import BATCH_LAYOUTS, batches_in, has_batches, read_batches
from ssdkd_env.tasks.data.cache import load_cached, save_cached
from ssdkd_env.tasks.data.hub import read_hub
from ssdkd_env.tasks.data.images import Size, to_channels
from ssdkd_env.tasks.data.locate import image_splits, npz_splits
from ssdkd_env.tasks.data.members import list_members, stamp_of
from ssdkd_env.tasks.data.npz import load_npz
from ssdkd_env.tasks.data.tar import Parts
from ssdkd_env.tasks.data.trees import SPLITS, arrange, read_images
from ssdkd_env.tasks.task import LabelledImages


def load_split(
    argument: str,
    source: str | Path,
    split: Literal["train", "test"],
    channels: int = 3,
    num_classes: int | None = None,
    size: Size = None,
) -> LabelledImages:
    """Read one split of a data set.

    What has to be decoded (image folders, archives, Hub data sets) is decoded once, with a progress bar, and kept in
    the cache folder (`SSDKD_CACHE`, else `~/.cache/ssdkd_env`): one file a split, mapped into memory by the next call.
    It is decoded anew when a file's name, size or time has changed. A data set of the Hub is kept as it was when
    first fetched; delete its file to fetch it anew. Reading an archive keeps both its splits.

    Args:
        argument: name of the user's argument, for error messages.
        source: one of

            - a folder with the original batches of CIFAR-10 (`data_batch_1` to `data_batch_5`, `test_batch`) or of
              CIFAR-100 (`train`, `test`; fine labels, or the coarse ones where `num_classes` is 20). They are pickles,
              of which nothing but arrays is read;
            - an image folder, `{train,test}/<class>/`, with PNG, JPEG, BMP, WebP, PPM and TIFF files of one size in it
              or in folders below. Classes are numbered by the order of names; of numbers, where all names are numbers.
              `training` stands for train; `testing`, `val`, `valid` and `validation` for test, where there is none;
            - a folder of classes without splits, from which `split` does not select;
            - a single `.npz` (see `load_npz`), or a folder with `train.npz` and `test.npz`;
            - a tar archive (plain, gzip, bzip2 or xz) or a zip archive of batches, an image folder or folders of
              classes; it is not unpacked;
            - "hub:owner/name", fetched with the optional package `datasets` (pip install 'ssdkd-env[hub]'). Images are
              in a column `image` or `img`, labels in `label`, `fine_label` or `coarse_label`.
        split: "train" or "test".
        channels: C of the images returned: 1 (grey), 3 (RGB), or any other that an `.npz` has. Grey images are
            repeated, colours weighed into grey (ITU-R 601-2, as Pillow does). In arrays they may come last.
        num_classes: that the data set must have, where it says how many it has; None for any number.
        size: (height, width) that image files must have; None for that of the first.

    Returns:
        Images (N, C, H, W) uint8 and labels (N,) int64, at least 0; from an `.npz`, labels may be (N, H, W), and then
        have whatever number means no class.

    Raises:
        InvalidInputError: when the source is missing, damaged, cut short or of another form, lacks the split, has
            images of different sizes, another number of classes, or labels that do not fit.
    """
    check_choice("split", split, SPLITS)
    text = os.fspath(source)
    wanted = _Wanted(argument, f"{argument}={text!r}", split, channels, num_classes, size)
    if text.startswith(HUB_PREFIX):
        name = text.removeprefix(HUB_PREFIX)
        trust([text])  # the user has named it; what files name has been refused before
        read = partial(read_hub, wanted.where, name, split, channels, num_classes)
        images, labels = _through_cache(wanted, text, "", lambda: {split: read()})
    elif os.path.isfile(path := Path(os.path.abspath(os.path.expanduser(text)))):
        if path.suffix.lower() == ".npz":
            images, labels = load_npz(argument, path, split)
        else:
            images, labels = _through_cache(wanted, str(path), stamp_of(path), lambda: _read_archive(wanted, path))
    elif os.path.isdir(path):
        images, labels = _load_folder(wanted, path)
    else:
        raise InvalidInputError(
            f"{wanted.where} does not exist; give a folder, a tar or zip archive, an .npz or 'hub:owner/name', or set "
            "SSDKD_DATA"
        )
    if labels.dim() == 0 or len(images) != len(labels):
        raise InvalidInputError(
            f"{wanted.where}: {len(images)} images but labels of shape {tuple(labels.shape)}; give one label an image"
        )
    if labels.dim() == 1 and labels.min() < 0:
        raise InvalidInputError(f"{wanted.where}: labels start at {int(labels.min())}; number the classes from 0")
    return to_channels(wanted.where, images, channels), labels


@dataclass(frozen=True)
class _Wanted:
    """What is asked of `load_split`, and the argument with its value, for error messages."""

    argument: str
    where: str
    split: str
    channels: int
    num_classes: int | None
    size: Size


def _read_archive(wanted: _Wanted, path: Path) -> dict[str, LabelledImages]:
    names = list_members(wanted.where, path)
    dataset, found = batches_in(names)
    if dataset:
        splits = read_batches(wanted.where, path, found, dataset, wanted.num_classes)
    else:
        plan = arrange(wanted.where, names, wanted.num_classes, rooted=False)
        splits = {
            name or wanted.split: read_images(wanted.where, path, labels, wanted.channels, wanted.size)
            for name, labels in plan.items()
        }
    if wanted.split not in splits:
        raise InvalidInputError(
            f"{wanted.where} has no {wanted.split} split; give an archive that has {wanted.split}/<class>/"
        )
    return splits


def _load_folder(wanted: _Wanted, path: Path) -> LabelledImages:
    folders = image_splits(path)
    if not folders:
        for dataset, layout in BATCH_LAYOUTS.items():
            if has_batches(path, layout):  # not kept: they are quick to read, and a copy would take as much disk again
                found: dict[Parts, str] = {(name,): name for name in layout.files[wanted.split]}
                return read_batches(wanted.where, path, found, dataset, wanted.num_classes)[wanted.split]
        if files := npz_splits(path):
            return load_npz(wanted.argument, files.get(wanted.split, path / f"{wanted.split}.npz"), wanted.split)
    plan = arrange(wanted.where, list_members(wanted.where, path, folders.values()), wanted.num_classes, rooted=True)
    labels = plan.get(wanted.split, plan.get(""))
    if labels is None:
        raise InvalidInputError(
            f"{wanted.where} has no folder {wanted.split!r}; expected {wanted.split}/<class>/*.png or *.jpg"
        )
    read = partial(read_images, wanted.where, path, labels, wanted.channels, wanted.size)
    return _through_cache(wanted, str(path), stamp_of(path, labels), lambda: {wanted.split: read()})


def _through_cache(
    wanted: _Wanted, source: str, stamp: str, read: Callable[[], Mapping[str, LabelledImages]]
) -> LabelledImages:
    """The split as kept; else what `read` gives, all splits of which are kept.

    What is kept was checked against a number of classes, and may have the labels that a task of so many asks for.
    """
    key = source if wanted.num_classes is None else f"{source} {wanted.num_classes}"
    kept = load_cached(key, wanted.split, wanted.channels, stamp)
    if kept is not None:
        return kept
    splits = read()
    for name, data in splits.items():
        save_cached(key, name, wanted.channels, stamp, data)
    return splits[wanted.split]
