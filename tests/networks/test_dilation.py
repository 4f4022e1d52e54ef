"""Dilated stages against the strided ones that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.deeplab import SmallBackbone
from ssdkd_env.networks.dilation import dilate
from ssdkd_env.networks.mobilenet_v2 import MobileNetV2Backbone
from ssdkd_env.networks.resnet_imagenet import ResNetBackbone
from tests.networks.test_classifiers import images

Network = TypeVar("Network", bound=nn.Module)


def lived(network: Network, seed: int = 1) -> Network:
    """The network in evaluation mode, with BatchNorm scales, shifts and statistics as training leaves them."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5, generator=random)
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0.0, 0.1, generator=random)
    return network.eval()


def small_resnet(output_stride: int) -> nn.Module:
    return ResNetBackbone(3, (1, 2, 2, 2), (4, 5, 6, 7), output_stride)


def mobilenet(output_stride: int) -> nn.Module:
    return MobileNetV2Backbone(3, output_stride)


def small(output_stride: int) -> nn.Module:
    return SmallBackbone(3, 4, output_stride)


@pytest.mark.parametrize(
    ("make", "coarsest", "output_stride"),
    [(small_resnet, 32, 8), (small_resnet, 32, 16), (mobilenet, 32, 8), (mobilenet, 32, 16), (small, 8, 4)],
)
@pytest.mark.parametrize("size", [(64, 96), (97, 131), (32, 32)])
def test_a_dilated_backbone_answers_at_the_strided_ones_pixels_as_that_does(
    make: Callable[[int], nn.Module], coarsest: int, output_stride: int, size: tuple[int, int]
) -> None:
    strided, dilated = (lived(make(stride)).double() for stride in (coarsest, output_stride))
    dilated.load_state_dict(strided.state_dict())
    batch, step = images(2, 3, *size).double(), coarsest // output_stride
    with torch.no_grad():
        coarse, fine = strided(batch), dilated(batch)
    assert fine.shape[2:] == tuple(-(-pixels // output_stride) for pixels in size)
    assert fine.shape[2] > coarse.shape[2]
    torch.testing.assert_close(fine[:, :, ::step, ::step], coarse, rtol=1e-9, atol=1e-9)


def test_each_convolution_steps_as_its_place_asks() -> None:
    stage = nn.Sequential(
        nn.Conv2d(2, 2, 1),
        nn.Conv2d(2, 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 2, (1, 5), padding=(0, 2)),
    )
    dilate(stage, before=2)
    convolutions = [module for module in stage if isinstance(module, nn.Conv2d)]
    assert [each.stride for each in convolutions] == [(1, 1)] * 3
    assert [each.dilation for each in convolutions] == [(1, 1), (2, 2), (1, 4)]
    assert [each.padding for each in convolutions] == [(0, 0), (2, 2), (0, 8)]
    features: Tensor = stage(torch.zeros(1, 2, 9, 7))
    assert features.shape == (1, 2, 9, 7)


@pytest.mark.parametrize("make", [small_resnet, mobilenet])
@pytest.mark.parametrize("output_stride", [4, 12, 64])
def test_another_output_stride_is_refused(make: Callable[[int], nn.Module], output_stride: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"output_stride={output_stride}: expected one of 8, 16, 32"):
        make(output_stride)


def test_another_output_stride_of_small_images_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="output_stride=16: expected 4 or 8"):
        small(16)
