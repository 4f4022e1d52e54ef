"""Initial weights shared by the convolutional classifiers."""

from __future__ import annotations

from torch import nn


def initialise_convolutions(network: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / (k²·out_channels)) and zero its bias, in place.

    This is the fan-out form of He et al. 2015 (section 2.2), which the reference code of ResNet, WRN and VGG on
    CIFAR uses. BatchNorm keeps PyTorch's start, which is theirs: scale 1, shift 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
