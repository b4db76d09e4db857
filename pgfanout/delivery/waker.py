"""Waker: wakes a few waiting threads. Each of them wakes the next."""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["Waiter", "Waker"]


_AT_ONCE = 8


class Waiter(Protocol):
    """A consumer that threads wait on."""

    def wake(self) -> bool:
        """Wake one waiting thread. Return False if there is none. Never block."""


class Waker:
    """Wakes threads in the order in which there is something for them to read.

    Hundreds of threads that wake at once hinder each other: one runs, and each of the others asks for the interpreter
    every few milliseconds. So a few are woken, and each wakes the next before it goes on. The next one need not wait
    for what the first one does afterwards. A single chain would be too slow: while other threads compute, each thread
    waits some milliseconds for the interpreter, and these times would add up.

    It needs no lock: the deque's operations are atomic, and nothing else here changes.
    """

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()

    def add(self, waiter: Waiter) -> None:
        """Note that a thread which waits on the waiter has something to read. Call `wake_some` afterwards."""
        self._waiters.append(waiter)

    def wake_some(self) -> None:
        """Wake the first few waiting threads. Never block."""
        for _ in range(_AT_ONCE):
            if not self.wake_next():
                return

    def wake_next(self) -> bool:
        """Wake the next waiting thread. Return False if there is none. Never block."""
        while self._waiters:
            try:
                waiter = self._waiters.popleft()
            except IndexError:  # another thread was faster
                break
            if waiter.wake():
                return True
        return False
