"""Work that is logged to a file tells how far it is, in lines."""

from __future__ import annotations

import io
import sys
import time
from contextlib import suppress

import pytest
from ssdkd_agents.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_a_line_now_and_then_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress(400, "episode", initial=10) as bar:
        for step in range(150):
            now += 1.0
            bar.update(1)
            bar.set_postfix({"best": step}, refresh=False)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" after")[0] for line in lines] == [
        "70/400 episodes",
        "130/400 episodes",
        "160/400 episodes",
    ]
    assert lines[0] == "70/400 episodes after 01:00, 05:30 left, best 58"
    assert "\r" not in "".join(lines)


def test_a_log_of_work_that_fails_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(RuntimeError), progress(4, "step") as bar:
        bar.update(3)
        raise RuntimeError
    assert capsys.readouterr().err.startswith("3/4 steps after 00:00")


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(2, "step") as bar:
        bar.update(2)
    assert "\r" in terminal.getvalue() and "2/2" in terminal.getvalue()


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_nothing_is_shown_where_nothing_is_wanted(stderr: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = stderr()
    monkeypatch.setattr(sys, "stderr", shown)
    with progress(2, "step", shown=False) as bar:
        bar.update(2)
        bar.set_postfix({"a": 1}, refresh=False)
    assert shown.getvalue() == ""
