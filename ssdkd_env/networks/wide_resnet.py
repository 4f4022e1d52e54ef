"""Wide residual networks (Zagoruyko & Komodakis 2016, "Wide Residual Networks")."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.channels_last import GlobalAveragePooling
from ssdkd_env.networks.initialisation import initialise_convolutions


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3×3 convolutions, and a shortcut around them.

    Where the width changes, the shortcut is a 1×1 convolution of the activated input; elsewhere it is the input.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution; other than 1 only where the width changes.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        # The field's name, so that its checkpoints load.
        self.convShortcut = (
            None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        activated = F.relu(self.bn1(features), inplace=True)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True))
        out += features if self.convShortcut is None else self.convShortcut(activated)
        return out


class WideResNet(nn.Module):
    """WRN-`depth`-`widen`: 3×3 stem of 16 channels, three stages of pre-activation blocks, a linear classifier.

    The stages have 16, 32 and 64 times `widen` channels; the first keeps the image size, the others halve it. No
    dropout. Convolutions start as in `initialise_convolutions`, the classifier as PyTorch's default without bias.

    State-dict names: `conv1, block{1,2,3}.layer.{i}.{bn1,conv1,bn2,conv2,convShortcut}, bn1, fc`.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the image.
        depth: 6·n + 4 layers for n blocks a stage.
        widen: factor of the widths.

    Raises:
        InvalidInputError: when `depth` has another form, or `widen` is below 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, depth: int = 40, widen: int = 2) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise InvalidInputError(f"depth={depth}: expected 6·n + 4 with n ≥ 1, for instance 16 or 40")
        if widen < 1:
            raise InvalidInputError(f"widen={widen}: expected a whole number of at least 1")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = _stage(16, 16 * widen, 1, blocks)
        self.block2 = _stage(16 * widen, 32 * widen, 2, blocks)
        self.block3 = _stage(32 * widen, 64 * widen, 2, blocks)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.pool = GlobalAveragePooling()
        self.fc = nn.Linear(64 * widen, num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) float to logits (N, num_classes)."""
        features = self.block3(self.block2(self.block1(self.conv1(images))))
        features = F.relu(self.bn1(features), inplace=True)
        logits: Tensor = self.fc(self.pool(features))
        return logits


def _stage(in_channels: int, out_channels: int, stride: int, blocks: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, out_channels, stride)
    others = [PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *others)))


#: Name → constructor that takes `num_classes`, `in_channels` and the other arguments of `WideResNet`.
WIDE_RESNETS: dict[str, partial[WideResNet]] = {
    f"wrn{depth}_{widen}": partial(WideResNet, depth=depth, widen=widen)
    for depth, widen in ((40, 2), (40, 1), (16, 2), (16, 1))
}
