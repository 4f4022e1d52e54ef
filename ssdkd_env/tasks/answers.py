"""What is said of networks and functions of the user's own that do not answer as a task needs it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ssdkd_env.errors import InvalidInputError, one_line

#: What networks raise on inputs that they cannot take: PyTorch's layers, and assertions such as timm's.
PASS_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


def failed_pass(network: str, inputs: str, error: Exception) -> InvalidInputError:
    """What to say of a network that raised an error on inputs that it should take.

    Args:
        network: the user's argument and its value.
        inputs: in words.
        error: what it raised.
    """
    message = one_line(error)
    if message.startswith("view size is not compatible"):
        return InvalidInputError(
            f"{network} calls .view on feature maps, which lie channels last here and then have no such view; call "
            ".flatten(1) or .reshape in its forward"
        )
    return InvalidInputError(f"{network} cannot take {inputs}: {message}")


def pair_of_tensors(field: str, found: Any) -> tuple[Tensor, Tensor]:
    """Images and labels, as a function of a task's has given them.

    Args:
        field: of the task, which holds the function.
        found: what it has returned.

    Raises:
        InvalidInputError: when that is no pair of tensors.
    """
    if isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(part, Tensor) for part in found):
        return found[0], found[1]
    raise InvalidInputError(
        f"{field} of the task gives a {type(found).__name__}, expected two tensors: images and labels"
    )
