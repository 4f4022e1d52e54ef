"""Label maps in folders and archives: layouts, pairs, every convention of no class, sizes, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import label_maps
from ssdkd_env.tasks.data.label_maps import load_maps, nearest
from ssdkd_env.tasks.data.map_forms import Layout, MapForm
from ssdkd_env.tasks.void import VOID, to_classes
from tests.tasks.data_forms import Files, Pixels, encoded, random_images, write_files, write_tar

LAYOUTS = (("{split}/images", "{split}/labels"), ("{split}", "{split}annot"), ("images", "labels"))
FORM = MapForm(
    name="Toys",
    num_classes=3,
    splits={"train": 2, "test": 1},
    layouts=tuple(Layout(*folders, 3) for folders in LAYOUTS),
    colours={(255, 0, 0): 0, (0, 255, 0): 1, (0, 0, 255): 2, (0, 0, 0): VOID},
)
#: Non-square, and of a number of pixels that eight does not divide.
SIZE = (5, 7)


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))


def png(labels: npt.NDArray[Any], palette: list[int] | None = None) -> bytes:
    """A label map (H, W) or a colour map (H, W, 3) as a file."""
    image = Image.fromarray(labels)
    if palette is not None:
        image.putpalette(palette)  # which makes a grey image one with a palette
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def packed_grey(labels: npt.NDArray[Any], depth: int) -> bytes:
    """The same of so many bits a pixel, as programs that make PNGs small write it; Pillow does not."""
    height, width = labels.shape
    bits = (labels[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in bits.reshape(height, -1))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    chunks = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in (*parts, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def random_maps(count: int, classes: int = 4, seed: int = 1, size: tuple[int, int] = SIZE) -> Pixels:
    return np.random.default_rng(seed).integers(0, classes, (count, *size), dtype=np.uint8)


def with_void(maps: Pixels, void: int = 3) -> Pixels:
    return np.where(maps == void, VOID, maps).astype(np.uint8)


IMAGES, MAPS = random_images(2, size=SIZE), random_maps(2)


def files_of(images: str = "train/images", labels: str = "train/labels", maps: list[bytes] | None = None) -> Files:
    """Two images with their label maps."""
    files = {}
    for index, (pixels, content) in enumerate(zip(IMAGES, maps or [png(each) for each in MAPS], strict=True)):
        files[f"{images}/street_{index}.png"] = encoded(pixels)
        files[f"{labels}/street_{index}.png"] = content
    return files


def check(source: Path, split: str = "train", form: MapForm = FORM, void: int | None = None) -> None:
    images, labels = load_maps("data", source, split, form, void=void)
    assert images.dtype == labels.dtype == torch.uint8
    assert np.array_equal(images.numpy(), IMAGES)
    assert np.array_equal(labels.numpy(), with_void(MAPS))


def refused(source: Path, match: str, form: MapForm = FORM, **options: Any) -> None:
    with pytest.raises(InvalidInputError, match=match) as error:
        load_maps("data", source, "train", form, **options)
    assert str(error.value).startswith(f"data={str(source)!r}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("images", "labels"), LAYOUTS[:2])
@pytest.mark.parametrize("archive", ["", "toys.tar", "toys.tar.xz"])
def test_split_folders_on_disk_and_in_an_archive(tmp_path: Path, images: str, labels: str, archive: str) -> None:
    files = files_of(images.format(split="train"), labels.format(split="train"))
    files |= {name.replace("train", "test"): b"of the other split, not decoded" for name in files}
    if archive:
        packed = {f"./sets/toys/{name}": content for name, content in reversed(files.items())}
        check(write_tar(tmp_path / archive, packed, "w:xz" if archive.endswith("xz") else "w"))
    else:
        check(write_files(tmp_path / "toys", files))


@pytest.mark.parametrize(
    "lines",
    [
        "street_0\nstreet_1\n",
        "images/street_0.png\r\n\r\nimages/street_1.png",
        "/Toys/train/street_0.png /Toys/trainannot/street_0.png\n/Toys/train/street_1.png trainannot\\street_1.png",
        "street_0 street_0_L\nstreet_1.png street_1_L.png\n",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_names_the_images_of_a_split(tmp_path: Path, lines: str, packed: bool) -> None:
    files = files_of("images", "labels")
    other = {"images/zebra.png": b"not decoded", "labels/zebra.png": b"nor this"}
    files = {
        name.replace(".png", "_L.png") if "_L" in lines and "labels" in name else name: content
        for name, content in files.items()
    }
    files |= other | {"train.txt": lines.encode()}
    check(write_tar(tmp_path / "toys.tar", files) if packed else write_files(tmp_path / "toys", files))


def test_a_naming_file_with_a_byte_order_mark_or_in_another_encoding(tmp_path: Path) -> None:
    files = files_of("images", "labels")
    name = Path(next(iter(files))).stem
    folder = write_files(tmp_path / "toys", files | {"train.txt": name.encode("utf-8-sig")})
    assert len(load_maps("data", folder, "train", FORM)[0]) == 1
    for encoding in ("utf-16", "latin-1"):
        write_files(folder, {"train.txt": f"{name}é".encode(encoding)})
        with pytest.raises(InvalidInputError, match=r"train\.txt is no text in UTF-8 .*; save it so"):
            load_maps("data", folder, "train", FORM)


def test_the_order_is_that_of_the_naming_file(tmp_path: Path) -> None:
    files = files_of("images", "labels") | {"train.txt": b"street_1\nstreet_0\n"}
    images, labels = load_maps("data", write_files(tmp_path / "toys", files), "train", FORM)
    assert np.array_equal(images.numpy(), IMAGES[::-1])
    assert np.array_equal(labels.numpy(), with_void(MAPS)[::-1])


def test_without_such_a_file_the_official_split_is_taken_whole(tmp_path: Path) -> None:
    form = replace(FORM, official=lambda split, keys: [key for key in keys if key.startswith("street")])
    files = files_of("images", "labels") | {"images/zebra.png": b"", "labels/zebra.png": b""}
    check(write_files(tmp_path / "toys", files), form=form)
    del files["images/street_1.png"]
    refused(write_files(tmp_path / "less", files), r"images holds 1 of the 2 images that are officially train", form)
    refused(write_files(tmp_path / "none", files), r"images holds 0 of the 2 .* or a file train.txt with one", FORM)


def test_stems_pair_whatever_the_ending(tmp_path: Path) -> None:
    files = files_of()
    files["train/images/street_1.JPG"] = files.pop("train/images/street_1.png")  # the content tells what it is
    files["train/labels/street_0_L.png"] = files.pop("train/labels/street_0.png")
    files["train/labels/.hidden.png"] = files["train/labels/notes.md"] = b"overlooked"
    check(write_files(tmp_path / "toys", files))


def test_an_image_whose_own_name_ends_with_the_suffix(tmp_path: Path) -> None:
    check(write_files(tmp_path, {name.replace(".png", "_L.png"): content for name, content in files_of().items()}))


def test_a_missing_partner_is_one_line_that_names_both(tmp_path: Path) -> None:
    files = files_of()
    without = {name: content for name, content in files.items() if name != "train/labels/street_1.png"}
    refused(
        write_files(tmp_path / "a", without),
        r"image train/images/street_1\.png has no label map train/labels/street_1\.png; add it",
    )
    without = {name: content for name, content in files.items() if name != "train/images/street_1.png"}
    refused(write_files(tmp_path / "b", without), r"label map train/labels/street_1\.png has no image; add the image")
    files["train/labels/street_1_L.png"] = files["train/labels/street_1.png"]
    refused(write_files(tmp_path / "c", files), r"street_1\.png and train/labels/street_1_L\.png belong to one image")


def test_a_naming_file_that_does_not_fit(tmp_path: Path) -> None:
    files = files_of("images", "labels")
    for number, (lines, match) in enumerate(
        {
            "street_0\nstreet_9\n": r"'street_9', which is named, has no image",
            "street_0\nstreet_0.png\n": r"line 2 of train\.txt is 'street_0\.png'; expected an image that no line",
            "a b c": r"line 1 of train\.txt is 'a b c'",
            "\n\n": r"train\.txt names no image",
        }.items()
    ):
        refused(write_files(tmp_path / str(number), files | {"train.txt": lines.encode()}), match)


def test_another_size_than_the_image_names_both_files(tmp_path: Path) -> None:
    source = write_files(tmp_path, files_of(maps=[png(MAPS[0]), png(MAPS[1].T.copy())]))
    refused(
        source,
        r"labels/street_1\.png has \(height, width\) \(7, 5\) but its image train/images/street_1\.png has \(5, 7\)",
    )


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    files = files_of()
    files["train/images/street_1.png"] = encoded(random_images(1, size=(6, 6))[0])
    files["train/labels/street_1.png"] = png(random_maps(1, size=(6, 6))[0])
    source = write_files(tmp_path, files)
    refused(
        source, r"street_1\.png has \(height, width\) \(6, 6\) but train/images/street_0\.png has \(5, 7\).*give size="
    )
    images, labels = load_maps("data", source, "train", FORM, size=(3, 4))
    assert images.shape == (2, 3, 3, 4) and labels.shape == (2, 3, 4)


def test_labels_are_resized_by_nearest_neighbour(tmp_path: Path) -> None:
    block = np.array([[0, 2], [2, 3]], dtype=np.uint8)  # 1 lies between 0 and 2
    fine = np.kron(block, np.ones((6, 8), dtype=np.uint8))
    pixels = np.kron(np.array([[0, 200], [100, 40]], dtype=np.uint8), np.ones((6, 8), dtype=np.uint8))
    files = {"train/images/a.png": encoded(np.stack([pixels] * 3)), "train/labels/a.png": png(fine)}
    images, labels = load_maps("data", write_files(tmp_path, files), "train", FORM, size=(2, 2))
    assert labels.tolist() == [[[0, 2], [2, VOID]]]
    for size in [(5, 3), (7, 9), (24, 32)]:
        images, labels = load_maps("data", tmp_path, "train", FORM, size=size)
        assert images.shape == (1, 3, *size) and labels.shape == (1, *size)
        assert set(labels.unique().tolist()) == {0, 2, VOID}
        expected = Image.fromarray(fine).resize((size[1], size[0]), Image.Resampling.NEAREST)
        assert np.array_equal(nearest(fine, size), np.asarray(expected))


def test_images_are_resized_with_antialiasing(tmp_path: Path) -> None:
    stripes = np.zeros((3, 8, 8), dtype=np.uint8)
    stripes[:, :, ::2] = 200
    files = {"train/images/a.png": encoded(stripes), "train/labels/a.png": png(np.zeros((8, 8), dtype=np.uint8))}
    images, _ = load_maps("data", write_files(tmp_path, files), "train", FORM, size=(2, 2))
    assert (images.int() - 100).abs().max() <= 20  # single columns would be 200 or 0


@pytest.mark.parametrize("kind", ["grey", "palette", "2 bits", "4 bits", "16 bits", "void 255"])
def test_index_maps(tmp_path: Path, kind: str) -> None:
    contents = {
        "grey": [png(each) for each in MAPS],
        "palette": [png(each, palette=[9, 9, 9, 0, 0, 0, 200, 1, 1, 7, 7, 7]) for each in MAPS],
        "2 bits": [packed_grey(each, 2) for each in MAPS],
        "4 bits": [packed_grey(each, 4) for each in MAPS],
        "16 bits": [png(each.astype(np.uint16)) for each in MAPS],
        "void 255": [png(each) for each in with_void(MAPS)],
    }
    check(write_files(tmp_path, files_of(maps=contents[kind])))


def test_classes_from_one_with_zero_for_none(tmp_path: Path) -> None:
    shifted = np.where(MAPS == 3, 0, MAPS + 1).astype(np.uint8)
    source = write_files(tmp_path, files_of(maps=[png(each) for each in shifted]))
    check(source, void=0)
    labels = load_maps("data", source, "train", FORM)[1]
    assert not np.array_equal(labels.numpy(), with_void(MAPS))  # what is kept of one convention is not the other's


@pytest.mark.parametrize("void", [-1, 258, 65535])
def test_number_for_no_class_that_a_byte_does_not_hold(tmp_path: Path, void: int) -> None:
    """258 is 2, a class, in what a byte has of it."""
    if void > 0:
        wide = np.where(MAPS == 3, np.uint16(void), MAPS.astype(np.uint16))
        check(write_files(tmp_path / "wide", files_of(maps=[png(each) for each in wide])), void=void)
    check(write_files(tmp_path / "bytes", files_of(maps=[png(each) for each in with_void(MAPS)])), void=void)
    assert to_classes("data", torch.tensor([0, 1, 2], dtype=torch.uint8), 3, void).tolist() == [0, 1, 2]


def test_maps_without_void_have_none(tmp_path: Path) -> None:
    form = replace(FORM, layouts=(Layout(*LAYOUTS[0], None),))
    maps = [png(each % 3) for each in MAPS]
    labels = load_maps("data", write_files(tmp_path / "whole", files_of(maps=maps)), "train", form)[1]
    assert np.array_equal(labels.numpy(), MAPS % 3)
    source = write_files(tmp_path / "holes", files_of(maps=[png(each) for each in with_void(MAPS)]))
    refused(source, r"values 255, the classes are 0 to 2; where that means no class, give it as void=", form)


def test_numbers_that_fit_classes_from_zero_and_from_one_are_refused_unless_one_is_said(tmp_path: Path) -> None:
    form = replace(FORM, layouts=(Layout(*LAYOUTS[0], 0),))
    source = write_files(tmp_path, files_of(maps=[png(each % 3) for each in MAPS]))
    refused(source, r"numbers 0 to at most 2, which Toys's 3 classes have numbered .* by void=255 or void=0", form)
    from_zero, from_one = (load_maps("data", source, "train", form, void=void)[1].numpy() for void in (255, 0))
    assert np.array_equal(from_zero, MAPS % 3)
    assert np.array_equal(from_one, (MAPS % 3).astype(np.uint8) - np.uint8(1))  # 0 − 1 is 255, which is VOID
    told = write_files(tmp_path / "told", files_of(maps=[png(each) for each in MAPS]))  # 3 is a class from 1 only
    assert np.array_equal(load_maps("data", told, "train", form)[1].numpy(), MAPS - np.uint8(1))


def test_colour_maps(tmp_path: Path) -> None:
    colours = np.array(list(FORM.colours), dtype=np.uint8)[MAPS]
    check(write_files(tmp_path / "rgb", files_of(maps=[png(each) for each in colours])))
    opaque = np.concatenate([colours, np.full((*colours.shape[:3], 1), 255, dtype=np.uint8)], axis=3)
    check(write_files(tmp_path / "rgba", files_of(maps=[png(each) for each in opaque])))


def test_an_unknown_colour_is_counted_and_named(tmp_path: Path) -> None:
    colours = np.array(list(FORM.colours), dtype=np.uint8)[MAPS]
    colours[1, 2, 3:5] = 7, 8, 9
    source = write_files(tmp_path, files_of(maps=[png(each) for each in colours]))
    refused(source, r"labels/street_1\.png has the colour \(7, 8, 9\) in 2 pixels, none of Toys's 4 label colours")
    _, labels = load_maps("data", source, "train", replace(FORM, stray=0.1))
    assert labels[1, 2, 3:5].tolist() == [VOID, VOID]
    assert (labels[0].numpy() == with_void(MAPS)[0]).all()


def test_a_palette_that_numbers_label_colours_by_chance_is_refused(tmp_path: Path) -> None:
    own = [value for colour in FORM.colours for value in colour]
    check(write_files(tmp_path / "own", files_of(maps=[png(each, palette=own) for each in MAPS])))
    chance = own[3:6] + own[:3] + own[6:]
    source = write_files(tmp_path / "chance", files_of(maps=[png(each, palette=chance) for each in MAPS]))
    refused(source, r"street_0\.png has a palette of Toys's label colours, but numbers them otherwise; save it as RGB")


def test_label_files_that_hold_no_classes(tmp_path: Path) -> None:
    good = png(MAPS[0])
    too_high = np.where(MAPS[1] == 1, 9, MAPS[1]).astype(np.uint8)
    colours = np.zeros((*SIZE, 3), dtype=np.uint8)
    cases = [
        (
            FORM,
            png(too_high),
            r"labels/street_1\.png: label maps have the values 9, the classes are 0 to 2; correct it",
        ),
        (FORM, good[:60], r"labels/street_1\.png cannot be decoded"),
        (FORM, encoded(IMAGES[1], "JPEG"), r"labels/street_1\.png cannot be decoded \(it is no PNG\)"),
        (
            replace(FORM, colours={}),
            png(colours),
            r"labels/street_1\.png has pixels of Pillow's mode 'RGB', expected one",
        ),
        (FORM, encoded(IMAGES[1], mode="LA"), r"labels/street_1\.png has pixels of Pillow's mode 'LA'"),
    ]
    for number, (form, content, match) in enumerate(cases):
        refused(write_files(tmp_path / str(number), files_of(maps=[good, content])), match, form)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    files = files_of()
    files["train/images/street_1.png"] = files["train/images/street_1.png"][:50]
    refused(write_files(tmp_path, files), r"train/images/street_1\.png cannot be decoded")


def test_sources_that_hold_no_such_split(tmp_path: Path) -> None:
    refused(tmp_path / "absent", r"does not exist; give a folder or an archive of Toys")
    refused(
        write_files(tmp_path / "a", files_of("test", "testannot")),
        r"train split; expected the folders train/images with",
    )
    refused(
        write_tar(tmp_path / "b.tar", {"readme.txt": b"nothing"}), r"no images with label maps of Toys's train split"
    )
    (tmp_path / "c.tar").write_bytes(b"no archive at all")
    refused(tmp_path / "c.tar", r"cannot be read as a tar archive")
    with pytest.raises(InvalidInputError, match=r"^split='dev' is unknown; choose one of: test, train"):
        load_maps("data", tmp_path, "dev", FORM)


@pytest.mark.parametrize("size", [(0, 4), (4,), (4.0, 4)])
def test_a_size_is_two_whole_numbers(tmp_path: Path, size: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^size=.*expected \(height, width\)"):
        load_maps("data", tmp_path, "train", FORM, size=size)


@pytest.mark.parametrize("void", [1, 2])
def test_a_void_that_is_a_class_is_refused_before_anything_is_read(tmp_path: Path, void: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"^data: void={void} is one of the classes 0 to 2"):
        load_maps("data", tmp_path, "train", FORM, void=void)


def test_what_was_decoded_is_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, archive = write_files(tmp_path / "toys", files_of()), write_tar(tmp_path / "toys.tar", {**files_of()})
    check(folder)
    check(archive)
    with monkeypatch.context() as patch:
        patch.setattr(label_maps, "decode_map", None)
        check(folder)
        check(archive)
    write_files(folder, {"train/labels/street_0.png": png(np.zeros(SIZE, dtype=np.uint8) + 2, palette=[0] * 9)})
    assert load_maps("data", folder, "train", FORM)[1][0].unique().tolist() == [2]


@pytest.mark.parametrize(
    ("void", "dtypes", "stored", "expected"),
    [
        (3, ["uint8", "int16", "uint16", "int64"], [0, 1, 2, 3], [0, 1, 2, VOID]),
        (255, ["uint8", "uint16", "int32"], [0, 1, 2, 255], [0, 1, 2, VOID]),
        (0, ["uint8", "int8", "uint16", "int64"], [0, 1, 2, 3], [VOID, 0, 1, 2]),
        (-1, ["int8", "int16", "int64"], [0, 1, 2, -1], [0, 1, 2, VOID]),
        (None, ["uint8", "uint16", "int64"], [0, 1, 2, 2], [0, 1, 2, 2]),
    ],
)
def test_every_convention_of_no_class(
    void: int | None, dtypes: list[str], stored: list[int], expected: list[int]
) -> None:
    for dtype in dtypes:
        made = to_classes("data", torch.from_numpy(np.array([stored], dtype=dtype)), 3, void)
        assert made.dtype == torch.uint8
        assert made.tolist() == [expected]
