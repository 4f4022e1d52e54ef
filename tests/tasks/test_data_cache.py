"""Images are decoded once; whatever happens to the cache, the images are right."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from ssdkd_env.tasks.data import load_split, splits
from ssdkd_env.tasks.data.images import ImageStack
from tests.tasks.data_forms import Files, encoded, image_files, random_images, write_files, write_tar

FILES, TRUTH = image_files()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded from now on."""
    names: list[str] = []
    decode = ImageStack.decode

    def note(images: ImageStack, index: int, name: str, content: bytes) -> None:
        names.append(name)
        decode(images, index, name, content)

    monkeypatch.setattr(ImageStack, "decode", note)
    return names


def folder(path: Path, files: Files) -> Path:
    return write_files(path / "pets", files)


def archive(path: Path, files: Files) -> Path:
    return write_tar(path / "pets.tar.gz", {**files}, "w:gz")


FORMS = pytest.mark.parametrize("form", [folder, archive])
Form = Callable[[Path, Files], Path]


def assert_right(source: Path, truth: dict[str, Any] = TRUTH) -> None:
    for split, (images, labels) in truth.items():
        read = load_split("data", source, split)  # type: ignore[arg-type]
        assert np.array_equal(read[0].numpy(), images)
        assert read[1].tolist() == labels


@FORMS
def test_the_second_reading_decodes_nothing(tmp_path: Path, cache: Path, decoded: list[str], form: Form) -> None:
    source = form(tmp_path, FILES)
    assert_right(source)
    assert len(decoded) == len(FILES)
    assert_right(source)
    assert len(decoded) == len(FILES)
    assert len(list(cache.iterdir())) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600 for path in cache.iterdir())


def test_an_archive_is_opened_once_for_both_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path, FILES)
    load_split("data", source, "test")
    monkeypatch.setattr(splits, "list_members", None)
    assert_right(source)


@FORMS
def test_images_that_changed_are_decoded_anew(tmp_path: Path, cache: Path, form: Form) -> None:
    assert_right(form(tmp_path, FILES))
    new = random_images(6, seed=9, size=(6, 5))
    files = FILES | {name: encoded(new[i]) for i, name in enumerate(sorted(n for n in FILES if n.startswith("train")))}
    assert_right(form(tmp_path, files), {"train": (new, TRUTH["train"][1]), "test": TRUTH["test"]})
    assert len(list(cache.iterdir())) == 2  # in place of the old ones


def test_a_folder_with_images_renamed_or_moved_is_decoded_anew(tmp_path: Path) -> None:
    source = folder(tmp_path, FILES)
    assert_right(source)
    (source / "train" / "ant" / "0000.png").rename(source / "train" / "bee" / "0009.png")
    assert load_split("data", source, "train")[1].tolist() == [0, 1, 1, 1, 2, 2]
    for split in ("train", "test"):
        (source / split / "ant").rename(source / split / "zebra")
    assert load_split("data", source, "train")[1].tolist() == [0, 0, 0, 1, 1, 2]


def test_a_file_of_the_same_size_and_another_time_is_decoded_anew(tmp_path: Path, decoded: list[str]) -> None:
    for source in (folder(tmp_path, FILES), archive(tmp_path, FILES)):
        assert_right(source)
        decoded.clear()
        os.utime(source / "train" / "ant" / "0000.png" if source.is_dir() else source, (1, 1))
        load_split("data", source, "train")
        assert decoded


def test_a_path_that_is_not_valid_text_is_kept_too(tmp_path: Path, decoded: list[str]) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        write_files(source, FILES)
    except OSError:
        pytest.skip("this file system takes valid text only")
    assert_right(source)
    decoded.clear()
    assert_right(source)
    assert not decoded


def test_channels_are_kept_apart(tmp_path: Path) -> None:
    source = folder(tmp_path, FILES)
    for _ in range(2):
        assert [load_split("data", source, "train", c)[0].shape[1] for c in (1, 3)] == [1, 3]


def test_data_sets_are_kept_apart(tmp_path: Path) -> None:
    other, truth = image_files(per_class=1)
    sources = folder(tmp_path / "a", FILES), folder(tmp_path / "b", other)
    for _ in range(2):
        assert_right(sources[0])
        assert_right(sources[1], truth)


def test_a_path_is_the_same_however_it_is_written(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = archive(tmp_path, FILES)
    assert_right(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    decoded.clear()
    for written in (source.name, f"./x/../{source.name}", f"~/{source.name}"):
        assert len(load_split("data", written, "train")[0]) == 6
    assert not decoded


@FORMS
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"text",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"x",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:-60] + bytes([content[-60] ^ 64]) + content[-59:],
        lambda content: content[:40] + b"\xff" + content[41:],
        lambda content: content.replace(b"images", b"imagez"),
        lambda content: content.replace(b'"U8"', b'"I8"'),
    ],
)
def test_damaged_files_are_made_anew(
    tmp_path: Path, cache: Path, decoded: list[str], form: Form, damage: Callable[[bytes], bytes]
) -> None:
    source = form(tmp_path, FILES)
    assert_right(source)
    for path in cache.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    assert_right(source)
    decoded.clear()
    assert_right(source)
    assert not decoded


@FORMS
def test_a_cache_that_cannot_be_written_only_warns(tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="decoded anew in every process.*SSDKD_CACHE"):
        assert_right(form(tmp_path, FILES))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: no space")])
def test_a_full_disk_only_warns_and_leaves_nothing(
    tmp_path: Path, cache: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", fill)
    with pytest.warns(UserWarning, match=r"decoded anew.*[Nn]o space"):
        assert_right(folder(tmp_path, FILES))
    assert not list(cache.iterdir())


def test_a_folder_in_place_of_the_cached_file_only_warns(tmp_path: Path, cache: Path) -> None:
    source = folder(tmp_path, FILES)
    assert_right(source)
    for path in list(cache.iterdir()):
        path.unlink()
        path.mkdir()
    with pytest.warns(UserWarning, match="decoded anew"):
        assert_right(source)


def test_a_machine_without_a_home_folder_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SSDKD_CACHE")
    monkeypatch.setattr(Path, "home", home)
    with pytest.warns(UserWarning, match="home directory"):
        assert_right(folder(tmp_path, FILES))


def test_writing_into_the_images_leaves_the_cache_alone(tmp_path: Path) -> None:
    source = folder(tmp_path, FILES)
    for _ in range(3):
        images, labels = load_split("data", source, "train")
        assert np.array_equal(images.numpy(), TRUTH["train"][0])
        images.zero_()
        labels.zero_()
