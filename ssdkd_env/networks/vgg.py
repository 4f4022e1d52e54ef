"""VGG-11 for small images (Simonyan & Zisserman 2015, configuration A)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssdkd_env.networks.channels_last import GlobalAveragePooling
from ssdkd_env.networks.initialisation import initialise_convolutions

#: Widths of the 3×3 convolutions in each of VGG-11's five blocks.
WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
#: From this image size on, the fourth block too is followed by max-pooling.
LARGE_IMAGE = 64


class VGG11(nn.Module):
    """Eight 3×3 convolutions with bias, BatchNorm and ReLU, global average pooling and one linear classifier.

    This is the variant of the data-free literature (from contrastive representation distillation, Tian et al.
    2020): at 32×32, 2×2 max-pooling follows the first three blocks and the last two work on 4×4 features; images of
    64×64 and more are pooled once more, after the fourth block. Other CIFAR versions of VGG-11 pool five times, or
    have three linear layers: their weights are of another function and do not fit. Images down to 1×1 work.

    Convolutions start as in `initialise_convolutions`, the classifier from N(0, 0.01²) without bias.

    State-dict names: `block{0..4}.{0,1,3,4}` for convolution, BatchNorm, convolution, BatchNorm; `classifier`.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        inputs = (in_channels, *(widths[-1] for widths in WIDTHS))
        self.block0, self.block1, self.block2, self.block3, self.block4 = (
            _block(before, widths) for before, widths in zip(inputs[:-1], WIDTHS, strict=True)
        )
        self.halve_large = _HalveLarge()
        self.pool = GlobalAveragePooling()
        self.classifier = nn.Linear(inputs[-1], num_classes)
        initialise_convolutions(self)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) float to logits (N, num_classes)."""
        features = _halve(self.block0(images))
        features = _halve(self.block1(features))
        features = _halve(self.block2(features))
        features = self.block3(features)
        features = self.halve_large(features, images.shape[2])
        features = self.block4(features)
        logits: Tensor = self.classifier(self.pool(features))
        return logits


class _HalveLarge(nn.Module):
    """Halve the features of large images; a module of its own, so that the network can be traced."""

    def forward(self, features: Tensor, image_height: int) -> Tensor:
        return _halve(features) if image_height >= LARGE_IMAGE else features


def _block(in_channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    block = nn.Sequential()
    for width in widths:
        block.extend([nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)])
        in_channels = width
    return block


def _halve(features: Tensor) -> Tensor:
    # Rounding up changes nothing at even sizes, and lets images below 8×8 through.
    return F.max_pool2d(features, 2, ceil_mode=True)
