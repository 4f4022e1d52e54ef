"""What a teacher's training may do to its images beside shifting and mirroring."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def jittered(images: Tensor, strength: float, random: torch.Generator) -> Tensor:
    """Images in other light: brightness, contrast and, half as much, each channel times a random number of its own.

    Args:
        images: (N, C, H, W) uint8.
        strength: s; factors are uniform in [1 − s, 1 + s], those of channels in [1 − s/2, 1 + s/2].
        random: source of randomness, on the images' device.

    Returns:
        (N, C, H, W) uint8, clipped.
    """

    def factors(channels: int, strength: float) -> Tensor:
        draws = torch.rand(len(images), channels, 1, 1, device=images.device, generator=random)
        return 1.0 + strength * (2.0 * draws - 1.0)

    values = images.float()
    mean = values.mean(dim=(1, 2, 3), keepdim=True)
    contrasted = (values - mean) * factors(1, strength) + mean * factors(1, strength)
    return (contrasted * factors(images.shape[1], strength / 2)).round().clamp(0, 255).to(torch.uint8)


def enlarged(packed: Tensor, labels: int, largest: float, random: torch.Generator) -> Tensor:
    """Each image enlarged by a factor of its own, and cropped to its size at a random place.

    Args:
        packed: (N, C, H, W) uint8; the last `labels` channels are numbers of classes, which take their nearest pixel's,
            where images are interpolated linearly.
        labels: how many channels those are.
        largest: the factor is log-uniform in [1, `largest`].
        random: source of randomness, on the images' device.

    Returns:
        (N, C, H, W) uint8.
    """
    count, channels = packed.shape[:2]
    draws = torch.rand(3, count, device=packed.device, generator=random)
    shares = torch.exp(-math.log(largest) * draws[0])  # of the image that is seen
    corners = (2.0 * draws[1:] - 1.0) * (1.0 - shares)
    zero = torch.zeros_like(shares)
    maps = torch.stack([shares, zero, corners[0], zero, shares, corners[1]], dim=1).view(count, 2, 3)
    grid = F.affine_grid(maps, list(packed.shape), align_corners=False)
    parts = packed.float().split([channels - labels, labels], dim=1)
    seen = [
        F.grid_sample(part, grid, mode, padding_mode="border", align_corners=False)
        for part, mode in zip(parts, ("bilinear", "nearest"), strict=True)
    ]
    return torch.cat(seen, dim=1).round().to(torch.uint8)
