"""Files of weights as people have them: what is found in them, and what is said of what is none."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import load_weights
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.weight_files import read_weights


def make(seed: int) -> ConvNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvNet(3, 1, (4, 5))


OWN: dict[str, Tensor] = make(1).state_dict()
OTHER: dict[str, Tensor] = make(2).state_dict()


def saved(folder: Path, content: Any, name: str = "w.pth", **options: Any) -> Path:
    torch.save(content, folder / name, **options)
    return folder / name


def fits(path: Path, key: str = "", expected: dict[str, Tensor] = OWN) -> None:
    network = make(0)
    load_weights("teacher", path, network, key)
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def refused(path: Path, match: str, key: str = "") -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        read_weights("teacher", path, key)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "module.student.", "backbone.model.", "module._orig_mod.student."]
)
@pytest.mark.parametrize("counter", [{}, {"n_averaged": torch.tensor(3)}], ids=["alone", "averaged"])
def test_a_prefix_that_all_names_share_is_taken_off(prefix: str, counter: dict[str, Tensor], tmp_path: Path) -> None:
    """As of Lightning, distillation toolboxes, `AveragedModel`, which counts beside the weights."""
    fits(saved(tmp_path, counter | {prefix + name: value for name, value in OWN.items()}))


def test_prefixes_that_not_all_names_share_stay(tmp_path: Path) -> None:
    names = {("model." if name.startswith("classifier") else "net.") + name: value for name, value in OWN.items()}
    with pytest.raises(InvalidInputError, match="does not fit ConvNet"):
        fits(saved(tmp_path, names))


@pytest.mark.parametrize("other", ["criterion.weight", "teacher.features.0.weight", "epochs"])
def test_where_a_part_of_the_names_fits_it_is_said(other: str, tmp_path: Path) -> None:
    """As of Lightning's modules, which hold a criterion, or both networks of a distillation."""
    names = {f"student.{name}": value for name, value in OWN.items()}
    with pytest.raises(InvalidInputError, match=r"those that begin with 'student\.' fit alone: save them without"):
        fits(saved(tmp_path, names | {other: torch.ones(3)}))
    fits(saved(tmp_path, names))
    with pytest.raises(InvalidInputError, match=r"those that begin with 'student\.' or 'teacher\.' fit alone"):
        fits(saved(tmp_path, names | {f"teacher.{name}": value for name, value in OTHER.items()}))


def test_whole_numbers_in_the_place_of_weights_are_refused(tmp_path: Path) -> None:
    """Quantised weights are worth nothing without their scales."""
    name = next(name for name in OWN if name.endswith("weight"))
    path = saved(tmp_path, OWN | {name: (100 * OWN[name]).to(torch.int8)})
    with pytest.raises(InvalidInputError, match=rf"holds torch\.int8 in {name}, expected floating-point.*quantised"):
        fits(path)


def test_counters_of_operations_beside_the_weights_are_skipped(tmp_path: Path) -> None:
    counters = {f"bn1.{name}": torch.zeros(1, dtype=torch.float64) for name in ("total_ops", "total_params")}
    fits(saved(tmp_path, OWN | counters | {"total_ops": torch.zeros(1)}))


def test_what_else_is_left_over_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = saved(tmp_path, OWN | {"sub_block1.weight": torch.zeros(3)})
    with pytest.raises(
        InvalidInputError, match=r"unexpected sub_block1\.weight; all that the network has is in the file"
    ):
        fits(path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda own: {"network": own, "epoch": 3},
        lambda own: {"params": own},
        lambda own: {"teacher": own, "best": 0.9},
        lambda own: {"model_state": own},
        lambda own: {"model": {"state_dict": own}},
        lambda own: {"checkpoint": {"model": own, "epoch": 3}},
        lambda own: {"state_dict": own, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
        lambda own: own | {"epoch": 3},
    ],
)
def test_weights_are_found_under_other_names(wrap: Callable[[dict[str, Tensor]], Any], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # there is nothing to choose, and nothing to say
        fits(saved(tmp_path, wrap(OWN)))


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema", "ema.module", "swa_state_dict"])
def test_of_raw_and_averaged_weights_the_raw_ones_are_taken_and_it_is_said(average: str, tmp_path: Path) -> None:
    outer, _, inner = average.partition(".")
    path = saved(tmp_path, {outer: {inner: OTHER} if inner else OTHER, "model": OWN})
    with pytest.warns(
        UserWarning, match=rf"under 'model', which are taken, and under '{average}': give teacher_weights"
    ):
        fits(path)
    fits(path, "ema", OTHER)
    fits(path, average, OTHER)
    fits(path, "model")
    refused(path, rf"has no weights under 'net'; it has them under: .*'{average}'", "net")


def test_averaged_weights_alone_are_taken(tmp_path: Path) -> None:
    fits(saved(tmp_path, {"state_dict_ema": OWN, "epoch": 3}))


def test_a_schema_is_no_average(tmp_path: Path) -> None:
    fits(saved(tmp_path, {"schema": OWN}))
    refused(tmp_path / "w.pth", "has no weights under 'ema'", "ema")


@pytest.mark.parametrize("number", [np.float64(0.9), np.float32(0.9), np.int64(3), np.bool_(True)], ids=repr)
def test_numpy_numbers_beside_the_weights_are_read(number: Any, tmp_path: Path) -> None:
    fits(saved(tmp_path, {"model": OWN, "best_acc": number}))


def test_numpy_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    refused(saved(tmp_path, {"model": OWN, "more": np.array([{}], dtype=object)}), "was refused")


def test_safetensors_under_another_name_are_read(tmp_path: Path) -> None:
    for name in ("w.bin", "w.pth", "w"):
        (tmp_path / name).write_bytes(save(OWN))
        fits(tmp_path / name)


@pytest.mark.parametrize("protocol", [4, 5])
def test_pickles_of_later_protocols_are_refused_with_a_remedy_that_works(protocol: int, tmp_path: Path) -> None:
    path = saved(tmp_path, OWN, pickle_protocol=protocol)
    refused(path, "protocol 4 or 5.*save it anew by torch.save as it is by default")
    fits(saved(tmp_path, torch.load(path, weights_only=False)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "is a web page; download the file itself"),
        (b"\n  <html>", "is a web page"),
    ],
)
def test_what_stands_for_a_file_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, said)


@pytest.mark.parametrize("filler", [0x3C, 0x3C20, 0x3C0A09])
def test_weights_whose_first_bytes_are_those_of_a_page_by_chance_are_read(filler: int, tmp_path: Path) -> None:
    """The first bytes of safetensors are the length of its header, such as that of `" <"`."""
    content = save(OWN)
    length = int.from_bytes(content[:8], "little")
    padding = b" " * ((filler - length) % 2 ** (8 * ((filler.bit_length() + 7) // 8)))
    header = content[8 : 8 + length] + padding
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    fits(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty, neither safetensors nor a file of torch.save: it is cut short"),
        (
            b"\x1f\x8b\x08\x00 and so on",
            r"begins with b'\\x1f\\x8b\\x08\\x00'.*: it is cut short, compressed or no file.*unpack it",
        ),
        (b"\x89HDF\r\n\x1a\n of Keras", r"begins with b'\\x89HDF'"),
        (b'{"error": "Invalid username or password."}', "begins with b'{\"er'"),
    ],
)
def test_what_is_no_file_of_weights_is_not_taken_for_a_pickle(content: bytes, said: str, tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, said)


def test_pytorchs_files_under_the_name_of_safetensors_are_read(tmp_path: Path) -> None:
    fits(saved(tmp_path, OWN, "w.safetensors"))
    fits(saved(tmp_path, OWN, "w.safetensors", _use_new_zipfile_serialization=False))


def test_compiled_code_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), str(tmp_path / "w.pt"))
    refused(tmp_path / "w.pt", "is a TorchScript archive, which holds code.*torch.save its state_dict")


def test_keys_of_a_file_without_weights_are_listed(tmp_path: Path) -> None:
    refused(saved(tmp_path, {"epoch": 3, "history": [1.0]}), r"holds no state dict \(it has: epoch, history\)")


def test_a_pickle_that_calls_is_not_taken_for_one_of_a_later_protocol(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"model": OWN, "more": print}, protocol=2))
    refused(
        tmp_path / "w.pth",
        r"\(it asks for torch\.storage\.\w+\) and might run code when loaded; save network.state_dict",
    )
