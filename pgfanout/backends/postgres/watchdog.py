"""Watchdog: bounds the time that a connection may take to answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...threads import start_thread

__all__ = ["Watchdog"]


class Watchdog:
    """Cuts a connection that has not answered in time, or that has to stop now.

    libpq waits for an answer without a limit, and closing a connection under the thread that
    waits on it is unsafe. Shutting its socket down by another descriptor is safe: the waiting
    thread gets an error and closes the connection itself.

    `_changed` guards the attributes below it; a shutdown doesn't block, so it is done inside.
    The thread is started by `watch`, ends with its block, and is joined there: it holds the lock for moments only.
    One thread uses `watch`, `limit`, `extend` and `expired`; any thread may call `stop`.

    - A limit that is exceeded at the moment its block ends has cut the connection or it has not: the guard cuts, and
      the block takes the deadline away, under the lock. A connection that was cut fails at its next use, and `expired`
      says why.
    - No deadline is left over for what comes later: each block of `limit` puts the one back that it found, and `watch`
      begins without any.
    - `expired` is set before the cut. The thread that gets the error of the cut connection sees it set. It does not
      change any more after the block of `limit`.
    - A duplicate is closed by the block that made it, once the lock's attributes no longer have it. So no descriptor is
      shut down whose number is another's by now. A forked child closes its copies without the lock, which a thread that
      it does not have may hold; it shuts nothing down, since that would end the parent's connection.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._other: socket.socket | None = None
        self._deadline: float | None = None
        self._extension = self._latest = 0.0  # of the deadline: by how much it moves, and up to when
        self._stopped = False
        self.expired = False
        """Whether a limit was exceeded; its user resets it."""

    @contextmanager
    def watch(self, descriptor: int) -> Iterator[None]:
        """Watch a connection's socket while the block runs. Raises `RuntimeError` when no thread can be started."""
        duplicate = socket.socket(fileno=os.dup(descriptor))
        thread: threading.Thread | None = None
        with self._changed:
            self._socket = duplicate
            self._deadline = None
            if self._stopped:
                self._cut(duplicate)
        try:
            thread = start_thread("pgfanout-watchdog", self._guard)
            yield
        finally:
            with self._changed:
                self._socket = None
                self._changed.notify_all()
            duplicate.close()
            if thread is not None:
                thread.join()

    @contextmanager
    def watch_too(self, descriptor: int) -> Iterator[None]:
        """Within `watch`: watch a second connection. Limits are for that one; `stop` cuts both."""
        other = socket.socket(fileno=os.dup(descriptor))
        with self._changed:
            self._other = other
            if self._stopped:
                self._cut(other)
        try:
            yield
        finally:
            with self._changed:
                self._other = None
            other.close()

    def abandon(self) -> None:
        """In a forked child: let go of the duplicates. The lock may be held for ever."""
        for duplicate in (self._socket, self._other):
            if duplicate is not None:
                duplicate.close()

    @contextmanager
    def limit(self, seconds: float, *, longest: float = 0.0) -> Iterator[None]:
        """Cut the connection unless the block is done in `seconds`. `extend` grants more, up to `longest` in all."""
        with self._changed:
            outer = self._deadline, self._extension, self._latest
            now = time.monotonic()
            latest = now + max(seconds, longest)
            if self._deadline is None:
                self._deadline, self._latest = now + seconds, latest
            else:
                self._deadline, self._latest = min(self._deadline, now + seconds), min(self._latest, latest)
            self._extension = seconds
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._deadline, self._extension, self._latest = outer

    def extend(self) -> None:
        """Within `limit`: the server has sent something, so its time begins anew. Never beyond `longest`."""
        with self._changed:
            if self._deadline is not None:
                until = min(time.monotonic() + self._extension, self._latest)
                self._deadline = max(self._deadline, until)  # the guard wakes up at the old one, and looks again

    def stop(self) -> None:
        """Cut the connection now, and each later one at once."""
        with self._changed:
            self._stopped = True
            self._cut(self._socket, self._other)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def wait_stopped(self, seconds: float) -> bool:
        """Sleep, but not beyond `stop`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stopped, seconds)

    def _guard(self) -> None:
        with self._changed:
            while self._socket is not None:
                now = time.monotonic()
                if self._deadline is None:
                    self._changed.wait()
                elif self._deadline > now:
                    self._changed.wait(self._deadline - now)
                else:
                    self._deadline = None
                    self.expired = True
                    self._cut(self._other or self._socket)

    def _cut(self, *watched: socket.socket | None) -> None:
        for each in watched:
            if each is not None:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is cut already
        self._changed.notify_all()
