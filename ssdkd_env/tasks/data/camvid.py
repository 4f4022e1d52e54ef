"""CamVid: 701 street scenes of five drives, with label maps (Brostow, Fauqueur & Cipolla 2009)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssdkd_env.tasks.data.images import Size
from ssdkd_env.tasks.data.label_maps import load_maps
from ssdkd_env.tasks.data.map_forms import Layout, MapForm
from ssdkd_env.tasks.task import LabelledImages
from ssdkd_env.tasks.void import VOID

#: The classes of SegNet (Badrinarayanan, Kendall & Cipolla 2017), by number.
CAMVID_CLASSES = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
)
#: The number that SegNet's index maps have for no class.
_UNLABELLED = 11
#: Original class → its colour in the label images (the data set's `label_colors.txt`) and the class that it is part of,
#: as published by MathWorks "following SegNet" and by others. SegNet's own index maps are not quite these.
CAMVID_COLOURS: Mapping[str, tuple[tuple[int, int, int], str]] = {
    "Animal": ((64, 128, 64), "Pedestrian"),
    "Archway": ((192, 0, 128), "Building"),
    "Bicyclist": ((0, 128, 192), "Bicyclist"),
    "Bridge": ((0, 128, 64), "Building"),
    "Building": ((128, 0, 0), "Building"),
    "Car": ((64, 0, 128), "Car"),
    "CartLuggagePram": ((64, 0, 192), "Pedestrian"),
    "Child": ((192, 128, 64), "Pedestrian"),
    "Column_Pole": ((192, 192, 128), "Pole"),
    "Fence": ((64, 64, 128), "Fence"),
    "LaneMkgsDriv": ((128, 0, 192), "Road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "Road"),
    "Misc_Text": ((128, 128, 64), "SignSymbol"),
    "MotorcycleScooter": ((192, 0, 192), "Bicyclist"),
    "OtherMoving": ((128, 64, 64), "Car"),
    "ParkingBlock": ((64, 192, 128), "Pavement"),
    "Pedestrian": ((64, 64, 0), "Pedestrian"),
    "Road": ((128, 64, 128), "Road"),
    "RoadShoulder": ((128, 128, 192), "Pavement"),
    "SUVPickupTruck": ((64, 128, 192), "Car"),
    "Sidewalk": ((0, 0, 192), "Pavement"),
    "SignSymbol": ((192, 128, 128), "SignSymbol"),
    "Sky": ((128, 128, 128), "Sky"),
    "TrafficCone": ((0, 0, 64), "Pole"),
    "TrafficLight": ((0, 64, 64), "SignSymbol"),
    "Train": ((192, 64, 128), "Car"),
    "Tree": ((128, 128, 0), "Tree"),
    "Truck_Bus": ((192, 128, 192), "Car"),
    "Tunnel": ((64, 0, 64), "Building"),
    "VegetationMisc": ((192, 192, 0), "Tree"),
    "Void": ((0, 0, 0), ""),
    "Wall": ((64, 192, 0), "Building"),
}


def load_camvid(
    argument: str, source: str | Path, split: str, size: Size = None, void: int | None = None
) -> LabelledImages:
    """Read one split of CamVid with its eleven classes; it is kept in the cache folder (see `load_split`).

    Label maps are PNGs of class numbers, 0 to 10, with 11 (SegNet's) or 255 for no class, or the original label images
    in 32 colours. The two forms differ in some parts (see `CAMVID_COLOURS`): compare scores within one of them. Of the
    originals one, Seq05VD_f02610_L.png, has pixels of other colours, which are void.

    Args:
        argument: name of the user's argument, for error messages.
        source: a folder, or a tar or zip archive of one, in which the split has one of

            - `{split}/images` and `{split}/labels`;
            - `{split}` and `{split}annot` (SegNet's), or `{split}_labels`;
            - `images` and `labels`, or `701_StillsRaw_full` and `LabeledApproved_full` (the originals), with a file
              `{split}.txt` of image names, as SegNet has it; without one, SegNet's division of the 701 images.

            A label map has its image's name, with `_L` behind it or not.
        split: "train" (367 images), "val" (101) or "test" (233).
        size: (height, width) to which images and label maps are resized; None leaves them (720×960 originally,
            360×480 from SegNet).
        void: the number that index maps have for no class, where it is another; 0 when classes are numbered from 1.

    Returns:
        Images (N, 3, H, W) uint8 and labels (N, H, W) uint8, classes or `VOID`.

    Raises:
        InvalidInputError: as `load_maps` does.
    """
    return load_maps(argument, source, split, _FORM, size, void)


def _official(split: str, names: Sequence[str]) -> list[str]:
    """SegNet's division: a drive and half of another to test on, a stretch of a third to validate on."""
    return [name for name in names if _split_of(name) == split]


def _split_of(name: str) -> str | None:
    drive, _, number = name.partition("_")
    frame = number.removeprefix("f")
    if not frame.isdecimal() or drive not in ("0001TP", "0006R0", "0016E5", "Seq05VD"):
        return None
    if drive == "Seq05VD" or (drive == "0001TP" and int(frame) >= 8550):
        return "test"
    return "val" if drive == "0016E5" and 7959 <= int(frame) <= 8159 else "train"


_NUMBERS = {name: label for label, name in enumerate(CAMVID_CLASSES)} | {"": VOID}
_FORM = MapForm(
    name="CamVid",
    num_classes=len(CAMVID_CLASSES),
    splits={"train": 367, "val": 101, "test": 233},
    layouts=tuple(
        Layout(images, labels, _UNLABELLED)
        for images, labels in (
            ("{split}/images", "{split}/labels"),
            ("{split}", "{split}annot"),
            ("{split}", "{split}_labels"),
            ("images", "labels"),
            ("701_StillsRaw_full", "LabeledApproved_full"),
        )
    ),
    colours={colour: _NUMBERS[part] for colour, part in CAMVID_COLOURS.values()},
    stray=1e-3,
    official=_official,
)
