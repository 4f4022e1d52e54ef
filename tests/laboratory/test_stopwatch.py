"""A second belongs to the innermost label, and all labels together are the whole time."""

from __future__ import annotations

import pytest
from laboratory.stopwatch import OTHER, REST, Label, Stopwatch


class Clock:
    """Shows what it is told, and counts how often it was waited for."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, 0

    def __call__(self) -> float:
        return self.now

    def wait(self) -> None:
        self.waits += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_second_belongs_to_the_innermost_label(clock: Clock) -> None:
    watch = Stopwatch(clock=clock)
    with watch.running():
        clock.now += 1
        watch.enter("synthesis", None)
        clock.now += 2
        watch.enter(None, "teacher")
        clock.now += 4
        watch.enter("answers", "student")
        clock.now += 8
        watch.leave()
        clock.now += 16
        watch.leave()
        clock.now += 32
        watch.leave()
        clock.now += 64
    assert watch.seconds == {
        REST: 1 + 64,
        Label("synthesis", OTHER): 2 + 32,
        Label("synthesis", "teacher"): 4 + 16,
        Label("answers", "student"): 8,
    }
    assert watch.wall == sum(watch.seconds.values()) == 127


def test_calls_are_counted_and_the_same_label_once_more_goes_on_with_it(clock: Clock) -> None:
    watch = Stopwatch(clock=clock)
    with watch.running():
        for _ in range(3):
            watch.enter("synthesis", "optimiser")
            clock.now += 1
            watch.enter(None, "optimiser")
            clock.now += 1
            watch.leave()
            watch.leave()
    assert watch.calls == {Label("synthesis", "optimiser"): 3}
    assert watch.seconds[Label("synthesis", "optimiser")] == 6


def test_an_error_inside_is_counted_too(clock: Clock) -> None:
    watch = Stopwatch(clock=clock)

    def fail() -> None:
        clock.now += 3
        raise KeyError

    with pytest.raises(KeyError), watch.running():
        fail()
    assert watch.seconds == {REST: 3.0} and watch.wall == 3.0


def test_the_device_is_waited_for_at_every_border(clock: Clock) -> None:
    watch = Stopwatch(clock.wait, clock)
    with watch.running():
        watch.enter("synthesis", None)
        watch.enter(None, "teacher")
        watch.leave()
        watch.leave()
    assert clock.waits == 6  # beginning, four borders, end


def test_a_label_reads_as_phase_and_part() -> None:
    assert str(Label("synthesis", "teacher")) == "synthesis: teacher"
    assert str(Label("buffer", OTHER)) == "buffer"
