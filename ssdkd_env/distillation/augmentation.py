"""Augmentation on tensors: every image is shifted and flipped on its own.

One shift for the whole minibatch would be simpler, but gives the student fewer views of a small buffer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ssdkd_env import ranges


@ranges.part("augmentation")
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
    if padding == 0 and not flip:
        return images
    count, _, height, width = images.shape
    device = images.device
    part = count // len(generators)
    draws, mirrors = [], []
    for generator in generators:
        draws.append(torch.randint(0, 2 * padding + 1, (2, part, 1), device=device, generator=generator))
        if flip:
            mirrors.append(torch.rand(part, 1, device=device, generator=generator))
    offsets = torch.cat(draws, dim=1)
    rows = offsets[0] + torch.arange(height, device=device)
    columns = offsets[1] + torch.arange(width, device=device)
    if flip:
        mirror = torch.cat(mirrors) < 0.5
        columns = torch.where(mirror, columns.flip(1), columns)
    padded = F.pad(images, (padding,) * 4)
    flat = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
    flat = flat[:, None, :].expand(-1, images.shape[1], -1)
    return padded.flatten(2).gather(2, flat).view(images.shape)


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
