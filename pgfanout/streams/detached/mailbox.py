"""Mailbox: what other threads leave for the streamer's thread."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ...delivery.feed import Feed
from ...delivery.log import Page
from ...delivery.reader import Question
from ...threads import start_thread
from .connection import Connection

__all__ = ["EARLIEST_KEEPALIVE", "Mailbox"]

EARLIEST_KEEPALIVE = 0.9
"""Of the silence that a keepalive ends, the part after which it may come."""

_CROWD = 32
"""Arrivals for which the thread is woken. An event has to be written on its own to each that it finds waiting."""


_Item = TypeVar("_Item")


class Mailbox:
    """Arrivals, news, answers and calls for the streamer's thread, and whether that thread runs or sleeps.

    `_lock` guards `thread` and `_sleeps_until`, and is held while something is put into a deque. So nothing is put
    where a thread is about to end, or to sleep. It is held for a few operations that don't block, and while the thread
    starts.

    Methods up to `wake` are for any thread, the others for the streamer's. None blocks.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        """`run` is what the thread does. It starts with the first arrival."""
        self._run = run
        self._lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self._sleeps_until = 0.0
        self.descriptor = -1
        """Readable when the thread is to wake."""
        self.arrivals: deque[Connection] = deque()
        self.feeds: deque[Feed] = deque()
        self.answers: deque[tuple[Connection, Question, Page | None]] = deque()
        self._calls: deque[Callable[[], object]] = deque()

    def prepare(self) -> None:
        """Have a descriptor. Raises `OSError` when there is none left."""
        # Never closed: others may be about to write to it, and its number must not become that of a connection.
        with self._lock:
            if self.descriptor < 0:
                self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put_arrival(self, connection: Connection) -> None:
        """Hand a connection over.

        A connection that has nothing to be written does not wake the thread. It is admitted when there are `_CROWD` of
        them, or when something else wakes the thread. Raise `RuntimeError` when the system has no thread.
        """
        with self._lock:
            if self.thread is None or not self.thread.is_alive():
                self.thread = start_thread("pgfanout-streamer", self._run)
            self.arrivals.append(connection)
            late = self._sleeps_until > time.monotonic() + EARLIEST_KEEPALIVE * connection.keepalive
            crowded = len(self.arrivals) >= _CROWD
        # `has_news` is read after it was put: news that come later wake the thread themselves.
        if late or crowded or connection.has_news:
            self.wake()

    def news(self, feed: Feed) -> None:
        """See `delivery.feed.Mailbox`. A thread that begins reads the feeds of its first connections anyway."""
        self._put(self.feeds, feed)

    def put_answer(self, connection: Connection, question: Question, page: Page | None) -> None:
        """Hand over what the log has answered to a connection's question."""
        self._put(self.answers, (connection, question, page))
        self.wake()

    def call(self, function: Callable[[], object]) -> bool:
        """Have the thread admit all arrivals, and then call a function. Return False if the thread does not run."""
        runs = self._put(self._calls, function)
        self.wake()
        return runs

    def wake(self) -> None:
        """See `delivery.feed.Mailbox`. A thread that is at work looks before it sleeps, and need not be woken."""
        with self._lock:
            sleeps = self._sleeps_until > 0.0
        if sleeps:
            os.eventfd_write(self.descriptor, 1)

    def take_calls(self) -> list[Callable[[], object]]:
        """Return the functions to be called in this turn."""
        return [self._calls.popleft() for _ in range(len(self._calls))]

    def sleep(self, pause: float | None) -> float | None:
        """Return how long the thread may sleep: `pause`, or 0.0 if there is something for it. Later items wake it."""
        with self._lock:
            if self.arrivals or self.feeds or self.answers or self._calls:
                return 0.0
            self._sleeps_until = math.inf if pause is None else time.monotonic() + pause
        return pause

    def awake(self) -> None:
        """Note that the thread does not sleep any more."""
        self._sleeps_until = 0.0

    def leave(self) -> bool:
        """Let the thread end, unless there is something for it."""
        with self._lock:
            if self.arrivals or self._calls:
                return False
            self.thread = None
            self.feeds.clear()
            self.answers.clear()
            return True

    def abandon(self) -> None:
        """In a forked child: close the descriptors."""
        for connection in self.arrivals:
            os.close(connection.descriptor)
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def _put(self, box: deque[_Item], item: _Item) -> bool:
        """Put an item, unless no thread runs: then every stream that it could concern has ended."""
        with self._lock:
            if self.thread is not None:
                box.append(item)
            return self.thread is not None
