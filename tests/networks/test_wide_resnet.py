"""The wide ResNets against their description, written out with functions on a state dict."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.wide_resnet import WIDE_RESNETS, WideResNet
from tests.networks.test_classifiers import build, images
from tests.networks.test_resnet import norm


def described(weights: dict[str, Tensor], blocks: int, batch: Tensor) -> Tensor:
    """Zagoruyko & Komodakis 2016: the network's output by its description."""
    features = F.conv2d(batch, weights["conv1.weight"], padding=1)
    for stage in (1, 2, 3):
        for index in range(blocks):
            name = f"block{stage}.layer.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            activated = norm(weights, f"{name}.bn1", features).clamp_min(0)
            out = F.conv2d(activated, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(norm(weights, f"{name}.bn2", out).clamp_min(0), weights[f"{name}.conv2.weight"], padding=1)
            if out.shape != features.shape:
                features = F.conv2d(activated, weights[f"{name}.convShortcut.weight"], stride=stride)
            features = features + out
    features = norm(weights, "bn1", features).clamp_min(0)
    pooled = features.flatten(2).sum(dim=2) / features[0, 0].numel()
    return pooled @ weights["fc.weight"].T + weights["fc.bias"]


@pytest.mark.parametrize(("arch", "blocks"), [("wrn16_1", 2), ("wrn16_2", 2), ("wrn40_1", 6)])
@pytest.mark.parametrize("size", [(16, 16), (9, 12)])
def test_the_output_is_that_of_the_description(arch: str, blocks: int, size: tuple[int, int]) -> None:
    network = build(arch)
    network(images(8, 3, 8, 8))  # moves BatchNorm's statistics away from 0 and 1
    network.eval()
    batch = images(3, 3, *size, seed=1)
    with torch.no_grad():
        expected = described(network.state_dict(), blocks, batch)
        torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("arch", "blocks", "projections"), [("wrn16_1", 2, (2, 3)), ("wrn40_2", 6, (1, 2, 3))])
def test_state_dict_names_are_the_fields(arch: str, blocks: int, projections: tuple[int, ...]) -> None:
    with torch.device("meta"):
        names = WIDE_RESNETS[arch](num_classes=10).state_dict().keys()
    expected = {
        f"block{stage}.layer.{index}.{part}"
        for stage in (1, 2, 3)
        for index in range(blocks)
        for part in ("bn1", "conv1", "bn2", "conv2")
    }
    expected |= {f"block{stage}.layer.0.convShortcut" for stage in projections}
    assert {name.rpartition(".")[0] for name in names} == expected | {"conv1", "bn1", "fc"}


@pytest.mark.parametrize(("depth", "widen", "match"), [(17, 1, "depth=17"), (4, 1, "depth=4"), (16, 0, "widen=0")])
def test_a_depth_or_width_that_does_not_exist_is_refused(depth: int, widen: int, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        WideResNet(10, depth=depth, widen=widen)
