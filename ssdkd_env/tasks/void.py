"""Pixels that belong to no class: one number for them inside, whatever the files say."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdkd_env.errors import InvalidInputError

#: Label of a pixel without a class. Label maps are uint8, so that no data set of maps takes eight bytes a pixel.
VOID = 255
#: Most classes that leave room for it.
MOST_CLASSES = 254
#: Values that an error names.
_MOST_NAMED = 6


def to_classes(argument: str, labels: Tensor, num_classes: int, void: int | None) -> Tensor:
    """Label maps as they come → classes 0 to `num_classes` − 1, and `VOID`.

    Args:
        argument: name of the user's argument, for error messages.
        labels: of pixels, any shape, whole numbers of any type.
        num_classes: K.
        void: the number that the files have for no class, beyond the classes (11 with 11 classes, 255, −1). With 0 the
            classes are numbered from 1. None: every pixel has a class.

    Returns:
        The same shape, uint8.

    Raises:
        InvalidInputError: when labels are no whole numbers, lie outside the classes, or `void` is one of them.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InvalidInputError(f"{argument}: labels are {labels.dtype}, expected whole numbers, one class a pixel")
    if not 1 <= num_classes <= MOST_CLASSES:
        raise InvalidInputError(f"{argument}: {num_classes} classes; label maps have room for 1 to {MOST_CLASSES}")
    if void is not None and 0 < void < num_classes:
        raise InvalidInputError(
            f"{argument}: void={void} is one of the classes 0 to {num_classes - 1}; give the number that pixels of "
            "no class have, such as 255, or 0 where classes are numbered from 1"
        )
    if labels.dtype in (torch.uint16, torch.uint32, torch.uint64):
        labels = labels.to(torch.int64)  # PyTorch does little with these
    first = 1 if void == 0 else 0
    numbers = torch.iinfo(labels.dtype)
    # PyTorch compares with a number that the type does not hold as if it were cut down to it: 300 as 44.
    occurs = void is not None and numbers.min <= void <= numbers.max
    is_class = labels != void if occurs else torch.ones_like(labels, dtype=torch.bool)
    classes = labels[is_class]
    beyond = classes[(classes < first) | (classes >= first + num_classes)].unique().tolist()
    if beyond:
        shown = ", ".join(map(str, beyond[:_MOST_NAMED])) + (", …" if len(beyond) > _MOST_NAMED else "")
        remedy = "" if void is not None else "; where that means no class, give it as void="
        raise InvalidInputError(
            f"{argument}: label maps have the values {shown}, the classes are {first} to {first + num_classes - 1}"
            + remedy
        )
    made = torch.full(labels.shape, VOID, dtype=torch.uint8, device=labels.device)
    made[is_class] = (classes - first).to(torch.uint8)
    return made
