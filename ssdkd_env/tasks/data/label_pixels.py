"""From the pixels of a PNG file, numbers or colours, to classes."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import torch

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data.images import opened
from ssdkd_env.tasks.data.map_forms import MapForm
from ssdkd_env.tasks.void import VOID, to_classes

#: What the pixels of a label map are in Pillow's modes.
_INDICES, _COLOURS = {"L", "P", "I", "I;16", "I;16B"}, {"RGB", "RGBA"}
#: Stands in a table of colours for those that it lacks: no class, as there are at most 254, and not `VOID`.
_UNKNOWN = 254
#: Where a PNG file says how many bits a pixel's number has.
_PNG_DEPTH = 24
#: Pixels of a label map that are turned into classes at a time.
_MOST_ROWS = 2**20


def decode_map(where: str, name: str, content: bytes, form: MapForm, void: int | None) -> npt.NDArray[np.uint8]:
    """A label map out of a PNG file.

    Args:
        where: the user's argument and its value, for error messages.
        name: of the file, likewise.
        content: of the file.
        form: of the data set.
        void: the number that index maps have for no class, as in `to_classes`.

    Returns:
        Classes or `VOID`, (H, W) uint8.

    Raises:
        InvalidInputError: when it is damaged, or has numbers or colours that are no classes.
    """
    with opened(where, name, content, ("PNG",)) as image:
        pixels, mode = np.array(image), image.mode
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3) if mode == "P" else None
    if mode in _COLOURS and form.colours:
        return _of_colours(where, name, pixels[..., :3], form)
    if mode not in _INDICES:
        raise InvalidInputError(
            f"{where}: {name} has pixels of Pillow's mode {mode!r}, expected one class number a pixel; save it as a "
            "PNG of 8-bit grey"
        )
    if mode == "L" and (apart := _greys_apart(content)) > 1:
        pixels //= apart
    if void and pixels.dtype == np.uint8:  # 255 is no class, whatever else means none
        if 0 < void <= VOID:
            pixels[pixels == VOID] = void
        else:
            void = VOID  # which a byte holds
    try:
        # A few rows at a time: of a photograph's 25 megapixels it would take hundreds of megabytes.
        rows = torch.from_numpy(pixels).tensor_split(-(-pixels.size // _MOST_ROWS))
        classes = np.concatenate([to_classes(f"{where}: {name}", part, form.num_classes, void) for part in rows])
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}; correct it, or give the number that means no class as void=") from error
    if palette is not None and form.colours:
        # A program that makes a palette of its own for a map in colour numbers the colours by chance.
        used, first = np.unique(pixels, return_index=True)
        colours = [(red, green, blue) for red, green, blue in palette[used].tolist()]
        shown = [form.colours.get(colour) for colour in colours]
        if len(set(colours)) > 1 and None not in shown and shown != classes.flat[first].tolist():
            raise InvalidInputError(
                f"{where}: {name} has a palette of {form.name}'s label colours, but numbers them otherwise; save it "
                "as RGB, or as grey class numbers"
            )
    return classes


def _greys_apart(content: bytes) -> int:
    """What Pillow multiplies the numbers of a grey PNG of 2 or 4 bits with, so that the largest one is white."""
    depth = content[_PNG_DEPTH]
    return VOID // (2**depth - 1) if depth < 8 else 1


def _of_colours(where: str, name: str, pixels: npt.NDArray[np.uint8], form: MapForm) -> npt.NDArray[np.uint8]:
    codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    classes = _colour_table(tuple(form.colours.items()))[codes]
    unknown = codes[classes == _UNKNOWN]
    if len(unknown) > form.stray * codes.size:
        first = int(unknown[0])
        raise InvalidInputError(
            f"{where}: {name} has the colour {(first >> 16, first >> 8 & 255, first & 255)} in "
            f"{int((unknown == first).sum())} pixels, none of {form.name}'s {len(form.colours)} label colours; was it "
            "resized by other than nearest neighbour? put the original in its place"
        )
    classes[classes == _UNKNOWN] = VOID
    return classes


@functools.lru_cache(maxsize=2)
def _colour_table(colours: tuple[tuple[tuple[int, int, int], int], ...]) -> npt.NDArray[np.uint8]:
    """Class of every colour red·2¹⁶ + green·2⁸ + blue, in 16 MiB."""
    table = np.full(1 << 24, _UNKNOWN, dtype=np.uint8)
    for (red, green, blue), label in colours:
        table[red << 16 | green << 8 | blue] = label
    return table
