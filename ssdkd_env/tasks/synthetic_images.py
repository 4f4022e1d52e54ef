"""Images that a distillation has synthesised, in a file for others to train on: pixels, labels, the teacher's logits.

The file is plain safetensors, which any tool reads: `images` (N, C, H, W) uint8, `labels` (N,) or (N, H, W), `rounds`
(N,) int32, `logits` (N, classes) or (N, classes, H, W) where they were kept, and a card as JSON in the header.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_tensors, save_tensors
from ssdkd_env.reading import MOST_JSON, Text, check_bounds, conform
from ssdkd_env.tasks.normalization import check_normalization

#: Name of the card in a file's header.
_CARD = "card"
#: Types that the tensors of a file may have.
_TYPES = {
    "images": (torch.uint8,),
    "labels": (torch.uint8, torch.int32),
    "rounds": (torch.int32,),
    "logits": (torch.float16, torch.float32),
}
#: Most classes whose labels fit into a byte.
_BYTE = 256
_REMEDY = "give a file that ssdkd distill --keep-images wrote"

_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class _Normalization(TypedDict):
    mean: list[float]
    std: list[float]


class _Card(TypedDict):
    """What a card says that is used."""

    task: Text
    num_classes: _Positive
    normalization: _Normalization


class SyntheticImages(Dataset[tuple[Tensor, ...]]):
    """Images out of a teacher, with what it says of them: a data set for `torch.utils.data.DataLoader`.

    An entry is the input of a network (C, H, W) float32, normalised as the teacher's inputs were; the teacher's label,
    int64, or label map (H, W); and the teacher's logits, float32, where the file has them. Nothing is fetched or run.

    Args:
        path: what `ssdkd distill --keep-images` wrote.
        transform: augmentation, called with an image (C, H, W) uint8 before it is normalised; returns such an image.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) or (N, H, W) uint8 or int32, the teacher's arg-max.
        logits: (N, classes) or (N, classes, H, W) float32 or float16, or None.
        rounds: (N,) int32, in which each was made; below 0 before the student learned.
        mean, std: for images in [0, 1], a number a channel: inputs are (images / 255 − mean) / std.
        card: what is known of them: task, teacher, method, seed, versions.

    Raises:
        InvalidInputError: when the file is missing, damaged, or none of this kind.
    """

    def __init__(self, path: str | Path, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        tensors, card = _read(path)
        conform(card, _Card, path, _REMEDY)
        check_bounds(card, path)
        images = tensors["images"]
        _check(path, tensors, card["num_classes"])
        self.images, self.labels, self.rounds = images, tensors["labels"], tensors["rounds"]
        self.logits: Tensor | None = tensors.get("logits")
        with _of(path):
            self.mean, self.std = (
                check_normalization(name, card["normalization"][name], images.shape[1]) for name in ("mean", "std")
            )
        self.card: dict[str, Any] = card
        self._transform, self._normalize = transform, Normalize(self.mean, self.std, torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image = self.images[index]
        if self._transform is not None:
            image = self._transform(image)
        entry = self._normalize(image[None])[0], self.labels[index].long()
        return entry if self.logits is None else (*entry, self.logits[index].float())


def save_images(
    path: str | Path, images: Tensor, rounds: Tensor, logits: Tensor | None, labels: Tensor, card: dict[str, Any]
) -> None:
    """Write what `SyntheticImages` reads, atomically.

    Args:
        path: of the file.
        images: (N, C, H, W) uint8.
        rounds: (N,), in which each was made.
        logits: the teacher's, in the type that they are to be kept in; None to leave them out.
        labels: its arg-max.
        card: with `task`, `num_classes` and `normalization`.

    Raises:
        InvalidInputError: when the file cannot be written, be it that the disk is full.
    """
    tensors = {"images": images, "labels": labels.to(label_dtype(card["num_classes"])), "rounds": rounds.int()}
    if logits is not None:
        tensors["logits"] = logits
    save_tensors(path, tensors, {_CARD: json.dumps(card)})


def label_dtype(num_classes: int) -> torch.dtype:
    """The type that labels of so many classes are kept in."""
    return torch.uint8 if num_classes <= _BYTE else torch.int32


def _read(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    tensors, header = load_tensors(path, _TYPES.keys())
    text = header.get(_CARD, "null")
    try:
        return tensors, json.loads(text) if len(text) <= MOST_JSON else None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path}: its card is not valid JSON ({error}); {_REMEDY}") from error


def _check(path: str | Path, tensors: dict[str, Tensor], classes: int) -> None:
    """Refuse tensors that do not belong together.

    Raises:
        InvalidInputError: at the first one.
    """
    for name, types in _TYPES.items():
        if name not in tensors:
            if name != "logits":
                raise InvalidInputError(f"{path} has no {name}; {_REMEDY}")
        elif tensors[name].dtype not in types:
            raise InvalidInputError(f"{path}: {name} are {tensors[name].dtype}; {_REMEDY}")
    images, labels = tensors["images"], tensors["labels"]
    if images.dim() != 4 or 0 in images.shape:
        raise InvalidInputError(f"{path}: images are {tuple(images.shape)}, expected (N, C, H, W); {_REMEDY}")
    count, maps = len(images), tuple(images.shape[2:]) if labels.dim() == 3 else ()
    expected = {"labels": (count, *maps), "rounds": (count,), "logits": (count, classes, *maps)}
    for name, shape in expected.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise InvalidInputError(f"{path}: {name} are {tuple(tensors[name].shape)}, expected {shape}; {_REMEDY}")
    if labels.min() < 0 or labels.max() >= classes:
        raise InvalidInputError(f"{path}: labels are no numbers of {classes} classes; {_REMEDY}")
    if "logits" in tensors and not tensors["logits"].isfinite().all():
        raise InvalidInputError(f"{path}: its logits are not all finite; {_REMEDY}")


@contextmanager
def _of(path: str | Path) -> Iterator[None]:
    """Name the file in what is wrong with its card."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: its card's {error}; {_REMEDY}") from error
