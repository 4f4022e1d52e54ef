"""A generator for larger images, after DCGAN (Radford et al. 2016, "Unsupervised Representation Learning with …")."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.channels_last import to_channels_last
from ssdkd_env.networks.upsampling import UpsampledConv2d

#: Times that the maps are doubled, and how much larger they become.
DOUBLINGS = 4
FACTOR = 2**DOUBLINGS


class CentralCrop(nn.Module):
    """The middle of an image: (N, C, ≥ height, ≥ width) → (N, C, height, width).

    Args:
        height, width: of the output. Of an odd border, the larger part is taken away below and on the right.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def extra_repr(self) -> str:
        """The size."""
        return f"height={self.height}, width={self.width}"

    def forward(self, images: Tensor) -> Tensor:
        """Cut the borders off."""
        rows, columns = images.shape[2] - self.height, images.shape[3] - self.width
        # Unlike a slice's, the gradient of negative padding keeps its memory layout.
        return F.pad(images, (-(columns // 2), columns // 2 - columns, -(rows // 2), rows // 2 - rows))


class DCGANGenerator(nn.Module):
    """DCGAN's pyramid with the standard generator's layers, for images of any size.

    Linear → `channels` × ⌈H/16⌉ × ⌈W/16⌉, BatchNorm, four blocks of (upsample ×2, 3×3 convolution, BatchNorm,
    LeakyReLU 0.2), each with half the channels of the one before, 3×3 convolution, central crop to H × W, sigmoid. The
    last convolution sees the pixels that the crop takes away.

    From the paper (sections 3 and 4): four doublings, each with half the channels, BatchNorm everywhere but at the
    output, and weights from N(0, 0.02²). As in `Generator`, and other than there: images in [0, 1], LeakyReLU, and 3×3
    convolutions after upsampling rather than 5×5 transposed ones, whose overlaps leave a pattern.

    Args:
        latent_dim: length of the latent vector.
        image_shape: (channels, height, width) of the image.
        channels: width before the first doubling, a multiple of 16; the last block has a sixteenth of it.

    Raises:
        InvalidInputError: when `channels` is no multiple of 16.
    """

    def __init__(self, latent_dim: int, image_shape: Sequence[int], channels: int = 512) -> None:
        super().__init__()
        image_channels, height, width = image_shape
        if channels < FACTOR or channels % FACTOR:
            raise InvalidInputError(f"channels={channels}: expected a multiple of {FACTOR}, which is halved 4 times")
        base = channels, -(-height // FACTOR), -(-width // FACTOR)
        self.latent_dim = latent_dim
        self.project = nn.Linear(latent_dim, base[0] * base[1] * base[2])
        self.unflatten = nn.Unflatten(1, base)
        self.blocks = nn.Sequential(nn.BatchNorm2d(channels))
        for _ in range(DOUBLINGS):
            block = UpsampledConv2d(channels, channels // 2), nn.BatchNorm2d(channels // 2)
            self.blocks.extend([*block, nn.LeakyReLU(0.2, inplace=True)])
            channels //= 2
        self.blocks.append(nn.Conv2d(channels, image_channels, 3, padding=1))
        if (FACTOR * base[1], FACTOR * base[2]) != (height, width):
            self.blocks.append(CentralCrop(height, width))
        self.blocks.append(nn.Sigmoid())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of all linear layers and convolutions from N(0, 0.02²), and set their biases to 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (N, latent_dim) float to images (N, C, H, W) float in [0, 1]."""
        images: Tensor = self.blocks(to_channels_last(self.unflatten(self.project(latents))))
        return images
