"""Checkpoints as the public has them answer as their authors' networks do, which are written down here once more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssdkd_env.networks.checkpoints import load_weights
from tests.networks.test_classifiers import build, images

DATA = Path(os.environ.get("SSDKD_DATA") or Path(__file__).parents[3] / "shared" / "data") / "public"
TOLERANCE = 1e-5


def convolved(weights: dict[str, Tensor], features: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
    """A convolution and the BatchNorm after it, in evaluation."""
    kernel = weights[f"{conv}.weight"]
    features = F.conv2d(features, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    mean, variance, scale, shift = (
        weights[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(features, mean, variance, scale, shift)


def authors_answer(weights: dict[str, Tensor], batch: Tensor, head: str) -> Tensor:
    """Logits of a ResNet of basic blocks (He et al. 2016), under its own names.

    A block that has no `downsample` and gives other channels takes the old ones at every other pixel, with zeros for
    the rest of them on either side ("option A").
    """
    features = F.relu(convolved(weights, batch, "conv1", "bn1"))
    blocks = dict.fromkeys(".".join(name.split(".")[:2]) for name in weights if name.startswith("layer"))
    for block in blocks:
        stride = 2 if block.endswith(".0") and not block.startswith("layer1") else 1
        inside = F.relu(convolved(weights, features, f"{block}.conv1", f"{block}.bn1", stride))
        inside = convolved(weights, inside, f"{block}.conv2", f"{block}.bn2")
        if f"{block}.downsample.0.weight" in weights:
            features = convolved(weights, features, f"{block}.downsample.0", f"{block}.downsample.1", stride)
        elif inside.shape != features.shape:
            side = (inside.shape[1] - features.shape[1]) // 2
            features = F.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        features = F.relu(inside + features)
    return F.linear(features.mean(dim=(2, 3)), weights[f"{head}.weight"], weights[f"{head}.bias"])


def assert_same_answers(path: Path, arch: str, weights: dict[str, Tensor], head: str) -> None:
    network = build(arch, num_classes=len(weights[f"{head}.bias"]), seed=5)
    load_weights("teacher", path, network)
    batch = images(16, 3, 32, 32, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(
            network.eval()(batch), authors_answer(weights, batch, head), rtol=TOLERANCE, atol=TOLERANCE
        )


def trained(arch: str) -> dict[str, Tensor]:
    """Weights of a network whose BatchNorm statistics are its own."""
    network = build(arch, seed=1)
    network(images(8, 3, 32, 32))
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_a_file_as_akamasters_repository_writes_it(tmp_path: Path) -> None:
    """The format of before PyTorch 1.6, names of DataParallel, beside the best accuracy."""
    weights = trained("resnet20")
    file = {"state_dict": {f"module.{name}": value for name, value in weights.items()}, "best_prec1": 91.7}
    torch.save(file, tmp_path / "resnet20.th", _use_new_zipfile_serialization=False)
    assert_same_answers(tmp_path / "resnet20.th", "resnet20", weights, "linear")


def test_a_file_as_torchvision_writes_it(tmp_path: Path) -> None:
    """`downsample` and `fc`, in the order of torchvision's modules."""
    weights = {
        name.replace("shortcut", "downsample").replace("linear", "fc"): value
        for name, value in trained("resnet18").items()
    }
    assert sum(name.endswith("downsample.0.weight") for name in weights) == 3
    torch.save(weights, tmp_path / "resnet18-0123abcd.pth")
    assert_same_answers(tmp_path / "resnet18-0123abcd.pth", "resnet18", weights, "fc")


@pytest.mark.parametrize("name", ["resnet20-12fca82f", "resnet56-4bfd9763"])
def test_the_public_files_themselves(name: str) -> None:
    path = DATA / f"{name}.th"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set SSDKD_DATA to the folder that holds public/")
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    weights = {key.removeprefix("module."): value for key, value in saved.items()}
    assert_same_answers(path, name.partition("-")[0], weights, "linear")
