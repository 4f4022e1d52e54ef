"""Files that numbers depend on are known by what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from ssdkd_agents.inputs import absolute, check_inputs, digests, inputs_of
from ssdkd_agents.runs import RunFolder

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.digits import ASSETS
from tests.agents.trainings import PPO
from tests.envs.episodes import make
from tests.scripts.bad_files import SHIPPED_TEACHER, real_images

OTHER_TEACHER = ASSETS / "digits_teacher_b.safetensors"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A teacher of the user's own, with its card."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(OTHER_TEACHER.with_suffix(suffix), tmp_path / f"tea{suffix}")
    return tmp_path / "tea.safetensors"


def test_environment_has_read_its_teacher_its_card_and_its_images(teacher: Path, tmp_path: Path) -> None:
    images = real_images(tmp_path / "images.npz")
    found = inputs_of(make(teacher=str(teacher), evaluation=str(images)))
    files = [teacher, teacher.with_suffix(".json"), images]
    assert found == {str(file): sha256(file) for file in files}


def test_what_comes_with_the_package_is_none_of_the_users() -> None:
    assert inputs_of(make()) == inputs_of(make(teacher=str(OTHER_TEACHER))) == {}


def test_paths_are_absolute_wherever_they_are_named_from(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(teacher.parent)
    monkeypatch.setenv("HOME", str(teacher.parent))
    for folder in ("", "./", f"../{teacher.parent.name}/", "~/"):
        name = f"{folder}tea.safetensors"
        assert absolute(name) == str(teacher)
        assert digests([name]) == {str(teacher): sha256(teacher)}
    for name in ("nothing.safetensors", "hub:owner/name", "package.module:name"):
        assert absolute(name) == name
        assert digests([name]) == {}


def test_folder_is_its_names_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"1234")
    before = digests([str(tmp_path / "images")])
    (folder / "2.png").write_bytes(b"12")
    os.utime(tmp_path / "images", ns=(1, 1))
    after = digests([str(tmp_path / "images")])
    assert before.keys() == after.keys() == {str(tmp_path / "images")}
    assert before != after


def test_changed_file_is_refused_and_named(teacher: Path, tmp_path: Path) -> None:
    recorded = digests([str(teacher)])
    check_inputs(recorded, tmp_path / "run")
    check_inputs({}, tmp_path / "run")  # of a run of an earlier version
    shutil.copy(SHIPPED_TEACHER, teacher)
    said = (
        f"{teacher} was changed since {tmp_path / 'run'} began with it \\(SHA-256 {sha256(OTHER_TEACHER)[:12]}, now "
        f"{sha256(SHIPPED_TEACHER)[:12]}\\); put back what it was, on every machine that plays, or "
        "start anew in another folder"
    )
    with pytest.raises(InvalidInputError, match=f"^{said}$"):
        check_inputs(recorded, tmp_path / "run")
    teacher.unlink()
    with pytest.raises(InvalidInputError, match=f"{teacher}, with which .* began, is not there any more; put back"):
        check_inputs(recorded, tmp_path / "run")


def test_run_remembers_its_files_and_is_not_resumed_with_others(teacher: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", asdict(PPO), digests([str(teacher)]))
    folder.change(timesteps=20)
    folder.close()
    again = RunFolder.resume(tmp_path / "run")
    assert again.inputs == {str(teacher): sha256(teacher)} and "inputs" not in again.config
    again.close()
    shutil.copy(SHIPPED_TEACHER, teacher)
    with pytest.raises(InvalidInputError, match=r"tea\.safetensors was changed since"):
        RunFolder.resume(tmp_path / "run")
    assert RunFolder(tmp_path / "run", None).config["timesteps"] == 20, "it can still be looked at"


def test_run_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", asdict(PPO)).close()
    assert "inputs" not in json.loads((tmp_path / "run" / "config.json").read_text())
    assert RunFolder.resume(tmp_path / "run").inputs == {}
