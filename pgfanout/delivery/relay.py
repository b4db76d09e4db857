"""Relay: wakes threads that wait, a few at once, each of which wakes the next."""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["Relay", "Runner"]


_AT_ONCE = 8


class Runner(Protocol):
    """Something that a thread waits on."""

    def wake(self) -> bool:
        """Wake one thread that waits on it; False when none does. Never waits."""


class Relay:
    """Whom to wake, in the order in which they have something to read.

    Hundreds of threads that wake at once only stand in each other's way: one of them runs, and
    each of the others comes back every few milliseconds to ask for its turn. So a few are woken, and
    each wakes the next when it runs; what it does afterwards, and how long that takes, holds nobody
    up. One alone would be too few: where other threads compute, each waits some milliseconds for
    the interpreter, and all of those would add up.

    The deque's operations are atomic, and there is nothing else here that changes.
    """

    def __init__(self) -> None:
        self._runners: deque[Runner] = deque()

    def news(self, runner: Runner) -> None:
        """There is something to read for whoever waits on it; `start` follows."""
        self._runners.append(runner)

    def start(self) -> None:
        """Wake the first few that wait. Never waits."""
        for _ in range(_AT_ONCE):
            if not self.wake_next():
                return

    def wake_next(self) -> bool:
        """Wake the next that waits; False when there is none. Never waits."""
        while self._runners:
            try:
                runner = self._runners.popleft()
            except IndexError:  # another thread was faster
                break
            if runner.wake():
                return True
        return False
