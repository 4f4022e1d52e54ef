"""Image folders on disk: `<folder>/{train,test}/<class>/*.{png,jpg,jpeg}`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from tqdm import tqdm

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.reading import read_bytes
from ssdkd_env.tasks.data.images import IMAGE_SUFFIXES, MOST_IMAGE, ImageList
from ssdkd_env.tasks.task import LabelledImages

#: The splits of a data set.
SPLITS = ("train", "test")


class ImageFolder:
    """One split of an image folder, listed but not yet read. Names that start with a dot are overlooked.

    Args:
        where: the user's argument and its value, for error messages.
        folder: the folder with `train` and `test`.
        split: which of them.

    Raises:
        InvalidInputError: when the split is missing, a class is empty, a file is where a class folder should be, or
            train and test have different classes.
    """

    def __init__(self, where: str, folder: Path, split: str) -> None:
        self._where = where
        self._split = split
        try:
            classes = {name: _list_classes(where, folder / name) for name in SPLITS if os.path.lexists(folder / name)}
            if split not in classes:
                raise InvalidInputError(f"{where} has no folder {split!r}; expected {split}/<class>/*.png or *.jpg")
            check_classes(where, classes)
            self._files = [_list_images(where, folder / split / name) for name in classes[split]]
        except OSError as error:
            raise InvalidInputError(
                f"{where}: {error.filename} cannot be listed ({error.strerror}); make it readable"
            ) from error

    def stamp(self) -> str:
        """Hash of the files' names, sizes and times: another value means that the images may have changed."""
        digest = hashlib.sha256()
        for entry in (entry for entries in self._files for entry in entries):
            state = entry.stat()
            digest.update(os.fsencode(entry.path) + f"\0{state.st_size} {state.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def read(self, channels: int) -> LabelledImages:
        """Decode all: images (N, channels, H, W) uint8 and labels (N,) int64, the classes in the order of their names.

        Raises:
            InvalidInputError: naming the first image that cannot be decoded or differs in size.
        """
        images, labels = ImageList(self._where, channels), []
        count = sum(map(len, self._files))
        with tqdm(total=count, desc=f"decoding {self._split} images", unit="image", leave=False) as bar:
            for label, entries in enumerate(self._files):
                for entry in entries:
                    name = "/".join(Path(entry.path).parts[-3:])
                    try:
                        content = read_bytes(entry.path, MOST_IMAGE)
                    except InvalidInputError as error:
                        raise InvalidInputError(f"{self._where}: {error}; make it readable") from error
                    images.decode(name, content)
                    labels.append(label)
                    bar.update()
        return images.stack(), torch.tensor(labels)


def check_classes(where: str, classes: dict[str, list[str]]) -> None:
    """Check the class names of each split: some, and the same in all.

    Raises:
        InvalidInputError: otherwise, naming a class that one split lacks.
    """
    for split, names in classes.items():
        if not names:
            raise InvalidInputError(f"{where}: {split} holds no class folder; expected {split}/<class>/*.png or *.jpg")
        for other in classes:
            missing = sorted(set(classes[other]) - set(names))
            if missing:
                raise InvalidInputError(
                    f"{where}: {split} lacks the class {missing[0]!r} that {other} has; train and test need the same "
                    "class folders"
                )


def _list_classes(where: str, folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InvalidInputError(f"{where}: {folder.name} is a file, expected a folder of classes; put one in its place")
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    for entry in entries:
        if not entry.is_dir():
            raise InvalidInputError(
                f"{where}: {folder.name}/{entry.name} is a file where a class folder is expected; move it elsewhere"
            )
    return sorted(entry.name for entry in entries)


def _list_images(where: str, folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        entries = [entry for entry in found if is_image(entry.name) and entry.is_file()]
    if not entries:
        raise InvalidInputError(
            f"{where}: class folder {folder.parent.name}/{folder.name} holds no .png, .jpg or .jpeg; fill or remove it"
        )
    return sorted(entries, key=lambda entry: entry.name)


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
