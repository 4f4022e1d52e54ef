"""Decoding images, and bringing them to the number of channels that a task wants."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.extras import load_extra

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

#: What the names of image files end with, in small letters.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
#: Pillow's mode for a number of channels.
_MODES = {1: "L", 3: "RGB"}
#: Pillow's modes with at most 8 bits a channel; the others would be clipped in silence.
_EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
#: Weights of red, green and blue in grey (ITU-R 601-2), in units of 2**-16, as Pillow rounds them.
_LUMA = (19595, 38470, 7471)
#: Bytes of an image's file, and pixels of an image, beyond which it is none of a data set that is learnt from.
MOST_IMAGE, MOST_PIXELS = 256 * 2**20, 2**25
#: Images that are turned grey at a time, because the sums need four bytes a channel.
_GREY_CHUNK = 4096


class ImageList:
    """Images of one size, decoded one after the other.

    Args:
        where: the user's argument and its value, for error messages.
        channels: 1 (grey) or 3 (RGB).

    Raises:
        InvalidInputError: for another number of channels.
    """

    def __init__(self, where: str, channels: int) -> None:
        if channels not in _MODES:
            raise InvalidInputError(
                f"{where}: image files give 1 or 3 channels, not {channels}; give an .npz with images "
                f"(N, {channels}, H, W)"
            )
        self._where = where
        self._channels = channels
        self._pixels = bytearray()
        self._size = (0, 0)
        self.names: list[str] = []

    def decode(self, name: str, content: bytes) -> None:
        """Add a PNG or JPEG file, given as its bytes.

        Raises:
            InvalidInputError: naming the file, when it cannot be decoded or differs in size from the first one.
        """
        pillow = load_extra("PIL.Image", self._where)
        try:
            with pillow.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
                self.add(name, image)
        except InvalidInputError:
            raise
        except Exception as error:  # of a damaged file Pillow raises OSError, SyntaxError, ValueError and others
            unknown = isinstance(error, pillow.UnidentifiedImageError)
            reason = "it is neither PNG nor JPEG" if unknown else one_line(error)
            raise InvalidInputError(
                f"{self._where}: {name} cannot be decoded ({reason}); was it cut short? put a whole file in its place"
            ) from error

    def add(self, name: str, image: PillowImage) -> None:
        """Add an image that Pillow has opened; palettes are resolved and transparency is dropped.

        Raises:
            InvalidInputError: naming the image, when it differs in size from the first one or has over 8 bits.
        """
        check_pixels(f"{self._where}: {name}", image.size)
        if not self.names:
            self._size = image.size
        if image.size != self._size:
            raise InvalidInputError(
                f"{self._where}: {name} is {image.size[0]}×{image.size[1]} but {self.names[0]} is "
                f"{self._size[0]}×{self._size[1]}; bring all images to one size"
            )
        if image.mode not in _EIGHT_BIT:
            raise InvalidInputError(
                f"{self._where}: {name} has pixels of Pillow's mode {image.mode!r}; save it with 8 bits a channel"
            )
        if "transparency" in image.info:
            image = image.convert("RGBA")
        mode = _MODES[self._channels]
        self._pixels += (image if image.mode == mode else image.convert(mode)).tobytes()
        self.names.append(name)

    def stack(self) -> Tensor:
        """All images so far, (N, C, H, W) uint8."""
        width, height = self._size
        rows = np.frombuffer(self._pixels, dtype=np.uint8).reshape(-1, height, width, self._channels)
        return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))


def check_pixels(where: str, size: tuple[int, int]) -> None:
    """Refuse an image that would take a gigabyte, before it is decoded.

    Raises:
        InvalidInputError: when it has more than `MOST_PIXELS`.
    """
    if size[0] * size[1] > MOST_PIXELS:
        raise InvalidInputError(f"{where} has {size[0]}×{size[1]} pixels, at most {MOST_PIXELS:,} are read; shrink it")


def to_channels(where: str, images: Tensor, channels: int) -> Tensor:
    """Images (N, C, H, W) uint8 with `channels` channels: grey is repeated, RGB is weighed into grey.

    Raises:
        InvalidInputError: when the images have neither `channels` nor 1 nor 3 channels.
    """
    given = images.shape[1]
    if given == channels:
        return images
    if given == 1:
        return images.repeat(1, channels, 1, 1)
    if given == 3 and channels == 1:
        return torch.cat([_to_grey(chunk) for chunk in images.split(_GREY_CHUNK)])
    raise InvalidInputError(f"{where}: images have {given} channels, {channels} are needed; convert them")


def _to_grey(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, dtype=torch.int32).view(1, 3, 1, 1)
    return (((images.int() * weights).sum(dim=1, keepdim=True) + (1 << 15)) >> 16).to(torch.uint8)
