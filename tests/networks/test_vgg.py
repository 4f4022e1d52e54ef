"""VGG-11 against its description."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdkd_env.networks.vgg import VGG11
from tests.networks.test_classifiers import build, images
from tests.networks.test_resnet import norm


@pytest.fixture(scope="module")
def network() -> nn.Module:
    network = build("vgg11")
    network(images(8, 3, 8, 8))  # moves BatchNorm's statistics away from 0 and 1
    return network.eval()


def described(weights: dict[str, Tensor], batch: Tensor, pooled_blocks: int) -> Tensor:
    """The network's output by its description, for even sizes."""
    features = batch
    for block, count in enumerate((1, 1, 2, 2, 2)):
        for index in range(count):
            name = f"block{block}.{3 * index}"
            features = F.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
            features = norm(weights, f"block{block}.{3 * index + 1}", features).clamp_min(0)
        if block < pooled_blocks:
            features = features.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
    pooled = features.flatten(2).sum(dim=2) / features[0, 0].numel()
    return pooled @ weights["classifier.weight"].T + weights["classifier.bias"]


@pytest.mark.parametrize(("size", "pooled_blocks"), [(8, 3), (32, 3), (64, 4)])
def test_the_output_is_that_of_the_description(network: nn.Module, size: int, pooled_blocks: int) -> None:
    batch = images(1, 3, size, size, seed=1)
    with torch.no_grad():
        expected = described(network.state_dict(), batch, pooled_blocks)
        torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)


def test_state_dict_names_are_the_fields() -> None:
    with torch.device("meta"):
        names = VGG11(10).state_dict().keys()
    expected = {f"block{block}.{layer}" for block in range(5) for layer in range(2)}
    expected |= {f"block{block}.{layer}" for block in (2, 3, 4) for layer in (3, 4)}
    assert {name.rpartition(".")[0] for name in names} == expected | {"classifier"}
