"""DeepLabv3 for semantic segmentation (Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image …").

A backbone gives a coarse feature map, the head classifies each of its pixels with a view of the pixels far around, and
the logits are enlarged to the size of the image: (N, num_classes, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.channels_last import GlobalAveragePooling
from ssdkd_env.networks.dilation import dilate
from ssdkd_env.networks.initialisation import initialise_convolutions
from ssdkd_env.networks.mobilenet_v2 import MobileNetV2Backbone
from ssdkd_env.networks.resnet import BasicBlock
from ssdkd_env.networks.resnet_imagenet import ResNetBackbone


class SideBySide(nn.Module):
    """Feature maps of the same size as one, (N, C₁, H, W), … → (N, C₁ + …, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = 1

    def grouped(self, count: int) -> SideBySide:
        """Serve so many networks whose channels lie beside each other; see `NetworkGroup`."""
        self.networks *= count
        return self

    def forward(self, *maps: Tensor) -> Tensor:
        """Put the maps' channels one after the other, those of each network by themselves."""
        if self.networks == 1:
            return torch.cat(maps, dim=1)
        # With the channels last, where they lie: another order would be copied into the contiguous layout.
        by_network = [part.permute(0, 2, 3, 1).unflatten(3, (self.networks, -1)) for part in maps]
        return torch.cat(by_network, dim=4).flatten(3, 4).permute(0, 3, 1, 2)


class ImagePooling(nn.Sequential):
    """The mean over the image through a 1×1 convolution, BatchNorm and ReLU, at every pixel of the map.

    With one image in training mode there is one number a channel, which has no variance: BatchNorm then normalises with
    its running statistics, as in evaluation mode, and leaves them as they are. (PyTorch's would raise an error.) One
    that takes its statistics over several processes, and is no `BatchNorm2d`, has the images of the others.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(GlobalAveragePooling(), *_activated(in_channels, out_channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W), where all pixels are equal."""
        pooling, convolution, norm, activation = self
        pooled = convolution(pooling(features)[:, :, None, None])
        if self.training and features.shape[0] == 1 and isinstance(norm, nn.BatchNorm2d):
            statistics = norm.running_mean, norm.running_var
            pooled = F.batch_norm(pooled, *statistics, norm.weight, norm.bias, training=False, eps=norm.eps)
        else:
            pooled = norm(pooled)
        everywhere: Tensor = activation(pooled).expand(-1, -1, features.shape[2], features.shape[3])
        # Beside an expanded view, the other branches would be copied into the contiguous layout.
        return everywhere.contiguous(memory_format=torch.channels_last)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image-level features (section 3.3 of the paper).

    A 1×1 convolution, one 3×3 convolution for each dilation and `ImagePooling` look at the features beside each other;
    a 1×1 convolution joins them. BatchNorm and ReLU follow every convolution.

    Args:
        in_channels: channels of the features.
        out_channels: channels of each branch and of the output.
        rates: dilations of the 3×3 convolutions.
        dropout: share of the output's numbers that are dropped in training; 0 builds no layer for it.
    """

    def __init__(self, in_channels: int, out_channels: int, rates: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                _activated(in_channels, out_channels, 1),
                *(_activated(in_channels, out_channels, 3, rate) for rate in rates),
                ImagePooling(in_channels, out_channels),
            ]
        )
        self.side_by_side = SideBySide()
        self.project = _activated(len(self.convs) * out_channels, out_channels, 1)
        if dropout:
            self.project.append(nn.Dropout(dropout))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        out: Tensor = self.project(self.side_by_side(*(branch(features) for branch in self.convs)))
        return out


class DeepLabV3(nn.Module):
    """A backbone, `ASPP`, a 3×3 and a 1×1 convolution, and bilinear enlargement to the size of the image.

    There is no auxiliary classifier on the backbone. Convolutions start as in `initialise_convolutions`, but for the
    last one, which starts as PyTorch's default: otherwise logits of few classes would begin far from 0.

    State-dict names, which are torchvision's: `backbone.…`, `classifier.0.convs.{0..3}.{0,1}`,
    `classifier.0.convs.4.{1,2}`, `classifier.0.project.{0,1}`, `classifier.{1,2,4}`.

    Args:
        backbone: maps images (N, C, H, W) to features (N, `features`, …, …) of any smaller size.
        features: channels of its output.
        num_classes: number of outputs a pixel.
        rates: dilations of ASPP.
        channels: width of the head.
        dropout: of ASPP.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        num_classes: int,
        rates: Sequence[int],
        channels: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Sequential(ASPP(features, channels, rates, dropout), *_activated(channels, channels, 3))
        initialise_convolutions(self)
        self.classifier.append(nn.Conv2d(channels, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) float to logits (N, num_classes, H, W)."""
        logits: Tensor = self.classifier(self.backbone(images))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


class SmallBackbone(nn.Module):
    """Features at 1/8 or 1/4 of small images, by four stages of one `BasicBlock` each. Ours.

    A 3×3 stem with stride 2 leaves more of small images than ImageNet's, which also pools. The stages have 1, 2, 4 and
    4 times `width` channels; the second and third halve the map, the last is dilated by 2. At 1/4 the third is dilated
    in place of halving, and the last by twice as much.

    The shortcuts are of option A, without parameters. Those of option B would be 1×1 convolutions with stride 2, whose
    gradient in channels_last is not to be relied on below 16 channels on a CPU (oneDNN's issue 6035).

    State-dict names: `conv1, bn1, layer{1..4}.0.{conv1,bn1,conv2,bn2}`.

    Args:
        in_channels: channels of the image.
        width: channels of the stem and of the first stage.
        output_stride: pixels of the image for one of the features, in height and in width: 8 or 4.

    Attributes:
        out_channels: of the features.

    Raises:
        InvalidInputError: for another output stride.
    """

    def __init__(self, in_channels: int, width: int, output_stride: int = 8) -> None:
        super().__init__()
        self.out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1, projection=False))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2, projection=False))
        self.layer3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2, projection=False))
        self.layer4 = nn.Sequential(BasicBlock(4 * width, 4 * width, 1, projection=False))
        if output_stride not in (4, 8):
            raise InvalidInputError(f"output_stride={output_stride}: expected 4 or 8")
        if output_stride == 4:
            dilate(self.layer3, 1)
        dilate(self.layer4, 8 // output_stride)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) float to features (N, 4·width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        features = F.relu(self.bn1(self.conv1(images)), inplace=True)
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return out


def deeplabv3_resnet50(
    num_classes: int,
    in_channels: int = 3,
    output_stride: int = 8,
    blocks: Sequence[int] = (3, 4, 6, 3),
    widths: Sequence[int] = (64, 128, 256, 512),
    channels: int = 256,
) -> DeepLabV3:
    """DeepLabv3 on ResNet-50, the network of torchvision's weights (without their auxiliary classifier).

    Args:
        num_classes: number of outputs a pixel.
        in_channels: channels of the image.
        output_stride: 8, 16 or 32; see `ResNetBackbone`.
        blocks: of `ResNetBackbone`, for other depths.
        widths: of `ResNetBackbone`.
        channels: width of the head.
    """
    backbone = ResNetBackbone(in_channels, blocks, widths, output_stride)
    return DeepLabV3(backbone, backbone.out_channels, num_classes, rates_at(output_stride), channels)


def deeplabv3_mobilenet_v2(
    num_classes: int,
    in_channels: int = 3,
    output_stride: int = 16,
    last_convolution: bool = False,
    channels: int = 256,
) -> DeepLabV3:
    """DeepLabv3 on MobileNetV2.

    Args:
        num_classes: number of outputs a pixel.
        in_channels: channels of the image.
        output_stride: 8, 16 or 32; see `MobileNetV2Backbone`.
        last_convolution: build the head on the backbone's 1280 channels rather than, as MobileNetV2's authors do for
            segmentation (their section 6.3), on the 320 before them.
        channels: width of the head.
    """
    backbone = MobileNetV2Backbone(in_channels, output_stride, last_convolution)
    return DeepLabV3(backbone, backbone.out_channels, num_classes, rates_at(output_stride), channels)


def deeplab_small(num_classes: int, in_channels: int = 3, width: int = 32, output_stride: int = 8) -> DeepLabV3:
    """DeepLabv3 on `SmallBackbone`, which trains on a CPU at about 120×160. Ours.

    At 1/8 of such an image the map has 15×20 pixels, so that the dilations are 1, 2 and 4; at 1/4 twice these. There is
    no dropout: its random numbers would keep students from being trained as one group.

    Args:
        num_classes: number of outputs a pixel.
        in_channels: channels of the image.
        width: channels of the first stage; the head has twice as many.
        output_stride: of `SmallBackbone`.
    """
    backbone = SmallBackbone(in_channels, width, output_stride)
    rates = tuple(8 // output_stride * rate for rate in (1, 2, 4))
    return DeepLabV3(backbone, backbone.out_channels, num_classes, rates, 2 * width, dropout=0.0)


def rates_at(output_stride: int) -> tuple[int, ...]:
    """ASPP's dilations: 6, 12 and 18 at an output stride of 16, and twice as much at half of it (section 3.3)."""
    return tuple(16 * rate // output_stride for rate in (6, 12, 18))


def _activated(in_channels: int, out_channels: int, size: int, rate: int = 1) -> nn.Sequential:
    """Convolution that keeps the map's size, BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, padding=rate * (size // 2), dilation=rate, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


#: Widths of the small segmentation networks by name.
SMALL_WIDTHS = (12, 16, 24, 32)

#: Name → constructor of a network that answers for each pixel; takes `num_classes` and `in_channels`.
DEEPLABS: dict[str, Callable[..., DeepLabV3]] = {
    "deeplabv3_resnet50": deeplabv3_resnet50,
    "deeplabv3_mobilenet_v2": deeplabv3_mobilenet_v2,
    **{f"deeplab_small{width}": partial(deeplab_small, width=width) for width in SMALL_WIDTHS},
}
