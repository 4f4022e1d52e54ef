"""Data sets inside a tar archive: an image folder, or the original CIFAR batches. Both splits in one pass."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data.batches import BATCH_LAYOUTS, Batch, BatchLayout, join_batches, read_batch
from ssdkd_env.tasks.data.folders import SPLITS, check_classes, is_image
from ssdkd_env.tasks.data.images import ImageList, to_channels
from ssdkd_env.tasks.data.tar import Parts, read_members
from ssdkd_env.tasks.task import LabelledImages

_EXPECTED = "expected {train,test}/<class>/*.png or *.jpg, or the original CIFAR batches"
#: Folder and file name of every original batch → the name of its data set.
_BATCHES: dict[Parts, str] = {
    (layout.folder, name): dataset
    for dataset, layout in BATCH_LAYOUTS.items()
    for names in layout.files.values()
    for name in names
}


def read_archive(where: str, path: Path, channels: int) -> dict[str, LabelledImages]:
    """Read all splits of an archive, which is neither unpacked to disk nor trusted.

    Args:
        where: the user's argument and its value, for error messages.
        path: a tar archive, plain or compressed with gzip, bzip2 or xz.
        channels: of the images.

    Returns:
        Split → images (N, channels, H, W) uint8 and labels (N,) int64; in the same order as from the unpacked folder.

    Raises:
        InvalidInputError: when the archive is damaged or holds no data set, or its files do not fit.
    """
    batches: dict[str, dict[str, Batch]] = {name: {} for name in BATCH_LAYOUTS}
    tree = _ImageTree(where, channels)
    members = read_members(where, path, lambda parts: parts[-2:] in _BATCHES or _in_split(parts))
    for parts, content in tqdm(members, desc=f"decoding {path.name}", unit="file", leave=False):
        dataset = _BATCHES.get(parts[-2:])
        if dataset is None:
            tree.add(parts, content)
        elif content is not None:
            batches[dataset][parts[-1]] = read_batch(where, "/".join(parts), content, BATCH_LAYOUTS[dataset])
    for dataset, found in batches.items():
        if found:
            return _join(where, found, BATCH_LAYOUTS[dataset], channels)
    return tree.splits()


def _in_split(parts: Parts) -> bool:
    """Whether a member is a class folder of a split, or an image in one. Hidden files are overlooked."""
    if len(parts) < 2 or any(part.startswith(".") for part in parts):
        return False
    return parts[-2] in SPLITS or (len(parts) > 2 and parts[-3] in SPLITS and is_image(parts[-1]))


def _join(where: str, batches: dict[str, Batch], layout: BatchLayout, channels: int) -> dict[str, LabelledImages]:
    splits = {}
    for split in SPLITS:
        if set(layout.files[split]) & set(batches):
            images, labels = join_batches(where, batches, split, layout)
            splits[split] = to_channels(where, images, channels), labels
    return splits


class _ImageTree:
    """Images of an image folder, in whatever order they arrive."""

    def __init__(self, where: str, channels: int) -> None:
        self._where = where
        self._channels = channels
        self._root: Parts | None = None
        self._folders: set[Parts] = set()
        self._images: dict[str, ImageList] = {}
        self._places: dict[str, list[tuple[str, str]]] = {}  # split → class and file name of every image

    def add(self, parts: Parts, content: bytes | None) -> None:
        """Add a class folder (without content) or an image."""
        if content is None:
            self._folders.add(parts)
            return
        name = "/".join(parts)
        *root, split, label, file = ("", "", *parts)
        if split not in SPLITS:
            raise InvalidInputError(
                f"{self._where}: {name} inside is a file where a class folder is expected; {_EXPECTED}"
            )
        if self._root is None:
            self._root = tuple(root)
        if self._root != tuple(root):
            raise InvalidInputError(f"{self._where} holds several data sets ({name} is of the second); pack one alone")
        self._images.setdefault(split, ImageList(self._where, self._channels)).decode(name, content)
        self._places.setdefault(split, []).append((label, file))

    def splits(self) -> dict[str, LabelledImages]:
        """Split → images and labels, sorted by class and file name."""
        if self._root is None:
            raise InvalidInputError(f"{self._where} holds no images; {_EXPECTED}")
        classes = {split: sorted({label for label, _ in places}) for split, places in self._places.items()}
        for *root, split, label in sorted(self._folders):
            if tuple(root) == self._root[2:] and label not in classes.get(split, []):
                raise InvalidInputError(
                    f"{self._where}: class folder {split}/{label} inside holds no .png, .jpg or .jpeg; fill or remove "
                    "it"
                )
        check_classes(self._where, classes)
        return {split: self._sorted(split, classes[split]) for split in sorted(classes)}

    def _sorted(self, split: str, classes: list[str]) -> LabelledImages:
        places = self._places[split]
        order = sorted(range(len(places)), key=places.__getitem__)
        for first, second in pairwise(order):
            if places[first] == places[second]:
                raise InvalidInputError(
                    f"{self._where} holds {split}/{'/'.join(places[first])} twice; pack the folder anew"
                )
        images = self._images.pop(split).stack()
        if order != list(range(len(places))):
            images = images[order]
        number = {name: label for label, name in enumerate(classes)}
        return images, torch.tensor([number[places[index][0]] for index in order])
