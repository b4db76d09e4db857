"""Follower: a reader of a feed for a stream that keeps its thread."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque

from ..event import CLOSE_EVENT, Event
from .feed import Feed
from .log import Page
from .reader import Question, Reader
from .waker import Waker

__all__ = ["Follower"]


class Follower:
    """Reads a feed in the stream's thread, for a stream that was to be detached and can't be.

    The stream keeps its feed and its reader, so it misses nothing. A follower is read like a subscription. One thread
    reads it. Any thread may close it meanwhile.

    `_changed` guards the flags below it, and wakes the waiting thread. The deque's operations are atomic.
    """

    def __init__(self, feed: Feed, reader: Reader, waker: Waker) -> None:
        """The reader is one of the feed's already. `close` makes it leave."""
        self._feed = feed
        self._reader = reader
        self._waker = waker
        self._changed = threading.Condition()
        self._pages: deque[tuple[Question, Page | None]] = deque()
        self._waiting = False
        self._due = False  # whether something has happened since the last look
        self._closed = False
        feed.add_follower(self)

    @property
    def number(self) -> int | None:
        """The number of the log up to which this follower has read its topics. None without a log."""
        return None if self._feed.log is None else self._feed.cursor(self._reader)

    def get_all(self, timeout: float) -> list[Event]:
        """Return every event that waits, at least one. Block until there is one, for at most `timeout` seconds.

        The list ends with `CLOSE_EVENT` when the feed or the follower has ended. Raise `queue.Empty` when the time has
        passed.
        """
        deadline = time.monotonic() + timeout
        while True:
            if self._closed:
                return [CLOSE_EVENT]
            ended = self._feed.ended  # asked first: what came before the end is read
            if events := self._read():
                return events
            if ended:
                return [CLOSE_EVENT]
            self._wait(max(0.0, deadline - time.monotonic()))

    def close(self, *, stalled: bool = False) -> None:
        """Leave the feed. Idempotent, never waits; a thread that waits gets `CLOSE_EVENT`.

        `hub.stats()` counts it as a reader that `stalled` when it is closed for that.
        """
        with self._changed:
            closed, self._closed = self._closed, True
            self._due = True
            self._changed.notify()
        if not closed:
            self._feed.remove_follower(self)
            self._feed.leave(stalled=stalled)

    def news(self) -> None:
        """There is something in the feed; the waker wakes the thread. For the listener, never waits."""
        with self._changed:
            due, self._due = self._due, True
            waiting = self._waiting
        if waiting and not due:
            self._waker.add(self)

    def wake(self) -> bool:
        """See `Waiter`."""
        with self._changed:
            needed = self._waiting and self._due
            if needed:
                self._changed.notify()
        return needed

    def _read(self) -> list[Event]:
        events: list[Event] = []
        while self._pages:
            events += self._feed.take(self._reader, *self._pages.popleft())
        events += self._feed.read(self._reader)
        if not events:
            self._feed.ask(self._reader, self._answer, self._wants)
        return events

    def _wait(self, timeout: float) -> None:
        try:
            with self._changed:
                self._waiting = True
                try:
                    if not self._changed.wait_for(lambda: self._due, timeout):
                        raise queue.Empty
                finally:
                    self._waiting = self._due = False
        finally:
            self._waker.wake_next()

    def _answer(self, question: Question, page: Page | None) -> None:
        """In the thread of the log."""
        with self._changed:
            self._pages.append((question, page))
            self._due = True
            self._changed.notify()

    def _wants(self, question: Question) -> bool:
        return question is self._reader.asked and not self._closed
