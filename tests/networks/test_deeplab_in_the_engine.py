"""What the engine does to networks that answer for each pixel: layout, folding, heads, groups and costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation.batch_norm import BatchNormStatistics, batch_norm_layers
from ssdkd_env.distillation.costs import multiply_adds
from ssdkd_env.networks import NETWORKS
from ssdkd_env.networks.deeplab import ImagePooling, SideBySide
from ssdkd_env.networks.folding import FoldedTwin, fold_batch_norm
from ssdkd_env.networks.grouping import can_group
from ssdkd_env.networks.head import ExactPixelwise, last_linear, with_exact_head
from tests.networks.test_classifiers import images
from tests.networks.test_deeplab import FAMILIES, SMALL, make
from tests.networks.test_dilation import lived


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_batch_norm_loss_reaches_the_images(arch: str) -> None:
    network = lived(make(arch)).requires_grad_(False)
    batch = images(2, 3, 32, 48).requires_grad_()
    assert len(batch_norm_layers(network)) == sum(isinstance(module, nn.Conv2d) for module in network.modules()) - 1
    statistics = BatchNormStatistics(network)
    with statistics.capture():
        network(batch)
    statistics.loss().backward()
    assert batch.grad is not None and batch.grad.isfinite().all()
    assert (batch.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_memory_layout_changes_neither_answers_nor_gradients(arch: str) -> None:
    plain, network = (lived(make(arch)).double() for _ in range(2))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    results = []
    for each, layout in ((plain, torch.contiguous_format), (network, torch.channels_last)):
        batch = images(2, 3, 40, 56).double().contiguous(memory_format=layout).requires_grad_()
        logits = each(batch)
        gradients = torch.autograd.grad(logits.square().sum(), [batch, *each.parameters()])
        assert logits.is_contiguous(memory_format=layout)
        results.append((logits.detach(), *gradients))
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7 * max(1.0, float(expected.abs().max())))


def test_the_pooled_image_lies_as_the_maps_beside_it() -> None:
    pooling = ImagePooling(8, 6).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = images(2, 8, 4, 5).contiguous(memory_format=torch.channels_last)
    assert pooling(features).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("size", [(40, 56), (33, 47)])
def test_batch_norm_is_folded_and_the_answers_stay(arch: str, size: tuple[int, int]) -> None:
    network, batch = lived(make(arch)).requires_grad_(False), images(2, 3, *size)
    folded = fold_batch_norm(network, batch)
    assert not batch_norm_layers(folded)
    for other in (batch, images(1, 3, 24, 64, seed=2)):  # the trace holds no size
        answers = network(other)
        torch.testing.assert_close(folded(other), answers, rtol=1e-4, atol=1e-4 * float(answers.abs().max()))


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_twin_follows_its_network(arch: str) -> None:
    network, batch = lived(make(arch)), images(2, 3, 40, 56)
    twin = FoldedTwin(network, batch)
    assert len(batch_norm_layers(twin.network)) == 0
    lived(network, seed=2)
    with torch.no_grad():
        answers = network(batch)
        assert (twin.network(batch) - answers).abs().max() > 1e-2 * answers.abs().max()
        twin.follow()
        torch.testing.assert_close(twin.network(batch), answers, rtol=1e-4, atol=1e-4 * float(answers.abs().max()))


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_answers_for_pixels_are_exact(arch: str) -> None:
    network, batch = lived(make(arch)), images(2, 3, 40, 56)
    names, expected = list(network.state_dict()), network(batch)
    assert with_exact_head(network) is network
    assert last_linear(network) is None
    heads = [name for name, part in network.named_modules() if isinstance(part, ExactPixelwise)]
    assert heads == ["classifier.4"]
    assert list(network.state_dict()) == names
    assert torch.equal(network(batch), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(batch).dtype == torch.float32


@pytest.mark.parametrize("arch", FAMILIES)
def test_autocast_changes_the_answers_little(arch: str) -> None:
    network, batch = lived(make(arch)), images(2, 3, 40, 56)
    with torch.no_grad():
        expected = network(batch)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(batch).float()
    # A rounding is 1/256 at most; those of some fifty layers add up like independent ones, to 1/36, or somewhat more.
    assert 0 < (logits - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("arch", FAMILIES)
def test_networks_with_dropout_are_not_grouped_and_those_without_are(arch: str) -> None:
    network = make(arch)

    def example(count: int) -> Tensor:
        return images(count, 3, 16, 24).double()

    dropout = any(isinstance(module, nn.Dropout) for module in network.modules())
    assert dropout == (arch not in SMALL)
    assert can_group(network, example) == (not dropout)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert can_group(network, example), "nothing else stands in the way"


def test_maps_side_by_side_stay_with_their_network_and_in_channels_last() -> None:
    maps = [images(2, 6, 4, 5), images(2, 3, 4, 5, seed=1)]
    by_network = [torch.cat([maps[0][:, 2 * n : 2 * n + 2], maps[1][:, n : n + 1]], dim=1) for n in range(3)]
    grouped = SideBySide().grouped(3)
    out = grouped(*(part.contiguous(memory_format=torch.channels_last) for part in maps))
    assert torch.equal(out, torch.cat(by_network, dim=1))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(SideBySide()(*maps), torch.cat(maps, dim=1))


@pytest.mark.parametrize("width", [16, 32])
def test_costs_are_those_of_the_convolutions(width: int) -> None:
    w, classes, half, quarter, eighth = width, 7, 60 * 80, 30 * 40, 15 * 20
    backbone = 27 * w * half + 18 * w * w * half + 9 * (2 + 4) * w * w * quarter + 9 * (8 + 16 + 32) * w * w * eighth
    # Image pooling has one pixel.
    head = (1 + 3 * 9) * 8 * w * w * eighth + 8 * w * w + (20 + 36) * w * w * eighth + 2 * w * classes * eighth
    with torch.device("meta"):
        network = NETWORKS[f"deeplab_small{width}"](num_classes=classes).eval()
        assert multiply_adds(network, torch.zeros(2, 3, 120, 160)) == backbone + head
    assert backbone + head < 0.6e9
