from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.networks import upsampling
from ssdkd_env.networks.grouping import NetworkGroup, can_group
from ssdkd_env.networks.upsampling import UpsampledConv2d


def layer_and_reference(groups: int = 1) -> tuple[UpsampledConv2d, nn.Sequential]:
    """Both in float64, with the same weights."""
    torch.manual_seed(0)
    layer = UpsampledConv2d(6, 4).double()
    if groups > 1:
        layer.groups = groups
        layer.weight = nn.Parameter(torch.randn(4, 6 // groups, 3, 3, dtype=torch.float64))
    convolution = nn.Conv2d(6, 4, 3, padding=1, bias=False, groups=groups).double()
    convolution.load_state_dict(layer.state_dict())
    return layer, nn.Sequential(nn.Upsample(scale_factor=2), convolution)


@pytest.fixture(params=[1, 10**9], ids=["transposed", "plain"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every map counts as large, or as small."""
    monkeypatch.setattr(upsampling, "FEW_PIXELS", request.param)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (4, 5), (8, 8)])
@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_upsampling_and_a_convolution_with_their_gradients(size: tuple[int, int], groups: int) -> None:
    layer, reference = layer_and_reference(groups)
    features = torch.randn(3, 6, *size, dtype=torch.float64)
    results = []
    for network in (layer, reference):
        inputs = features.clone().requires_grad_()
        outputs = network(inputs)
        wanted = [inputs, *network.parameters()]
        gradients = torch.autograd.grad(outputs, wanted, torch.arange(outputs.numel()).view_as(outputs) / 7.0)
        results.append((outputs, *gradients))
    for own, expected in zip(*results, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)


def test_a_bias_that_folding_gave_it_counts() -> None:
    layer, reference = layer_and_reference()
    layer.bias = nn.Parameter(torch.arange(4.0, dtype=torch.float64))
    features = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    expected = reference(features) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(features), expected, rtol=1e-12, atol=1e-12)


def test_several_are_one_group() -> None:
    members = [UpsampledConv2d(2, 4).double() for _ in range(3)]

    def example(count: int) -> Tensor:
        return torch.randn(count, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    assert can_group(members[0], example)
    group = NetworkGroup(members[0], 3)
    group.gather(members)
    inputs = example(6)
    expected = torch.cat([member(part) for member, part in zip(members, inputs.chunk(3), strict=True)])
    torch.testing.assert_close(group(inputs), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pixels", [1, 10**9])
def test_its_maps_and_their_gradients_stay_in_channels_last(pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsampling, "FEW_PIXELS", pixels)
    layer = UpsampledConv2d(6, 4).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = torch.randn(3, 6, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    outputs = layer(features)
    (gradient,) = torch.autograd.grad(outputs.square().sum(), features)
    for tensor in (outputs, gradient):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
