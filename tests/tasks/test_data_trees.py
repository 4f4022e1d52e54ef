"""Image folders on disk and inside archives."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import load_split
from ssdkd_env.tasks.data.images import MOST_IMAGE
from tests.tasks.data_forms import (
    Files,
    encoded,
    image_files,
    random_images,
    refused,
    write_files,
    write_tar,
    write_zip,
)

MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
Form = Callable[[Path, Files], Path]


def in_folder(path: Path, files: Files) -> Path:
    return write_files(path / "pets", files)


def in_tar(path: Path, files: Files) -> Path:
    return write_tar(path / "pets.tar.gz", {**files}, "w:gz")


def in_zip(path: Path, files: Files) -> Path:
    return write_zip(path / "pets.zip", files)


FORMS = pytest.mark.parametrize("form", [in_folder, in_tar, in_zip])


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))


def check(source: Path, truth: dict[str, Any]) -> None:
    for split, (images, labels) in truth.items():
        read = load_split("data", source, split)  # type: ignore[arg-type]
        assert read[0].dtype == torch.uint8 and read[1].dtype == torch.int64
        assert np.array_equal(read[0].numpy(), images)
        assert read[1].tolist() == labels


def test_an_image_folder(tmp_path: Path) -> None:
    files, truth = image_files()
    check(write_files(tmp_path / "pets", files), truth)


@pytest.mark.parametrize("suffix", MODES)
@pytest.mark.parametrize("root", ["", "./", "pets/", "./a/pets/"])
def test_an_archive_of_an_image_folder(tmp_path: Path, suffix: str, root: str) -> None:
    files, truth = image_files()
    packed = {root + name: content for name, content in files.items()}
    check(write_tar(tmp_path / f"pets.{suffix}", packed, MODES[suffix]), truth)


def test_the_order_of_writing_does_not_matter(tmp_path: Path) -> None:
    files, truth = image_files(per_class=3)
    names = np.random.default_rng(0).permutation(sorted(files)).tolist()
    shuffled = {name: files[name] for name in names}
    check(write_tar(tmp_path / "pets.tar", {**shuffled}), truth)
    check(write_files(tmp_path / "pets", shuffled), truth)


def test_a_log_is_not_filled_with_progress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_split("data", write_files(tmp_path / "pets", image_files()[0]), "train")
    assert capfd.readouterr().err == ""


def test_nothing_is_unpacked(tmp_path: Path) -> None:
    files, truth = image_files()
    source = write_tar(tmp_path / "data" / "pets.tar", {**files, "../../train/ant/x.png": b"x", "../out.png": b"x"})
    check(source, truth)
    assert os.listdir(tmp_path / "data") == ["pets.tar"]
    assert sorted(os.listdir(tmp_path)) == ["cache", "data"]


@pytest.mark.parametrize("archived", [False, True])
def test_other_files_are_overlooked(tmp_path: Path, archived: bool) -> None:
    files, truth = image_files()
    others = ["README.md", "train/.DS_Store", "train/._ant/x.png", "train/ant/._0000.png", "train/ant/notes.txt"]
    others += ["val/ant/0.png", "extra/picture.png", "train/ant/.hidden/x.png"]
    files |= dict.fromkeys(others, b"x")
    source = write_tar(tmp_path / "p.tar", {**files}) if archived else write_files(tmp_path / "pets", files)
    check(source, truth)


def test_jpeg_under_every_name(tmp_path: Path) -> None:
    grey = np.full((3, 8, 8), 128, dtype=np.uint8)
    names = ["a.jpg", "b.jpeg", "c.JPG", "d.JPEG"]
    files = {f"train/only/{name}": encoded(grey, "JPEG") for name in names}
    files["train/only/e.PNG"] = encoded(grey)
    images, labels = load_split("data", write_files(tmp_path / "pets", files), "train")
    assert images.shape == (5, 3, 8, 8)
    assert (images.int() - 128).abs().max() <= 1
    assert labels.tolist() == [0] * 5


def test_a_jpeg_that_is_called_png_is_still_an_image(tmp_path: Path) -> None:
    files = {"train/a/0.png": encoded(random_images(1)[0], "JPEG")}
    assert load_split("data", write_files(tmp_path / "pets", files), "train")[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_png_gets_the_channels_asked_for(tmp_path: Path, mode: str, channels: int) -> None:
    pixels = np.zeros((3, 4, 4), dtype=np.uint8)
    pixels[:, :2] = 255
    files = {"train/a/0.png": encoded(pixels, mode=mode)}
    images, _ = load_split("data", write_files(tmp_path / "pets", files), "train", channels)
    assert np.array_equal(images[0].numpy(), pixels[:channels])


def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 1, 0])
    content = io.BytesIO()
    image.save(content, "PNG", transparency=bytes([0, 128]))
    files = {"train/a/0.png": content.getvalue()}
    images, _ = load_split("data", write_files(tmp_path / "pets", files), "train")
    assert images[0].tolist() == [[[255, 0], [0, 255]], [[0, 0], [0, 0]], [[0, 255], [255, 0]]]
    assert not recwarn.list


def test_channels_are_1_or_3(tmp_path: Path) -> None:
    refused(write_files(tmp_path / "pets", image_files()[0]), "1 or 3 channels, not 4", channels=4)


# --- what is refused, in a folder and in an archive ---


def with_changes(changes: dict[str, bytes | None]) -> dict[str, bytes]:
    """The image folder with some files replaced, or left out (None)."""
    files = image_files()[0] | {name: content for name, content in changes.items() if content is not None}
    return {name: content for name, content in files.items() if changes.get(name, b"") is not None}


PNG = encoded(random_images(1, size=(6, 5))[0])
JPEG = encoded(random_images(1, size=(6, 5))[0], "JPEG")


def sixteen_bit() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((6, 5), 300, dtype=np.uint16)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train/bee/0001.png": PNG[: len(PNG) // 2]}, r"train/bee/0001\.png.* cannot be decoded"),
        ({"train/bee/0002.jpg": JPEG[: len(JPEG) // 2]}, r"train/bee/0002\.jpg.* cannot be decoded"),
        ({"train/bee/0002.jpg": JPEG[:-20]}, r"train/bee/0002\.jpg.* cannot be decoded"),
        ({"train/bee/0002.jpg": b""}, r"train/bee/0002\.jpg.*it is no PNG, JPEG"),
        ({"train/bee/0002.jpg": b"GIF89a" + bytes(50)}, r"it is no PNG, JPEG"),
        ({"train/bee/0002.png": encoded(random_images(1, size=(5, 6))[0])}, r"train/bee/0002\.png is 6×5 but .*5×6"),
        ({"train/bee/0002.png": sixteen_bit()}, r"train/bee/0002\.png.* 8 bits"),
        ({"train/dog/0000.png": PNG}, "test lacks the class 'dog' that train has"),
        ({"test/dog/0000.png": PNG}, "train lacks the class 'dog' that test has"),
        ({"train/0000.png": PNG}, r"train/0000\.png.* is a file where a class folder"),
        ({"train/classes.txt": b"x"}, r"train/classes\.txt.* is a file where a class folder"),
    ],
)
def test_image_folders_that_do_not_fit_are_refused(
    tmp_path: Path, archived: bool, changes: dict[str, bytes | None], match: str
) -> None:
    files = with_changes(changes)
    source = write_tar(tmp_path / "p.tar.gz", files, "w:gz") if archived else write_files(tmp_path / "pets", files)
    refused(source, match)
    assert not list(tmp_path.glob("cache/*"))


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    files = image_files()[0]
    folder = write_files(tmp_path / "pets", files)
    for split in ("train", "test"):
        (folder / split / "dog").mkdir()
        (folder / split / "dog" / "notes.txt").touch()
    refused(folder, r"train/dog holds no \.png")
    refused(write_tar(tmp_path / "p.tar", {**files, "train/dog": None, "test/dog": None}), r"train/dog holds no \.png")


def test_splits_that_are_missing_are_named(tmp_path: Path) -> None:
    files = {name: content for name, content in image_files()[0].items() if name.startswith("train")}
    folder = write_files(tmp_path / "pets", files)
    archive = write_tar(tmp_path / "pets.tar", {**files})
    assert len(load_split("data", folder, "train")[0]) == len(load_split("data", archive, "train")[0]) == 6
    refused(folder, "no folder 'test'", "test")
    refused(archive, "no test split", "test")
    (folder / "test").touch()
    refused(folder, "no folder 'test'", "test")
    (folder / "test").unlink()
    (folder / "test").mkdir()
    refused(folder, "test holds no class folder", "test")


# --- archives ---


@pytest.mark.parametrize("suffix", MODES)
def test_an_archive_cut_short_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_tar(tmp_path / f"pets.{suffix}", {**image_files()[0]}, MODES[suffix])
    content = path.read_bytes()
    if suffix == "tar":  # it is padded with zeros, which may be missing
        content = content.rstrip(b"\0")
        lengths = [0, 1, 511, 512, 1000, 1024, 1536, 2048, 4096, len(content) // 512 * 512, len(content)]
    else:
        lengths = [*range(0, 60, 7), *range(60, len(content), 61), len(content) - 1]
    for length in lengths:
        path.write_bytes(content[:length])
        refused(path, "cannot be read as a tar archive.*anew")
    assert not list(tmp_path.glob("cache/*"))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    files = image_files()[0]
    path = write_tar(tmp_path / "pets.tar", {**files})
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    for member in members[1:]:
        bad = bytearray(content)
        bad[member.offset + 10] ^= 1  # in the header: its checksum is wrong
        path.write_bytes(bad)
        refused(path, "header inside is damaged")
    for suffix in ("tar.gz", "tar.bz2", "tar.xz"):
        path = write_tar(tmp_path / f"pets.{suffix}", {**files}, MODES[suffix])
        bad = bytearray(path.read_bytes())
        bad[len(bad) // 2] ^= 255
        path.write_bytes(bad)
        refused(path, "pets")


def test_files_of_other_kinds_are_no_archives(tmp_path: Path) -> None:
    for content in (b"", b"text", bytes(10240), b"PK\x03\x04" + bytes(600), lzma.compress(b"no tar")):
        (tmp_path / "pets.tar").write_bytes(content)
        refused(tmp_path / "pets.tar", "cannot be read as a (tar|zip) archive|holds no images")
    refused(write_tar(tmp_path / "pets.tar", {"README": b"x"}), "holds no images")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_inside_an_archive_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "pets.tar", {**image_files()[0]})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("train/ant/z.png")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    refused(path, r"train/ant/z\.png inside is a link, a device or sparse")


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pets.tar"
    header = tarfile.TarInfo("train/ant/0.png")
    header.size = MOST_IMAGE + 512
    path.write_bytes(header.tobuf())
    os.truncate(path, header.size + 1536)
    refused(path, f"{header.size:,} bytes, at most {MOST_IMAGE:,}")


def test_a_size_that_a_header_makes_up_is_not_skipped_to(tmp_path: Path) -> None:
    path = tmp_path / "pets.tar"
    header = tarfile.TarInfo("train/ant/0.png")
    header.size = 1 << 60
    path.write_bytes(header.tobuf())
    refused(path, "cannot be read as a tar archive .its end is missing")


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "pets.tar", {**image_files()[0]})
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("./train/ant/0000.png")
        member.size = len(PNG)
        archive.addfile(member, io.BytesIO(PNG))
    refused(path, r"train/ant/0000\.png twice")


def test_two_data_sets_in_one_archive_are_refused(tmp_path: Path) -> None:
    files = image_files()[0]
    both = {f"{root}/{name}": content for root in ("one", "two") for name, content in files.items()}
    refused(write_tar(tmp_path / "pets.tar", {**both}), "several data sets")


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_split("data", tmp_path / "pets.tar", "train")


# --- what people bring ---


def shown(source: Path, split: Any = "train") -> dict[int, int]:
    """Label → grey of its images, which all have one."""
    images, labels = load_split("data", source, split)
    greys = {int(label): images[labels == label].unique().tolist() for label in labels.unique()}
    assert all(len(values) == 1 for values in greys.values())
    return {label: values[0] for label, values in greys.items()}


def grey(value: int, kind: str = "PNG") -> bytes:
    return encoded(np.full((3, 4, 4), value, dtype=np.uint8), kind)


@FORMS
def test_images_of_other_formats_are_read(tmp_path: Path, form: Form) -> None:
    """Of 4 PNG and 20 BMP and WebP files a class, 8 of 48 were read, without a word."""
    pixels = random_images(3, size=(4, 4))
    kinds = {"png": "PNG", "bmp": "BMP", "PPM": "PPM", "tif": "TIFF", "TIFF": "TIFF", "webp": "WEBP"}
    files = {f"train/{name}/{suffix}.{suffix}": b"" for name in ("a", "b") for suffix in kinds}
    for name in files:
        kind = kinds[name.rpartition(".")[2]]
        files[name] = encoded(pixels[0], kind) if kind != "WEBP" else webp(pixels[0])
    images, labels = load_split("data", form(tmp_path, files), "train")
    assert labels.tolist() == [0] * 6 + [1] * 6
    assert (images.numpy() == pixels[0]).all()


def webp(pixels: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(content, "WEBP", lossless=True)
    return content.getvalue()


@FORMS
@pytest.mark.parametrize("name", ["a.gif", "b.HEIC", "c.npy", "deeper/d.jp2", "e.dcm"])
def test_an_image_of_a_format_that_is_not_read_is_named(tmp_path: Path, form: Form, name: str) -> None:
    files = {"train/ant/0.png": grey(0), f"train/ant/{name}": b"x"}
    refused(form(tmp_path, files), f"train/ant/{name} is of a form that is not read; save it as .png, or remove it")


@FORMS
def test_a_file_without_ending_may_be_an_image_and_is_named(tmp_path: Path, form: Form) -> None:
    files = {"train/ant/0.png": grey(0), "train/ant/1": grey(1)}
    refused(form(tmp_path, files), "train/ant/1 has no ending that says whether it is an image; name it .png")


@FORMS
def test_images_in_folders_below_their_class_are_of_it(tmp_path: Path, form: Form) -> None:
    """Of 4 files in and 20 below cat/, 8 of 28 were read, without a word."""
    names = ["ant/0.png", "cat/more/0.png", "cat/more/still/0.png", "cat/test/0.png", "cat/train/0.png"]
    files = {f"train/{name}": grey(index < 1) for index, name in enumerate(names)}
    assert load_split("data", form(tmp_path, files), "train")[1].tolist() == [0, 1, 1, 1, 1]
    assert shown(form(tmp_path, files)) == {0: 1, 1: 0}


@FORMS
@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([str(number) for number in range(12)], [str(number) for number in range(12)]),
        (["1", "2", "10"], ["1", "2", "10"]),
        (["01", "02", "10", "9"], ["01", "02", "9", "10"]),
        (["100", "1000", "20"], ["20", "100", "1000"]),
        (["10", "9", "x"], ["10", "9", "x"]),
    ],
)
def test_folders_named_by_numbers_are_in_their_order(
    tmp_path: Path, form: Form, names: list[str], order: list[str]
) -> None:
    files = {f"train/{name}/0.png": grey(order.index(name)) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert shown(form(tmp_path, files)) == {label: label for label in range(len(names))}


def test_names_with_numbers_in_them_are_text_and_that_is_said(tmp_path: Path) -> None:
    """As everywhere else, so that a teacher that was trained elsewhere means the same classes."""
    files = {f"train/{name}/0.png": grey(label) for label, name in enumerate(("c1", "c10", "c2"))}
    with pytest.warns(UserWarning, match="names as text, in which 'c10' comes before 'c2'; name them by numbers"):
        assert shown(in_folder(tmp_path, files)) == {0: 0, 1: 1, 2: 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown(in_folder(tmp_path / "padded", {f"train/c0{number}/0.png": grey(0) for number in range(3)}))


@FORMS
@pytest.mark.parametrize("name", ["val", "valid", "validation", "testing", "Val", "TEST"])
@pytest.mark.parametrize("training", ["train", "training", "Train"])
def test_validation_stands_in_for_test(tmp_path: Path, form: Form, name: str, training: str) -> None:
    source = form(tmp_path, {f"{training}/a/0.png": grey(1), f"{name}/a/0.png": grey(2)})
    assert shown(source, "train") == {0: 1}
    assert shown(source, "test") == {0: 2}


@FORMS
def test_test_is_preferred_to_validation(tmp_path: Path, form: Form) -> None:
    files = {f"{name}/a/0.png": grey(value) for value, name in enumerate(("train", "val", "test", "validation"))}
    assert shown(form(tmp_path, files), "test") == {0: 2}


@FORMS
def test_folders_of_classes_without_splits(tmp_path: Path, form: Form) -> None:
    files = {"ant/0.png": grey(0), "bee/more/0.png": grey(1), "README.md": b"x"}
    source = form(tmp_path, files)
    assert shown(source, "test") == shown(source, "train") == {0: 0, 1: 1}
    refused(form(tmp_path / "flat", {**files, "2.png": grey(2)}), r"2\.png is a file where a class folder is expected")


@pytest.mark.parametrize("form", [in_tar, in_zip])
def test_the_data_set_may_be_anywhere_in_an_archive(tmp_path: Path, form: Form) -> None:
    assert shown(form(tmp_path / "a", {f"x/y/{name}/0.png": grey(label) for label, name in enumerate("ab")})) == {
        0: 0,
        1: 1,
    }
    files, truth = image_files()
    check(form(tmp_path / "b", {f"test/v2/{name}": content for name, content in files.items()}), truth)


def test_a_zip_archive_as_other_systems_make_it(tmp_path: Path) -> None:
    files, truth = image_files()
    resources = {f"__MACOSX/pets/{name.replace('/0', '/._0')}": b"x" for name in files}
    check(in_zip(tmp_path / "mac", {f"pets/{name}": content for name, content in files.items()} | resources), truth)
    check(in_zip(tmp_path / "dos", {f"pets/{name}".replace("/", "\\"): files[name] for name in files}), truth)
    (tmp_path / "pets.data").write_bytes(in_zip(tmp_path, files).read_bytes())
    check(tmp_path / "pets.data", truth)  # known by its content


def test_images_of_all_kinds_beside_each_other(tmp_path: Path) -> None:
    pixels = np.full((3, 4, 4), 255, dtype=np.uint8)
    modes = {"L": "0.png", "RGBA": "1.PNG", "P": "2.png", "1": "3.png", "LA": "4.png"}
    files = {
        f"train/a/{name}": encoded(pixels, "JPEG" if mode == "CMYK" else "PNG", mode) for mode, name in modes.items()
    }
    assert shown(in_folder(tmp_path, files)) == {0: 255}
    files["train/a/6.png"] = sixteen_bit()
    refused(in_folder(tmp_path, files), "train/a/6.png is 5×6 but train/a/0.png is 4×4")


def test_links_to_images_and_classes_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    folder = in_folder(tmp_path, {"train/ant/0.png": grey(0), "elsewhere/0.png": grey(1)})
    (folder / "train" / "bee").symlink_to(folder / "elsewhere")
    assert shown(folder) == {0: 0, 1: 1}
    (folder / "train" / "ant" / "1.png").symlink_to(folder / "nowhere")
    refused(folder, r"cannot read .*train/ant/1\.png.*make it readable")
    (folder / "train" / "ant" / "1.png").unlink()
    (folder / "train" / "ant" / "again").symlink_to(folder / "train")
    refused(folder, "train/ant/again is a link to a folder that holds it; remove it")


@FORMS
def test_a_folder_that_is_named_like_an_image_is_one(tmp_path: Path, form: Form) -> None:
    assert shown(form(tmp_path, {"train/ant/x.png/0.png": grey(3)})) == {0: 3}
