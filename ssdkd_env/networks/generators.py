"""Generators: latent vectors in, images in [0, 1] out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.channels_last import to_channels_last
from ssdkd_env.networks.upsampling import UpsampledConv2d


class Generator(nn.Module):
    """The field's standard generator (DAFL, CMI, Fast; `channels=128` at 32×32).

    Linear → `channels` × H/4 × W/4, BatchNorm, two blocks of (upsample ×2, 3×3 convolution, BatchNorm,
    LeakyReLU 0.2), 3×3 convolution, sigmoid.

    Args:
        latent_dim: length of the latent vector.
        image_shape: (channels, height, width) of the image; height and width divisible by 4.
        channels: width of the first block; the second has half of it.

    Raises:
        InvalidInputError: when height or width is not divisible by 4.
    """

    def __init__(self, latent_dim: int, image_shape: Sequence[int], channels: int = 128) -> None:
        super().__init__()
        image_channels, height, width = image_shape
        if height % 4 or width % 4:
            raise InvalidInputError(
                f"image_shape={tuple(image_shape)}: height and width must be divisible by 4 for the standard "
                "generator; resize the images or give your own --generator-arch"
            )
        self.latent_dim = latent_dim
        self.project = nn.Linear(latent_dim, channels * (height // 4) * (width // 4))
        self.unflatten = nn.Unflatten(1, (channels, height // 4, width // 4))
        self.blocks = nn.Sequential(
            nn.BatchNorm2d(channels),
            UpsampledConv2d(channels, channels),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(0.2, inplace=True),
            UpsampledConv2d(channels, channels // 2),
            nn.BatchNorm2d(channels // 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(channels // 2, image_channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (N, latent_dim) float to images (N, C, H, W) float in [0, 1]."""
        images: Tensor = self.blocks(to_channels_last(self.unflatten(self.project(latents))))
        return images
