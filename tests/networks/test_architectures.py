"""Shapes and sizes of the shipped networks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from ssdkd_env.distillation.batch_norm import batch_norm_layers
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.generators import Generator


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("classes", "in_channels", "channels"), [(10, 1, (8, 16, 32)), (3, 3, (4,)), (5, 2, (6, 7))])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_convnet_has_the_documented_layers(
    classes: int, in_channels: int, channels: tuple[int, ...], batch_norm: bool
) -> None:
    network = ConvNet(classes, in_channels, channels, batch_norm).eval()
    widths = [in_channels, *channels]
    per_stage = 2 if batch_norm else 1  # BatchNorm: scale and shift; otherwise the convolution's bias
    expected = sum(9 * a * b + per_stage * b for a, b in itertools.pairwise(widths))
    assert size(network) == expected + channels[-1] * classes + classes
    assert len(batch_norm_layers(network)) == (len(channels) if batch_norm else 0)
    assert network(torch.zeros(2, in_channels, 8, 8)).shape == (2, classes)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (5, 9), (1, 1)])
def test_convnet_keeps_the_size_once_and_halves_it_after(height: int, width: int) -> None:
    network = ConvNet(10, 1, (4, 5, 6)).eval()
    features = network.features(torch.zeros(1, 1, height, width))
    assert features.shape == (1, 6, math.ceil(height / 4), math.ceil(width / 4))


def test_convnet_averages_its_features_before_the_classifier() -> None:
    network = ConvNet(4, 1, (3,)).eval()
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled = network.features(images).mean(dim=(2, 3))
        expected = pooled @ network.classifier.weight.T + network.classifier.bias
        torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 4, 12)])
def test_generator_makes_images_in_the_unit_interval(shape: tuple[int, int, int]) -> None:
    generator = Generator(16, shape, channels=8)
    images = generator(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)) * 10)
    assert images.shape == (3, *shape)
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize("channels", [8, 32, 128])
def test_generator_has_the_documented_layers(channels: int) -> None:
    latent, shape, half = 16, (3, 8, 12), channels // 2
    project = (latent + 1) * channels * 2 * 3
    blocks = 2 * channels + 9 * channels**2 + 2 * channels + 9 * channels * half + 2 * half
    assert size(Generator(latent, shape, channels)) == project + blocks + 9 * half * 3 + 3


@pytest.mark.parametrize("shape", [(1, 10, 10), (1, 8, 10), (1, 10, 8)])
def test_generator_refuses_sizes_that_do_not_divide_by_four(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInputError, match=r"image_shape.*divisible by 4"):
        Generator(16, shape)
