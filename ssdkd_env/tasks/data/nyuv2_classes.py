"""Tables of NYU Depth v2: what its 894 names are in 40 and in 13 classes, and its official split.

All are the published ones, as `classMapping40.mat` (Gupta, Arbeláez & Malik 2013), `class13Mapping.mat` (Couprie et al.
2013) and `splits.mat` (Silberman et al. 2012) have them; three public copies of these files are alike byte by byte.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from ssdkd_env.tasks.void import VOID

#: Images of the labelled file.
NUM_IMAGES = 1449
#: The 13 classes, by number.
NYUV2_CLASSES = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects"),
    *("picture", "sofa", "table", "tv", "wall", "window"),
)
#: The 40 classes, by number; the last three take what has no class of its own.
NYUV2_CLASSES_40 = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door"),
    *("window", "bookshelf", "picture", "counter", "blinds", "desk", "shelves", "curtain"),
    *("dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "refridgerator"),
    *("television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand"),
    *("toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop"),
)
#: Some of the labelled file's names and their numbers, from 1: they show whether a file has the official numbering.
KNOWN_NAMES = {
    "wall": 21,
    "floor": 11,
    "chair": 5,
    "bed": 157,
    "window": 59,
    "ceiling": 4,
    "sofa": 83,
    "picture": 64,
    "table": 19,
    "books": 85,
    "television": 172,
}
NUM_NAMES = 894
#: SHA-256 of the published `splits.mat`.
SPLITS_DIGEST = "6e081404491a8bfba2f066beaa9713ef6046f9007aa5f799f2a350506a580cee"

#: Class of every name, 01 to 40, two digits each.
_TO_40 = (
    "4040032205401238404002394040264024400740014040343829400840404040384040144038404040153940304040394039384038403740"
    "3838094040384011384040404040404040404040404038134040064023403910164040404038404040404040404040384039404040403938"
    "4040404040401840401928334040404040404040403827364040404021402035404040404040404038404040043240403940394040404040"
    "1740402540394040404040404040394040404040404040404040404040404040404040394040404040404040403938384040394039403839"
    "3840404040404040404040394038404038384040404040404040404040404038404040404039404040404040404040404040404040394040"
    "4040404040404040404039404040384040394040384040404040404040404040394040404040404040404040404040404040314040404040"
    "4040384040383939404040404040404040384039404039404040384040404040404040383940404040404038404040404040404040404038"
    "3940404040404040394040404040403840404038403940404039394040404040404040404039404040404040404040404040393940403939"
    "4040404038404038393940394039384040404040404040404040394038403940404040403939404040404040393940403839394040404040"
    "4040404039394040404039404040404039404039404040404040404040404040404040393840404040404040393839403839403940394040"
    "4040404040403840404040403840403940404039403840404040404040403840404040404040404040404040404040393840403840403840"
    "4040404040404040394040404040404040404040404040404038404038404040404040404040404038383840404038404040383840404040"
    "4040404040404040404040404038404040404040404040404040403840383940404040404040404040404040404040404040404040404040"
    "4040404040394040404040404040404040404040404040404040404040404040404040404040404040394039404040403838404040384040"
    "4040404040404040404040403940403940403939404040404040404039393940404040394040404040404040394040404040394040404040"
    "404040404040404040384040404040404039404038403940404040384040404040384040404040404039404040404040404040394040"
)
#: Class, 1 to 13, of each of the 40.
_TO_13 = (
    *(12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5),
    *(7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7),
)
#: Bit i − 1 is set where image i, counted from 1, is of the test split.
_TEST = int(
    "1ff01e0f03fc1fe7f8001980f1c0fcf00060fe77ff0fc01ffe3c0073e0f8fff0f80fce67e3fff80c7fc701efeff8ffc000319806380700e0"
    "f07c001fe73c0070078e0700e00000000703f0e3fff00703e0f8007ffffffc000c03cf831fe0733e1f9f8c386183f001f187c03c07c07fff"
    "c70071c3ffdf80000001ff3e000ff07e0003c001c3f80000ffcc0007ff01ce03f801fc1c08002000000380fc3fffff8fdc00700013df0700"
    "00007f878007d8067fff813e103",
    16,
)


def class_table(num_classes: int) -> npt.NDArray[np.uint8]:
    """Class of every label of the labelled file, (895,) uint8; of label 0, which is no name, `VOID`.

    Args:
        num_classes: 40 or 13.
    """
    forty = np.array([int(_TO_40[2 * name : 2 * name + 2]) for name in range(NUM_NAMES)])
    classes = np.array(_TO_13)[forty - 1] if num_classes == 13 else forty
    return np.concatenate([[VOID], classes - 1]).astype(np.uint8)


@functools.cache
def official_split(split: str) -> tuple[int, ...]:
    """Numbers of the images of "train" (795) or "test" (654), from 1, ascending."""
    return tuple(image for image in range(1, NUM_IMAGES + 1) if bool(_TEST >> (image - 1) & 1) == (split == "test"))
