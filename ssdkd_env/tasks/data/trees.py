"""Images in folders of classes, `{train,test}/<class>/`, on disk or in an archive: what is where, and what it shows."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.progress import shown
from ssdkd_env.tasks.data.images import IMAGE_SUFFIXES, MOST_IMAGE, UNREAD_SUFFIXES, ImageStack, Size
from ssdkd_env.tasks.data.members import packed_size, read_members
from ssdkd_env.tasks.data.tar import Parts
from ssdkd_env.tasks.task import LabelledImages

#: The splits of a data set.
SPLITS = ("train", "test")
#: Names that people give to them, the preferred first: where there is no test data, validation data stand in.
SPLIT_NAMES = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
_ALL_NAMES = frozenset(name for names in SPLIT_NAMES.values() for name in names)

#: Split, or "" where there are none → name of an image → its label.
Plan = dict[str, dict[Parts, int]]


def split_names(names: Iterable[str]) -> dict[str, str]:
    """Split → which of these names stands for it, whatever its case."""
    known = {name.lower(): name for name in sorted(names, reverse=True)}
    found = {split: next((known[name] for name in own if name in known), None) for split, own in SPLIT_NAMES.items()}
    return {split: name for split, name in found.items() if name is not None}


def arrange(where: str, names: Mapping[Parts, bool], num_classes: int | None, rooted: bool) -> Plan:
    """Find out which of the names are images of which split and class.

    Args:
        where: the user's argument and its value, for error messages.
        names: of files and folders, and whether each is a folder.
        num_classes: that there must be; None for any number.
        rooted: whether they lie directly under the data set's folder; else it may be any folder in an archive.

    Returns:
        Classes are numbered by the order of their names, which is that of numbers where all are numbers.

    Raises:
        InvalidInputError: when there are no images, a class is empty, a file is where a class folder should be, images
            are of a form that is not read, splits have different classes or another number of them, or there are
            several data sets.
    """
    if not any(is_image(parts[-1]) for parts in names):
        raise InvalidInputError(
            f"{where} holds no images; expected {{train,test}}/<class>/*.png or *.jpg, <class>/*.png, the original "
            "CIFAR batches (python version), or train.npz and test.npz directly in it"
        )
    root, splits = _root(where, names, rooted)
    classes = {split: _classes(where, names, folder, bool(split)) for split, folder in splits.items()}
    for split, found in classes.items():
        _check(where, split or "/".join(root), found, classes)
    order = _in_order(where, next(iter(classes.values())))
    check_count(where, order, len(order), num_classes)
    return {
        split: {parts: label for label, name in enumerate(order) for parts in found[name]}
        for split, found in classes.items()
    }


def read_images(where: str, path: Path, labels: Mapping[Parts, int], channels: int, size: Size) -> LabelledImages:
    """Decode the images of a split.

    Args:
        where: the user's argument and its value, for error messages.
        path: folder or archive that holds them.
        labels: of each image.
        channels: 1 or 3.
        size: (height, width) that they must have; None for that of the first.

    Returns:
        Images (N, channels, H, W) uint8 and labels (N,) int64, by class and name.

    Raises:
        InvalidInputError: naming the first image that cannot be decoded or differs in size.
    """
    order = {parts: index for index, parts in enumerate(sorted(labels, key=lambda parts: (labels[parts], parts)))}
    stack = ImageStack(where, len(order), channels, packed_size(path, order), size)
    members = read_members(where, path, order, MOST_IMAGE)
    for parts, content in shown(members, f"decoding {path.name}", "image", len(order)):
        stack.decode(order[parts], "/".join(parts), content)
    return stack.images, torch.tensor([labels[parts] for parts in order])


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def check_count(where: str, names: Sequence[str], found: int, num_classes: int | None) -> None:
    """Check that a data set has as many classes as its task.

    Args:
        where: the user's argument and its value, for error messages.
        names: of the classes, or of the data set, likewise.
        found: number of classes.
        num_classes: that there must be; None for any number.

    Raises:
        InvalidInputError: when it has more or fewer.
    """
    if num_classes not in (None, found):
        shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        raise InvalidInputError(
            f"{where} has {found} classes ({shown}), and the task has {num_classes}; give data of the task's classes"
        )


def _root(where: str, names: Mapping[Parts, bool], rooted: bool) -> tuple[Parts, dict[str, Parts]]:
    """The data set's folder, and the folder of each split, or of "" where there are none.

    Classes may be called test, too: of several folders it is the one below which most images are in splits.
    """
    below: dict[Parts, set[str]] = {}
    held: Counter[Parts] = Counter()
    for parts, is_folder in names.items():
        for depth, name in enumerate(parts[: 1 if rooted else None]):
            if name.lower() in _ALL_NAMES and (is_folder or depth < len(parts) - 1):
                below.setdefault(parts[:depth], set()).add(name)
                held[parts[:depth]] += not is_folder and is_image(parts[-1])
    if not below:
        root = () if rooted else _common([parts[:-2] for parts in names if is_image(parts[-1])])
        return root, {"": root}
    root, *others = sorted(below, key=lambda root: (-held[root], -len(split_names(below[root])), len(root), root))
    for other in others:
        if root[: len(other)] != other and other[: len(root)] != root:
            raise InvalidInputError(
                f"{where} holds several data sets ({'/'.join(root)} and {'/'.join(other)}); give one alone"
            )
    return root, {split: (*root, name) for split, name in split_names(below[root]).items()}


def _common(folders: Collection[Parts]) -> Parts:
    """The longest beginning that all have."""
    first, last = min(folders), max(folders)
    depth = next((depth for depth, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[:depth]


def _classes(where: str, names: Mapping[Parts, bool], folder: Parts, strict: bool) -> dict[str, list[Parts]]:
    """Class → its images, in whatever folder below its own; `strict` where no other files lie beside the classes."""
    classes: dict[str, list[Parts]] = {}
    for parts, is_folder in names.items():
        name, below, shown = parts[-1], len(parts) - len(folder), "/".join(parts)
        if below < 1 or parts[: len(folder)] != folder:
            continue
        if is_folder:
            classes.setdefault(parts[len(folder)], [])
        elif below == 1 and (strict or is_image(name)):
            raise InvalidInputError(f"{where}: {shown} is a file where a class folder is expected; move it elsewhere")
        elif is_image(name):
            classes.setdefault(parts[len(folder)], []).append(parts)
        elif name.lower().endswith(UNREAD_SUFFIXES):
            raise InvalidInputError(f"{where}: {shown} is of a form that is not read; save it as .png, or remove it")
        elif "." not in name:
            raise InvalidInputError(
                f"{where}: {shown} has no ending that says whether it is an image; name it .png or .jpg, or remove it"
            )
    return classes


def _check(
    where: str, split: str, found: Mapping[str, list[Parts]], classes: Mapping[str, Mapping[str, list[Parts]]]
) -> None:
    """Check that a split has classes, images in each, and the classes of the other split."""
    if not found:
        raise InvalidInputError(f"{where}: {split} holds no class folder; expected {split}/<class>/*.png or *.jpg")
    for name, images in found.items():
        if not images:
            raise InvalidInputError(
                f"{where}: class folder {split}/{name} holds no {', '.join(IMAGE_SUFFIXES)}; fill or remove it"
            )
    for other, of_other in classes.items():
        missing = sorted(set(of_other) - set(found))
        if missing:
            raise InvalidInputError(
                f"{where}: {split} lacks the class {missing[0]!r} that {other} has; train and test need the same class "
                "folders"
            )


def _in_order(where: str, names: Collection[str]) -> list[str]:
    """Names of classes in the order by which they are numbered."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    order = sorted(names)
    moved = next((pair for pair in zip(order, sorted(names, key=_natural), strict=True) if pair[0] != pair[1]), None)
    if moved is not None:
        warnings.warn(
            f"{where}: classes are numbered by their names as text, in which {moved[0]!r} comes before {moved[1]!r}; "
            "name them by numbers alone, or with zeros before them, if that is not meant",
            stacklevel=2,
        )
    return order


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key by which the numbers in names are compared as numbers."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
