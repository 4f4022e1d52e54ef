"""Files are written whole or not at all, and read with care."""

from __future__ import annotations

import collections
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.files import load_state, load_tensors, save_state, write_atomically, write_json
from ssdkd_env.reading import read_json


def same(left: Any, right: Any) -> bool:
    """Equality that looks into containers, knows their types, and takes NaN for equal to itself."""
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return isinstance(left, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right or (left != left and right != right))


def round_trip(folder: Path, state: Any) -> Any:
    save_state(folder / "state.safetensors", state)
    return load_state(folder / "state.safetensors")


# --- states ---


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers(-5, 5), max_size=4).map(torch.tensor),
    st.floats(width=32).map(torch.tensor),
)
states = st.dictionaries(
    st.one_of(st.text(max_size=3), st.integers()),
    st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=3),
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@given(states)
def test_nested_states_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, state: dict[Any, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "nested.safetensors"
    save_state(path, state)
    loaded = load_state(path)
    finite = torch.nan_to_num  # NaN is not equal to itself inside a tensor either
    clean = lambda v: finite(v) if isinstance(v, Tensor) and v.is_floating_point() else v  # noqa: E731
    assert same(deep(loaded, clean), deep(state, clean))


def deep(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: deep(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(deep(item, change) for item in value)
    return change(value)


def test_integer_keys_tuples_and_empty_containers_keep_their_types(tmp_path: Path) -> None:
    state = {
        "state": {0: {"step": torch.tensor(3.0)}, 1: {}, "1": "text"},
        "betas": (0.5, 0.999),
        "empty": [(), [], {}, None, ""],
        "big": 2**70,
        "tiny": 5e-324,
    }
    assert same(round_trip(tmp_path, state), state)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(0),
        torch.zeros(3, 0, 2),
        torch.tensor(True),
        torch.arange(6, dtype=torch.uint8).view(2, 3).T,
        torch.tensor([1.5, -0.0], dtype=torch.float64),
        torch.arange(3),
        torch.Generator().get_state(),
        torch.zeros(2, requires_grad=True),
        torch.arange(4.0).expand(3, 4),
    ],
)
def test_tensors_of_every_kind_survive(tmp_path: Path, tensor: Tensor) -> None:
    loaded = round_trip(tmp_path, {"x": tensor})["x"]
    assert loaded.dtype == tensor.dtype
    assert loaded.shape == tensor.shape
    assert torch.equal(loaded, tensor)
    assert not loaded.requires_grad


def test_tensors_that_share_memory_are_saved_each(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    loaded = round_trip(tmp_path, {"whole": base, "part": base[2:], "again": base})
    loaded["whole"].zero_()
    assert loaded["part"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert loaded["again"].tolist() == base.tolist()


def test_an_optimizers_state_loads_back(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], betas=(0.5, 0.999))
    weight.grad = torch.ones(3)
    optimizer.step()
    assert same(round_trip(tmp_path, optimizer.state_dict()), optimizer.state_dict())


Point = collections.namedtuple("Point", ["x", "y"])


@pytest.mark.parametrize("value", [Point(1, 2), torch.zeros(2, 3).shape])
def test_other_kinds_of_tuples_arrive_as_tuples_or_are_refused(tmp_path: Path, value: tuple[int, ...]) -> None:
    try:
        loaded = round_trip(tmp_path, {"x": value})["x"]
    except TypeError:
        return
    assert loaded == tuple(value)


@pytest.mark.parametrize("value", [np.int64(3), np.zeros(2), {1, 2}, object(), b"bytes"])
def test_values_that_a_file_cannot_hold_are_refused_before_anything_is_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        save_state(tmp_path / "state.safetensors", {"x": [value]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_state_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"x": torch.zeros(1000), "y": list(range(50))})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InvalidInputError, match=r"state\.safetensors"):
        load_state(path)


def test_a_missing_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="none"):
        load_state(tmp_path / "none.safetensors")
    with pytest.raises(InvalidInputError, match=tmp_path.name):
        load_state(tmp_path)


def test_a_pointer_in_the_place_of_tensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(InvalidInputError, match=r"state\.safetensors is a Git LFS pointer"):
        load_tensors(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"structure": "{"}, {"structure": '["tensor", "t9"]'}])
def test_a_safetensors_file_of_someone_else_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(InvalidInputError, match=r"other\.safetensors"):
        load_state(path)


# --- atomic writing ---


def test_a_new_file_appears_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"

    def write(temporary: Path) -> None:
        temporary.write_text("new")

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_content_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == path.suffix

    write_atomically(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("bad"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_content_and_no_rest(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(InvalidInputError if isinstance(error, OSError) else type(error)):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_json(tmp_path / "file.json", {})
        assert os.umask(0o027) == 0o027, "writing changed the umask"
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file.json").stat().st_mode) == 0o640


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "x.json", tmp_path):
        with pytest.raises(InvalidInputError, match="cannot write"):
            write_json(path, {})


# --- JSON ---


def test_json_survives_the_disk(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "ü": {"nested": "ψ"}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert (tmp_path / "file.json").read_text().endswith("\n")


def test_json_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"not json", b"\xff\xfe\x00binary"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"file\.json"):
        read_json(tmp_path / "file.json")


def test_a_missing_json_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"none\.json"):
        read_json(tmp_path / "none.json")
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_json(tmp_path)
