"""CamVid in the forms in which people have it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data.camvid import CAMVID_CLASSES, CAMVID_COLOURS, load_camvid
from ssdkd_env.tasks.void import VOID
from tests.tasks.data_forms import Files, encoded, random_images, write_files
from tests.tasks.test_label_maps import png

DATA = Path(os.environ.get("SSDKD_DATA") or Path(__file__).parents[3] / "shared" / "data")
#: Twelve names of the originals: one of the training drives, one to validate on, two to test on.
NAMES = {
    "train": ("0001TP_008520", "0006R0_f00930"),
    "val": ("0016E5_07959",),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}
SIZE = (6, 8)


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))


def segnet_files() -> Files:
    """SegNet's folders and lists, with every class and void in each map."""
    files = {}
    for split, names in NAMES.items():
        lines = []
        for seed, name in enumerate(names):
            files[f"{split}/{name}.png"] = encoded(random_images(1, seed, size=SIZE)[0])
            files[f"{split}annot/{name}.png"] = png(np.arange(48, dtype=np.uint8).reshape(SIZE) % 12)
            lines.append(f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n")
        files[f"{split}.txt"] = "".join(lines).encode()
    return files


def test_the_eleven_classes() -> None:
    assert len(CAMVID_CLASSES) == 11
    assert (CAMVID_CLASSES[0], CAMVID_CLASSES[3], CAMVID_CLASSES[10]) == ("Sky", "Road", "Bicyclist")


def test_the_table_of_colours_is_whole() -> None:
    colours = [colour for colour, _ in CAMVID_COLOURS.values()]
    assert len(set(colours)) == len(CAMVID_COLOURS) == 32
    assert {value for colour in colours for value in colour} == {0, 64, 128, 192}
    parts = {part for _, part in CAMVID_COLOURS.values()}
    assert parts == {*CAMVID_CLASSES, ""}
    for name in ("Sky", "Building", "Road", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"):
        assert CAMVID_COLOURS[name][1] == name
    assert [name for name, (_, part) in CAMVID_COLOURS.items() if part == ""] == ["Void"]


@pytest.mark.parametrize("split", NAMES)
def test_segnets_folders(tmp_path: Path, split: str) -> None:
    images, labels = load_camvid("data", write_files(tmp_path / "CamVid", segnet_files()), split)
    assert images.shape == (len(NAMES[split]), 3, *SIZE)
    assert labels.dtype == torch.uint8
    assert labels[0].flatten()[:13].tolist() == [*range(11), VOID, 0]


def test_lists_beside_folders_that_do_not_name_the_split(tmp_path: Path) -> None:
    files = {}
    for name, content in segnet_files().items():
        folder, _, file = name.rpartition("/")
        files[f"{'labels' if folder.endswith('annot') else 'images'}/{file}" if folder else file] = content
    labels = load_camvid("data", write_files(tmp_path / "CamVid", files), "test")[1]
    assert len(labels) == 2


def test_the_original_label_images(tmp_path: Path) -> None:
    colours = np.array([colour for colour, _ in CAMVID_COLOURS.values()], dtype=np.uint8).reshape(4, 8, 3)
    files: Files = {"train.txt": b"0001TP_006690\n"}
    files["701_StillsRaw_full/0001TP_006690.png"] = encoded(random_images(1, size=(4, 8))[0])
    files["LabeledApproved_full/0001TP_006690_L.png"] = png(colours)
    labels = load_camvid("data", write_files(tmp_path, files), "train")[1]
    expected = [CAMVID_CLASSES.index(part) if part else VOID for _, part in CAMVID_COLOURS.values()]
    assert labels.flatten().tolist() == expected


def test_the_original_with_a_few_colours_of_no_class(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), dtype=np.uint8) + np.array([128, 64, 128], dtype=np.uint8)
    files: Files = {"train/a.png": encoded(random_images(1, size=(40, 40))[0])}
    pixels[3, 4] = 26, 26, 26  # as in Seq05VD_f02610_L.png
    labels = load_camvid("data", write_files(tmp_path, files | {"train_labels/a_L.png": png(pixels)}), "train")[1]
    assert labels[0, 3, 4] == VOID and (labels == 3).sum() == 1599
    pixels[3] = 26, 26, 26
    write_files(tmp_path, {"train_labels/a_L.png": png(pixels)})
    with pytest.raises(
        InvalidInputError, match=r"^data='.*a_L\.png has the colour \(26, 26, 26\) in 40 pixels, none of"
    ):
        load_camvid("data", tmp_path, "train")


def test_the_originals_without_lists_need_all_701_images(tmp_path: Path) -> None:
    files = {}
    for names in NAMES.values():
        for name in names:
            files[f"images/{name}.png"] = files[f"labels/{name}_L.png"] = b"not reached"
    write_files(tmp_path, files)
    for split, all_of_it in {"train": 367, "val": 101, "test": 233}.items():
        match = rf"^data='.*holds {len(NAMES[split])} of the {all_of_it} images that are officially {split}; add"
        with pytest.raises(InvalidInputError, match=match):
            load_camvid("data", tmp_path, split)


def test_a_class_that_camvid_has_not_is_refused(tmp_path: Path) -> None:
    files = segnet_files()
    files["valannot/0016E5_07959.png"] = png(np.full(SIZE, 12, dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=r"^data='.*valannot/0016E5_07959\.png: label maps have the values 12,"):
        load_camvid("data", write_files(tmp_path, files), "val")


def test_the_real_images_at_a_quarter(tmp_path: Path) -> None:
    source = DATA / "camvid-160x120.tar.xz"
    if not source.is_file():
        pytest.skip("no camvid-160x120.tar.xz in SSDKD_DATA, nor in ../shared/data beside the checkout")
    images, labels = load_camvid("data", source, "val")
    assert images.shape == (101, 3, 120, 160) and labels.shape == (101, 120, 160)
    shares = labels.flatten().bincount(minlength=256).double() / labels.numel()
    # Of SegNet's 101 maps at their own size; sampled by nearest neighbour they hardly change.
    full = torch.tensor([1601620, 4531180, 98499, 5053176, 1521751, 2851125, 155724, 537197, 304716, 113531, 387010])
    assert (shares[:11] - full / 17452800).abs().max() < 1e-3
    assert shares[VOID] == pytest.approx(297271 / 17452800, abs=1e-3)
    assert load_camvid("data", source, "val", size=(60, 80))[1].unique().tolist() == [*range(11), VOID]
