"""ResNet-50 as a backbone, against its description and against the names of its published weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.resnet_imagenet import ResNetBackbone
from tests.networks.test_classifiers import images
from tests.networks.test_dilation import lived
from tests.networks.test_resnet import norm

Shapes = dict[str, tuple[int, ...]]
#: Parameters of the classifier that the backbones lack: 2048 features, 1000 classes.
IMAGENET_CLASSIFIER = 2048 * 1000 + 1000


def batch_norm(name: str, channels: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def published_resnet50() -> Shapes:
    """Names and shapes in torchvision's resnet50 without `fc`, from table 1 of He et al. and its naming."""
    shapes = {"conv1.weight": (64, 3, 7, 7)} | batch_norm("bn1", 64)
    before = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for index in range(blocks):
            name = f"layer{stage}.{index}"
            shapes |= {
                f"{name}.conv1.weight": (width, before, 1, 1),
                f"{name}.conv2.weight": (width, width, 3, 3),
                f"{name}.conv3.weight": (4 * width, width, 1, 1),
            }
            shapes |= batch_norm(f"{name}.bn1", width) | batch_norm(f"{name}.bn2", width)
            shapes |= batch_norm(f"{name}.bn3", 4 * width)
            if index == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, before, 1, 1)}
                shapes |= batch_norm(f"{name}.downsample.1", 4 * width)
            before = 4 * width
    return shapes


def shapes_of(weights: dict[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in weights.items()}


@pytest.mark.parametrize(
    ("blocks", "literature"), [((3, 4, 6, 3), 25_557_032), ((3, 4, 23, 3), 44_549_160)], ids=["resnet50", "resnet101"]
)
def test_the_number_of_parameters_is_the_literatures(blocks: tuple[int, ...], literature: int) -> None:
    with torch.device("meta"):
        network = ResNetBackbone(3, blocks)
    assert sum(p.numel() for p in network.parameters()) + IMAGENET_CLASSIFIER == literature


def test_state_dict_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        weights = ResNetBackbone().state_dict()
    published = published_resnet50()
    convolutions = [name for name, shape in published.items() if len(shape) == 4]
    assert len(convolutions) == 53  # 50 layers without the linear one, and 4 projections
    assert shapes_of(weights) == published


def described(weights: dict[str, Tensor], blocks: tuple[int, ...], rates: list[list[int]], batch: Tensor) -> Tensor:
    """He et al. 2016 with the stride in the 3×3 convolutions; rates are their dilations, 0 for a stride of 2."""
    features = F.conv2d(batch, weights["conv1.weight"], stride=2, padding=3)
    features = F.max_pool2d(norm(weights, "bn1", features).clamp_min(0), 3, stride=2, padding=1)
    for stage, count in enumerate(blocks, start=1):
        for index in range(count):
            name, rate = f"layer{stage}.{index}", rates[stage - 1][index]
            stride, dilation = (2, 1) if rate == 0 else (1, rate)
            out = norm(weights, f"{name}.bn1", F.conv2d(features, weights[f"{name}.conv1.weight"])).clamp_min(0)
            out = F.conv2d(out, weights[f"{name}.conv2.weight"], None, stride, dilation, dilation)
            out = norm(weights, f"{name}.bn2", out).clamp_min(0)
            out = norm(weights, f"{name}.bn3", F.conv2d(out, weights[f"{name}.conv3.weight"]))
            if f"{name}.downsample.0.weight" in weights:
                features = F.conv2d(features, weights[f"{name}.downsample.0.weight"], stride=stride)
                features = norm(weights, f"{name}.downsample.1", features)
            features = (out + features).clamp_min(0)
    return features


@pytest.mark.parametrize(
    ("output_stride", "rates"),
    [
        (32, [[1], [0, 1], [0, 1], [0, 1]]),
        (16, [[1], [0, 1], [0, 1], [1, 2]]),
        (8, [[1], [0, 1], [1, 2], [2, 4]]),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (37, 50)])
def test_the_output_is_that_of_the_description(
    output_stride: int, rates: list[list[int]], size: tuple[int, int]
) -> None:
    blocks = (1, 2, 2, 2)
    network = lived(ResNetBackbone(3, blocks, (4, 5, 6, 7), output_stride))
    batch = images(2, 3, *size, seed=1)
    with torch.no_grad():
        expected = described(network.state_dict(), blocks, rates, batch)
        torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("blocks", "widths"), [((1, 1, 1), (4, 4, 4)), ((1, 1, 1, 1), (4, 4, 4))])
def test_other_than_four_stages_are_refused(blocks: tuple[int, ...], widths: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"blocks=.* and widths=\(4, 4, 4\): give one of each for 4 stages"):
        ResNetBackbone(3, blocks, widths)
