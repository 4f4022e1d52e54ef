"""DeepLabv3: sizes and names from the literature, its description written out, and training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ssdkd_env.networks import NETWORKS
from ssdkd_env.networks.checkpoints import load_weights
from ssdkd_env.networks.deeplab import ASPP, DEEPLABS, DeepLabV3, ImagePooling
from tests.networks.test_checkpoints import same_weights
from tests.networks.test_classifiers import build, images
from tests.networks.test_dilation import lived
from tests.networks.test_mobilenet_v2 import published_mobilenet_v2
from tests.networks.test_resnet import norm
from tests.networks.test_resnet_imagenet import Shapes, batch_norm, published_resnet50, shapes_of

#: One network of each family, narrow where its own width would only take time.
FAMILIES: dict[str, dict[str, Any]] = {
    "deeplabv3_resnet50": {"blocks": (1, 1, 1, 1), "widths": (4, 5, 6, 7), "channels": 8},
    "deeplabv3_mobilenet_v2": {"channels": 8},
    "deeplab_small12": {},
}
SMALL = [name for name in DEEPLABS if name.startswith("deeplab_small")]


def make(arch: str, seed: int = 0, num_classes: int = 5, in_channels: int = 3, **options: Any) -> DeepLabV3:
    network = build(arch, num_classes, in_channels, seed, **FAMILIES[arch] | options)
    assert isinstance(network, DeepLabV3)
    return network


# --- sizes and names ---


def head_parameters(features: int, width: int, classes: int) -> int:
    """ASPP with five branches, the 3×3 convolution and the classifier; seven BatchNorms."""
    branches = features * width + 3 * 9 * features * width + features * width
    return branches + 5 * width * width + 9 * width * width + 7 * 2 * width + width * classes + classes


def small_parameters(width: int, classes: int) -> int:
    """3×3 convolutions alone: a stem and two for each stage of width, 2, 4 and 4 times width."""
    w = width
    stages = 9 * (w * w + w * w + w * 2 * w + 4 * w * w + 8 * w * w + 16 * w * w + 16 * w * w + 16 * w * w)
    norms = 2 * w + 2 * (2 * w + 4 * w + 8 * w + 8 * w)
    return 27 * w + stages + norms + head_parameters(4 * w, 2 * w, classes)


def test_resnet50s_number_of_parameters_is_the_literatures() -> None:
    # torchvision documents 42 004 074 for 21 classes with the auxiliary classifier, which is an FCN head: 3×3
    # convolution from 1024 to 256 channels, BatchNorm, 1×1 convolution to 21 with bias.
    auxiliary = 9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21
    # ResNet-50 has 25 557 032 with its classifier of 2048 · 1000 + 1000.
    calculated = 25_557_032 - 2_049_000 + head_parameters(2048, 256, 21)
    with torch.device("meta"):
        network = NETWORKS["deeplabv3_resnet50"](num_classes=21)
    assert sum(p.numel() for p in network.parameters()) == calculated == 42_004_074 - auxiliary == 39_638_869


@pytest.mark.parametrize(
    ("arch", "options", "calculated"),
    [
        ("deeplabv3_mobilenet_v2", {}, 2_223_872 - 320 * 1280 - 2 * 1280 + head_parameters(320, 256, 21)),
        ("deeplabv3_mobilenet_v2", {"last_convolution": True}, 2_223_872 + head_parameters(1280, 256, 21)),
        *((f"deeplab_small{width}", {}, small_parameters(width, 21)) for width in (12, 16, 24, 32)),
    ],
)
def test_the_number_of_parameters_is_that_of_the_description(
    arch: str, options: dict[str, Any], calculated: int
) -> None:
    with torch.device("meta"):
        network = NETWORKS[arch](num_classes=21, **options)
    assert sum(p.numel() for p in network.parameters()) == calculated


def published_head(features: int, width: int, classes: int) -> Shapes:
    """Names and shapes of torchvision's DeepLabHead."""
    shapes: Shapes = {}
    for branch in range(4):
        size = 1 if branch == 0 else 3
        shapes |= {f"classifier.0.convs.{branch}.0.weight": (width, features, size, size)}
        shapes |= batch_norm(f"classifier.0.convs.{branch}.1", width)
    shapes |= {"classifier.0.convs.4.1.weight": (width, features, 1, 1)} | batch_norm("classifier.0.convs.4.2", width)
    shapes |= {"classifier.0.project.0.weight": (width, 5 * width, 1, 1)} | batch_norm("classifier.0.project.1", width)
    shapes |= {"classifier.1.weight": (width, width, 3, 3)} | batch_norm("classifier.2", width)
    return shapes | {"classifier.4.weight": (classes, width, 1, 1), "classifier.4.bias": (classes,)}


def test_state_dict_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        resnet, mobilenet = (NETWORKS[f"deeplabv3_{name}"](num_classes=21) for name in ("resnet50", "mobilenet_v2"))
    published = {f"backbone.{name}": shape for name, shape in published_resnet50().items()}
    assert shapes_of(resnet.state_dict()) == published | published_head(2048, 256, 21)
    published = {f"backbone.{name}": shape for name, shape in published_mobilenet_v2().items() if ".18." not in name}
    assert shapes_of(mobilenet.state_dict()) == published | published_head(320, 256, 21)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_under_the_published_names_load_without_the_auxiliary_classifier(tmp_path: Path, prefix: str) -> None:
    source, target = lived(make("deeplabv3_resnet50", 1)), make("deeplabv3_resnet50", 2).eval()
    auxiliary = {"aux_classifier.0.weight": torch.ones(2, 24, 3, 3), "aux_classifier.4.bias": torch.zeros(5)}
    weights = source.state_dict() | auxiliary
    save_file({prefix + name: value for name, value in weights.items()}, tmp_path / "w.safetensors")
    load_weights("teacher", tmp_path / "w.safetensors", target)
    assert same_weights(source, target)


# --- what it computes ---


def described_head(weights: dict[str, Tensor], rates: tuple[int, ...], features: Tensor) -> Tensor:
    """Logits of the features in evaluation mode, by the description."""

    def unit(convolution: str, batch_norm: str, maps: Tensor, rate: int = 1) -> Tensor:
        kernel = weights[f"{convolution}.weight"]
        out = F.conv2d(maps, kernel, padding=rate * (kernel.shape[2] // 2), dilation=rate)
        return norm(weights, batch_norm, out).clamp_min(0)

    convs = "classifier.0.convs"
    branches = [
        unit(f"{convs}.{index}.0", f"{convs}.{index}.1", features, rate) for index, rate in enumerate((1, *rates))
    ]
    mean = features.flatten(2).sum(dim=2)[:, :, None, None] / features[0, 0].numel()
    branches.append(unit(f"{convs}.4.1", f"{convs}.4.2", mean) + torch.zeros_like(branches[0]))
    out = unit("classifier.0.project.0", "classifier.0.project.1", torch.cat(branches, dim=1))
    out = unit("classifier.1", "classifier.2", out)
    return F.conv2d(out, weights["classifier.4.weight"], weights["classifier.4.bias"])


def enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation where corners of the images, not centres of their pixels, coincide."""
    for dim, length in ((2, size[0]), (3, size[1])):
        old = logits.shape[dim]
        places = ((torch.arange(length) + 0.5) * old / length - 0.5).clamp_min(0)
        before = places.long()
        after, share = (
            (before + 1).clamp_max(old - 1),
            (places - before).view([-1 if d == dim else 1 for d in range(4)]),
        )
        logits = logits.index_select(dim, before) * (1 - share) + logits.index_select(dim, after) * share
    return logits


@pytest.mark.parametrize(
    ("arch", "options", "rates", "output_stride"),
    [
        ("deeplabv3_resnet50", {}, (12, 24, 36), 8),
        ("deeplabv3_mobilenet_v2", {}, (6, 12, 18), 16),
        ("deeplab_small12", {}, (1, 2, 4), 8),
        ("deeplab_small12", {"output_stride": 4}, (2, 4, 8), 4),
    ],
)
@pytest.mark.parametrize("size", [(120, 160), (97, 131), (32, 32), (9, 40)])
def test_the_output_is_that_of_the_description_at_every_size(
    arch: str, options: dict[str, Any], rates: tuple[int, ...], output_stride: int, size: tuple[int, int]
) -> None:
    network, batch = lived(make(arch, **options)), images(2, 3, *size, seed=1)
    with torch.no_grad():
        features, logits = network.backbone(batch), network(batch)
        assert features.shape[2:] == tuple(-(-pixels // output_stride) for pixels in size)
        assert logits.shape == (2, 5, *size)
        expected = enlarged(described_head(network.state_dict(), rates, features), size)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        # On a map that even the largest dilation does not leave.
        features = images(1, features.shape[1], 40, 45, seed=2)
        expected = described_head(network.state_dict(), rates, features)
        torch.testing.assert_close(network.classifier(features), expected, rtol=1e-4, atol=1e-4)


def test_the_small_backbone_is_that_of_the_description() -> None:
    network, features = lived(make("deeplab_small12")), images(2, 3, 24, 40, seed=1)
    weights = {name.removeprefix("backbone."): value for name, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network.backbone(features)
        features = norm(weights, "bn1", F.conv2d(features, weights["conv1.weight"], stride=2, padding=1)).clamp_min(0)
        for stage, stride, rate in ((1, 1, 1), (2, 2, 1), (3, 2, 1), (4, 1, 2)):
            name = f"layer{stage}.0"
            out = F.conv2d(features, weights[f"{name}.conv1.weight"], None, stride, rate, rate)
            out = norm(weights, f"{name}.bn1", out).clamp_min(0)
            out = norm(weights, f"{name}.bn2", F.conv2d(out, weights[f"{name}.conv2.weight"], None, 1, rate, rate))
            short = torch.zeros_like(out)
            beside = (out.shape[1] - features.shape[1]) // 2
            short[:, beside : beside + features.shape[1]] = features[:, :, ::stride, ::stride]
            features = (out + short).clamp_min(0)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize(("classes", "in_channels"), [(2, 1), (21, 4)])
def test_classes_and_channels_are_as_asked(arch: str, classes: int, in_channels: int) -> None:
    network = make(arch, num_classes=classes, in_channels=in_channels).eval()
    with torch.no_grad():
        assert network(images(1, in_channels, 32, 48)).shape == (1, classes, 32, 48)


def test_resnet50_in_its_own_width_answers_and_learns() -> None:
    network = build("deeplabv3_resnet50", num_classes=21).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    logits = network.train()(images(2, 3, 33, 47).contiguous(memory_format=torch.channels_last))
    assert logits.shape == (2, 21, 33, 47)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("arch", FAMILIES)
def test_an_image_is_answered_alone_as_in_a_batch(arch: str) -> None:
    network, batch = lived(make(arch)), images(3, 3, 40, 56)
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in batch])
        torch.testing.assert_close(network(batch), alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


# --- training ---


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("count", [1, 2])
def test_a_step_of_training_reaches_every_parameter_and_statistic(arch: str, count: int) -> None:
    network = make(arch).train()
    before = copy.deepcopy(network.state_dict())
    batch, labels = images(count, 3, 37, 50), torch.arange(count * 37 * 50).view(count, 37, 50) % 5
    F.cross_entropy(network(batch), labels).backward()
    # At this size no step of the large dilations stays on the map, so that only the middle of those kernels learns.
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    same = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    same -= {name for name, _ in network.named_parameters()}
    pooling = {f"classifier.0.convs.4.2.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")}
    assert same == (pooling if count == 1 else set()), "of one image's mean there is no variance"


def test_image_pooling_normalises_one_image_in_training_as_in_evaluation() -> None:
    pooling = lived(ImagePooling(4, 6))
    one, two = images(1, 4, 3, 5), images(2, 4, 3, 5, seed=1)
    with torch.no_grad():
        expected = pooling(one)
        assert expected.shape == (1, 6, 3, 5)
        assert torch.equal(expected, expected[:, :, :1, :1].expand(1, 6, 3, 5))
        different = pooling(two)
        pooling.train()
        assert torch.equal(pooling(one), expected)
        assert (pooling(two) - different).abs().max() > 0.1, "two are normalised by their own mean and variance"


def test_the_small_network_learns_a_few_images_by_heart() -> None:
    network = make("deeplab_small12").train()
    batch = images(2, 3, 32, 48)
    labels = torch.zeros(2, 32, 48, dtype=torch.int64)
    labels[0, :, 24:], labels[1, 16:], labels[1, :16, 24:] = 1, 2, 3
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(batch), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.0
    assert losses[-1] < 0.3
    right = (network.eval()(batch).argmax(dim=1) == labels).float().mean().item()
    assert right > 0.9


# --- initial weights ---


@pytest.mark.parametrize("arch", FAMILIES)
def test_initial_weights_depend_on_the_seed_alone(arch: str) -> None:
    torch.manual_seed(1)
    first = make(arch, seed=7).state_dict()
    torch.manual_seed(2)
    second, other = make(arch, seed=7).state_dict(), make(arch, seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first if first[name].dim() == 4)


@pytest.mark.parametrize("arch", FAMILIES)
def test_convolutions_start_with_the_fan_out_variance_and_the_last_as_pytorchs(arch: str) -> None:
    for name, module in make(arch).named_modules():
        if isinstance(module, nn.Conv2d):
            out_channels, in_channels, height, width = module.weight.shape
            expected = (2 / (out_channels * height * width)) ** 0.5
            if name == "classifier.4":
                expected = (3 * in_channels) ** -0.5  # uniform within ±1/√inputs
            share = 5 / (2 * module.weight.numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=share), name


def test_dropout_is_a_half_in_the_published_networks() -> None:
    for arch in ("deeplabv3_resnet50", "deeplabv3_mobilenet_v2"):
        (dropout,) = (module for module in make(arch).modules() if isinstance(module, nn.Dropout))
        assert dropout.p == 0.5
    assert not any(isinstance(module, nn.Dropout) for module in ASPP(4, 4, (1,)).modules())
