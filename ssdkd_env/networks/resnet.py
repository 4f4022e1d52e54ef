"""Residual networks for small images (He et al. 2016, "Deep Residual Learning for Image Recognition")."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.channels_last import GlobalAveragePooling, every_second_pixel
from ssdkd_env.networks.initialisation import initialise_convolutions


class SubsampleAndPad(nn.Module):
    """Shortcut of option A (He et al. 2016, section 4.2): every second pixel, and zeros for the new channels.

    The zeros go half before and half after the old channels, as in the public implementations, so that their
    weights fit. It has no parameters.

    Args:
        new_channels: output channels minus input channels.

    Attributes:
        stride: 2, or 1 in a stage that was dilated, where it takes every pixel (`dilation.dilate`).
    """

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.stride = 2
        self.before = new_channels // 2
        self.after = new_channels - self.before
        self.networks = 1

    def grouped(self, count: int) -> SubsampleAndPad:
        """Serve so many networks whose channels lie beside each other; see `NetworkGroup`."""
        self.networks *= count
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + new_channels, ⌈H/stride⌉, ⌈W/stride⌉); even sizes keep their memory format."""
        padding = (0, 0, 0, 0, self.before, self.after)
        if self.networks > 1:
            taken = features[:, :, :: self.stride, :: self.stride]
            return F.pad(taken.unflatten(1, (self.networks, -1)), padding).flatten(1, 2)
        return every_second_pixel(features, self.before, self.after) if self.stride == 2 else F.pad(features, padding)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm, and a shortcut around them.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution, 1 or 2.
        projection: where size or width changes, use a 1×1 convolution with BatchNorm (option B) rather than
            `SubsampleAndPad` (option A).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            if projection:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
                )
            else:
                self.shortcut = SubsampleAndPad(out_channels - in_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        out = F.relu(self.bn1(self.conv1(features)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(features)
        return F.relu(out, inplace=True)


class ResNet(nn.Module):
    """3×3 stem without max-pooling, stages of basic blocks, global average pooling and a linear classifier.

    The first stage keeps the image size, every later one halves it. Convolutions start as in
    `initialise_convolutions`, the classifier as PyTorch's default.

    State-dict names: `conv1, bn1, layer{1..}.{i}.{conv1,bn1,conv2,bn2}, layer{1..}.{i}.shortcut.{0,1}` for
    projections, `linear`.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the image.
        blocks: basic blocks in each stage.
        widths: channels of each stage; the stem has those of the first.
        projection: shortcuts of option B (1×1 convolutions) rather than option A (no parameters).

    Raises:
        InvalidInputError: when `blocks` and `widths` differ in length, or option A would have to drop channels.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        projection: bool = True,
    ) -> None:
        super().__init__()
        if not blocks or len(blocks) != len(widths):
            raise InvalidInputError(
                f"blocks={tuple(blocks)} and widths={tuple(widths)}: give one of each for every stage"
            )
        if not projection and list(widths) != sorted(widths):
            raise InvalidInputError(
                f"widths={tuple(widths)}: shortcuts without parameters cannot drop channels; give widths that do not "
                "shrink, or projection=True"
            )
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages: list[str] = []
        previous = widths[0]
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            stage = nn.Sequential()
            for index in range(count):
                stride = 2 if index == 0 and number > 1 else 1
                stage.append(BasicBlock(previous, width, stride, projection))
                previous = width
            self.stages.append(f"layer{number}")
            self.add_module(self.stages[-1], stage)
        self.pool = GlobalAveragePooling()
        self.linear = nn.Linear(previous, num_classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) float to logits (N, num_classes)."""
        features = F.relu(self.bn1(self.conv1(images)), inplace=True)
        for stage in self.stages:
            features = self.get_submodule(stage)(features)
        logits: Tensor = self.linear(self.pool(features))
        return logits


def _small(blocks_a_stage: int) -> partial[ResNet]:
    """He et al. 2016, section 4.2: 6·blocks + 2 layers, 16-32-64 channels, shortcuts of option A."""
    return partial(ResNet, blocks=(blocks_a_stage,) * 3, widths=(16, 32, 64), projection=False)


#: Name → constructor that takes `num_classes`, `in_channels` and, to depart from the named network, the other
#: arguments of `ResNet`. ResNet-18 and -34 are the wide variants of the data-free literature.
RESNETS: dict[str, partial[ResNet]] = {
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet8": _small(1),
    "resnet20": _small(3),
    "resnet32": _small(5),
    "resnet44": _small(7),
    "resnet56": _small(9),
}
