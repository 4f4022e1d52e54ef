"""Upsampling and the convolution after it as one operation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Pixels of a feature map from which on the transposed convolution is faster; below, its 4×4 weights cost more than the
#: pixels that they save.
FEW_PIXELS = 64


class UpsampledConv2d(nn.Conv2d):
    """Nearest-neighbour upsampling ×2, then a 3×3 convolution without bias: (N, C, H, W) → (N, out, 2H, 2W).

    Each new pixel sees four different old ones, some of them twice or four times. Their weights added up beforehand
    are those of a transposed convolution, 4×4 with stride 2, which does 4 products where the 3×3 convolution does 9,
    on a quarter of the pixels. Upsampling is the transposed convolution with 2×2 ones, so that the 4×4 weights are
    the 3×3 ones convolved with 2×2 ones (and mirrored, as a transposed convolution wants them). The answer is the same
    but for rounding; the parameter is the 3×3 convolution's.

    Args:
        in_channels, out_channels: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, 2H, 2W)."""
        if features.shape[2] * features.shape[3] < FEW_PIXELS:
            return super().forward(F.interpolate(features, scale_factor=2))
        # Groups lie in the first dimension of both kinds of weights, inside of which input and output change places.
        by_group = self.transposed_weights().unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        weights = by_group.contiguous(memory_format=torch.channels_last)
        return F.conv_transpose2d(features, weights, self.bias, stride=2, padding=1, groups=self.groups)

    def transposed_weights(self) -> Tensor:
        """The 4×4 weights, (out_channels, in_channels / groups, 4, 4)."""
        flipped = self.weight.flip(2, 3)
        places = ((0, 1, 0, 1), (1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 1, 0))
        shifted = [F.pad(flipped, place) for place in places]
        return (shifted[0] + shifted[1]) + (shifted[2] + shifted[3])
