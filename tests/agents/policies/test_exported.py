"""Exported samplers: a folder of plain files that acts anywhere, and refuses to be anything else."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from ssdkd_agents.policies.exported import MOST_SETTINGS, POLICY, SETTINGS, read_archive, read_exported, write_exported
from ssdkd_agents.policies.places import find_sampler_file
from ssdkd_agents.policies.storage import load_sampler, read_sampler, save_sampler

from ssdkd_env.errors import InvalidInputError
from tests.agents.policies.test_storage import config_of, fresh, trained
from tests.envs.episodes import make

Settings = dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, with everything that a resumption needs. Tests leave it as it is."""
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "8.safetensors"
    save_sampler(path, *trained("ppo"), with_replay=True)
    return path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    write_exported(tmp_path / "mine", read_sampler(original))
    return tmp_path / "mine"


def refused(folder: Path, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        load_sampler(str(folder), make())
    assert "\n" not in str(caught.value)


def test_pointer_in_the_place_of_the_policy_is_named(folder: Path) -> None:
    (folder / POLICY).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    refused(folder, "is a Git LFS pointer, .*git lfs pull")


def test_folder_acts_as_the_checkpoint_wherever_it_lies(original: Path, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder, elsewhere)
    space = make().observation_space
    observations = np.stack([space.sample() for _ in range(9)])
    expected, _ = load_sampler(str(original), make()).predict(observations, deterministic=True)
    for path in (elsewhere, elsewhere / SETTINGS, find_sampler_file(elsewhere)):
        actions, _ = load_sampler(str(path), make()).predict(observations, deterministic=True)
        np.testing.assert_array_equal(actions, expected)


def test_folder_holds_two_plain_files_without_optimiser(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [POLICY, SETTINGS]
    settings = json.loads((folder / SETTINGS).read_text())
    assert settings["algorithm"] == "ppo"
    assert settings["names"]["action"] == list(make().action_names)
    assert len(settings["normalization"]["observation"]["mean"]) == 25
    assert set(settings["versions"]) >= {"torch", "stable-baselines3", "ssdkd-env"}
    assert load_file(folder / POLICY).keys() == fresh(config_of("ppo")).policy.state_dict().keys()


def test_place_that_is_taken_is_refused(original: Path, folder: Path, tmp_path: Path) -> None:
    before = (folder / SETTINGS).read_bytes()
    (tmp_path / "file").write_text("mine")
    for place in (folder, tmp_path / "file"):
        with pytest.raises(InvalidInputError, match="exists; choose another folder"):
            write_exported(place, read_sampler(original))
    assert (folder / SETTINGS).read_bytes() == before


# --- damaged settings ---

EDITS: dict[str, tuple[Callable[[Settings], object], str]] = {
    "format": (lambda s: s.update(format="x"), "no sampler's"),
    "algorithm unknown": (lambda s: s.update(algorithm="os.system"), "algo='os.system' is unknown"),
    "algorithm of the wrong type": (lambda s: s.update(algorithm=["ppo"]), "algorithm: expected str, got array"),
    "algorithm another": (lambda s: s.update(algorithm="sac"), "sac"),
    "hyperparameters missing": (lambda s: s.pop("hyperparameters"), "it lacks hyperparameters"),
    "hyperparameters a list": (lambda s: s.update(hyperparameters=[1]), "hyperparameters: expected object, got array"),
    "hyperparameter unknown": (lambda s: s["hyperparameters"].update(bogus=1), "bogus"),
    "hyperparameter too large": (
        lambda s: s["hyperparameters"].update(n_steps=10**15),
        "'n_steps' has 1000000000000000",
    ),
    "network another": (lambda s: s["hyperparameters"].update(policy_kwargs={"net_arch": [7]}), "does not fit"),
    "network huge": (lambda s: s["hyperparameters"].update(policy_kwargs={"net_arch": [10**6] * 2}), "ask for 1000000"),
    "network huge by a fraction": (lambda s: s["hyperparameters"].update(policy_kwargs={"net_arch": [1e7]}), "ask for"),
    "policy kwargs as source": (lambda s: s["hyperparameters"].update(policy_kwargs="dict()"), "policy_kwargs"),
    "policy a path": (lambda s: s["hyperparameters"].update(policy="os.system"), "os.system"),
    "names missing": (lambda s: s.pop("names"), "it lacks names"),
    "names another": (lambda s: s["names"].update(action=["a"]), "other action entries"),
    "names empty": (lambda s: s.update(names={}), "names: it lacks observation"),
    "normalization missing": (lambda s: s.pop("normalization"), "it lacks normalization"),
    "normalization a list": (lambda s: s.update(normalization=[]), "normalization: expected object . null, got array"),
    "statistics missing": (lambda s: s["normalization"].pop("observation"), "statistics are missing"),
    "statistics short": (lambda s: s["normalization"]["observation"].update(mean=[0.0]), "of another shape"),
    "statistics no numbers": (lambda s: s["normalization"]["observation"].update(mean=["a"] * 25), "damaged"),
    "statistics nested": (lambda s: s["normalization"]["observation"].update(mean=[[1.0], [1, 2]]), "damaged"),
    "statistics NaN": (lambda s: s["normalization"]["observation"].update(mean=[float("nan")] * 25), "no numbers"),
    "variance negative": (lambda s: s["normalization"]["observation"].update(var=[-1.0] * 25), "no numbers"),
    "count missing": (lambda s: s["normalization"]["return"].pop("count"), "return statistics are missing"),
    "options unknown": (lambda s: s["normalization"]["options"].update(venv=1), "unknown settings"),
    "options of the wrong type": (lambda s: s["normalization"].update(options=[1]), "unknown settings"),
}


@pytest.mark.parametrize(("edit", "match"), EDITS.values(), ids=EDITS)
def test_damaged_settings_are_refused(edit: Callable[[Settings], object], match: str, folder: Path) -> None:
    settings = json.loads((folder / SETTINGS).read_text())
    edit(settings)
    (folder / SETTINGS).write_text(json.dumps(settings))
    refused(folder, match)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "1", "[" * 100_000, '"ssdkd sampler folder 1"', "\xff"])
def test_settings_that_are_no_object_are_refused(content: str, folder: Path) -> None:
    (folder / SETTINGS).write_text(content, encoding="latin-1")
    refused(folder, r"sampler\.json")


def test_empty_tensors_do_not_make_a_network_large(folder: Path) -> None:
    tensors = dict(load_file(folder / POLICY)) | {"more": torch.zeros(10**6, 0)}
    save_file(tensors, folder / POLICY)
    settings = json.loads((folder / SETTINGS).read_text())
    settings["hyperparameters"]["policy_kwargs"] = {"net_arch": [10**5, 10**5]}
    (folder / SETTINGS).write_text(json.dumps(settings))
    refused(folder, "policy_kwargs ask for 100000, but no tensor is so large")


def test_huge_settings_are_refused_before_they_are_read(folder: Path) -> None:
    (folder / SETTINGS).write_text(" " * (MOST_SETTINGS + 1))
    refused(folder, "has 1,000,001 bytes, and a file of its kind at most 1,000,000")


# --- damaged tensors ---

Tensors = dict[str, torch.Tensor]
CHANGES: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "missing": (lambda t: t.pop("log_std"), "lacks 'log_std'"),
    "too many": (lambda t: t.update(bogus=torch.zeros(2)), "has, unlike this policy, 'bogus'"),
    "shape": (lambda t: t.update(log_std=torch.zeros(2)), r"'log_std' has shape \(2,\), not \(5,\)"),
    "type": (lambda t: t.update(log_std=t["log_std"].double()), "'log_std' has dtype torch.float64"),
    "whole numbers": (lambda t: t.update(log_std=t["log_std"].long()), "'log_std' has dtype torch.int64"),
    "NaN": (lambda t: t.update(log_std=t["log_std"] * float("nan")), "'log_std' has NaN"),
    "infinity": (lambda t: t.update(log_std=t["log_std"] + float("inf")), "'log_std' has NaN or infinity"),
    "none": (lambda t: t.clear(), ""),
}


@pytest.mark.parametrize(("change", "match"), CHANGES.values(), ids=CHANGES)
def test_other_tensors_are_refused(change: Callable[[Tensors], object], match: str, folder: Path) -> None:
    tensors = dict(load_file(folder / POLICY))
    change(tensors)
    save_file(tensors, folder / POLICY)
    refused(folder, match)


def header(entries: dict[str, Any], length: int | None = None, data: bytes = b"\0" * 8) -> bytes:
    """A safetensors file with any header, which may lie about its own length."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "length beyond the file": header({}, length=10**12),
    "length of everything": header({}, length=2**64 - 1),
    "huge tensor": header({"log_std": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
    "huge shape over few bytes": header({"log_std": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 8]}}),
    "shape that overflows": header({"log_std": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}),
    "offsets reversed": header({"log_std": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}),
    "offsets negative": header({"log_std": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}),
    "unknown dtype": header({"log_std": {"dtype": "PICKLE", "shape": [2], "data_offsets": [0, 8]}}),
    "no entry": header({"log_std": 3}),
    "no object": struct.pack("<Q", 2) + b"[]",
    "no JSON": struct.pack("<Q", 4) + b"abcd",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_damaged_tensor_file_is_refused(content: bytes, folder: Path) -> None:
    (folder / POLICY).write_bytes(content)
    refused(folder, r"policy\.safetensors.*cut short")


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_tensor_file_that_was_cut_short_is_refused(kept: float, folder: Path) -> None:
    whole = (folder / POLICY).read_bytes()
    (folder / POLICY).write_bytes(whole[: int(kept * len(whole))])
    refused(folder, r"policy\.safetensors.*cut short")


@pytest.mark.parametrize("name", [POLICY, SETTINGS])
def test_folder_without_one_of_its_files_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(InvalidInputError, match=name.replace(".", r"\.")):
        read_exported(folder)


# --- archives of Stable-Baselines3 ---


def archive(path: Path, **files: Any) -> Path:
    """An archive with bytes, or objects as torch writes them."""
    with zipfile.ZipFile(path, "w") as target:
        for name, content in files.items():
            with target.open(f"{name}.pth", "w") as file:
                file.write(content) if isinstance(content, bytes) else torch.save(content, file)
    return path


def test_policy_of_an_archive_is_read(tmp_path: Path) -> None:
    model = fresh(config_of("ppo"))
    model.save(tmp_path / "model.zip")
    tensors = read_archive(tmp_path / "model.zip")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.policy.state_dict().items())


BAD_ARCHIVES: dict[str, Any] = {
    "nothing": {},
    "no tensors": {"policy": {"a": 1}},
    "a list": {"policy": [torch.zeros(1)]},
    "numbers as names": {"policy": {1: torch.zeros(1)}},
    "a module": {"policy": torch.nn.Linear(1, 1)},
    "no torch file": {"policy": b"abc"},
    "empty": {"policy": b""},
}


@pytest.mark.parametrize("files", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archive_is_refused(files: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"model\.zip") as caught:
        read_archive(archive(tmp_path / "model.zip", **files))
    assert "\n" not in str(caught.value)


def test_archive_that_unpacks_to_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdkd_agents.policies.exported.MOST_POLICY", 10_000)
    with pytest.raises(InvalidInputError, match=r"no policy\.pth of at most 10000 bytes"):
        read_archive(archive(tmp_path / "model.zip", policy=b"\0" * 20_000))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_archive_that_was_cut_short_is_refused(kept: float, tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.zip", policy={"a": torch.zeros(99)}).read_bytes()
    (tmp_path / "model.zip").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InvalidInputError, match=r"model\.zip"):
        read_archive(tmp_path / "model.zip")


def test_one_flipped_byte_never_escapes_as_another_error(tmp_path: Path) -> None:
    """Compressed or not, in the archive's tables or in its tensors: an answer or one clear refusal."""
    whole = archive(tmp_path / "whole.zip", policy={"a": torch.zeros(9), "b": torch.ones(2, 2)}).read_bytes()
    random = np.random.default_rng(0)
    for place in random.choice(len(whole), 300, replace=False):
        content = bytearray(whole)
        content[place] ^= int(random.integers(1, 256))
        (tmp_path / "model.zip").write_bytes(content)
        with contextlib.suppress(InvalidInputError):
            read_archive(tmp_path / "model.zip")
