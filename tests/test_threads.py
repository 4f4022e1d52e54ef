"""The lock around everything that computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Event, Thread, Timer

import pytest
import torch

from ssdkd_env.threads import alone, one_at_a_time


@pytest.fixture
def busy() -> Iterator[Event]:
    """Another thread computes until the event is set."""
    began, end = Event(), Event()

    def compute() -> None:
        with alone():
            began.set()
            end.wait(60)

    thread = Thread(target=compute)
    thread.start()
    assert began.wait(60)
    yield end
    end.set()
    thread.join()


@one_at_a_time
class Counter:
    """One that computes."""

    def __init__(self) -> None:
        self.count = 0

    def more(self) -> int:
        """One more."""
        self.count = self._next()
        return self.count

    @property
    def has_gradients(self) -> bool:
        """Whether it computes with gradients."""
        return torch.is_grad_enabled()

    def _next(self) -> int:
        return self.count + 1


def test_others_wait_until_it_is_done(busy: Event) -> None:
    counts: list[int] = []
    thread = Thread(target=lambda: counts.append(Counter().more()))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive() and not counts
    busy.set()
    thread.join(60)
    assert counts == [1]


def test_a_thread_that_computes_may_call_what_computes() -> None:
    with alone(), alone():
        assert Counter().more() == 1


def test_modes_are_put_away_once_by_whoever_begins() -> None:
    """So that a caller may hold it and set modes that a run obeys, and what computes may use its own."""
    with torch.no_grad():
        assert Counter().has_gradients
        with alone():
            assert torch.is_grad_enabled() and Counter().has_gradients
            with torch.no_grad():
                assert not Counter().has_gradients
        assert not torch.is_grad_enabled()
        with pytest.raises(ZeroDivisionError), alone():
            _ = 1 / 0
        assert Counter().has_gradients  # and again by the next one


def test_an_error_lets_the_next_one_compute() -> None:
    with pytest.raises(ZeroDivisionError), alone():
        _ = 1 / 0
    counts: list[int] = []
    thread = Thread(target=lambda: counts.append(Counter().more()))
    thread.start()
    thread.join(60)
    assert counts == [1]


def test_decorated_ones_keep_their_names_and_what_is_private_stays_as_it_is() -> None:
    assert Counter.more.__name__ == "more" and Counter.more.__doc__ == "One more."
    assert not hasattr(Counter._next, "__wrapped__")
    assert Counter.has_gradients.__doc__ == "Whether it computes with gradients."
    assert Counter.__name__ == "Counter"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_is_forked_between_computations_and_computes_itself(busy: Event) -> None:
    """A child that is forked in the middle would wait for ever for a thread that it does not have."""
    ender = Timer(0.2, busy.set)
    ender.start()
    child = os.fork()
    if child == 0:
        done: list[int] = []
        thread = Thread(target=lambda: done.append(Counter().more()))  # the forking thread must not hold it, either
        thread.daemon = True
        thread.start()
        thread.join(20)
        os._exit(0 if busy.is_set() and done == [1] and Counter().more() == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ender.join()
    assert Counter().more() == 1
