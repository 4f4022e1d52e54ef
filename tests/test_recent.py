"""What is kept to be used again."""

from __future__ import annotations

import pytest

from ssdkd_env.recent import Recent


class Thing:
    """A thing of a name."""

    def __init__(self, name: str) -> None:
        self.name = name


def made(recent: Recent[str, Thing], names: str) -> str:
    """The names of those that had to be made, when each is asked for in turn."""
    new: list[str] = []

    def make(name: str) -> Thing:
        new.append(name)
        return Thing(name)

    for name in names:
        assert recent.get(name, lambda name=name: make(name)).name == name  # type: ignore[misc]
    return "".join(new)


def test_the_last_ones_are_kept() -> None:
    recent: Recent[str, Thing] = Recent(2)
    assert made(recent, "abab") == "ab"
    assert made(recent, "c") == "c"
    assert made(recent, "bc") == ""
    assert made(recent, "a") == "a"
    assert len(recent) == 2


def test_asking_for_one_makes_it_the_last() -> None:
    recent: Recent[str, Thing] = Recent(2)
    assert made(recent, "abac") == "abc"
    assert made(recent, "a") == ""
    assert made(recent, "b") == "b"


def test_what_is_held_is_found_however_long_ago_it_was_asked_for() -> None:
    recent: Recent[str, Thing] = Recent(1)
    held = recent.get("a", lambda: Thing("a"))
    assert made(recent, "bcd") == "bcd"
    assert len(recent) == 2
    assert recent.get("a", lambda: Thing("another")) is held
    del held
    assert made(recent, "b") == "b"
    assert len(recent) == 1


def test_what_could_not_be_made_is_not_kept() -> None:
    recent: Recent[str, Thing] = Recent(1)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: Thing(str(1 / 0)))
    assert len(recent) == 0
    assert made(recent, "a") == "a"
