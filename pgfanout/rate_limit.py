"""RateLimit: at most one log line of a kind in a number of seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """Tell whether something may be logged again, and how often it was suppressed meanwhile.

    `_lock` guards the attributes below it. It is held for a comparison and two assignments.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._next = float("-inf")
        self._held_back = 0

    def take(self) -> int | None:
        """Return how many lines were suppressed since the last one that was logged, or None to suppress this one.

        Any thread may call it. Never block.
        """
        now = self._clock()
        with self._lock:
            if now < self._next:
                self._held_back += 1
                return None
            self._next = now + self._seconds
            held_back, self._held_back = self._held_back, 0
            return held_back
