"""Augmentation on tensors: every image is shifted and flipped on its own.

One shift for the whole minibatch would be simpler, but gives the student fewer views of a small buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssdkd_env import ranges


@dataclass(frozen=True)
class Views:
    """How each of N images is looked at: drawn apart from the images, so that a share of them can be looked at alike.

    Attributes:
        padding: pixels of zeros on each side before the crop.
        offsets: (2, N, 1) int64, rows and columns of the crop's corner.
        mirrored: (N, 1) bool; None where no image is.
    """

    padding: int
    offsets: Tensor
    mirrored: Tensor | None

    @classmethod
    @ranges.part("augmentation")
    def draw(
        cls, count: int, padding: int, flip: bool, device: torch.device, *generators: torch.Generator
    ) -> Views | None:
        """Random views of `count` images; None where there is but one. See `random_crop_flip`."""
        if padding == 0 and not flip:
            return None
        part = count // len(generators)
        draws, mirrors = [], []
        for generator in generators:
            draws.append(torch.randint(0, 2 * padding + 1, (2, part, 1), device=device, generator=generator))
            if flip:
                mirrors.append(torch.rand(part, 1, device=device, generator=generator))
        return cls(padding, torch.cat(draws, dim=1), torch.cat(mirrors) < 0.5 if flip else None)

    def of(self, rows: Tensor) -> Views:
        """Those of some of the images."""
        return Views(self.padding, self.offsets[:, rows], None if self.mirrored is None else self.mirrored[rows])

    @ranges.part("augmentation")
    def seen(self, images: Tensor) -> Tensor:
        """Look at images (N, C, H, W)."""
        _, channels, height, width = images.shape
        rows = self.offsets[0] + torch.arange(height, device=images.device)
        columns = self.offsets[1] + torch.arange(width, device=images.device)
        if self.mirrored is not None:
            columns = torch.where(self.mirrored, columns.flip(1), columns)
        padded = F.pad(images, (self.padding,) * 4)
        flat = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
        flat = flat[:, None, :].expand(-1, channels, -1)
        return padded.flatten(2).gather(2, flat).view(images.shape)


def random_crop_flip(images: Tensor, padding: int, flip: bool, *generators: torch.Generator) -> Tensor:
    """Zero-pad, crop back at a random place, and mirror left-right with probability ½; differentiable.

    Args:
        images: (N, C, H, W), any dtype.
        padding: pixels on each side; 0 crops nothing.
        flip: whether to mirror.
        generators: sources of randomness, on the images' device; several for as many equal parts of the images, one
            after the other.

    Returns:
        (N, C, H, W), same dtype.
    """
    views = Views.draw(len(images), padding, flip, images.device, *generators)
    return images if views is None else views.seen(images)


class Normalize:
    """(images − mean) / std per channel, for images in [0, 1] or their uint8 form.

    Args:
        mean, std: per channel, of the data that the teacher was trained on.
        device: where the images are.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, -1, 1, 1)

    @ranges.part("augmentation")
    def __call__(self, images: Tensor) -> Tensor:
        """Normalise (N, C, H, W) float in [0, 1], or uint8 in [0, 255] → PyTorch's default float, channels last."""
        if images.dtype == torch.uint8:
            images = images.to(self._mean.dtype) / 255.0
        # Convolutions want channels last, and would each convert a batch for themselves, forward and backward.
        return ((images - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def invert(self, inputs: Tensor) -> Tensor:
        """From network input back to the image range, (N, C, H, W) float, without clipping."""
        return inputs * self._std + self._mean

    def clip(self, inputs: Tensor) -> Tensor:
        """Network inputs (N, C, H, W) float, moved to the nearest that an image in [0, 1] has."""
        return inputs.maximum(-self._mean / self._std).minimum((1.0 - self._mean) / self._std)


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [0, 1] to uint8 in [0, 255], as the buffer keeps them."""
    return (images * 255.0).round().clamp(0, 255).to(torch.uint8)
