"""Stopping long work so that nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any


class Stopper:
    """Says when to stop: after a number of seconds, or at Ctrl-C.

    As a context manager it takes Ctrl-C over, so that a round in progress ends well; a second Ctrl-C interrupts at
    once.

    Args:
        seconds: from now; None for no limit.

    Attributes:
        interrupted: Ctrl-C was pressed.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.interrupted = False
        self._interrupted_at = 0.0
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._previous: Any = None

    def __call__(self) -> bool:
        """Whether to stop now."""
        return self.interrupted or (self._deadline is not None and time.monotonic() >= self._deadline)

    def waited(self) -> float:
        """Seconds since Ctrl-C was pressed; 0 when it was not."""
        return time.monotonic() - self._interrupted_at if self.interrupted else 0.0

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted, self._interrupted_at = True, time.monotonic()
