"""What a teacher's inputs were normalised with: (image − mean) / std, for each channel of images in [0, 1]."""

from __future__ import annotations

from typing import Any

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.settings import is_finite_number, plain

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
