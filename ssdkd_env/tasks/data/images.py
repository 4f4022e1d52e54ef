"""Decoding images, and bringing them to the number of channels that a task wants."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssdkd_env.errors import InvalidInputError, one_line
from ssdkd_env.extras import load_extra
from ssdkd_env.reading import START, check_no_stand_in

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

#: What the names of image files end with, in small letters.
IMAGE_SUFFIXES = (*(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp"), *(".ppm", ".pgm", ".tif", ".tiff"))
#: Endings of images that are not read: left out in silence, they would be missing from a class.
UNREAD_SUFFIXES = (
    *(".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".tga", ".svg", ".npy", ".raw", ".dng"),
    *(".dcm", ".nii", ".nii.gz", ".exr", ".ico", ".mat"),
)
#: Pillow's names of the formats that are read, whatever a file's name ends with.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")
#: Pillow's mode for a number of channels.
_MODES = {1: "L", 3: "RGB"}
#: Pillow's modes with at most 8 bits a channel; the others would be clipped in silence.
_EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
#: Weights of red, green and blue in grey (ITU-R 601-2), in units of 2**-16, as Pillow rounds them.
_LUMA = (19595, 38470, 7471)
#: Bytes of an image's file, and pixels of an image, beyond which it is none of a data set that is learnt from: cameras
#: have 12 to 24 megapixels.
MOST_IMAGE, MOST_PIXELS = 128 * 2**20, 2**25
#: Bytes that a data set may always be decoded to, and how many times those of its files or archive.
_SURELY_FINE, _MOST_RATIO = 256 * 2**20, 100
#: Images that are turned grey at a time, because the sums need four bytes a channel.
_GREY_CHUNK = 4096

Pixels = npt.NDArray[np.uint8]
#: Height and width in pixels, or None for those of the files.
Size = tuple[int, int] | None


class ImageStack:
    """Images of one size, decoded one after the other, each into its place.

    Args:
        where: the user's argument and its value, for error messages.
        count: number of images.
        channels: 1 (grey) or 3 (RGB).
        packed: bytes of their files, or of the archive that holds them; infinite where they are not known.
        size: (height, width) that they must have; None for that of the first.

    Raises:
        InvalidInputError: for another number of channels.
    """

    def __init__(self, where: str, count: int, channels: int, packed: float, size: Size = None) -> None:
        if channels not in _MODES:
            raise InvalidInputError(
                f"{where}: image files give 1 or 3 channels, not {channels}; give an .npz with images "
                f"(N, {channels}, H, W)"
            )
        self._where = where
        self._shape = count, channels
        self._packed = packed
        self._size = size
        self._first = "an image of the task"
        self.images = torch.empty(0, dtype=torch.uint8)

    def decode(self, index: int, name: str, content: bytes) -> None:
        """Put an image file, given as its bytes, into its place.

        Raises:
            InvalidInputError: naming the file, when it cannot be decoded or differs in size from the others.
        """
        with opened(self._where, name, content) as image:
            self.put(index, name, image)

    def put(self, index: int, name: str, image: PillowImage) -> None:
        """Put an image that Pillow has opened into its place.

        Raises:
            InvalidInputError: naming the image, when it differs in size from the others or has over 8 bits a channel.
        """
        size = image.size[1], image.size[0]
        if self._size is None:
            self._size, self._first = size, name
        if size != self._size:
            raise InvalidInputError(
                f"{self._where}: {name} is {size[1]}×{size[0]} but {self._first} is {self._size[1]}×{self._size[0]}; "
                "bring all images to one size"
            )
        if not len(self.images):
            check_decoded(self._where, math.prod(self._shape) * math.prod(size), self._packed)
            self.images = torch.empty(*self._shape, *size, dtype=torch.uint8)
        self.images.numpy()[index] = pixels_of(self._where, name, image, self._shape[1])


@contextmanager
def opened(where: str, name: str, content: bytes, formats: tuple[str, ...] = _FORMATS) -> Iterator[PillowImage]:
    """An image file, given as its bytes; what is wrong with it while it is open is one line that names it.

    Raises:
        InvalidInputError: when it is in none of these formats, damaged, or of more than `MOST_PIXELS`.
    """
    pillow = load_extra("PIL.Image", where)
    check_no_stand_in(f"{where}: {name}", content[:START])
    try:
        with pillow.open(io.BytesIO(content), formats=formats) as image:
            if math.prod(image.size) > MOST_PIXELS:
                raise InvalidInputError(
                    f"{where}: {name} has {image.size[0]}×{image.size[1]} pixels, at most {MOST_PIXELS:,} are read; "
                    "shrink it"
                )
            yield image
    except InvalidInputError:
        raise
    except Exception as error:  # of a damaged file Pillow raises OSError, SyntaxError, ValueError and others
        unknown = isinstance(error, pillow.UnidentifiedImageError)
        reason = f"it is no {', '.join(formats)}" if unknown else one_line(error)
        raise InvalidInputError(
            f"{where}: {name} cannot be decoded ({reason}); was it cut short? put a whole file in its place"
        ) from error


def pixels_of(where: str, name: str, image: PillowImage, channels: int, size: Size = None) -> Pixels:
    """The pixels (channels, H, W) uint8 of an image; palettes are resolved and transparency is dropped.

    Args:
        where: the user's argument and its value, for error messages.
        name: of the image, likewise.
        image: that Pillow has opened.
        channels: 1 (grey) or 3 (RGB).
        size: (height, width) to which it is brought by an antialiased bilinear filter; None leaves it.

    Raises:
        InvalidInputError: when it has over 8 bits a channel.
    """
    if image.mode not in _EIGHT_BIT:
        raise InvalidInputError(
            f"{where}: {name} has pixels of Pillow's mode {image.mode!r}; save it with 8 bits a channel"
        )
    if "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    if size is not None:
        image = image.resize((size[1], size[0]), load_extra("PIL.Image", where).Resampling.BILINEAR)
    return np.asarray(image).reshape(image.size[1], image.size[0], channels).transpose(2, 0, 1)


def check_decoded(where: str, decoded: int, packed: float) -> None:
    """Refuse images that take far more memory than files of theirs can mean.

    Raises:
        InvalidInputError: when they take more than 256 MiB and a hundred times their files.
    """
    if decoded > max(_SURELY_FINE, _MOST_RATIO * packed):
        raise InvalidInputError(
            f"{where}: the images decode from {packed:,} to {decoded:,} bytes, more than a data set's; shrink them"
        )


def to_channels(where: str, images: Tensor, channels: int) -> Tensor:
    """Images (N, C, H, W) or (N, H, W, C) uint8 → (N, channels, H, W): grey is repeated, RGB is weighed into grey.

    Raises:
        InvalidInputError: when the images have neither `channels` nor 1 nor 3 channels.
    """
    known = {channels, 1, 3}
    if images.shape[1] not in known and images.shape[3] in known:
        images = images.permute(0, 3, 1, 2).contiguous()
    given = images.shape[1]
    if given == channels:
        return images
    if given == 1:
        return images.repeat(1, channels, 1, 1)
    if given == 3 and channels == 1:
        return torch.cat([_to_grey(chunk) for chunk in images.split(_GREY_CHUNK)])
    raise InvalidInputError(
        f"{where}: images {tuple(images.shape)} have {given} channels, {channels} are needed; convert them"
    )


def _to_grey(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, dtype=torch.int32).view(1, 3, 1, 1)
    return (((images.int() * weights).sum(dim=1, keepdim=True) + (1 << 15)) >> 16).to(torch.uint8)
