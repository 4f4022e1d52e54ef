"""An action goes down through the files of the package, and its results come back: no file calls one that waits."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from tests.envs.episodes import make, reset

OURS = "/ssdkd_env/"
#: Small functions in the middle of another, not a step on the way.
INNER = ("<lambda>", "<genexpr>", "<listcomp>", "<dictcomp>")


def is_room(frame: FrameType) -> bool:
    """Whether it is in a file of ours; what is opened around calls everywhere is no place on the way."""
    file = frame.f_code.co_filename
    return OURS in file and not file.endswith(("/ranges.py", "/threads.py"))


def caller_of(frame: FrameType) -> FrameType | None:
    """The next frame below of a file of ours."""
    below = frame.f_back
    while below is not None and not is_room(below):
        below = below.f_back
    return below


def calls_up(frame: FrameType) -> bool:
    """Whether a call enters a file that waits for its caller's."""
    file, caller = frame.f_code.co_filename, caller_of(frame)
    if caller is None or caller.f_code.co_filename == file:
        return False
    while (caller := caller_of(caller)) is not None:
        if caller.f_code.co_filename == file:
            return True
    return False


def test_no_call_on_the_way_of_an_action_goes_back_up() -> None:
    env = make()
    reset(env, 3)
    entered: list[str] = []
    returns: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and is_room(frame) and code.co_name not in INNER:
            entered.append(code.co_name)
            if calls_up(frame):
                returns.append(f"{code.co_filename}: {code.co_name}")

    sys.setprofile(note)
    try:
        env.step(env.paper_action)
    finally:
        sys.setprofile(None)
    assert {"step", "to_plan", "play", "log_weights", "draw", "update", "observation"} <= {*entered}
    assert returns == []
