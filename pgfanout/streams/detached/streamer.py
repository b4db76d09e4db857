"""Streamer: the one thread that writes all detached streams of a process."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ...delivery.feed import Feed
from ...rate_limit import RateLimit
from ...threads import start_thread
from .connection import Connection
from .loop import EARLIEST_KEEPALIVE, Loop

__all__ = ["Streamer", "streamer"]

logger = logging.getLogger("pgfanout")

_ADMISSION_TIME = 0.003
"""Seconds for arrivals in one turn; one more may begin in the last moment of it."""

_CROWD = 32
"""Arrivals for which the thread is woken. Each that an event finds waiting has to be written to on its own."""

_LOG_PAUSE = 10.0
"""Seconds between two log lines about failures."""


class Streamer:
    """Takes connections over and writes their streams, until they end.

    Its thread starts with the first stream and ends with the last. What it works on, the loop, is
    that thread's own; others leave word in one of the deques, whose operations are atomic, and
    wake it.

    `_lock` guards `_thread`, `_loop` and `_sleeps_until`, and what is put into the deques: so
    nothing is left with a thread that is about to end, or to sleep. It is held for a few
    operations, none of which waits, and while the thread is started.

    News come before arrivals: those are admitted for `_ADMISSION_TIME` at most between two looks at the sockets and
    the feeds, and the thread does not sleep while some are left. So a crowd holds up the streams that are there for
    some milliseconds, and no thread of the server has to wait for it.

    Every method may be called from any thread.
    """

    _thread: threading.Thread | None
    _loop: Loop | None
    _sleeps_until: float
    _wake_descriptor: int

    def __init__(self) -> None:
        self._renew()

    @property
    def open(self) -> int:
        """How many streams it has."""
        loop = self._loop
        return len(self._arrivals) + (len(loop.connections) if loop is not None else 0)

    def prepare(self) -> None:
        """Have the descriptors that it needs itself. Raises `OSError` when there are none left."""
        with self._lock:
            if self._loop is None:
                # Never closed: others may be about to write to it, and its number must not become
                # that of a connection.
                if self._wake_descriptor < 0:
                    self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._loop = Loop(self._wake_descriptor, self._news)

    def adopt(self, connection: Connection) -> None:
        """Take a connection over; `prepare` was called before. Never waits.

        The thread is not woken for each that has nothing to be written yet: they are admitted together, when
        there are `_CROWD` of them, or by whatever wakes it before. Raises `OSError` or `RuntimeError`
        when the system has no memory or no thread for it; the connection is still the caller's then.
        """
        assert self._loop is not None
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = start_thread("pgfanout-streamer", self._run, self._loop)
            self._loop.watch(connection)
            self._arrivals.append(connection)
            late = self._sleeps_until > time.monotonic() + EARLIEST_KEEPALIVE * connection.keepalive
            crowded = len(self._arrivals) >= _CROWD
        # Asked after it was put among the arrivals: news that come later wake the thread themselves.
        if late or crowded or connection.has_news:
            self.wake()

    def news(self, feed: Feed) -> None:
        """See `NewsReader`: the listener's thread calls it, and then `wake`.

        A thread that begins reads the feeds of its first connections anyway.
        """
        with self._lock:
            if self._thread is not None:
                self._news.append(feed)

    def wake(self) -> None:
        """See `NewsReader`: look now what there is to do. Never waits.

        A thread that is at work looks before it sleeps, and need not be woken.
        """
        with self._lock:
            sleeps = self._sleeps_until > 0.0
        if sleeps:
            os.eventfd_write(self._wake_descriptor, 1)

    def settle(self, timeout: float) -> None:
        """Wait, `timeout` seconds at most, until whoever has left by now has been let go."""
        done = threading.Event()
        if self._do(done.set):
            done.wait(timeout)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait, `timeout` seconds at most, until all streams have ended; whether they have."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return not self.open

    def cut(self, timeout: float) -> None:
        """End all connections as they are, for clients that don't take a proper end; waits for it,
        `timeout` seconds at most."""
        loop = self._loop
        if loop is not None and self._do(loop.cut):
            self.wait_until_empty(timeout)

    def abandon(self) -> None:
        """In a forked child, where its thread does not exist: let go of the parent's connections."""
        if self._loop is not None:
            self._loop.abandon()
            os.close(self._wake_descriptor)
        for connection in self._arrivals:
            os.close(connection.descriptor)
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._thread = None
        self._loop = None
        self._sleeps_until = 0.0
        self._wake_descriptor = -1
        self._arrivals: deque[Connection] = deque()
        self._news: deque[Feed] = deque()
        self._errands: deque[Callable[[], object]] = deque()
        self._complaints = RateLimit(_LOG_PAUSE)

    def _do(self, errand: Callable[[], object]) -> bool:
        """Have the thread do something; False when it does not run."""
        with self._lock:
            if self._thread is None:
                return False
            self._errands.append(errand)
        self.wake()
        return True

    def _run(self, loop: Loop) -> None:
        while not self._is_over(loop):
            try:
                self._turn(loop)
            except Exception as error:
                self._give_up(loop, error)

    def _give_up(self, loop: Loop, error: Exception) -> None:
        """After a failure nobody knows what was written and what not: those who come back are told to refresh."""
        with suppress(Exception):
            held_back = self._complaints.take()
            if held_back is not None:
                words = "the streamer failed; all streams are cut, and browsers come back (%d more failures before)"
                logger.error(words, held_back, exc_info=error)
        with suppress(Exception):
            loop.cut(error)
        while self._arrivals:
            connection = self._arrivals.popleft()
            with suppress(Exception):
                connection.feed.count_failure()
                connection.close(stalled=False)

    def _turn(self, loop: Loop) -> None:
        # Taken before the sockets are looked at: an errand sees what had happened, and who had come, when it was given.
        errands = [self._errands.popleft() for _ in range(len(self._errands))]
        self._admit(loop, math.inf if errands else _ADMISSION_TIME)
        events = loop.wait(0.0 if errands else self._pause(loop))
        self._sleeps_until = 0.0
        loop.handle(events)
        loop.broadcast()
        loop.keep_alive()
        for errand in errands:
            errand()

    def _admit(self, loop: Loop, seconds: float) -> None:
        """Admit those who have arrived, and stop after so many seconds."""
        deadline = time.monotonic() + seconds
        for _ in range(len(self._arrivals)):
            loop.admit(self._arrivals.popleft())
            if time.monotonic() > deadline:
                break

    def _pause(self, loop: Loop) -> float | None:
        """How long it may sleep: whoever comes with something to do after this knows that it does."""
        pause = loop.pause()
        with self._lock:
            if self._arrivals or self._news or self._errands:
                return 0.0
            self._sleeps_until = math.inf if pause is None else time.monotonic() + pause
        return pause

    def _is_over(self, loop: Loop) -> bool:
        if loop.connections:
            return False
        with self._lock:
            if self._arrivals or self._errands:
                return False
            self._thread = None
            self._news.clear()
            return True


streamer = Streamer()
"""The process's own. Making it starts nothing."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=streamer.abandon)
