"""Which statistics belong to which BatchNorm layer. Their values are tested with the losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation.batch_norm import BatchNormStatistics
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
    losses = statistics.loss()
    assert losses.shape == (1,)
    return losses[0]


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


def in_float64(network: nn.Module) -> nn.Module:
    """Random statistics to match."""
    random = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(3, generator=random)
            layer.running_var = torch.rand(3, generator=random) + 0.5
    return network.double().eval()


def test_runs_side_by_side_are_matched_each_for_itself() -> None:
    """Losses, gradients and blended statistics of three runs, over three rounds, against each alone."""
    network = in_float64(Odd())
    together = BatchNormStatistics(network, momentum=0.7, runs=3)
    alone = [BatchNormStatistics(network, momentum=0.7) for _ in range(3)]
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        images = torch.randn(12, 3, 6, 6, generator=random, dtype=torch.float64) * torch.arange(1, 13).view(-1, 1, 1, 1)
        images.requires_grad_()
        parts = [part.detach().requires_grad_() for part in images.chunk(3)]
        with together.capture():
            network(images)
        losses = together.loss()
        assert losses.shape == (3,)
        for statistics, part in zip(alone, parts, strict=True):
            with statistics.capture():
                network(part)
        expected = [statistics.loss() for statistics in alone]
        torch.testing.assert_close(losses, torch.cat(expected), rtol=1e-11, atol=1e-12)
        weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
        (gradient,) = torch.autograd.grad((weights * losses).sum(), images)
        by_part = torch.autograd.grad((weights * torch.cat(expected)).sum(), parts)
        torch.testing.assert_close(gradient, torch.cat(by_part), rtol=1e-9, atol=1e-12)
        for statistics in (together, *alone):
            statistics.end_round()
        blended = [statistics.past for statistics in alone if statistics.past is not None]
        torch.testing.assert_close(together.past, torch.cat(blended), rtol=1e-11, atol=1e-12)


def test_joined_statistics_go_on_from_the_members_and_give_back() -> None:
    network = in_float64(Odd())
    members, twins = ([BatchNormStatistics(network, momentum=0.7) for _ in range(2)] for _ in range(2))
    batches = torch.randn(3, 2, 8, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for index, batch in enumerate(batches):
        if index == 1:  # the second batch only is made together; before it the pasts of the members differ
            joined = members[0].joined(members)
            with joined.capture():
                network(batch.flatten(0, 1))
            found = list(joined.loss())
            joined.end_round()
            joined.part(dict(enumerate(members)))
        else:
            found = [loss_after(network, member, part) for member, part in zip(members, batch, strict=True)]
        expected = [loss_after(network, twin, part) for twin, part in zip(twins, batch, strict=True)]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
        for member, twin in zip(members, twins, strict=True):
            assert member.runs == 1
            past, wanted = member.state_dict()["past"], twin.state_dict()["past"]
            assert past is not None
            torch.testing.assert_close(past, wanted, rtol=1e-11, atol=1e-12)
    assert not torch.equal(members[0].past, members[1].past)  # type: ignore[arg-type]


def loss_after(network: nn.Module, statistics: BatchNormStatistics, images: Tensor) -> Tensor:
    """Of one batch, which ends with it."""
    with statistics.capture():
        network(images)
    losses = statistics.loss()
    statistics.end_round()
    return losses[0]


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
    assert torch.equal(statistics.loss()[0], loss_of(network))
