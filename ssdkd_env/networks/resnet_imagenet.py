"""Residual networks with bottlenecks and ImageNet's stem (He et al. 2016), as backbones of other networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.dilation import check_output_stride, dilate
from ssdkd_env.networks.initialisation import initialise_convolutions

#: Channels of a bottleneck's output for each of its 3×3 convolution.
EXPANSION = 4


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, each with BatchNorm, and a shortcut around them.

    The 3×3 convolution has the stride, as in the published weights of PyTorch ("ResNet v1.5"); in the paper it is the
    first 1×1 convolution.

    Args:
        in_channels: channels of the input.
        width: channels of the 3×3 convolution; the output has `EXPANSION` times as many.
        stride: 1 or 2.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        # The field's name, so that its checkpoints load.
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 4·width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        out = F.relu(self.bn1(self.conv1(features)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += self.downsample(features)
        return F.relu(out, inplace=True)


class ResNetBackbone(nn.Module):
    """ResNet-50 without its classifier: 7×7 stem with stride 2, 3×3 max-pooling, four stages of bottlenecks.

    Every stage but the first halves the map, down to 1/32 of the image. Below that, the last stages are dilated instead
    (see `dilate`): the last one for an output stride of 16, with dilation 2; the last two for 8, with 2 and 4.
    Convolutions start as in `initialise_convolutions`.

    State-dict names, which are torchvision's: `conv1, bn1, layer{1..4}.{i}.{conv,bn}{1,2,3}`,
    `layer{1..4}.0.downsample.{0,1}`.

    Args:
        in_channels: channels of the image.
        blocks: bottlenecks in each stage; ResNet-101 has (3, 4, 23, 3).
        widths: channels of each stage's 3×3 convolutions; the stem has those of the first.
        output_stride: 8, 16 or 32.

    Attributes:
        out_channels: of the features.

    Raises:
        InvalidInputError: when there are not four stages, or the output stride is another.
    """

    def __init__(
        self,
        in_channels: int = 3,
        blocks: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        check_output_stride(output_stride)
        if len(blocks) != 4 or len(widths) != 4:
            raise InvalidInputError(f"blocks={tuple(blocks)} and widths={tuple(widths)}: give one of each for 4 stages")
        self.conv1 = nn.Conv2d(in_channels, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = (widths[0], *(EXPANSION * width for width in widths))
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(before, width, count, stride)
            for before, width, count, stride in zip(inputs[:-1], widths, blocks, (1, 2, 2, 2), strict=True)
        )
        self.out_channels = inputs[-1]
        if output_stride == 8:
            dilate(self.layer3, 1)
        if output_stride < 32:
            dilate(self.layer4, 16 // output_stride)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) float to features (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        features = F.relu(self.bn1(self.conv1(images)), inplace=True)
        features = F.max_pool2d(features, 3, stride=2, padding=1)
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return out


def _stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, width, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1)))
