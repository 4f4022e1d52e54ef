"""A bar for what takes a while below every command: for people, not for logs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

ItemT = TypeVar("ItemT")


def shown(items: Iterable[ItemT], what: str, unit: str, total: int | None = None) -> Iterable[ItemT]:
    """The items, with a bar on stderr that goes when they have; none where stderr is no terminal.

    Args:
        items: whatever is gone through.
        what: is done with them.
        unit: one of them, in the singular.
        total: how many there are, where they cannot say.
    """
    return tqdm(items, what, total, leave=False, disable=None, unit=unit)
