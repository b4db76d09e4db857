"""Line: threads that wait for one thing after another, in the order of their arrival."""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Line"]


class Line:
    """A thread joins with a ticket, waits until it is the first, and leaves. Each step can be repeated.

    There is no lock. Operations on the deque and the dictionary are atomic. A ticket is a lock that is always held, and
    is released to wake its thread. A wake-up may come for nothing, or be lost if an exception (of a signal handler)
    comes between two steps. So threads look again after a time.
    """

    def __init__(self) -> None:
        self._tickets: deque[threading.Lock] = deque()
        self._by_thread: dict[int, threading.Lock] = {}

    def __bool__(self) -> bool:
        return bool(self._tickets)

    def has_this_thread(self) -> bool:
        """Whether this thread is in the line. If it asks, it does so from a signal handler."""
        return threading.get_ident() in self._by_thread

    def join(self, ticket: threading.Lock) -> None:
        """Go to the end of the line. The ticket is a lock of this thread's own."""
        ticket.acquire(blocking=False)
        self._by_thread[threading.get_ident()] = ticket
        self._tickets.append(ticket)

    def is_first(self, ticket: threading.Lock) -> bool:
        """Whether it is this ticket's turn."""
        try:
            return self._tickets[0] is ticket
        except IndexError:
            return False

    def leave(self, ticket: threading.Lock) -> None:
        """Leave the line, if this thread is in it."""
        try:
            self._tickets.remove(ticket)
        except ValueError:
            pass
        if self._by_thread.get(threading.get_ident()) is ticket:
            del self._by_thread[threading.get_ident()]

    def wake_first(self) -> None:
        """Have the first thread look."""
        try:
            self._tickets[0].release()
        except (IndexError, RuntimeError):
            pass  # nobody is there, or it has been woken already
