"""The ResNets against their description, written out with functions on a state dict."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.resnet import RESNETS, ResNet, SubsampleAndPad
from tests.networks.test_classifiers import build, images


def norm(weights: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    """BatchNorm in evaluation mode, from its definition."""
    mean, var, scale, shift = (
        weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (features - mean) / (var + 1e-5).sqrt() * scale + shift


def described(weights: dict[str, Tensor], blocks: tuple[int, ...], batch: Tensor) -> Tensor:
    """He et al. 2016: the network's output by its description."""
    features = F.conv2d(batch, weights["conv1.weight"], padding=1)
    features = norm(weights, "bn1", features).clamp_min(0)
    for stage, count in enumerate(blocks, start=1):
        for index in range(count):
            name = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            out = F.conv2d(features, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            out = norm(weights, f"{name}.bn1", out).clamp_min(0)
            out = norm(weights, f"{name}.bn2", F.conv2d(out, weights[f"{name}.conv2.weight"], padding=1))
            if f"{name}.shortcut.0.weight" in weights:
                features = F.conv2d(features, weights[f"{name}.shortcut.0.weight"], stride=stride)
                features = norm(weights, f"{name}.shortcut.1", features)
            elif stride == 2:
                zeros = torch.zeros_like(out)
                quarter = out.shape[1] // 4
                zeros[:, quarter : 3 * quarter] = features[:, :, ::2, ::2]
                features = zeros
            features = (out + features).clamp_min(0)
    pooled = features.flatten(2).sum(dim=2) / features[0, 0].numel()
    return pooled @ weights["linear.weight"].T + weights["linear.bias"]


@pytest.mark.parametrize(
    ("arch", "blocks"), [("resnet8", (1, 1, 1)), ("resnet20", (3, 3, 3)), ("resnet18", (2, 2, 2, 2))]
)
@pytest.mark.parametrize("size", [(16, 16), (9, 12)])
def test_the_output_is_that_of_the_description(arch: str, blocks: tuple[int, ...], size: tuple[int, int]) -> None:
    network = build(arch)
    network(images(8, 3, 8, 8))  # moves BatchNorm's statistics away from 0 and 1
    network.eval()
    batch = images(3, 3, *size, seed=1)
    with torch.no_grad():
        expected = described(network.state_dict(), blocks, batch)
        torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(6, 4), (5, 3)])
def test_option_a_takes_every_second_pixel_and_pads_on_both_sides(height: int, width: int) -> None:
    features = 1 + torch.arange(2 * 3 * height * width).reshape(2, 3, height, width).float()
    out = SubsampleAndPad(3)(features)
    assert out.shape == (2, 6, 3, 2)
    assert not out[:, [0, 4, 5]].any()
    for channel in range(3):
        for row in range(3):
            for column in range(2):
                assert torch.equal(out[:, 1 + channel, row, column], features[:, channel, 2 * row, 2 * column])


@pytest.mark.parametrize("networks", [1, 2])
def test_option_a_in_a_dilated_stage_takes_every_pixel(networks: int) -> None:
    features = torch.randn(2, 3 * networks, 5, 4)
    shortcut = SubsampleAndPad(3).grouped(networks)
    shortcut.stride = 1
    out = shortcut(features).view(2, networks, 6, 5, 4)
    assert torch.equal(out[:, :, 1:4], features.view(2, networks, 3, 5, 4))
    assert not out[:, :, [0, 4, 5]].any()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(256, 16, 32, 32), (2, 32, 16, 16), (2, 16, 8, 8)])
def test_option_a_keeps_the_memory_layout(layout: torch.memory_format, shape: tuple[int, ...], stride: int) -> None:
    shortcut = SubsampleAndPad(shape[1])
    shortcut.stride = stride
    out = shortcut(torch.zeros(shape).contiguous(memory_format=layout))
    assert out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("arch", [name for name in RESNETS if name not in ("resnet18", "resnet34")])
def test_the_small_networks_have_the_depth_of_their_name_and_no_parameters_in_shortcuts(arch: str) -> None:
    with torch.device("meta"):
        names = RESNETS[arch](num_classes=10).state_dict()
    layers = sum(name.endswith(("conv1.weight", "conv2.weight", "linear.weight")) for name in names)
    assert f"resnet{layers}" == arch
    assert not any("shortcut" in name for name in names)


def test_state_dict_names_are_the_fields() -> None:
    with torch.device("meta"):
        names = RESNETS["resnet18"](num_classes=10).state_dict().keys()
    layers = {name.rpartition(".")[0] for name in names}
    blocks = {f"layer{stage}.{index}" for stage in range(1, 5) for index in range(2)}
    expected = {f"{block}.{part}" for block in blocks for part in ("conv1", "bn1", "conv2", "bn2")}
    expected |= {f"layer{stage}.0.shortcut.{part}" for stage in range(2, 5) for part in range(2)}
    assert layers == expected | {"conv1", "bn1", "linear"}


def test_stages_without_a_width_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"blocks=\(1, 1\) and widths=\(8,\)"):
        ResNet(10, blocks=(1, 1), widths=(8,))
    with pytest.raises(InvalidInputError, match="blocks"):
        ResNet(10, blocks=(), widths=())


def test_option_a_refuses_to_drop_channels() -> None:
    with pytest.raises(InvalidInputError, match=r"widths=\(8, 4\).*projection=True"):
        ResNet(10, blocks=(1, 1), widths=(8, 4), projection=False)
    network = ResNet(10, blocks=(1, 1), widths=(8, 4))
    assert network.eval()(images(1, 3, 8, 8)).shape == (1, 10)
