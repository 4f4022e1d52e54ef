"""What Fast-Datafree takes from torchvision, for machines on which torchvision does not import.

Written from torchvision's documentation, on PIL images and tensors, and no slower than the originals: nothing that a
run uses is checked or converted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass
class Compose:
    """One transform after another."""

    transforms: Sequence[Callable[[Any], Any]]

    def __call__(self, image: Any) -> Any:
        """Apply them to anything that the first one takes."""
        for transform in self.transforms:
            image = transform(image)
        return image


@dataclass
class RandomCrop:
    """A square piece of so many pixels a side, at a random place of a PIL image with a black margin of `padding`."""

    size: int
    padding: int = 0

    def __call__(self, image: Image.Image) -> Image.Image:
        """Crop; PIL fills with black what lies outside, so that no margin needs to be made."""
        free = (image.width + 2 * self.padding - self.size, image.height + 2 * self.padding - self.size)
        left, top = (int(torch.randint(0, places + 1, ())) - self.padding for places in free)
        return image.crop((left, top, left + self.size, top + self.size))


@dataclass
class RandomHorizontalFlip:
    """Mirror a PIL image left-right, with probability `p`."""

    p: float = 0.5

    def __call__(self, image: Image.Image) -> Image.Image:
        """Mirror it, or not."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if float(torch.rand(())) < self.p else image


class ToTensor:
    """An RGB image of PIL as (3, H, W) float32 in [0, 1]."""

    def __call__(self, image: Image.Image) -> Tensor:
        """Convert."""
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        return pixels.permute(2, 0, 1).contiguous().float().div_(255)


class Normalize:
    """(image − mean) / std per channel, of a tensor (C, H, W).

    Args:
        mean, std: per channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """Normalise."""
        return (image - self.mean).div_(self.std)


def torchvision_modules() -> dict[str, ModuleType]:
    """Modules to stand in `sys.modules` for torchvision: its transforms above, and its data sets and models empty."""
    specs = [ModuleSpec("torchvision", None, is_package=True), *(ModuleSpec(name, None) for name in _PARTS)]
    modules = {spec.name: module_from_spec(spec) for spec in specs}
    for transform in (Compose, RandomCrop, RandomHorizontalFlip, ToTensor, Normalize):
        setattr(modules["torchvision.transforms"], transform.__name__, transform)
    for name in _PARTS:
        setattr(modules["torchvision"], name.removeprefix("torchvision."), modules[name])
    return modules


_PARTS = ("torchvision.transforms", "torchvision.datasets", "torchvision.models")
