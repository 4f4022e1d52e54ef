"""What a process keeps to use it again, in bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from ssdkd_env.threads import one_at_a_time

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


@one_at_a_time
class Recent(Generic[KeyT, ValueT]):
    """Things by key: those that were asked for last, and all that somebody still holds.

    The second because what is in memory anyway had better be found: runs are done together where their teachers are
    the same object, and that must not depend on what else the process has made.

    Args:
        size: how many of the last are kept though nobody holds them.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._last: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._held: WeakValueDictionary[KeyT, ValueT] = WeakValueDictionary()

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._held)

    def get(self, key: KeyT, make: Callable[[], ValueT]) -> ValueT:
        """The thing of a key; made where it is not in memory.

        Args:
            key: of the thing.
            make: makes it; what it raises is raised, and nothing is kept then.
        """
        value = self._held.get(key)
        if value is None:
            value = self._held[key] = make()
        self._last[key] = value
        self._last.move_to_end(key)
        if len(self._last) > self._size:
            self._last.popitem(last=False)
        return value
