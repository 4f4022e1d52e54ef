"""Weights on disk: round trips, broken files, and files that want to run code."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import load_weights, save_weights
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.weight_files import read_weights
from tests.own_networks import TiedNet


def make_net(seed: int = 0, channels: tuple[int, ...] = (4, 5), classes: int = 3) -> ConvNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConvNet(classes, 1, channels)
        network(torch.randn(4, 1, 8, 8))  # moves BatchNorm's statistics away from 0 and 1
    return network


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def write_pickle(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=2))
    return path


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


# --- round trips ---


def test_weights_survive_safetensors(tmp_path: Path) -> None:
    network, other = make_net(1), make_net(2)
    save_weights(tmp_path / "new folder" / "w.safetensors", network)
    load_weights("teacher", tmp_path / "new folder" / "w.safetensors", other)
    assert same_weights(network, other)


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_load_from_a_pytorch_file(tmp_path: Path, wrapped: bool) -> None:
    network, other = make_net(1), make_net(2)
    state: Any = {"state_dict": network.state_dict(), "epoch": 3} if wrapped else network.state_dict()
    torch.save(state, tmp_path / "w.pt")
    load_weights("teacher", tmp_path / "w.pt", other)
    assert same_weights(network, other)


def test_files_without_batch_norms_counter_load(tmp_path: Path) -> None:
    network, other = make_net(1), make_net(2)
    old = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    save_file(old, tmp_path / "w.safetensors")
    load_weights("teacher", tmp_path / "w.safetensors", other)
    assert torch.equal(network.classifier.weight, other.classifier.weight)


def test_a_network_with_shared_weights_can_be_saved(tmp_path: Path) -> None:
    network, other = TiedNet(4), TiedNet(4)
    save_weights(tmp_path / "w.safetensors", network)
    load_weights("student", tmp_path / "w.safetensors", other)
    assert same_weights(network, other)


# --- broken files ---


def refused(path: Path, network: nn.Module | None = None, match: str | None = None) -> str:
    """Loading must be refused in one line that names argument and file; the network must not change."""
    network = network or make_net(9)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InvalidInputError, match=match) as error:
        load_weights("teacher", path, network)
    message = str(error.value)
    assert "teacher=" in message
    assert path.name in message
    assert "\n" not in message
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    return message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", match="does not exist")
    refused(tmp_path, match="it is a folder; give a file that is there")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save(make_net().state_dict(), path)
    else:
        save_weights(path, make_net())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w"])
def test_bytes_that_mean_nothing_are_refused(tmp_path: Path, name: str) -> None:
    for content in (b"", b"hello, world, this is no weights file at all", bytes(range(256)) * 20):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (make_net(channels=(4, 5, 6)), "unexpected"),
        (make_net(channels=(4,)), "missing"),
        (make_net(channels=(4, 7)), r"other shape.*, 7\) in the file, \(.*, 5\) in"),
        (make_net(classes=4), r"\(4.*in the file, \(3"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, other: ConvNet, match: str) -> None:
    save_weights(tmp_path / "w.safetensors", other)
    assert "ConvNet" in refused(tmp_path / "w.safetensors", make_net(9), match)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    network = make_net()
    with torch.no_grad():
        network.classifier.weight[1, 2] = value
    save_weights(tmp_path / "w.safetensors", network)
    assert "classifier.weight" in refused(tmp_path / "w.safetensors", match="NaN or infinite")


# --- files that want more ---


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
@pytest.mark.parametrize("how", ["pickle", "torch", "torch in a dict"])
def test_code_inside_a_file_is_not_run(tmp_path: Path, name: str, how: str) -> None:
    path, marker = tmp_path / name, tmp_path / "executed"
    if how == "pickle":
        write_pickle(path, Trap(marker))
    else:
        torch.save({"weight": Trap(marker)} if "dict" in how else Trap(marker), path)
    refused(path)
    assert not marker.exists()
    if name != "w.safetensors" and how == "torch":  # the trap is a real one
        torch.load(path, weights_only=False)
        assert marker.exists()


@pytest.mark.parametrize("value", [[1, 2, 3], "text", {"a": 1}, {"state_dict": {"a": [1]}}, torch.zeros(3)])
def test_a_file_that_holds_no_state_dict_is_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", match="state dict")
    write_pickle(tmp_path / "plain.pkl", [1, 2, 3])
    refused(tmp_path / "plain.pkl")


def test_a_whole_pickled_network_is_refused_and_what_it_asks_for_is_named(tmp_path: Path) -> None:
    torch.save(make_net(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", match=r"refused.*\(it asks for ssdkd_env\.networks\.convnet\.ConvNet\)")


def test_an_optimizers_file_is_refused(tmp_path: Path) -> None:
    torch.save(torch.optim.SGD(make_net().parameters(), lr=0.1).state_dict(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt")


# --- writing ---


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, make_net(1))
    content = path.read_bytes()

    def half_a_file(temporary: Path, content: bytes) -> None:
        with temporary.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half_a_file)
        with pytest.raises(InvalidInputError, match="No space left"):
            save_weights(path, make_net(2))
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInputError, match="cannot write"):
        save_weights(tmp_path / "file" / "w.safetensors", make_net())
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInputError, match="cannot write"):
        save_weights(tmp_path / "folder", make_net())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_saved_weights_do_not_depend_on_the_memory_layout(tmp_path: Path) -> None:
    network = make_net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_weights(tmp_path / "w.safetensors", network)
    weights = read_weights("teacher", tmp_path / "w.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())


def test_weights_that_are_zeros_in_a_compressed_archive_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(20_000_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refused(tmp_path / "packed.pt", match="unpacks from .* if you trust it, unpack it")
    assert read_weights("teacher", tmp_path / "plain.pt")["weight"].shape == (20_000_000,)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name, match="it is a named pipe")
