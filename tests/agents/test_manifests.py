"""Of several checkpoints the newest sound one is taken, whatever was damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from ssdkd_agents.manifests import (
    forget_old,
    load_newest,
    newest_sound,
    previous,
    save_beside_previous,
    write_manifest,
)

from ssdkd_env.errors import InvalidInputError

PARTS = ("{}.safetensors", "{}.state.safetensors", "{}.episodes/0.safetensors", "{}.episodes/1.safetensors")


def make(folder: Path, steps: int, run: str = "a") -> None:
    for part in PARTS:
        path = folder / part.format(steps)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{part} of {steps} in {run}".encode())
    write_manifest(folder, steps, run)


def test_newest_is_taken_and_older_ones_forgotten(tmp_path: Path) -> None:
    assert newest_sound(tmp_path, "a") is None
    for steps in (8, 9, 10, 100):
        make(tmp_path, steps)
    (tmp_path / "120.safetensors").touch()  # of one that was cut short
    (tmp_path / "120.episodes").mkdir()
    assert newest_sound(tmp_path, "a") == 100
    forget_old(tmp_path, 2)
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"10", "100"}
    assert newest_sound(tmp_path, "a") == 100


@pytest.mark.parametrize("part", [*PARTS, "{}.manifest.json"])
@pytest.mark.parametrize("how", ["flipped", "gone", "older", "of another run"])
def test_damage_is_noticed_and_the_one_before_taken(part: str, how: str, tmp_path: Path) -> None:
    make(tmp_path / "a", 10)
    make(tmp_path / "a", 20)
    make(tmp_path / "b", 20, "b")
    path = tmp_path / "a" / part.format(20)
    if how == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "gone":
        path.unlink()
    else:
        shutil.copy(tmp_path / "a" / part.format(10) if how == "older" else tmp_path / "b" / part.format(20), path)
    if how == "gone" and part.endswith("json"):
        assert newest_sound(tmp_path / "a", "a") == 10  # it was never finished
        return
    with pytest.warns(UserWarning, match=r"20\..*; going on from the checkpoint of 10 steps"):
        assert newest_sound(tmp_path / "a", "a") == 10


def test_part_too_many_is_noticed(tmp_path: Path) -> None:
    make(tmp_path, 10)
    (tmp_path / "10.episodes" / "2.safetensors").touch()
    with pytest.raises(
        InvalidInputError, match=r"other parts than there are \(10\.episodes/2.*no other checkpoint is sound"
    ):
        newest_sound(tmp_path, "a")


def test_whole_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    make(tmp_path, 10, "b")
    with pytest.raises(InvalidInputError, match="is of another run or step, and no other checkpoint is sound"):
        newest_sound(tmp_path, "a")


# --- of one file ---


def test_single_file_has_the_one_before_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    assert load_newest(path) is None
    for step in range(3):
        save_beside_previous(path, {"step": step, "x": torch.full((3,), step)})
    assert load_newest(path)["step"] == 2
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.warns(UserWarning, match="going on from the checkpoint before"):
            assert load_newest(path)["step"] == 1
    previous(path).unlink()
    with pytest.raises(InvalidInputError, match="no other checkpoint is sound"):
        load_newest(path)


def test_killed_between_two_files_the_one_before_is_there(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_beside_previous(path, {"step": 1})
    path.rename(previous(path))
    assert load_newest(path) == {"step": 1}
