"""Which statistics belong to which BatchNorm layer. Their values are tested with the losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation.statistics import BatchNormStatistics
from ssdkd_env.errors import InvalidInputError

IMAGES = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """Layers are registered in another order than they are used; one may be used twice, or not at all."""

    def __init__(self, uses: tuple[str, ...] = ("first", "second")) -> None:
        super().__init__()
        self.second = nn.BatchNorm2d(3)
        self.first = nn.BatchNorm2d(3)
        self.uses = uses

    def forward(self, images: Tensor) -> Tensor:
        for name in self.uses:
            images = getattr(self, name)(images) * 2 + 1
        return images.mean(dim=(2, 3))


def loss_of(network: nn.Module) -> Tensor:
    statistics = BatchNormStatistics(network)
    with statistics.capture():
        network(IMAGES)
    return statistics.loss()


def test_layers_are_matched_whatever_the_order_of_their_registration() -> None:
    """The batch's own statistics are put into the layers that meet them, so that nothing is left to match."""
    network = Odd().eval()
    features = IMAGES
    with torch.no_grad():
        for layer in (network.first, network.second):
            layer.running_mean = features.mean(dim=(0, 2, 3))
            layer.running_var = features.var(dim=(0, 2, 3), unbiased=False)
            features = layer(features) * 2 + 1
    assert loss_of(network) < 1e-4
    network.first.running_mean, network.second.running_mean = network.second.running_mean, network.first.running_mean
    assert loss_of(network) > 0.5


@pytest.mark.parametrize(
    ("uses", "match"),
    [(("first", "second", "first"), "number 1 is used twice"), (("first",), "only 1 of its 2 BatchNorm layers")],
)
def test_a_layer_without_one_place_is_refused(uses: tuple[str, ...], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        loss_of(Odd(uses).eval())


def test_a_pass_after_a_failed_one_starts_anew() -> None:
    network = Odd().eval()
    statistics = BatchNormStatistics(network)
    with pytest.raises(RuntimeError), statistics.capture():
        network(torch.zeros(2, 5, 6, 6))
    with statistics.capture():
        network(IMAGES)
    assert torch.equal(statistics.loss(), loss_of(network))
