"""Images with label maps: PNGs whose numbers or colours are classes, in folders or in a tar archive.

Every convention of "no class" ends here: what is returned has classes 0 to K − 1, and `VOID`. A label map is only ever
resized by its nearest pixels, because a mean of two classes is a third.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError, check_choice, one_line
from ssdkd_env.extras import load_extra
from ssdkd_env.reading import read_bytes
from ssdkd_env.tasks.data.cache import load_cached, save_cached
from ssdkd_env.tasks.data.folders import is_image
from ssdkd_env.tasks.data.images import MOST_IMAGE, ImageList, check_pixels
from ssdkd_env.tasks.data.tar import Parts, read_members
from ssdkd_env.tasks.task import LabelledImages
from ssdkd_env.tasks.void import VOID, to_classes

#: Height and width in pixels, or None for those of the files.
Size = tuple[int, int] | None
#: What the pixels of a label map are in Pillow's modes.
_INDICES, _COLOURS = {"L", "P", "I", "I;16", "I;16B"}, {"RGB", "RGBA"}
#: Stands in a table of colours for those that it lacks: no class, as there are at most 254, and not `VOID`.
_UNKNOWN = 254
#: Raised whenever decoding changes, so that what was kept before is made anew.
_FORMAT = 1

#: Folder → file name → the file's bytes, or where it lies.
_Folders = Mapping[Parts, Mapping[str, Path | bytes]]
#: Path and content of a file, and what an image and its label map have in common → such a file.
_File = tuple[str, Path | bytes]
_Keyed = dict[str, _File]


@dataclass(frozen=True)
class Layout:
    """Where images and label maps lie under a data set's folder, `{split}` standing for the split.

    Attributes:
        images, labels: their folders. Where `images` does not name the split, a file `{split}.txt` does: one image a
            line, by its name with or without folders and ending, and perhaps its label map's name after it.
        void: the number that index maps have for no class, as in `to_classes`.
    """

    images: str
    labels: str
    void: int


@dataclass(frozen=True)
class MapForm:
    """What the files of a data set mean.

    Attributes:
        name: of the data set.
        num_classes: K.
        splits: their names, and how many images each officially has.
        layouts: where files may lie, the preferred first.
        colours: (red, green, blue) → class or `VOID`, for label maps in colour; empty when there are none.
        stray: share of a map's pixels that may have none of these colours, and then are `VOID`.
        key: what images and label maps have in common, out of a name without folders and ending.
        official: split and keys of all images → those of the split, where no file names them.
    """

    name: str
    num_classes: int
    splits: Mapping[str, int]
    layouts: tuple[Layout, ...]
    colours: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    stray: float = 0.0
    key: Callable[[str], str] = str
    official: Callable[[str, Sequence[str]], list[str]] = lambda split, keys: []


def load_maps(
    argument: str, source: str | Path, split: str, form: MapForm, size: Size = None, void: int | None = None
) -> LabelledImages:
    """Read one split, from the cache folder where it was read before (see `load_split`).

    Args:
        argument: name of the user's argument, for error messages.
        source: a folder in one of the form's layouts, or a tar archive of such a folder, which is not unpacked.
        split: one of the form's.
        form: of the data set.
        size: (height, width) to which images are resized by an antialiased bilinear filter and label maps by their
            nearest pixels; None leaves them.
        void: the number that index maps have for no class; None: the layout's.

    Returns:
        Images (N, 3, H, W) uint8 and labels (N, H, W) uint8, classes or `VOID`; in the order of names, or of the file
        that names them.

    Raises:
        InvalidInputError: when files are missing, damaged, without a partner, of different sizes, or of no known class.
    """
    check_choice("split", split, form.splits)
    check_size("size", size)
    to_classes(argument, torch.zeros(0, dtype=torch.uint8), form.num_classes, void)  # refuses a void that is a class
    where, path = f"{argument}={os.fspath(source)!r}", Path(os.path.abspath(os.path.expanduser(source)))
    if os.path.isdir(path):
        folders = _listed(where, path, split, form)
        stamp = _stamp(folders)
    elif os.path.isfile(path):
        folders, state = None, path.stat()
        stamp = f"{state.st_size} {state.st_mtime_ns}"
    else:
        raise InvalidInputError(f"{where} does not exist; give a folder or a tar archive of {form.name}")

    def read() -> LabelledImages:
        found = _unpacked(where, path, split, form) if folders is None else folders
        layout, pairs = _choose(where, found, split, form)
        return _read(where, pairs, form, layout.void if void is None else void, size, f"{form.name} {split}")

    return keep(f"{path} {form.name} {form.num_classes} {void} {size}", split, stamp, read)


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
    pillow = load_extra("PIL.Image", "size")
    image = pillow.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    made = np.array(image.resize((size[1], size[0]), pillow.Resampling.BILINEAR), dtype=np.uint8)
    return made.transpose(2, 0, 1)


def nearest(labels: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Labels (H, W) at (height, width) `size`: of each new pixel's centre, the pixel it lies in, as Pillow takes it."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, labels.shape, strict=True))
    return labels[np.ix_(rows, columns)]


def _parts(template: str, split: str) -> Parts:
    return tuple(template.format(split=split).split("/"))


def _listed(where: str, path: Path, split: str, form: MapForm) -> _Folders:
    """The files of all folders on disk in which a layout looks for a split."""
    folders: dict[Parts, Mapping[str, Path | bytes]] = {}
    try:
        for parts in {_parts(name, split) for layout in form.layouts for name in (layout.images, layout.labels)}:
            if os.path.isdir(path.joinpath(*parts)):
                with os.scandir(path.joinpath(*parts)) as found:
                    folders[parts] = {item.name: Path(item.path) for item in found if is_image(item.name)}
        if os.path.isfile(path / f"{split}.txt"):
            folders[()] = {f"{split}.txt": path / f"{split}.txt"}
    except OSError as error:
        raise InvalidInputError(f"{where}: {error.filename} cannot be listed ({error.strerror}); make it so") from error
    return folders


def _stamp(folders: _Folders) -> str:
    """Hash of names, sizes and times: another value means that the files may have changed."""
    digest = hashlib.sha256()
    for path in sorted(str(content) for files in folders.values() for content in files.values()):
        state = os.stat(path) if os.path.exists(path) else None  # a link may lead nowhere, which is said later
        digest.update(os.fsencode(path) + (f"\0{state.st_size} {state.st_mtime_ns}\0" if state else "\0").encode())
    return digest.hexdigest()


def _unpacked(where: str, path: Path, split: str, form: MapForm) -> _Folders:
    """The files of an archive that may belong to a split, encoded as they are."""
    templates = [name for layout in form.layouts for name in (layout.images, layout.labels)]
    mine = {part for name in templates for part in _parts(name, split)}
    others = {part for other in form.splits for name in templates for part in _parts(name, other)} - mine

    def wanted(parts: Parts) -> bool:
        name = parts[-1] if parts else ""
        return name == f"{split}.txt" or (is_image(name) and not others.intersection(parts[:-1]))

    folders: dict[Parts, dict[str, Path | bytes]] = {}
    for parts, content in read_members(where, path, wanted):
        if content is not None:
            folders.setdefault(parts[:-1], {})[parts[-1]] = content
    return folders


def _choose(where: str, folders: _Folders, split: str, form: MapForm) -> tuple[Layout, list[tuple[_File, _File]]]:
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
            listed = folders.get(root, {}).get(f"{split}.txt")
            if "{split}" in layout.images:
                keys = [(key, key) for key in sorted(images.keys() | labels.keys())]
            elif listed is not None:
                keys = _named(where, f"{split}.txt", listed, form)
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
    for name, content in sorted(folders.get(folder, {}).items()):
        stem = os.path.splitext(name)[0]
        key = form.key(stem)
        if images and key not in images:
            key = form.key(stem.removesuffix("_L"))
        path = "/".join((*folder, name))
        if key in found:
            raise InvalidInputError(f"{where}: {found[key][0]} and {path} belong to one image; keep one of them")
        found[key] = (path, content)
    return found


def _named(where: str, name: str, content: Path | bytes, form: MapForm) -> list[tuple[str, str]]:
    """Keys of image and label map on every line of a file that names them."""
    keys: dict[str, str] = {}
    for number, line in enumerate(_bytes(where, name, content).decode(errors="replace").splitlines(), 1):
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
) -> tuple[_File, _File]:
    image, label = images.get(image_key), labels.get(label_key) or labels.get(label_key.removesuffix("_L"))
    if image is None:
        named = f"label map {label[0]}" if label else f"{image_key!r}, which is named,"
        raise InvalidInputError(f"{where}: {named} has no image; add the image, or remove what names it")
    if label is None:
        raise InvalidInputError(
            f"{where}: image {image[0]} has no label map {label_folder}/{label_key}.png; add it, or remove the image"
        )
    return image, label


def _bytes(where: str, name: str, content: Path | bytes) -> bytes:
    try:
        return content if isinstance(content, bytes) else read_bytes(content, MOST_IMAGE)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {name}: {error}; make it readable") from error


def _read(
    where: str, pairs: list[tuple[_File, _File]], form: MapForm, void: int, size: Size, title: str
) -> LabelledImages:
    """Decode all into arrays made once, so that nothing is held twice."""
    images = labels = torch.empty(0, dtype=torch.uint8)
    bar = tqdm(pairs, desc=f"decoding {title}", unit="image", leave=False)
    for index, ((name, content), (label_name, label_content)) in enumerate(bar):
        one = ImageList(where, 3)
        one.decode(name, _bytes(where, name, content))
        pixels = one.stack()[0].numpy()
        classes = _decode(where, label_name, _bytes(where, label_name, label_content), form, void)
        if classes.shape != pixels.shape[1:]:
            raise InvalidInputError(
                f"{where}: {label_name} has (height, width) {classes.shape} but its image {name} has "
                f"{pixels.shape[1:]}; bring both to one size, the label map by nearest neighbour"
            )
        if size is not None:
            pixels, classes = resized(pixels, size), nearest(classes, size)
        if index == 0:
            images = torch.empty(len(pairs), *pixels.shape, dtype=torch.uint8)
            labels = torch.empty(len(pairs), *classes.shape, dtype=torch.uint8)
        elif pixels.shape != images.shape[1:]:
            raise InvalidInputError(
                f"{where}: {name} has (height, width) {pixels.shape[1:]} but {pairs[0][0][0]} has "
                f"{tuple(images.shape[2:])}; bring all images to one size, or give size=(height, width)"
            )
        images[index], labels[index] = torch.from_numpy(pixels), torch.from_numpy(classes)
    return images, labels


def _decode(where: str, name: str, content: bytes, form: MapForm, void: int) -> npt.NDArray[np.uint8]:
    """A label map (H, W) uint8 out of a PNG file."""
    pillow = load_extra("PIL.Image", where)
    try:
        with pillow.open(io.BytesIO(content), formats=("PNG",)) as image:
            check_pixels(f"{where}: {name}", image.size)
            pixels, mode = np.array(image), image.mode
            palette = np.array(image.getpalette("RGB")).reshape(-1, 3) if mode == "P" else None
    except Exception as error:  # of a damaged file Pillow raises OSError, SyntaxError, ValueError and others
        reason = "it is no PNG" if isinstance(error, pillow.UnidentifiedImageError) else one_line(error)
        raise InvalidInputError(
            f"{where}: {name} cannot be decoded ({reason}); put a whole PNG in its place"
        ) from error
    if mode in _COLOURS and form.colours:
        return _of_colours(where, name, pixels[..., :3], form)
    if mode not in _INDICES:
        raise InvalidInputError(
            f"{where}: {name} has pixels of Pillow's mode {mode!r}, expected one class number a pixel; save it as a "
            "PNG of 8-bit grey"
        )
    if void >= form.num_classes and pixels.dtype == np.uint8:
        pixels[pixels == VOID] = void  # no class has this number, whatever else means none
    try:
        classes = to_classes(f"{where}: {name}", torch.from_numpy(pixels), form.num_classes, void).numpy()
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}; correct it, or give the number that means no class as void=") from error
    if palette is not None and form.colours:
        # A program that makes a palette of its own for a map in colour numbers the colours by chance.
        used, first = np.unique(pixels, return_index=True)
        colours = [(red, green, blue) for red, green, blue in palette[used].tolist()]
        shown = [form.colours.get(colour) for colour in colours]
        if len(set(colours)) > 1 and None not in shown and shown != classes.flat[first].tolist():
            raise InvalidInputError(
                f"{where}: {name} has a palette of {form.name}'s label colours, but numbers them otherwise; save it "
                "as RGB, or as grey class numbers"
            )
    return classes


def _of_colours(where: str, name: str, pixels: npt.NDArray[np.uint8], form: MapForm) -> npt.NDArray[np.uint8]:
    codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    classes = _colour_table(tuple(form.colours.items()))[codes]
    unknown = codes[classes == _UNKNOWN]
    if len(unknown) > form.stray * codes.size:
        first = int(unknown[0])
        raise InvalidInputError(
            f"{where}: {name} has the colour {(first >> 16, first >> 8 & 255, first & 255)} in "
            f"{int((unknown == first).sum())} pixels, none of {form.name}'s {len(form.colours)} label colours; was it "
            "resized by other than nearest neighbour? put the original in its place"
        )
    classes[classes == _UNKNOWN] = VOID
    return classes


@functools.lru_cache(maxsize=2)
def _colour_table(colours: tuple[tuple[tuple[int, int, int], int], ...]) -> npt.NDArray[np.uint8]:
    """Class of every colour red·2¹⁶ + green·2⁸ + blue, in 16 MiB."""
    table = np.full(1 << 24, _UNKNOWN, dtype=np.uint8)
    for (red, green, blue), label in colours:
        table[red << 16 | green << 8 | blue] = label
    return table
