"""Run folders: configuration, command and results in one place."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.ownership import LOCK
from ssdkd_agents.runs import PACKAGES, RunFolder, source_digest, versions

from ssdkd_env.errors import InvalidInputError
from tests.scripts.commands import ROOT

CONFIG: dict[str, Any] = {"seed": 3, "budget": ["rounds=3"], "nested": {"lr": 0.1, "name": "ψ", "none": None}}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_new_run_leaves_its_configuration_with_versions(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "run", CONFIG)
    assert run.config == CONFIG
    written = json.loads((run.path / "config.json").read_text())
    assert written == CONFIG | {"versions": versions(), "run": run.identity}
    assert set(contents(run.path)) == {"config.json", "command.txt", LOCK}


def test_versions_are_those_of_this_process() -> None:
    import numpy
    import torch

    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"] == version("torch")
    assert torch.__version__.startswith(found["torch"])
    assert found["numpy"] == numpy.__version__
    assert found["ssdkd-env"] == version("ssdkd-env")


def test_versions_leave_out_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(package: str) -> str:
        if package == "cma":
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr("ssdkd_agents.runs.version", found)
    assert set(versions()) == {"python", *PACKAGES, "source"} - {"cma"}


def test_new_run_leaves_the_exact_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that reads the line again must see the same arguments, spaces and quotes included."""
    arguments = [
        "scripts/train_sampler.py",
        "--hyperparameters",
        'x={"rounds": 3}',
        "--out",
        "it's here",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    run = RunFolder(tmp_path / "run", CONFIG)
    assert shlex.split((run.path / "command.txt").read_text()) == ["python", *arguments]


def test_empty_folder_takes_a_new_run(tmp_path: Path) -> None:
    assert RunFolder(tmp_path, CONFIG).path == tmp_path
    assert (tmp_path / "config.json").is_file()


@pytest.mark.parametrize("name", ["config.json", "notes.txt", ".hidden", "sub/file"])
def test_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InvalidInputError, match=rf"out='{tmp_path}' is not empty; choose another folder"):
        RunFolder(tmp_path, CONFIG)
    assert contents(tmp_path) == {name: b"mine"}


def test_file_in_the_place_of_the_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(InvalidInputError, match=r"out='.*run'"):
        RunFolder(path, CONFIG)
    assert path.read_text() == "mine"


def test_empty_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InvalidInputError, match=r"out='.*run'"):
        RunFolder(tmp_path / "run", CONFIG)


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"cannot write .*; choose a folder that you may write") as caught:
        RunFolder(tmp_path / "file" / "run", CONFIG)
    assert "\n" not in str(caught.value)


def test_earlier_run_is_opened_without_writing(tmp_path: Path) -> None:
    made = RunFolder(tmp_path / "run", CONFIG)
    before = contents(tmp_path / "run")
    run = RunFolder(tmp_path / "run", None)
    assert run.config == CONFIG | {"versions": versions()}
    assert run.identity == made.identity != RunFolder(tmp_path / "other", CONFIG).identity
    assert contents(tmp_path / "run") == before


def test_changed_settings_are_the_runs_from_then_on(tmp_path: Path) -> None:
    made = RunFolder(tmp_path / "run", CONFIG)
    RunFolder.resume(tmp_path / "run").change(seed=4)
    again = RunFolder(tmp_path / "run", None)
    assert again.config == CONFIG | {"seed": 4, "versions": versions()}
    assert again.identity == made.identity


def test_run_that_ended_before_it_began_can_begin_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunFolder(path, CONFIG).close()
    (path / "config.json").rename(path / ".ssdkd-config.json.abc.json")  # killed while it was written
    with pytest.raises(InvalidInputError, match="ended before it began: give its first command again"):
        RunFolder.resume(path)
    assert RunFolder(path, CONFIG).path == path
    assert set(contents(path)) == {"config.json", "command.txt", LOCK}


def test_own_file_of_a_users_is_no_left_over(tmp_path: Path) -> None:
    (tmp_path / "command.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="is not empty"):
        RunFolder(tmp_path, CONFIG)
    assert contents(tmp_path) == {"command.txt": b"mine"}


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch], ids=["missing", "empty", "file"])
def test_resuming_where_no_run_is_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "run")
    with pytest.raises(InvalidInputError, match=r"run holds no run \(no config\.json\); give the folder of a run"):
        RunFolder(tmp_path / "run", None)
    assert not contents(tmp_path / "run")


@pytest.mark.parametrize("text", ["", '{"seed": 3', "[1, 2]", "3"])
def test_run_whose_configuration_is_damaged_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        RunFolder(tmp_path, None)


def test_folder_with_a_link_in_it_is_not_resumed(tmp_path: Path) -> None:
    """What the run appends to it would be written elsewhere."""
    RunFolder(tmp_path / "run", CONFIG).close()
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "run" / "checkpoints").mkdir()
    link = tmp_path / "run" / "checkpoints" / "results.jsonl"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        InvalidInputError, match=r"results\.jsonl is a link, and a run writes into its own folder alone"
    ):
        RunFolder.resume(tmp_path / "run")
    RunFolder(tmp_path / "run", None)  # to read it
    link.unlink()
    RunFolder.resume(tmp_path / "run").close()


def test_source_of_a_run_is_what_its_process_began_with(tmp_path: Path) -> None:
    """Files that are edited while a long run plays are not what plays."""
    for package, place in (("ssdkd_env", ROOT), ("ssdkd_agents", ROOT / "agents")):
        shutil.copytree(place / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import pathlib, ssdkd_agents.runs as runs; file = pathlib.Path(runs.__file__);"
        "file.write_text(file.read_text() + '# edited'); print(runs.versions()['source'])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    began = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert began.stdout.strip() == source_digest()
    edited = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert edited.stdout != began.stdout
