from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.folding import fold_batch_norm
from ssdkd_env.networks.grouping import NetworkGroup
from ssdkd_env.networks.head import ExactLinear, ExactPixelwise, last_linear, with_exact_head

IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def make_network(seed: int = 0) -> ConvNet:
    torch.manual_seed(seed)
    return ConvNet(10, channels=(8, 16))


def head_inputs(network: ConvNet) -> Tensor:
    pooled: Tensor = network.pool(network.features(IMAGES))
    return pooled


def test_the_head_is_not_rounded_by_autocast_and_the_rest_is() -> None:
    plain, network = make_network(), with_exact_head(make_network())
    assert isinstance(network, ConvNet)
    with torch.no_grad(), autocast():
        features, logits, rounded = head_inputs(network), network(IMAGES), plain(IMAGES)
    assert logits.dtype == features.dtype == torch.float32
    assert rounded.dtype == torch.bfloat16
    expected = features.double() @ network.classifier.weight.double().T + network.classifier.bias.double()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-6)
    assert (rounded.double() - expected).abs().max() > 1e-4
    with torch.no_grad():
        assert not torch.equal(head_inputs(network), features), "the convolutions are rounded"


def test_without_autocast_nothing_changes() -> None:
    plain = make_network()
    expected = plain(IMAGES)
    network = with_exact_head(copy.deepcopy(plain))
    assert torch.equal(network(IMAGES), expected)
    assert list(network.state_dict()) == list(plain.state_dict())
    network.load_state_dict(plain.state_dict())


def test_weights_are_the_networks_own_and_are_trained() -> None:
    network = make_network()
    weight = network.classifier.weight
    with_exact_head(network.eval())
    assert network.classifier.weight is weight
    assert not network.classifier.training
    with autocast():
        network(IMAGES).square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("bias", [False, True])
def test_a_bias_is_taken_over_or_missing(bias: bool) -> None:
    network = with_exact_head(nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=bias)))
    head = network[1]  # type: ignore[index]
    assert isinstance(head, ExactLinear)
    assert (head.bias is not None) == bias
    assert network(IMAGES).shape == (8, 3)


class OwnLinear(nn.Linear):
    """With a forward pass of its own."""


def test_only_the_last_layer_is_replaced_and_none_of_another_class() -> None:
    two = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with_exact_head(two)
    assert [type(layer) for layer in two] == [nn.Linear, nn.ReLU, ExactLinear]
    own = nn.Sequential(OwnLinear(4, 2))
    assert type(with_exact_head(own)[0]) is OwnLinear  # type: ignore[index]
    alone = nn.Linear(4, 2)
    assert with_exact_head(alone) is alone
    assert type(alone) is nn.Linear
    convolution = nn.Sequential(nn.Conv2d(1, 2, 1))
    assert last_linear(with_exact_head(convolution)) is None


def test_a_group_of_networks_keeps_exact_heads_exact() -> None:
    members = [with_exact_head(make_network(seed)).eval() for seed in (0, 1)]
    group = NetworkGroup(members[0], 2)
    group.gather(members)
    with torch.no_grad(), autocast():
        together = group(torch.cat([IMAGES, IMAGES]))
        alone = torch.cat([member(IMAGES) for member in members])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=0.02, atol=0.02)


# --- dense predictions ---


def pixelwise(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


def test_the_convolution_that_answers_for_each_pixel_is_not_rounded_either() -> None:
    plain, network = pixelwise(), with_exact_head(pixelwise())
    assert isinstance(network, nn.Sequential) and isinstance(network[3], ExactPixelwise)
    with torch.no_grad(), autocast():
        features, logits, rounded = network[:3](IMAGES), network(IMAGES), plain(IMAGES)
    assert rounded.dtype == torch.bfloat16 and logits.dtype == torch.float32
    weight, bias = network[3].weight.double().flatten(1), network[3].bias
    assert bias is not None
    expected = torch.einsum("kc,nchw->nkhw", weight, features.double()) + bias.double().view(1, -1, 1, 1)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-6)
    assert (rounded.double() - expected).abs().max() > 1e-4
    assert torch.equal(with_exact_head(pixelwise())(IMAGES), plain(IMAGES)), "without autocast nothing changes"


def test_exact_answers_for_pixels_are_grouped_and_folded() -> None:
    members = [with_exact_head(pixelwise(seed)) for seed in (0, 1)]
    group = NetworkGroup(members[0], 2).eval()
    group.gather(members)
    inputs = torch.cat([IMAGES, IMAGES.flip(0)])
    with torch.no_grad(), autocast():
        grouped = group(inputs)
        alone = torch.cat([member(part) for member, part in zip(members, inputs.chunk(2), strict=True)])
    assert grouped.dtype == torch.float32
    torch.testing.assert_close(grouped, alone, rtol=2e-2, atol=2e-2)
    folded = fold_batch_norm(members[0], IMAGES)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    with torch.no_grad(), autocast():
        assert folded(IMAGES).dtype == torch.float32


@pytest.mark.parametrize(
    "last",
    [nn.Conv2d(8, 4, 3), nn.Conv2d(8, 4, 1, stride=2), nn.Conv2d(8, 4, 1, groups=2), nn.Conv2d(8, 4, 1, padding=1)],
)
def test_other_convolutions_stay_as_they_are(last: nn.Conv2d) -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), last)
    assert type(with_exact_head(network)[1]) is nn.Conv2d  # type: ignore[index]
