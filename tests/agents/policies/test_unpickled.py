"""No file that a sampler is read from is ever executed."""

from __future__ import annotations

import base64
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ssdkd_agents.policies.exported import POLICY, SETTINGS, read_archive, read_exported
from ssdkd_agents.policies.storage import FORMAT, load_sampler, read_sampler

from ssdkd_env.errors import InvalidInputError
from tests.envs.episodes import make
from tests.scripts.bad_files import Evil


def evil_pickle(path: Path, payload: Evil) -> None:
    path.write_bytes(pickle.dumps(payload))


def evil_torch_file(path: Path, payload: Evil) -> None:
    torch.save({"format": FORMAT, "policy": payload}, path)


def evil_sb3_archive(path: Path, payload: Evil) -> None:
    serialized = base64.b64encode(pickle.dumps(payload)).decode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps({"policy_class": {":type:": "x", ":serialized:": serialized}}))
        archive.writestr("policy.pth", pickle.dumps(payload))
        archive.writestr("pytorch_variables.pth", pickle.dumps(payload))


def evil_torch_archive(path: Path, payload: Evil) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open("policy.pth", "w") as file:
        torch.save({"log_std": payload}, file)


WRITERS = [evil_pickle, evil_torch_file, evil_sb3_archive, evil_torch_archive]


@pytest.mark.parametrize("name", ["s.safetensors", "s.zip", "s.pt"])
@pytest.mark.parametrize("write", WRITERS)
def test_pickles_are_refused_and_never_executed(write: Callable[[Path, Evil], None], name: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    write(tmp_path / name, Evil(marker))
    for load in (read_sampler, read_archive, lambda path: load_sampler(str(path), make())):
        with pytest.raises(InvalidInputError, match=name) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["checkpoints/5.safetensors", "constant.json", SETTINGS, POLICY])
def test_folder_with_a_pickle_is_refused_and_never_executed(
    name: str, write: Callable[[Path, Evil], None], tmp_path: Path
) -> None:
    marker, path = tmp_path / "executed", tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    write(path, Evil(marker))
    with pytest.raises(InvalidInputError):
        load_sampler(str(tmp_path / "run"), make())
    with pytest.raises(InvalidInputError):
        read_exported(tmp_path / "run")
    assert not marker.exists()


def test_the_traps_work(tmp_path: Path) -> None:
    """Unpickled carelessly, the files would run: the tests above can fail."""
    for index, write in enumerate(WRITERS):
        path, marker = tmp_path / f"s{index}", tmp_path / f"executed{index}"
        write(path, Evil(marker))
        if write is evil_pickle:
            pickle.loads(path.read_bytes())
        elif write is evil_torch_file:
            torch.load(path, weights_only=False)
        elif write is evil_sb3_archive:
            pickle.loads(zipfile.ZipFile(path).read("policy.pth"))
        else:
            with zipfile.ZipFile(path).open("policy.pth") as file:
                torch.load(file, weights_only=False)
        assert marker.exists()
