"""RateLimit: at most one log line of a kind in so many seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """Says when something may be logged again, and how often it was held back meanwhile.

    `_lock` guards the attributes below it, for a comparison and two assignments.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._next = float("-inf")
        self._held_back = 0

    def take(self) -> int | None:
        """Return how many were held back since the last one that was let through, or None to hold this one back.

        Never blocks. From any thread.
        """
        now = self._clock()
        with self._lock:
            if now < self._next:
                self._held_back += 1
                return None
            self._next = now + self._seconds
            held_back, self._held_back = self._held_back, 0
            return held_back
