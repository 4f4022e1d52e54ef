"""What every shipped classifier promises, whatever its family."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from ssdkd_env.distillation.batch_norm import BatchNormStatistics, batch_norm_layers
from ssdkd_env.networks import NETWORKS, build_network
from ssdkd_env.networks.deeplab import DEEPLABS
from ssdkd_env.networks.registry import GENERATORS

CLASSIFIERS = sorted(set(NETWORKS) - set(GENERATORS) - set(DEEPLABS))
#: One network of each family, the smallest.
FAMILIES = ["resnet8", "resnet18", "wrn16_1", "vgg11"]


def build(arch: str, num_classes: int = 4, in_channels: int = 3, seed: int = 0, **options: Any) -> nn.Module:
    return build_network("teacher_arch", arch, {"num_classes": num_classes, "in_channels": in_channels} | options, seed)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- sizes: every number is written out layer by layer, none is taken from the code ---


def basic_block(a: int, b: int) -> int:
    """Two 3×3 convolutions without bias, two BatchNorms."""
    return 9 * a * b + 9 * b * b + 4 * b


def resnet(blocks: tuple[int, ...], widths: tuple[int, ...], projection: bool, classes: int) -> int:
    count = 9 * 3 * widths[0] + 2 * widths[0]
    previous = widths[0]
    for n, width in zip(blocks, widths, strict=True):
        count += basic_block(previous, width) + (n - 1) * basic_block(width, width)
        if projection and previous != width:
            count += previous * width + 2 * width
        previous = width
    return count + previous * classes + classes


def wide_resnet(depth: int, widen: int, classes: int) -> int:
    n, count, previous = (depth - 4) // 6, 9 * 3 * 16, 16
    for width in (16 * widen, 32 * widen, 64 * widen):
        count += 9 * previous * width + 9 * width * width + 2 * previous + 2 * width
        count += (n - 1) * (2 * 9 * width * width + 4 * width)
        if previous != width:
            count += previous * width
        previous = width
    return count + 2 * previous + previous * classes + classes


def vgg(classes: int) -> int:
    widths = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    convolutions = sum(9 * a * b + b + 2 * b for a, b in itertools.pairwise(widths))
    return convolutions + 512 * classes + classes


WIDE, NARROW = (64, 128, 256, 512), (16, 32, 64)


@pytest.mark.parametrize(
    ("arch", "literature", "calculated"),
    [
        ("resnet18", 11_173_962, resnet((2, 2, 2, 2), WIDE, True, 10)),
        ("resnet34", 21_282_122, resnet((3, 4, 6, 3), WIDE, True, 10)),
        ("resnet8", 75_290, resnet((1, 1, 1), NARROW, False, 10)),
        ("resnet20", 269_722, resnet((3, 3, 3), NARROW, False, 10)),
        ("resnet32", 464_154, resnet((5, 5, 5), NARROW, False, 10)),
        ("resnet44", 658_586, resnet((7, 7, 7), NARROW, False, 10)),
        ("resnet56", 853_018, resnet((9, 9, 9), NARROW, False, 10)),
        ("wrn40_2", 2_243_546, wide_resnet(40, 2, 10)),
        ("wrn40_1", 563_930, wide_resnet(40, 1, 10)),
        ("wrn16_2", 691_674, wide_resnet(16, 2, 10)),
        ("wrn16_1", 175_066, wide_resnet(16, 1, 10)),
        ("vgg11", 9_231_114, vgg(10)),
    ],
)
def test_the_number_of_parameters_is_the_literatures(arch: str, literature: int, calculated: int) -> None:
    with torch.device("meta"):  # shapes without memory
        network = NETWORKS[arch](num_classes=10)
    assert sum(p.numel() for p in network.parameters()) == calculated == literature


@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("resnet18", 20),  # 17 of convolutions, 3 of projections
        ("resnet34", 36),
        ("resnet20", 19),
        ("resnet56", 55),
        ("wrn40_2", 37),
        ("wrn16_1", 13),
        ("vgg11", 8),
    ],
)
def test_there_are_as_many_batch_norm_layers_as_the_depth_says(arch: str, layers: int) -> None:
    with torch.device("meta"):
        assert len(batch_norm_layers(NETWORKS[arch](num_classes=10))) == layers


# --- shapes and gradients ---


@pytest.mark.parametrize("arch", CLASSIFIERS)
def test_a_teacher_has_statistics_to_invert_and_every_parameter_learns(arch: str) -> None:
    network = build(arch)
    assert batch_norm_layers(network)
    logits = network(images(4, 3, 8, 8))
    assert logits.shape == (4, 4)
    assert logits.dtype == torch.float32
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    before_batch_norm = {  # BatchNorm takes the mean away, and with it a bias's gradient
        name for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and module.bias is not None
    }
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.removesuffix(".bias") in before_batch_norm, name


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize(
    ("classes", "shape"),
    [(10, (3, 32, 32)), (100, (1, 16, 16)), (2, (2, 8, 8)), (3, (3, 12, 20)), (5, (1, 7, 9)), (2, (3, 2, 2))],
)
def test_any_image_size_and_channel_count_gives_one_row_of_logits_an_image(
    arch: str, classes: int, shape: tuple[int, int, int]
) -> None:
    network = build(arch, classes, shape[0]).eval()
    with torch.no_grad():
        assert network(images(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_memory_layout_does_not_change_the_result(arch: str) -> None:
    network = build(arch).eval()
    batch = images(2, 3, 16, 16)
    with torch.no_grad():
        expected = network(batch)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_batch_norm_loss_reaches_the_images(arch: str) -> None:
    network = build(arch).eval().requires_grad_(False)
    batch = images(4, 3, 8, 8).requires_grad_()
    statistics = BatchNormStatistics(network)
    with statistics.capture():
        network(batch)
    statistics.loss().backward()
    assert batch.grad is not None
    assert batch.grad.isfinite().all()
    assert (batch.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


# --- learning ---


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet8", {}),
        ("resnet18", {"blocks": (1, 1, 1), "widths": (8, 16, 32)}),
        ("wrn16_1", {}),
        ("vgg11", {}),
    ],
)
def test_a_few_images_are_learnt_by_heart(arch: str, options: dict[str, Any]) -> None:
    network = build(arch, **options)
    batch, labels = images(8, 3, 8, 8), torch.arange(8) % 4
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses: list[float] = []
    while len(losses) < 40 and (not losses or losses[-1] > 0.02):
        loss = nn.functional.cross_entropy(network(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5
    assert losses[-1] < 0.02


# --- initial weights ---


@pytest.mark.parametrize("arch", CLASSIFIERS)
def test_equal_seeds_give_equal_weights(arch: str) -> None:
    torch.manual_seed(1)
    first = build(arch, seed=7).state_dict()
    torch.manual_seed(2)
    second = build(arch, seed=7).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("arch", FAMILIES)
def test_different_seeds_give_different_weights(arch: str) -> None:
    first, second = build(arch, seed=7), build(arch, seed=8)
    for name, parameter in first.named_parameters():
        if parameter.dim() > 1:
            assert not torch.equal(parameter, second.get_parameter(name)), name


@pytest.mark.parametrize("arch", FAMILIES)
def test_convolutions_start_with_the_fan_out_variance_and_batch_norm_at_one_and_zero(arch: str) -> None:
    for name, module in build(arch).named_modules():
        if isinstance(module, nn.Conv2d):
            out_channels, _, height, width = module.weight.shape
            expected = (2 / (out_channels * height * width)) ** 0.5
            # The deviation of n draws is itself uncertain by 1/√(2n): five times that, or the test says nothing.
            share = 5 / (2 * module.weight.numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=share), name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
            assert not module.bias.any(), name
