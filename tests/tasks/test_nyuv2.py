"""NYU Depth v2: the labelled file, written as MATLAB 7.3 writes it, and its extracted forms."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
import torch
from laboratory.nyuv2 import official_names
from laboratory.nyuv2 import write_labelled as write_file

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import nyuv2
from ssdkd_env.tasks.data.label_maps import nearest
from ssdkd_env.tasks.data.nyuv2 import LABELLED_FILE, NYUV2_CLASSES, NYUV2_CLASSES_40, load_nyuv2
from ssdkd_env.tasks.data.nyuv2_classes import KNOWN_NAMES, class_table, official_split
from ssdkd_env.tasks.void import VOID
from tests.tasks.data_forms import Files, Pixels, encoded, random_images, write_files, write_tar
from tests.tasks.test_label_maps import png

#: (height, width), as an image is seen.
SIZE = (5, 7)


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))


def write_labelled(
    folder: Path,
    images: Pixels,
    labels: npt.NDArray[Any],
    names: list[str] | None = None,
    splits: dict[str, Any] | None = None,
    chunks: int = 1,
) -> Path:
    """The labelled file: images (N, 3, H, W) and labels (N, H, W), as MATLAB 7.3 saves them, and its splits."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LABELLED_FILE
    cells = official_names() if names is None else names
    size = images.shape[2], images.shape[3]
    write_file(path, zip(images, labels, strict=True), len(images), size, (chunks, 1), cells)
    if splits is None:
        splits = {"trainNdxs": np.arange(len(images), 0, -1)[:, None], "testNdxs": [[2]]}
    if splits:
        scipy.io.savemat(folder / "splits.mat", splits)
    return path


IMAGES = random_images(4, size=SIZE)
#: Every pixel another name, and 0 in a corner.
LABELS = (np.arange(4 * 35).reshape(4, *SIZE) * 6 + 5).astype(np.uint16)
LABELS[:, 0, 0] = 0


def refused(source: Path, match: str, split: str = "train", **options: Any) -> None:
    with pytest.raises(InvalidInputError, match=match) as error:
        load_nyuv2("data", source, split, **options)
    assert str(error.value).startswith(f"data={str(source)!r}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("classes", [13, 40])
def test_the_labelled_file_is_read_exactly(tmp_path: Path, chunks: int, classes: int) -> None:
    path = write_labelled(tmp_path, IMAGES, LABELS, chunks=chunks)
    images, labels = load_nyuv2("data", path, "train", num_classes=classes)
    assert images.dtype == labels.dtype == torch.uint8
    assert np.array_equal(images.numpy(), IMAGES)
    assert np.array_equal(labels.numpy(), class_table(classes)[LABELS])
    assert (labels[:, 0, 0] == VOID).all() and (labels == VOID).sum() == 4
    assert load_nyuv2("data", tmp_path, "test", num_classes=classes)[1].equal(labels[1:2])


def test_rows_and_columns_are_not_exchanged(tmp_path: Path) -> None:
    image = np.zeros((1, 3, *SIZE), dtype=np.uint8)
    image[0, 0, 1, 6] = 200  # red in the second row, at the right
    label = np.full((1, *SIZE), KNOWN_NAMES["wall"], dtype=np.uint16)
    label[0, 4] = KNOWN_NAMES["floor"]  # the whole lowest row
    images, labels = load_nyuv2("data", write_labelled(tmp_path, image, label), "train")
    assert images[0, 0].nonzero().tolist() == [[1, 6]]
    assert labels[0, 4].tolist() == [NYUV2_CLASSES.index("floor")] * 7
    assert (labels[0, :4] == NYUV2_CLASSES.index("wall")).all()


def test_resizing_makes_no_new_class(tmp_path: Path) -> None:
    path = write_labelled(tmp_path, IMAGES, LABELS)
    images, labels = load_nyuv2("data", path, "train", size=(3, 4))
    assert images.shape == (4, 3, 3, 4) and labels.shape == (4, 3, 4)
    assert np.array_equal(labels[2].numpy(), class_table(13)[nearest(LABELS[2], (3, 4))])
    again = load_nyuv2("data", path, "train", size=(3, 4))
    assert again[0].equal(images) and again[1].equal(labels)


def test_only_what_is_resized_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_labelled(tmp_path / "data", IMAGES, LABELS)
    load_nyuv2("data", path, "train")
    assert not list((tmp_path / "cache").glob("*"))
    first = load_nyuv2("data", path, "train", size=(3, 4))
    with monkeypatch.context() as patch:
        patch.setattr(nyuv2, "_read", None)
        assert load_nyuv2("data", path, "train", size=(3, 4))[0].equal(first[0])
    scipy.io.savemat(path.with_name("splits.mat"), {"trainNdxs": [[3]], "testNdxs": [[2]]})
    assert load_nyuv2("data", path, "train", size=(3, 4))[0].equal(first[0][2:3])


def test_the_tables_agree_by_name() -> None:
    forty, thirteen = class_table(40), class_table(13)
    assert forty.shape == thirteen.shape == (895,)
    assert forty[0] == thirteen[0] == VOID
    assert set(forty[1:].tolist()) == set(range(40)) and set(thirteen[1:].tolist()) == set(range(13))
    for name, number in KNOWN_NAMES.items():
        assert NYUV2_CLASSES_40[forty[number]] == name
        assert NYUV2_CLASSES[thirteen[number]] == {"television": "tv"}.get(name, name)
    by_class = {
        NYUV2_CLASSES_40[wide]: NYUV2_CLASSES[narrow] for wide, narrow in zip(forty[1:], thirteen[1:], strict=True)
    }
    assert [name for name, part in by_class.items() if part == "floor"] == ["floor", "floor mat"]
    assert {by_class[name] for name in ("cabinet", "dresser", "bookshelf", "counter")} == {"furniture"}
    assert by_class["desk"] == "table" and by_class["blinds"] == by_class["curtain"] == "window"


def test_the_official_split() -> None:
    train, test = official_split("train"), official_split("test")
    assert (len(train), len(test)) == (795, 654)
    assert sorted(train + test) == list(range(1, 1450))
    assert train[:6] == (3, 4, 5, 6, 7, 8) and test[:6] == (1, 2, 9, 14, 15, 16)  # of splits.mat
    assert test[-1] == 1449


def test_without_splits_the_official_ones_are_taken(tmp_path: Path) -> None:
    size = (1, 2)
    images, labels = random_images(1449, size=size), np.zeros((1449, *size), dtype=np.uint16)
    path = write_labelled(tmp_path, images, labels, splits={}, chunks=64)
    for split in ("train", "test"):
        read = load_nyuv2("data", path, split)[0].numpy()
        assert np.array_equal(read, images[np.array(official_split(split)) - 1])


def test_published_splits_need_no_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_labelled(tmp_path, IMAGES, LABELS)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refused(path, r"splits\.mat beside it is not the published one, and reading it needs the package 'scipy'")
    digest = hashlib.sha256((tmp_path / "splits.mat").read_bytes()).hexdigest()
    monkeypatch.setattr(nyuv2, "SPLITS_DIGEST", digest)
    refused(path, r"holds 4 images, but image 1440 is of the train split; give the whole file of 1449, or put a")


@pytest.mark.parametrize(
    ("splits", "match"),
    [
        ({"trainNdxs": [[1], [5]], "testNdxs": [[2]]}, r"holds 4 images, but image 5 is of the train split"),
        ({"trainNdxs": [[0], [1]], "testNdxs": [[2]]}, r"has in trainNdxs a number below 1, or one twice"),
        ({"trainNdxs": [[1], [1]], "testNdxs": [[2]]}, r"a number below 1, or one twice; remove it for the official"),
        ({"trainNdxs": [[1.5]], "testNdxs": [[2]]}, r"has a trainNdxs without whole numbers"),
        ({"trainNdxs": [["a"]], "testNdxs": [[2]]}, r"has a trainNdxs without whole numbers"),
        ({"testNdxs": [[2]]}, r"splits\.mat beside it has no trainNdxs that can be read"),
    ],
)
def test_splits_that_do_not_fit(tmp_path: Path, splits: dict[str, Any], match: str) -> None:
    refused(write_labelled(tmp_path, IMAGES, LABELS, splits=splits), match)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((2000, 3, 640, 480), r"has an array \(2000, 3, 640, 480\), officially 1449 images of 640×480"),
        ((795, 3, 10**6, 10**6), r"officially 1449 images of 640×480; give nyu_depth_v2_labeled\.mat as downloaded"),
        ((1449, 3, 640, 480), r"unpacks from 0 to 1,335,398,400 bytes"),
    ],
)
def test_arrays_that_are_declared_and_not_stored(tmp_path: Path, shape: tuple[int, ...], match: str) -> None:
    """HDF5 would give zeros for all of it."""
    path = write_labelled(tmp_path, IMAGES, LABELS)
    with h5py.File(path, "r+") as file:
        for name, declared, dtype in (("images", shape, "u1"), ("labels", (shape[0], *shape[2:]), "u2")):
            del file[name]
            file.create_dataset(name, shape=declared, dtype=dtype, chunks=(1, *declared[1:-2], 60, 60))
    refused(path, match)


def test_chunks_names_and_cells_that_are_declared_and_not_stored(tmp_path: Path) -> None:
    path = write_labelled(tmp_path / "a", IMAGES, LABELS)
    with h5py.File(path, "r+") as file:
        del file["images"]
        file.create_dataset("images", shape=(4, 3, 7, 5), dtype="u1", chunks=(1000, 300, 700, 5), maxshape=(None,) * 4)
    refused(path, r"has chunks of 1,050,000,000 bytes, at most 268,435,456 are read")
    path = write_labelled(tmp_path / "b", IMAGES, LABELS)
    with h5py.File(path, "r+") as file:
        del file["names"]
        file.create_dataset("names", (10**6, 10**6), h5py.ref_dtype, chunks=(100, 100))
    refused(path, r"has 1000000000000 names, expected 894 cells of text")
    path = write_labelled(tmp_path / "c", IMAGES, LABELS)
    with h5py.File(path, "r+") as file:
        long = file.create_dataset("long", (10**6, 10**6), "u2", chunks=(100, 100))
        file["names"][0, KNOWN_NAMES["wall"] - 1] = long.ref
    refused(path, r"has '' as name 21, officially 'wall'")


def test_splits_that_are_larger_than_splits_can_be(tmp_path: Path) -> None:
    many = {"trainNdxs": np.zeros((1, 10**6), dtype=np.uint8)}
    refused(
        write_labelled(tmp_path / "a", IMAGES, LABELS, splits=many), "1,000,200 bytes, and a file of its kind at most"
    )
    path = write_labelled(tmp_path / "b", IMAGES, LABELS)
    scipy.io.savemat(path.with_name("splits.mat"), many, do_compression=True)
    refused(path, r"has no trainNdxs that can be read \(it has the shape \(1, 1000000\), there are 1449 images")
    path = write_labelled(tmp_path / "c", IMAGES, LABELS)
    path.with_name("splits.mat").unlink()
    path.with_name("splits.mat").mkdir()
    refused(path, r"splits\.mat: it is a folder")


def test_damaged_splits(tmp_path: Path) -> None:
    path = write_labelled(tmp_path, IMAGES, LABELS)
    (tmp_path / "splits.mat").write_bytes(b"nothing of the kind")
    refused(path, r"splits\.mat beside it has no trainNdxs that can be read")


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    path = write_labelled(tmp_path, IMAGES, LABELS)
    content = path.read_bytes()
    for end in (len(content) // 2, 700, 100, 0):
        path.write_bytes(content[:end])
        refused(path, r"cannot be read as MATLAB 7\.3 \(HDF5\) .*was it cut short\?.*download it anew")


def test_a_damaged_chunk(tmp_path: Path) -> None:
    path = write_labelled(tmp_path, random_images(4, size=(64, 64)), np.zeros((4, 64, 64), dtype=np.uint16))
    with h5py.File(path, "r") as file:
        place = file["images"].id.get_chunk_info(1).byte_offset + 512
    content = bytearray(path.read_bytes())
    content[place + 100 : place + 200] = bytes(100)
    path.write_bytes(content)
    refused(path, r"cannot be read as MATLAB 7\.3")


def test_a_file_of_matlab_5(tmp_path: Path) -> None:
    path = tmp_path / LABELLED_FILE
    scipy.io.savemat(path, {"images": IMAGES, "labels": LABELS})
    refused(path, r"is a MATLAB 5 file, expected MATLAB 7\.3 \(HDF5\); give nyu_depth_v2_labeled\.mat as downloaded")


def test_what_was_downloaded_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / LABELLED_FILE
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2972037809\n")
    refused(path, r"nyu_depth_v2_labeled\.mat is a Git LFS pointer")
    path.write_text("<!DOCTYPE html><html><head><title>404</title></head></html>")
    refused(path, r"nyu_depth_v2_labeled\.mat is a web page")


def test_arrays_that_are_missing(tmp_path: Path) -> None:
    for name in ("images", "labels", "names"):
        path = write_labelled(tmp_path, IMAGES, LABELS)
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_group(name)  # a group of the name is no array
        refused(path, rf"lacks the array {name}; give nyu_depth_v2_labeled\.mat as downloaded")


@pytest.mark.parametrize(
    ("name", "array", "match"),
    [
        (
            "images",
            IMAGES.transpose(3, 2, 1, 0),
            r"has images \(7, 5, 3, 4\) uint8 and .*expected images \(N, 3, width",
        ),
        ("images", IMAGES.astype(np.float32), r"float32 and labels .*expected images \(N, 3, width, height\) uint8"),
        ("images", IMAGES[0], r"expected images \(N, 3, width, height\) uint8"),
        (
            "labels",
            LABELS,
            r"labels \(4, 5, 7\) uint16; expected labels \(N, width, height\) uint16 of the same images",
        ),
        ("labels", LABELS.swapaxes(1, 2)[:3], r"labels \(3, 7, 5\) uint16; expected labels"),
        ("labels", LABELS.swapaxes(1, 2).astype(np.float64), r"float64; expected labels"),
    ],
)
def test_arrays_of_another_shape_or_type(tmp_path: Path, name: str, array: npt.NDArray[Any], match: str) -> None:
    path = write_labelled(tmp_path, IMAGES, LABELS)
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, data=array)
    refused(path, match)


def test_names_that_are_numbered_otherwise(tmp_path: Path) -> None:
    other = official_names()
    other[KNOWN_NAMES["wall"] - 1] = "ceiling fan"
    refused(
        write_labelled(tmp_path / "a", IMAGES, LABELS, names=other),
        r"has 'ceiling fan' as name 21, officially 'wall', so its labels are numbered otherwise",
    )
    refused(
        write_labelled(tmp_path / "b", IMAGES, LABELS, names=other[:40]), r"has 40 names, expected 894 cells of text"
    )
    path = write_labelled(tmp_path / "c", IMAGES, LABELS)
    with h5py.File(path, "r+") as file:
        del file["names"]
        file.create_dataset("names", data=np.zeros((1, 894)))
    refused(path, r"has 894 names, expected 894 cells of text")


def test_labels_beyond_the_names(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[2, 1, 1] = 895
    refused(write_labelled(tmp_path, IMAGES, labels), r"labels of image 3 in .* go to 895, expected 0 to 894")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_labelled(tmp_path, IMAGES, LABELS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(path, r"needs the package 'h5py'; install it with: pip install 'ssdkd-env\[segmentation\]'")


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    path = write_labelled(tmp_path, IMAGES, LABELS)
    for options, match in (
        ({"split": "val"}, r"^split='val' is unknown; choose one of: test, train"),
        ({"num_classes": 14}, r"^num_classes=14: NYUv2 has 13 or 40 classes"),
        ({"size": (0, 3)}, r"^size=\(0, 3\): expected"),
        ({"void": 255}, r"^void=255 is for label PNGs; in nyu_depth_v2_labeled\.mat 0 is no class: leave it out"),
    ):
        with pytest.raises(InvalidInputError, match=match):
            load_nyuv2("data", path, **({"split": "train"} | options))
    refused(tmp_path / "absent.mat", r"does not exist; give nyu_depth_v2_labeled\.mat, or a folder or archive")


PNG_CLASSES = np.random.default_rng(0).integers(0, 14, (2, *SIZE), dtype=np.uint8)


def extracted(images: str, labels: str, shift: int = 0, numbers: tuple[int, int] = (3, 1440)) -> Files:
    """Two images of the training split with label maps; `shift` 1 counts classes from 0, so that 0 becomes 255."""
    files = {}
    for number, pixels, classes in zip(numbers, IMAGES, PNG_CLASSES, strict=False):
        files[images.format(number)] = encoded(pixels)
        files[labels.format(number)] = png(classes - np.uint8(shift))
    return files


@pytest.mark.parametrize(
    ("images", "labels", "shift"),
    [
        ("train/nyu_rgb_{:04}.png", "train_labels_13/new_nyu_class13_{:04}.png", 0),
        ("nyu_train_rgb/nyu_rgb_{:04}.png", "train_labels_13/new_nyu_class13_{:04}.png", 0),
        ("train/images/{:04}.png", "train/labels/{:04}.png", 0),
        ("image/train/{:05}.png", "seg13/train/{:05}.png", 1),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_extracted_folders(tmp_path: Path, images: str, labels: str, shift: int, packed: bool) -> None:
    files = extracted(images, labels, shift) | extracted(
        images.replace("train", "test"), labels.replace("train", "test"), shift, (1, 2)
    )
    source = write_tar(tmp_path / "nyu.tar", {**files}) if packed else write_files(tmp_path / "nyu", files)
    read = load_nyuv2("data", source, "train")
    assert np.array_equal(read[0].numpy(), IMAGES[:2])
    assert np.array_equal(read[1].numpy(), PNG_CLASSES - np.uint8(1))  # 0 − 1 is 255, which is VOID
    if not packed and not shift:
        refused(source, r"label maps have the values 13, the classes are 0 to 12", void=255)


def test_folders_of_all_images_are_divided_officially(tmp_path: Path) -> None:
    size = (1, 1)
    files = {}
    for number in range(1, 1450):
        files[f"images/{number}.png"] = encoded(np.full((3, *size), number % 251, dtype=np.uint8))
        files[f"labels13/{number:04}.png"] = png(np.full(size, number % 14, dtype=np.uint8))
    source = write_files(tmp_path / "nyu", files)
    for split in ("train", "test"):
        images, labels = load_nyuv2("data", source, split)
        numbers = torch.tensor(official_split(split))
        assert images[:, 0, 0, 0].equal((numbers % 251).to(torch.uint8))
        assert labels[:, 0, 0].equal((numbers % 14 - 1).to(torch.uint8))
    for folder in ("images", "labels13"):  # numbered from 0, the split would take the neighbours of its images
        for file in sorted((source / folder).iterdir(), key=lambda file: int(file.stem)):
            file.rename(file.with_stem(str(int(file.stem) - 1)))
    refused(source, r"images holds 0 of the 795 images that are officially train; add the others, or a file train\.txt")


def test_forty_classes_out_of_folders(tmp_path: Path) -> None:
    files = extracted("images/{}.png", "labels40/{}.png") | {"train.txt": b"3\n1440\n"}
    source = write_files(tmp_path, files)
    with pytest.raises(InvalidInputError, match=r"numbers 0 to at most 39, .*by void=255 or void=0"):
        load_nyuv2("data", source, "train", num_classes=40)
    labels = load_nyuv2("data", source, "train", num_classes=40, void=0)[1]
    assert np.array_equal(labels.numpy(), PNG_CLASSES - np.uint8(1))
    refused(tmp_path, r"no images with label maps of NYUv2's train split; expected the folders train/images with")
