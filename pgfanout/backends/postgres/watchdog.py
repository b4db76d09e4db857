"""Watchdog: limits the time that a connection may take to answer."""

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

    libpq waits for an answer without a limit, and it is unsafe to close a connection while another thread waits on it.
    Shutting its socket down through another descriptor is safe: the waiting thread gets an error and closes the
    connection itself.

    `_changed` guards the attributes below it. It is held during a shutdown, which does not block. `watch` starts the
    guard's thread, and joins it when the block ends: the thread holds the lock for moments only. One thread uses
    `watch`, `limit`, `extend` and `expired`. Any thread may call `stop`.

    - A limit that is exceeded just as its block ends either cuts the connection or does not: the guard cuts, and the
      block removes the deadline, both under the lock. A connection that was cut fails at its next use, and `expired`
      says why.
    - No deadline outlives its block: `limit` restores the one that it found, and `watch` begins without one.
    - `expired` is set before the cut, so the thread that gets the error sees it set. It does not change after the block
      of `limit`.
    - The block that makes a duplicate closes it, after the guarded attribute is cleared. So no descriptor is shut down
      whose number the system has reused. A forked child closes its copies without the lock, which may have been held
      at the fork. It shuts nothing down, since that would end the parent's connection.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._other: socket.socket | None = None
        self._deadline: float | None = None
        self._extension = self._latest = 0.0  # of the deadline: by how much it moves, and up to when
        self._stopped = False
        self.expired = False
        """Whether a limit was exceeded. Its user resets it."""

    @contextmanager
    def watch(self, descriptor: int) -> Iterator[None]:
        """Watch a connection's socket while the block runs. Raise `RuntimeError` if no thread can be started."""
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
        """Within `watch`, watch a second connection. Limits then apply to the second one. `stop` cuts both."""
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
        """Close the duplicates in a forked child, without the lock, which may stay held for ever there."""
        for duplicate in (self._socket, self._other):
            if duplicate is not None:
                duplicate.close()

    @contextmanager
    def limit(self, seconds: float, *, longest: float = 0.0) -> Iterator[None]:
        """Cut the connection if the block takes more than `seconds`. `extend` allows more, up to `longest` in all."""
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
        """Within `limit`, begin its time anew because the server has sent something. Never go beyond `longest`."""
        with self._changed:
            if self._deadline is not None:
                until = min(time.monotonic() + self._extension, self._latest)
                self._deadline = max(self._deadline, until)  # the guard wakes up at the old deadline and checks again

    def stop(self) -> None:
        """Cut the connection now, and each later one as soon as it is watched."""
        with self._changed:
            self._stopped = True
            self._cut(self._socket, self._other)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def wait_stopped(self, seconds: float) -> bool:
        """Block for some seconds, or until `stop` is called. Return whether it was."""
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
                    pass  # cut already
        self._changed.notify_all()
