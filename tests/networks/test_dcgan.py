"""The generator for larger images against its description."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdkd_env.distillation.costs import multiply_adds
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks import build_network
from ssdkd_env.networks.dcgan import CentralCrop, DCGANGenerator
from ssdkd_env.networks.folding import fold_batch_norm

LATENTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def build(shape: tuple[int, int, int], seed: int = 0, channels: int = 32) -> nn.Module:
    options = {"latent_dim": 6, "image_shape": shape, "channels": channels}
    return build_network("generator_arch", "dcgan", options, seed)


def described(weights: dict[str, Tensor], latents: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The images in training mode, by the description."""
    _, height, width = shape
    rows, columns = (height + 15) // 16, (width + 15) // 16
    features = latents @ weights["project.weight"].T + weights["project.bias"]
    features = features.view(len(latents), -1, rows, columns)

    def normalised(features: Tensor, name: str) -> Tensor:
        mean = features.mean(dim=(0, 2, 3), keepdim=True)
        variance = (features - mean).square().mean(dim=(0, 2, 3), keepdim=True)
        scale, shift = (weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return (features - mean) / (variance + 1e-5).sqrt() * scale + shift

    features = normalised(features, "blocks.0")
    for block in range(4):
        features = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        features = F.conv2d(features, weights[f"blocks.{3 * block + 1}.weight"], padding=1)
        features = normalised(features, f"blocks.{3 * block + 2}")
        features = torch.where(features > 0, features, 0.2 * features)
    values = F.conv2d(features, weights["blocks.13.weight"], weights["blocks.13.bias"], padding=1)
    above, left = (16 * rows - height) // 2, (16 * columns - width) // 2
    return 1 / (1 + (-values[:, :, above : above + height, left : left + width]).exp())


SHAPES = [(3, 120, 160), (3, 128, 128), (1, 97, 131), (2, 8, 8), (3, 33, 16), (1, 1, 17)]


@pytest.mark.parametrize("shape", SHAPES)
def test_images_have_exactly_the_size_and_lie_in_the_unit_interval(shape: tuple[int, int, int]) -> None:
    generator = build(shape)
    with torch.no_grad():
        for module in generator.modules():  # numbers large enough to leave the interval if anything lets them
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(50)
        images = generator(10 * LATENTS)
    assert images.shape == (4, *shape)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < 0.4
    assert 0.6 < images.max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_the_images_are_those_of_the_description(shape: tuple[int, int, int]) -> None:
    generator = build(shape).double()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():  # away from 0 and 1
            if "blocks" in name and parameter.dim() == 1:
                parameter.add_(0.1 * torch.arange(len(parameter), dtype=torch.float64) / len(parameter))
        expected = described(generator.state_dict(), LATENTS.double(), shape)
        torch.testing.assert_close(generator(LATENTS.double()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("shape", "base"), [((3, 120, 160), 8 * 10), ((3, 128, 128), 8 * 8), ((3, 97, 131), 7 * 9)])
@pytest.mark.parametrize(("arch", "channels"), [("dcgan", 512), ("dcgan_small", 128)])
def test_it_has_the_documented_layers_and_costs(
    arch: str, channels: int, shape: tuple[int, int, int], base: int
) -> None:
    generator = build_network("generator_arch", arch, {"latent_dim": 100, "image_shape": shape}, 0, device="meta")
    assert all(parameter.is_meta for parameter in generator.parameters())
    costs = multiply_adds(generator.eval(), torch.zeros(2, 100, device="meta"))
    widths = [channels >> halvings for halvings in range(5)]
    pairs = list(itertools.pairwise(widths))
    parameters = 101 * channels * base + 2 * channels
    parameters += sum(9 * a * b + 2 * b for a, b in pairs) + 9 * widths[-1] * 3 + 3
    assert sum(p.numel() for p in generator.parameters()) == parameters
    # A doubling costs 16 products for each old pixel, or 9 for each of the new ones where the old are below 64.
    sizes = [base * 4**doubling for doubling in range(4)]
    products = sum((16 if size >= 64 else 36) * size * a * b for size, (a, b) in zip(sizes, pairs, strict=True))
    assert costs == 100 * channels * base + products + 27 * widths[-1] * base * 256


def test_the_crop_is_the_middle_of_the_image() -> None:
    images = torch.arange(2 * 3 * 7 * 10.0).view(2, 3, 7, 10)
    assert torch.equal(CentralCrop(4, 6)(images), images[:, :, 1:5, 2:8])
    assert torch.equal(CentralCrop(7, 9)(images), images[:, :, :, :9])
    assert torch.equal(CentralCrop(7, 10)(images), images)


def test_a_cropped_generator_makes_the_middle_of_the_larger_images() -> None:
    larger, generator = build((3, 112, 144)), build((3, 97, 131))
    generator.load_state_dict(larger.state_dict())
    with torch.no_grad():
        assert torch.equal(generator(LATENTS), larger(LATENTS)[:, :, 7 : 7 + 97, 6 : 6 + 131])


def test_weights_start_as_in_the_paper() -> None:
    for name, module in build((3, 64, 64), channels=64).named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            share = 5 / (2 * module.weight.numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(0.02, rel=share), name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any(), name


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build((3, 32, 32), seed=7).state_dict()
    torch.manual_seed(2)
    second, other = build((3, 32, 32), seed=7).state_dict(), build((3, 32, 32), seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["project.weight"], other["project.weight"])


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 50, 70)])
def test_the_memory_layout_changes_no_image_and_every_parameter_learns(shape: tuple[int, int, int]) -> None:
    plain, generator = build(shape).double(), build(shape).double()
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    latents = LATENTS.double().requires_grad_()
    images = generator(latents)
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, plain(latents), rtol=1e-9, atol=1e-9)
    images.square().sum().backward()
    assert latents.grad is not None and latents.grad.any(dim=1).all()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_generator_is_not_folded_as_the_standard_one_is_not() -> None:
    standard = build_network("generator_arch", "generator", {"latent_dim": 6, "image_shape": (3, 32, 32)}, 0).eval()
    generator = build((3, 32, 32)).eval()
    assert fold_batch_norm(standard, LATENTS) is standard
    assert fold_batch_norm(generator, LATENTS) is generator


@pytest.mark.parametrize("channels", [0, 8, 24, 100])
def test_channels_that_cannot_be_halved_four_times_are_refused(channels: int) -> None:
    with pytest.raises(InvalidInputError, match=f"channels={channels}: expected a multiple of 16"):
        DCGANGenerator(6, (3, 32, 32), channels)
