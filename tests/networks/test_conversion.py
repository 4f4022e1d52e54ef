"""Public checkpoints load under their own names, exactly or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ssdkd_env.networks.checkpoints import load_weights, save_weights
from ssdkd_env.networks.conversion import NAMINGS, strip_prefixes, translations, used
from tests.networks.test_checkpoints import refused, same_weights
from tests.networks.test_classifiers import build, images

Weights = dict[str, Tensor]
SMALL: dict[str, Any] = {"blocks": (2, 1, 1, 1), "widths": (4, 5, 6, 7)}
DATA = Path(os.environ.get("SSDKD_DATA") or Path(__file__).parents[3] / "shared" / "data")


def trained(arch: str, seed: int = 1, **options: Any) -> nn.Module:
    """A network whose BatchNorm statistics are its own."""
    network = build(arch, seed=seed, **options)
    network(images(8, 3, 8, 8))
    return network.eval()


def renamed(weights: Weights, new_name: Callable[[str], str]) -> Weights:
    return {new_name(name): value.clone() for name, value in weights.items()}


def as_torchvision(name: str) -> str:
    layers = name.split(".")
    return ".".join({"linear": "fc", "shortcut": "downsample"}.get(layer, layer) for layer in layers)


def as_weiaicunzai(name: str) -> str:
    layers = name.split(".")
    if layers[0] == "linear":
        layers[0] = "fc"
    elif layers[0] in ("conv1", "bn1"):
        layers[0] = {"conv1": "conv1.0", "bn1": "conv1.1"}[layers[0]]
    else:
        layers[0] = f"conv{int(layers[0].removeprefix('layer')) + 1}_x"
        position = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4}
        if layers[2] in position:
            layers[2] = f"residual_function.{position[layers[2]]}"
    return ".".join(layers)


def unchanged(name: str) -> str:
    return name


# --- what loads ---


@pytest.mark.parametrize(
    ("arch", "options", "naming"),
    [
        ("resnet18", SMALL, unchanged),  # kuangliu, DAFL
        ("resnet18", SMALL, as_torchvision),  # torchvision, timm
        ("resnet18", SMALL, as_weiaicunzai),
        ("resnet8", {}, unchanged),  # akamaster
        ("resnet8", {"projection": True}, as_torchvision),  # chenyaofo, RepDistiller
        ("wrn16_1", {}, unchanged),  # the data-free repositories
        ("vgg11", {}, unchanged),
    ],
)
def test_every_naming_loads_and_gives_the_same_outputs(
    tmp_path: Path, arch: str, options: dict[str, Any], naming: Callable[[str], str]
) -> None:
    source, target = trained(arch, 1, **options), trained(arch, 2, **options)
    batch = images(2, 3, 8, 8, seed=3)
    assert not torch.allclose(source(batch), target(batch))
    save_file(renamed(source.state_dict(), naming), tmp_path / "w.safetensors")
    load_weights("teacher", tmp_path / "w.safetensors", target)
    assert same_weights(source, target)
    assert torch.equal(source(batch), target(batch))


@pytest.mark.parametrize("naming", [unchanged, as_torchvision, as_weiaicunzai])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
def test_wrappers_prefixes_are_ignored(tmp_path: Path, naming: Callable[[str], str], prefix: str) -> None:
    source, target = trained("resnet18", 1, **SMALL), trained("resnet18", 2, **SMALL)
    save_file(renamed(source.state_dict(), lambda name: prefix + naming(name)), tmp_path / "w.safetensors")
    load_weights("teacher", tmp_path / "w.safetensors", target)
    assert same_weights(source, target)


@pytest.mark.parametrize("container", ["state_dict", "model", "net", "model_state_dict"])
def test_a_state_dict_inside_a_training_checkpoint_loads(tmp_path: Path, container: str) -> None:
    source, target = trained("resnet18", 1, **SMALL), trained("resnet18", 2, **SMALL)
    optimizer = torch.optim.SGD(source.parameters(), lr=0.1).state_dict()
    weights = renamed(source.state_dict(), lambda name: "module." + as_torchvision(name))
    torch.save({"epoch": 3, "best_acc1": 0.9, "optimizer": optimizer, container: weights}, tmp_path / "w.pth")
    load_weights("teacher", tmp_path / "w.pth", target)
    assert same_weights(source, target)


def test_old_files_without_batch_norms_counter_load_under_foreign_names(tmp_path: Path) -> None:
    source, target = trained("resnet18", 1, **SMALL), trained("resnet18", 2, **SMALL)
    weights = {name: value for name, value in source.state_dict().items() if "num_batches" not in name}
    save_file(renamed(weights, as_torchvision), tmp_path / "w.safetensors")
    load_weights("teacher", tmp_path / "w.safetensors", target)
    assert torch.equal(source(images(2, 3, 8, 8)), target(images(2, 3, 8, 8)))


class Wrapped(nn.Module):
    """A network of a user's own whose names look like a wrapper's and a foreign naming's."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Linear(3, 2))
        self.module.add_module("fc", nn.Linear(2, 2))


def test_a_networks_own_names_come_first(tmp_path: Path) -> None:
    source, target = Wrapped(), Wrapped()
    save_weights(tmp_path / "w.safetensors", source)
    load_weights("teacher", tmp_path / "w.safetensors", target)
    assert same_weights(source, target)


@pytest.mark.parametrize("arch", ["resnet20", "resnet56"])
def test_the_ready_cifar10_teachers_load(arch: str) -> None:
    path = DATA / "teachers" / f"cifar10-jpeg-{arch}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set SSDKD_DATA to the folder that holds teachers/")
    network = build(arch, num_classes=10)
    untrained = {name: value.clone() for name, value in network.state_dict().items()}
    load_weights("teacher", path, network)
    assert all(not torch.equal(value, untrained[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        assert network.eval()(images(2, 3, 32, 32)).isfinite().all()


# --- what does not ---


def test_projection_shortcuts_do_not_fit_option_a(tmp_path: Path) -> None:
    foreign = trained("resnet8", projection=True)
    save_file(renamed(foreign.state_dict(), as_torchvision), tmp_path / "w.safetensors")
    message = refused(tmp_path / "w.safetensors", build("resnet8"), match="unexpected layer2.0.downsample.0.weight")
    assert "projection=True" in message
    assert "torchvision" in message


@pytest.mark.parametrize("other", [{"arch": "resnet20"}, {"arch": "resnet8", "num_classes": 5}])
def test_projection_is_not_blamed_for_another_misfit(tmp_path: Path, other: dict[str, Any]) -> None:
    foreign = trained("resnet8", projection=True)
    save_file(renamed(foreign.state_dict(), as_torchvision), tmp_path / "w.safetensors")
    message = refused(tmp_path / "w.safetensors", build(**other), match="unexpected layer2.0.downsample.0.weight")
    assert "give the architecture" in message


@pytest.mark.parametrize("naming", [unchanged, as_torchvision, as_weiaicunzai])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"blocks": (2, 2, 1, 1)}, r"unexpected \S*2\S*\.1\.|unexpected conv3_x\.1\."),
        ({"blocks": (1, 1, 1, 1)}, r"missing layer1\.1\."),
        ({"widths": (4, 5, 6, 8)}, r"other shape.*8.* in the file, .*7.* in the network"),
        ({"num_classes": 9}, r"other shape \S+\.bias and 1 more \(\(9,\) in the file, \(4,\) in the network"),
    ],
)
def test_another_architecture_is_refused_under_every_naming(
    tmp_path: Path, naming: Callable[[str], str], change: dict[str, Any], match: str
) -> None:
    foreign = build("resnet18", **(SMALL | change))
    save_file(renamed(foreign.state_dict(), naming), tmp_path / "w.safetensors")
    message = refused(tmp_path / "w.safetensors", build("resnet18", **SMALL), match)
    assert "projection" not in message


def test_a_stem_of_seven_by_seven_is_refused(tmp_path: Path) -> None:
    weights = renamed(build("resnet18", **SMALL).state_dict(), as_torchvision)
    weights["conv1.weight"] = torch.zeros(4, 3, 7, 7)
    save_file(weights, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", build("resnet18", **SMALL), match=r"conv1.weight \(\(4, 3, 7, 7\) in the file")


def test_a_vgg_with_other_pooling_or_classifier_is_refused(tmp_path: Path) -> None:
    weights = {name.replace("block0", "features"): value for name, value in build("vgg11").state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", build("vgg11"), match=r"missing block0\.0\.bias.*unexpected features\.0")


def test_wide_resnets_with_biased_convolutions_are_refused(tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in build("wrn16_1").state_dict().items()}
    save_file(weights | {"conv1.bias": torch.zeros(16)}, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", build("wrn16_1"), match=r"unexpected conv1\.bias;")


def test_a_prefix_that_only_some_names_have_is_no_wrapper(tmp_path: Path) -> None:
    weights = dict(build("resnet8").state_dict())
    weights["module.conv1.weight"] = weights.pop("conv1.weight")
    save_file(weights, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", build("resnet8"), match=r"missing conv1\.weight; unexpected module\.conv1")


def test_two_tensors_for_one_name_are_refused(tmp_path: Path) -> None:
    weights = renamed(build("resnet18", **SMALL).state_dict(), as_torchvision)
    weights["linear.weight"] = weights["fc.weight"] + 1
    save_file(weights, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", build("resnet18", **SMALL), match="does not fit ResNet")


def test_weights_that_are_not_finite_are_refused_under_the_files_name(tmp_path: Path) -> None:
    weights = renamed(build("resnet18", **SMALL).state_dict(), as_torchvision)
    weights["fc.weight"][0, 0] = float("nan")
    save_file(weights, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", build("resnet18", **SMALL), match=r"NaN or infinite values in fc\.weight")


@pytest.mark.parametrize("value", [{3: torch.zeros(2)}, {"a": torch.zeros(2), 3: torch.zeros(2)}, {"net": {1: 2}}])
def test_names_that_are_no_text_are_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", match="state dict")


# --- the table ---


def test_the_first_reading_is_the_files_own() -> None:
    names = ["module.fc.weight", "module.layer1.0.downsample.0.weight"]
    readings = list(translations(names))
    assert readings[0] == ("ours", {name: name for name in names})
    assert [naming for naming, _ in readings[1:]] == list(NAMINGS)
    assert dict(readings[1:])["torchvision"] == {
        names[0]: "linear.weight",
        names[1]: "layer1.0.shortcut.0.weight",
    }


def test_rules_apply_to_whole_layers_only() -> None:
    names = ["efc.weight", "layer1.fc.weight", "downsample.weight", "x.downsamples.0", "conv12_x.weight"]
    for _, mapping in translations(names):
        assert mapping == {name: name for name in names}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_auxiliary_classifier_is_used_only_by_a_network_that_has_one(prefix: str) -> None:
    names = [prefix + "aux_classifier.4.bias", prefix + "classifier.4.bias", prefix + "layer.aux_classifier.bias"]
    assert used(names, {"classifier.4.bias"}) == names[1:]
    assert used(names, {"aux_classifier.4.bias"}) == names
    assert used(names, {prefix + "aux_classifier.4.bias"}) == names


def test_prefixes_are_stripped_when_all_names_share_them() -> None:
    assert strip_prefixes(["module.a", "module.b"]) == ["a", "b"]
    assert strip_prefixes(["module.a", "b"]) == ["module.a", "b"]
    assert strip_prefixes([]) == []
