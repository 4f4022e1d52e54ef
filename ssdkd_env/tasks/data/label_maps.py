"""Images with label maps: PNGs whose numbers or colours are classes, in folders or in a tar archive.

Every convention of "no class" ends here: what is returned has classes 0 to K − 1, and `VOID`. A label map is only ever
resized by its nearest pixels, because a mean of two classes is a third.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ssdkd_env.errors import InvalidInputError, check_choice
from ssdkd_env.extras import load_extra
from ssdkd_env.progress import shown
from ssdkd_env.tasks.data.cache import load_cached, save_cached
from ssdkd_env.tasks.data.images import MOST_IMAGE, Size, check_decoded, opened, pixels_of
from ssdkd_env.tasks.data.label_pixels import decode_map
from ssdkd_env.tasks.data.map_forms import Layout, MapForm
from ssdkd_env.tasks.data.members import list_members, packed_size, read_members, stamp_of
from ssdkd_env.tasks.data.tar import Parts
from ssdkd_env.tasks.data.trees import is_image
from ssdkd_env.tasks.task import LabelledImages
from ssdkd_env.tasks.void import VOID, to_classes

#: Raised whenever decoding changes, so that what was kept before is made anew.
_FORMAT = 2

#: Bytes of a file that names the images of a split.
_MOST_NAMES = 2**23

#: Folder → names of the files in it.
_Folders = Mapping[Parts, Sequence[str]]
#: What an image and its label map have in common → where such a file lies.
_Keyed = dict[str, Parts]


def load_maps(
    argument: str, source: str | Path, split: str, form: MapForm, size: Size = None, void: int | None = None
) -> LabelledImages:
    """Read one split, from the cache folder where it was read before (see `load_split`).

    Args:
        argument: name of the user's argument, for error messages.
        source: a folder in one of the form's layouts, or a tar or zip archive of such a folder, which is not unpacked.
        split: one of the form's.
        form: of the data set.
        size: (height, width) to which images are resized by an antialiased bilinear filter and label maps by their
            nearest pixels; None leaves them.
        void: the number that index maps have for no class; None: the layout's.

    Returns:
        Images (N, 3, H, W) uint8 and labels (N, H, W) uint8, classes or `VOID`; in the order of names, or of the file
        that names them.

    Raises:
        InvalidInputError: when files are missing, damaged, without a partner, of different sizes, or of no known class;
            also when nobody has said what 0 means and the maps would fit either way.
    """
    check_choice("split", split, form.splits)
    check_size("size", size)
    to_classes(argument, torch.zeros(0, dtype=torch.uint8), form.num_classes, void)  # refuses a void that is a class
    where, path = f"{argument}={os.fspath(source)!r}", Path(os.path.abspath(os.path.expanduser(source)))
    if not os.path.isdir(path) and not os.path.isfile(path):
        raise InvalidInputError(f"{where} does not exist; give a folder or an archive of {form.name}")
    listed = _listed(where, path, split, form) if path.is_dir() else {}
    stamp = stamp_of(path, ((*folder, name) for folder, names in listed.items() for name in names))

    def read() -> LabelledImages:
        folders = listed if path.is_dir() else _listed(where, path, split, form)
        layout, pairs = _choose(where, path, folders, split, form)
        images, labels = _read(where, path, pairs, form, layout.void if void is None else void, size)
        if void is None and layout.void == 0:
            _check_numbered_from_one(where, labels, form)
        return images, labels

    voids = [layout.void for layout in form.layouts] if void is None else void
    return keep(f"{path} {form.name} {form.num_classes} {voids} {size}", split, stamp, read)


def _check_numbered_from_one(where: str, labels: torch.Tensor, form: MapForm) -> None:
    """Refuse maps read with 0 as no class that could as well be numbered from 0: of which the last class is nowhere."""
    last = form.num_classes - 1
    if (labels == VOID).any() and not (labels == last).any():
        raise InvalidInputError(
            f"{where}: label maps have the numbers 0 to at most {last}, which {form.name}'s {form.num_classes} classes "
            "have numbered from 0, and from 1 where 0 is no class; say which by void=255 or void=0, of the task"
        )


def check_size(argument: str, size: Size) -> None:
    """Check a (height, width).

    Raises:
        InvalidInputError: when it is neither None nor two whole numbers from 1.
    """
    if size is not None and (len(size) != 2 or not all(type(side) is int and side >= 1 for side in size)):
        raise InvalidInputError(f"{argument}={size!r}: expected (height, width) in pixels, both at least 1")


def keep(source: str, split: str, stamp: str, read: Callable[[], LabelledImages]) -> LabelledImages:
    """The split as kept in the cache folder; else what `read` gives, which is kept there.

    Args:
        source: where it comes from, and all that decides how it is read.
        split: which of its splits.
        stamp: state of the files; what was kept of another state is read anew.
        read: gives images (N, 3, H, W) and labels (N, H, W), both uint8.
    """
    source = f"{source} maps{_FORMAT}"
    # The cache holds int64 labels, one an image. Eight uint8 go into each, so that maps take no more than they are.
    kept = load_cached(source, split, 3, stamp)
    if kept is not None:
        images, packed = kept
        shape = (len(images), *images.shape[2:])
        return images, packed.view(torch.uint8)[: images[:, 0].numel()].view(shape)
    images, labels = read()
    padded = torch.nn.functional.pad(labels.flatten(), (0, -labels.numel() % 8))
    save_cached(source, split, 3, stamp, (images, padded.view(torch.int64)))
    return images, labels


def resized(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """An image (3, H, W) uint8 at (height, width) `size`, by Pillow's antialiased bilinear filter."""
    image = load_extra("PIL.Image", "size").fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return pixels_of("size", "image", image, 3, size)


def nearest(labels: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Labels (H, W) at (height, width) `size`: of each new pixel's centre, the pixel it lies in, as Pillow takes it."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, labels.shape, strict=True))
    return labels[np.ix_(rows, columns)]


def _parts(template: str, split: str) -> Parts:
    return tuple(template.format(split=split).split("/"))


def _listed(where: str, path: Path, split: str, form: MapForm) -> _Folders:
    """The files that may belong to a split, by folder."""
    templates = [name for layout in form.layouts for name in (layout.images, layout.labels)]
    mine = {part for name in templates for part in _parts(name, split)}
    others = {part for other in form.splits for name in templates for part in _parts(name, other)} - mine
    tops = {_parts(name, split)[0] for name in templates} | {f"{split}.txt"}
    folders: dict[Parts, list[str]] = {}
    for (*folder, name), is_folder in list_members(where, path, tops).items():
        if not is_folder and not others.intersection(folder) and (is_image(name) or name == f"{split}.txt"):
            folders.setdefault(tuple(folder), []).append(name)
    return folders


def _choose(
    where: str, path: Path, folders: _Folders, split: str, form: MapForm
) -> tuple[Layout, list[tuple[Parts, Parts]]]:
    """The first layout that is there, and its images with their label maps."""
    unnamed = ""
    roots = {parts[:depth] for parts in folders for depth in range(len(parts))} | {()}
    for root in sorted(roots, key=lambda parts: (len(parts), parts)):
        for layout in form.layouts:
            images = _keyed(where, root + _parts(layout.images, split), folders, form, {})
            folder = root + _parts(layout.labels, split)
            labels = _keyed(where, folder, folders, form, images)
            if not images or not labels:
                continue
            names = f"{split}.txt"
            if "{split}" in layout.images:
                keys = [(key, key) for key in sorted(images.keys() | labels.keys())]
            elif names in folders.get(root, ()):
                keys = _named(where, path, (*root, names), form)
            else:
                keys = [(key, key) for key in form.official(split, sorted(images))]
                if len(keys) != form.splits[split]:
                    unnamed = unnamed or (
                        f"{where}: {layout.images} holds {len(keys)} of the {form.splits[split]} images that are "
                        f"officially {split}; add the others, or a file {split}.txt with one image name a line"
                    )
                    continue
            return layout, [_pair(where, images, labels, image, label, "/".join(folder)) for image, label in keys]
    expected = [f"{layout.images} with {layout.labels}".format(split=split) for layout in form.layouts]
    raise InvalidInputError(
        unnamed
        or f"{where} has no images with label maps of {form.name}'s {split} split; expected the folders "
        f"{', '.join(expected[:-1])} or {expected[-1]}"
    )


def _keyed(where: str, folder: Parts, folders: _Folders, form: MapForm, images: _Keyed) -> _Keyed:
    """The files of a folder by their keys; those of label maps may end with _L where their `images` do not."""
    found: _Keyed = {}
    for name in sorted(name for name in folders.get(folder, ()) if is_image(name)):
        stem = os.path.splitext(name)[0]
        key = form.key(stem)
        if images and key not in images:
            key = form.key(stem.removesuffix("_L"))
        if key in found:
            raise InvalidInputError(
                f"{where}: {'/'.join(found[key])} and {'/'.join((*folder, name))} belong to one image; keep one of them"
            )
        found[key] = (*folder, name)
    return found


def _named(where: str, path: Path, names: Parts, form: MapForm) -> list[tuple[str, str]]:
    """Keys of image and label map on every line of a file that names them."""
    name = names[-1]
    try:
        text = "".join(content.decode("utf-8-sig") for _, content in read_members(where, path, [names], _MOST_NAMES))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{where}: {name} is no text in UTF-8 ({error.reason}); save it so") from error
    keys: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = [PurePosixPath(word.replace("\\", "/")).name for word in line.split()]
        stems = [form.key(os.path.splitext(word)[0] if is_image(word) else word) for word in words]
        if not stems:
            continue
        if len(stems) > 2 or stems[0] in keys:
            raise InvalidInputError(
                f"{where}: line {number} of {name} is {line[:80]!r}; expected an image that no line before names, and "
                "perhaps its label map"
            )
        keys[stems[0]] = stems[-1]
    if not keys:
        raise InvalidInputError(f"{where}: {name} names no image; write one name a line")
    return list(keys.items())


def _pair(
    where: str, images: _Keyed, labels: _Keyed, image_key: str, label_key: str, label_folder: str
) -> tuple[Parts, Parts]:
    image, label = images.get(image_key), labels.get(label_key) or labels.get(label_key.removesuffix("_L"))
    if image is None:
        named = f"label map {'/'.join(label)}" if label else f"{image_key!r}, which is named,"
        raise InvalidInputError(f"{where}: {named} has no image; add the image, or remove what names it")
    if label is None:
        raise InvalidInputError(
            f"{where}: image {'/'.join(image)} has no label map {label_folder}/{label_key}.png; add it, or "
            "remove the image"
        )
    return image, label


def _read(
    where: str, path: Path, pairs: Sequence[tuple[Parts, Parts]], form: MapForm, void: int | None, size: Size
) -> LabelledImages:
    """Decode all, in whatever order they lie there, into arrays made once, so that nothing is held twice."""
    places: dict[Parts, list[tuple[int, bool]]] = {}
    for index, pair in enumerate(pairs):
        for parts, is_label in zip(pair, (False, True), strict=True):
            places.setdefault(parts, []).append((index, is_label))
    images = labels = torch.empty(0, dtype=torch.uint8)
    first, sizes = "", dict[int, tuple[int, ...]]()
    members = read_members(where, path, places, MOST_IMAGE)
    for parts, content in shown(members, f"decoding {form.name}", "file", len(places)):
        name = "/".join(parts)
        for index, is_label in places[parts]:
            shape, pixels = _decoded(where, name, content, is_label, form, void, size)
            _check_pair(where, pairs[index], is_label, shape, sizes.setdefault(index, shape))
            if not first:
                first = name
                check_decoded(where, len(pairs) * 4 * math.prod(pixels.shape[-2:]), packed_size(path, places))
                images = torch.empty(len(pairs), 3, *pixels.shape[-2:], dtype=torch.uint8)
                labels = torch.empty(len(pairs), *pixels.shape[-2:], dtype=torch.uint8)
            if pixels.shape[-2:] != labels.shape[1:]:
                raise InvalidInputError(
                    f"{where}: {name} has (height, width) {shape} but {first} has {tuple(labels.shape[1:])}; bring all "
                    "images to one size, or give size=(height, width)"
                )
            (labels if is_label else images).numpy()[index] = pixels
    return images, labels


def _check_pair(
    where: str, pair: tuple[Parts, Parts], is_label: bool, shape: tuple[int, ...], other: tuple[int, ...]
) -> None:
    if shape != other:
        image, label = ("/".join(parts) for parts in pair)
        of_label, of_image = (shape, other) if is_label else (other, shape)
        raise InvalidInputError(
            f"{where}: {label} has (height, width) {of_label} but its image {image} has {of_image}; bring both to one "
            "size, the label map by nearest neighbour"
        )


def _decoded(
    where: str, name: str, content: bytes, is_label: bool, form: MapForm, void: int | None, size: Size
) -> tuple[tuple[int, ...], npt.NDArray[np.uint8]]:
    """(height, width) of an image or a label map, and its pixels or classes at `size`."""
    if is_label:
        classes = decode_map(where, name, content, form, void)
        return classes.shape, classes if size is None else nearest(classes, size)
    with opened(where, name, content) as image:
        return (image.size[1], image.size[0]), pixels_of(where, name, image, 3, size)
