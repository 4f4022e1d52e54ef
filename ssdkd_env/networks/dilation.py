"""Finer feature maps from a network that was designed to halve them, by dilated convolutions."""

from __future__ import annotations

from torch import nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.resnet import SubsampleAndPad

#: Pixels of the image, in height and in width, for one of the feature map, that a backbone can be built with.
OUTPUT_STRIDES = (8, 16, 32)


def dilate(stage: nn.Module, before: int) -> None:
    """Let a stage that halves its maps keep their size, in place, and see as much of the image with as many weights.

    What its convolutions answered on the halved map, they then answer at every second pixel of the full one (Chen et
    al. 2017, "Rethinking Atrous Convolution", section 3.1). For that, the convolutions after the one that halved step
    over every second pixel. The one that halved sees the map of the stage before, and steps as that stage does.

    Args:
        stage: its strides are in convolutions and `SubsampleAndPad` alone, and no convolutions but 1×1 ones come before
            the one that halves.
        before: dilation of the stage before, 1 if it has none; the stage's own is twice that.
    """
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            rate = before if module.stride == (2, 2) else 2 * before
            height, width = module.kernel_size
            module.stride = (1, 1)
            module.dilation = (rate if height > 1 else 1, rate if width > 1 else 1)
            module.padding = (rate * (height // 2), rate * (width // 2))
        elif isinstance(module, SubsampleAndPad):
            module.stride = 1


def check_output_stride(output_stride: int) -> None:
    """Refuse other output strides than `OUTPUT_STRIDES`.

    Raises:
        InvalidInputError: naming them.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise InvalidInputError(f"output_stride={output_stride}: expected one of {', '.join(map(str, OUTPUT_STRIDES))}")
