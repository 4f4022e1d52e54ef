"""MobileNetV2 as a backbone, against its description and against the names of its published weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssdkd_env.networks.mobilenet_v2 import MobileNetV2Backbone
from tests.networks.test_classifiers import images
from tests.networks.test_dilation import lived
from tests.networks.test_resnet import norm
from tests.networks.test_resnet_imagenet import Shapes, batch_norm, shapes_of

#: Every block of table 2 of Sandler et al. 2018: expansion, output channels, stride.
BLOCKS = [(1, 16, 1)]
BLOCKS += [(6, 24, 2), (6, 24, 1)]
BLOCKS += [(6, 32, 2)] + [(6, 32, 1)] * 2
BLOCKS += [(6, 64, 2)] + [(6, 64, 1)] * 3
BLOCKS += [(6, 96, 1)] * 3
BLOCKS += [(6, 160, 2)] + [(6, 160, 1)] * 2
BLOCKS += [(6, 320, 1)]


def published_mobilenet_v2() -> Shapes:
    """Names and shapes in torchvision's mobilenet_v2 without `classifier`."""
    shapes = {"features.0.0.weight": (32, 3, 3, 3)} | batch_norm("features.0.1", 32)
    before = 32
    for number, (expansion, channels, _) in enumerate(BLOCKS, start=1):
        hidden, block = expansion * before, f"features.{number}.conv"
        position = 0
        if expansion > 1:
            shapes |= {f"{block}.0.0.weight": (hidden, before, 1, 1)} | batch_norm(f"{block}.0.1", hidden)
            position = 1
        shapes |= {f"{block}.{position}.0.weight": (hidden, 1, 3, 3)} | batch_norm(f"{block}.{position}.1", hidden)
        shapes |= {f"{block}.{position + 1}.weight": (channels, hidden, 1, 1)}
        shapes |= batch_norm(f"{block}.{position + 2}", channels)
        before = channels
    return shapes | {"features.18.0.weight": (1280, 320, 1, 1)} | batch_norm("features.18.1", 1280)


def test_the_number_of_parameters_is_the_literatures() -> None:
    with torch.device("meta"):
        whole, without = MobileNetV2Backbone(), MobileNetV2Backbone(last_convolution=False)
    count = sum(p.numel() for p in whole.parameters())
    assert count == 2_223_872
    assert count + 1280 * 1000 + 1000 == 3_504_872  # with the classifier of ImageNet
    assert count - sum(p.numel() for p in without.parameters()) == 320 * 1280 + 2 * 1280
    assert (whole.out_channels, without.out_channels) == (1280, 320)


def test_state_dict_names_and_shapes_are_the_published_ones() -> None:
    published = published_mobilenet_v2()
    assert sum(len(shape) == 4 for shape in published.values()) == 52  # 1 + 2 + 16·3 + 1
    with torch.device("meta"):
        assert shapes_of(MobileNetV2Backbone().state_dict()) == published
        without = MobileNetV2Backbone(last_convolution=False).state_dict()
    assert shapes_of(without) == {
        name: shape for name, shape in published.items() if not name.startswith("features.18.")
    }


def described(weights: dict[str, Tensor], output_stride: int, batch: Tensor) -> Tensor:
    """Sandler et al. 2018: the features by their description, with dilation 2 instead of the last stride at 16."""

    def activated(name: str, features: Tensor) -> Tensor:
        return norm(weights, name, features).clamp(0, 6)

    features = activated("features.0.1", F.conv2d(batch, weights["features.0.0.weight"], stride=2, padding=1))
    for number, (expansion, channels, stride) in enumerate(BLOCKS, start=1):
        block, out, position = f"features.{number}.conv", features, 0
        dilation = 2 if output_stride == 16 and number > 14 else 1
        stride = 1 if output_stride == 16 and number == 14 else stride
        if expansion > 1:
            out, position = activated(f"{block}.0.1", F.conv2d(out, weights[f"{block}.0.0.weight"])), 1
        depthwise = weights[f"{block}.{position}.0.weight"]
        out = F.conv2d(out, depthwise, None, stride, dilation, dilation, groups=out.shape[1])
        out = F.conv2d(activated(f"{block}.{position}.1", out), weights[f"{block}.{position + 1}.weight"])
        out = norm(weights, f"{block}.{position + 2}", out)
        features = features + out if stride == 1 and features.shape[1] == channels else out
    return activated("features.18.1", F.conv2d(features, weights["features.18.0.weight"]))


@pytest.mark.parametrize("output_stride", [16, 32])
@pytest.mark.parametrize("size", [(64, 64), (37, 50)])
def test_the_output_is_that_of_the_description(output_stride: int, size: tuple[int, int]) -> None:
    network = lived(MobileNetV2Backbone(3, output_stride))
    batch = 100 * images(2, 3, *size, seed=1)
    with torch.no_grad():
        expected = described(network.state_dict(), output_stride, batch)
        assert network.features[0](batch).max() == 6, "numbers so large that the activation's limit shows"
        torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("output_stride", "size"), [(8, (9, 12)), (16, (5, 6)), (32, (3, 3))])
def test_the_features_have_the_output_stride(output_stride: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = MobileNetV2Backbone(4, output_stride).eval()
        assert network(torch.zeros(2, 4, 70, 90)).shape == (2, 1280, *size)
