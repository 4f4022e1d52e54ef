"""Several threads of a process: one computes at a time, and the others wait.

Runs share what threads must not use at once: the layers of a teacher, on which hooks come and go; PyTorch's global
generators, which are seeded for initial weights and dropout and then put back; the tracing of networks, which replaces
`nn.Module.__call__` in the whole process; and what is kept of tasks. Hooks could be each run's own, the generators
could not: initialisers and dropout draw from no others. So there is one lock around everything that computes, and
whatever comes to be shared is behind it from its first day. Threads then give the same bits as one after the other, and
are not faster than that; on many cores runs belong into processes (`vectorization="process"`).

The lock is re-entrant, because an environment plays a run which asks a task, and because the grouped runs of one thread
hold it all at once. It is the process's own: no object holds it, so that none takes it along when it is pickled. Who
forks waits for it, so that no child begins with hooks on a teacher, and with a lock, of a thread that it does not have.

What is not behind it: draws that other code makes from PyTorch's global generators in another thread at that moment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import FunctionType
from typing import Any, TypeVar, cast

from ssdkd_env.modes import put_away

#: A function, or a class.
WhatT = TypeVar("WhatT", bound=Callable[..., Any])

_lock = threading.RLock()
#: How many times the thread that holds the lock has entered it.
_depth = 0
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@contextmanager
def alone() -> Iterator[None]:
    """Compute while no other thread does, whatever the calling thread has PyTorch do.

    Modes are put away once, by whoever begins: what computes inside may set its own, and so may a caller who has
    entered this himself, such as one who counts the operations of a run or compares two in float64.
    """
    global _depth
    with _lock, ExitStack() as modes:
        if not _depth:
            modes.enter_context(put_away())
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1


def one_at_a_time(what: WhatT) -> WhatT:
    """Decorate a function, or a class for its constructor and all its public methods and properties: `alone`."""
    if isinstance(what, type):
        for name, member in list(vars(what).items()):
            if name.startswith("_") and name != "__init__":
                continue
            if isinstance(member, FunctionType):
                setattr(what, name, one_at_a_time(member))
            elif isinstance(member, property) and member.fget is not None:
                setattr(what, name, member.getter(one_at_a_time(member.fget)))
        return what

    @wraps(what)
    def call(*args: Any, **kwargs: Any) -> Any:
        with alone():
            return what(*args, **kwargs)

    return cast(WhatT, call)
