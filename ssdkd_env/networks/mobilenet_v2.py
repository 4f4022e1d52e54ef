"""MobileNetV2 (Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks"), as a backbone of other networks."""

from __future__ import annotations

from torch import Tensor, nn

from ssdkd_env.networks.dilation import check_output_stride, dilate
from ssdkd_env.networks.initialisation import initialise_convolutions

#: Table 2 of the paper: expansion, output channels, blocks and stride of the first, for each stage after the stem.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
#: Channels of the stem, and of the last 1×1 convolution.
STEM, LAST = 32, 1280
#: First blocks of the stages that halve the maps to 1/16 and to 1/32 of the image.
TO_SIXTEENTH, TO_THIRTY_SECOND = 7, 14


class InvertedResidual(nn.Module):
    """Expansion by a 1×1 convolution, 3×3 depthwise convolution, linear 1×1 projection; a shortcut where sizes allow.

    BatchNorm follows every convolution, ReLU6 all but the projection.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the depthwise convolution, 1 or 2.
        expansion: channels in between for each of the input; 1 leaves the first convolution out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.conv = nn.Sequential()
        if expansion != 1:
            self.conv.append(_activated(in_channels, hidden, 1))
        self.conv.append(_activated(hidden, hidden, 3, stride, groups=hidden))
        self.conv.extend([nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)])
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        out: Tensor = self.conv(features)
        if self.residual:
            out += features
        return out


class MobileNetV2Backbone(nn.Module):
    """MobileNetV2 of width 1 without its classifier.

    The maps are halved five times, down to 1/32 of the image. Below that, the last stages are dilated instead (see
    `dilate`): the 160 and 320 channels for an output stride of 16, with dilation 2; for 8 the 64 and 96 channels, too.
    Convolutions start as in `initialise_convolutions`.

    State-dict names, which are torchvision's: `features.0.{0,1}`, `features.{1..17}.conv.…`, `features.18.{0,1}`.

    Args:
        in_channels: channels of the image.
        output_stride: 8, 16 or 32.
        last_convolution: end with the 1×1 convolution to 1280 channels (`features.18`) rather than with the 320 before.

    Attributes:
        out_channels: of the features.

    Raises:
        InvalidInputError: when the output stride is another.
    """

    def __init__(self, in_channels: int = 3, output_stride: int = 32, last_convolution: bool = True) -> None:
        super().__init__()
        check_output_stride(output_stride)
        self.features = nn.Sequential(_activated(in_channels, STEM, 3, stride=2))
        self.out_channels = STEM
        for expansion, channels, blocks, first_stride in STAGES:
            for index in range(blocks):
                stride = first_stride if index == 0 else 1
                self.features.append(InvertedResidual(self.out_channels, channels, stride, expansion))
                self.out_channels = channels
        if output_stride == 8:
            dilate(self.features[TO_SIXTEENTH:TO_THIRTY_SECOND], 1)
        if output_stride < 32:
            dilate(self.features[TO_THIRTY_SECOND:], 16 // output_stride)
        if last_convolution:
            self.features.append(_activated(self.out_channels, LAST, 1))
            self.out_channels = LAST
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) float to features (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        features: Tensor = self.features(images)
        return features


def _activated(in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )
