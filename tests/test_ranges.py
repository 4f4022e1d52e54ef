"""Ranges: seen by a running profiler, and nothing without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch.profiler import profile

import ssdkd_env
from ssdkd_env import ranges


def names_in(profiler: profile) -> list[str]:
    """Of our ranges, in the order in which they began."""
    events = [event for event in profiler.events() if event.name.startswith((ranges.PHASE, ranges.PART))]
    return [event.name for event in sorted(events, key=lambda event: event.time_range.start)]


@ranges.part("loss")
def square(number: int) -> int:
    """Of a whole number."""
    return number * number


@ranges.part("statistics")
def fourth_power(number: int) -> int:
    return square(square(number))


def test_a_profiler_sees_blocks_and_every_call() -> None:
    with profile() as profiler:
        with ranges.phase("training"):
            assert fourth_power(3) == 81
        with ranges.part("backward"):
            pass
    assert names_in(profiler) == ["ssdkd::training", "part::statistics", *["part::loss"] * 2, "part::backward"]
    assert square.__doc__ == "Of a whole number."


def test_a_range_ends_with_an_error_and_lets_it_through() -> None:
    held = ranges.phase("training")  # an object that is still there does not end by being forgotten
    with profile() as profiler:
        with pytest.raises(ZeroDivisionError), held:
            1 / 0  # noqa: B018
        with ranges.phase("logits"):
            pass
    assert names_in(profiler) == ["ssdkd::training", "ssdkd::logits"]
    first, second = (event for event in profiler.events() if event.name.startswith(ranges.PHASE))
    assert first.time_range.end <= second.time_range.start


def test_without_a_profiler_nothing_is_recorded_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "record_function", None)
    with ranges.waiting(lambda: pytest.fail("waited")), ranges.phase("training"):
        assert fourth_power(2) == 16


def test_ranges_wait_where_they_begin_and_end() -> None:
    waits: list[str] = []
    with profile(), ranges.waiting(lambda: waits.append("wait")):
        with ranges.phase("training"):
            waits.append("work")
        assert waits == ["wait", "work", "wait"]
    with profile(), ranges.phase("training"):
        pass
    assert len(waits) == 3, "the waiting ends with its block"


@pytest.mark.parametrize(("made", "names"), [("phase", ranges.PHASES), ("part", ranges.PARTS)])
def test_the_names_in_the_code_are_those_that_are_listed(made: str, names: tuple[str, ...]) -> None:
    root = Path(ssdkd_env.__file__).parent
    found = {
        name for path in root.rglob("*.py") for name in re.findall(rf'ranges\.{made}\("(\w+)"\)', path.read_text())
    }
    works = {"synthesis", "logits", "training"} if made == "phase" else set()
    assert found | works == set(names)
