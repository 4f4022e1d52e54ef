"""What a task's images are: their size, and what a teacher's inputs were normalised with.

That is (image − mean) / std, for each channel of images in [0, 1].
"""

from __future__ import annotations

from typing import Any

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.settings import is_finite_number, is_whole, plain

#: Beyond it a number is of pixels from 0 to 255.
_MOST = 2.0


def check_normalization(argument: str, values: Any, channels: int) -> tuple[float, ...]:
    """A mean or a standard deviation, as floats.

    Args:
        argument: name of the user's argument, or of what a file has; one that ends in `std` is a standard deviation.
        values: a list, a tuple or an array.
        channels: how many the images have.

    Raises:
        InvalidInputError: when there is not one finite number a channel, a standard deviation is not above 0, or the
            numbers are of pixels from 0 to 255.
    """
    deviation = argument.endswith("std")
    values = plain(values)
    numbers = isinstance(values, list | tuple) and all(map(is_finite_number, values))
    if not numbers or len(values) != channels or (deviation and min(values) <= 0):
        expected = f"{channels} finite numbers{' above 0' if deviation else ''}, one a channel"
        raise InvalidInputError(f"{argument}={values!r}: expected {expected}")
    if max(map(abs, values)) > _MOST:
        raise InvalidInputError(
            f"{argument}={values!r}: expected numbers for images in [0, 1]; divide those of pixels from 0 to 255 by 255"
        )
    return tuple(float(value) for value in values)


def check_sizes(image_shape: Any, num_classes: Any, padding: Any) -> None:
    """Check the numbers that a task describes its images with.

    Args:
        image_shape: channels, height and width in pixels.
        num_classes: of the labels.
        padding: pixels by which augmentation shifts.

    Raises:
        InvalidInputError: when one is no whole number that can be meant: images have three sizes and one class at
            least, and are not shifted out of themselves.
    """
    shape = plain(image_shape)
    if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(is_whole(n) and n >= 1 for n in shape):
        raise InvalidInputError(
            f"image_shape={image_shape!r}: expected channels, height and width above 0, such as (3, 32, 32)"
        )
    classes, shift = plain(num_classes), plain(padding)
    if not is_whole(classes) or classes < 1:
        raise InvalidInputError(f"num_classes={num_classes!r}: expected a whole number of at least 1")
    most = min(shape[1:]) - 1
    if not is_whole(shift) or not 0 <= shift <= most:
        raise InvalidInputError(
            f"padding={padding!r}: expected a whole number of pixels from 0 to {most}, less than the images have"
        )
