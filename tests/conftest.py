"""Settings of the whole suite: one thread, property-based tests that repeat exactly, and which tests are slow.

`make test` leaves out the tests of `slow.txt`, `make test-all` has all. `pytest -n 2 --list-slow 0.35` writes the list
anew: the tests that took at least so many seconds. A test that nobody has timed yet counts as fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from ssdkd_env import registry
from ssdkd_env.threads import alone

torch.set_num_threads(1)

settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("suite")

SLOW = Path(__file__).with_name("slow.txt")


@pytest.fixture(autouse=True)
def named_in_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules and data sets that a test names as a user would are not named in the next one."""
    monkeypatch.setattr(registry, "_trusted", set(registry._trusted))


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything in float64, where two right implementations agree to many digits."""
    with alone():  # which puts the default away that it finds
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-slow", type=float, metavar="SECONDS", help=f"write tests that take longer to {SLOW.name}")


def pytest_configure(config: pytest.Config) -> None:
    seconds = config.getoption("--list-slow")
    if seconds is not None and not hasattr(config, "workerinput"):  # the process that hears of all tests
        config.pluginmanager.register(SlowList(seconds))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = set(SLOW.read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in slow:
            item.add_marker("slow")


class SlowList:
    """Adds up each test's seconds, and writes down those that are slow."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        slow = sorted(name for name, seconds in self._seconds.items() if seconds >= self._least)
        SLOW.write_text("".join(f"{name}\n" for name in slow), encoding="utf-8")
