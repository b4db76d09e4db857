"""Feed: the events of one set of topics, once for all the readers that follow them."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Protocol

from .event import REFRESH_EVENT, Event

__all__ = ["Feed", "NewsReader"]


class Owner(Protocol):
    """The registry that a feed is in."""

    def leave(self, consumer: Feed, *, stalled: bool = False) -> None:
        """A reader has gone."""

    def count_refreshes(self, count: int) -> None:
        """So many readers were too slow."""


class NewsReader(Protocol):
    """Who reads feeds, in a thread of its own."""

    def news(self, feed: Feed) -> None:
        """There is something to read in a feed; never waits. Nothing more is said of it until it was read."""

    def wake(self) -> None:
        """That was all for now: the time to read; never waits."""


class Feed:
    """A bounded log that any number of readers share, each at a position of its own.

    What lies between a reader's position and the end is that reader's queue, with the rule of
    every queue here: the event that meets a full one, `size` events behind, leaves one refresh
    in the place of all of them, and later events follow it. So an event costs the listener one
    append, however many read it, and a reader that stalls holds nothing that others don't.

    Positions count the events that were ever offered. `members` is how many readers there are;
    the registry that the feed is in writes it.

    `_lock` guards what is below it, for a few operations on a list.
    """

    __slots__ = (
        "_end",
        "_ended",
        "_lock",
        "_log",
        "_owner",
        "_reader",
        "_refreshed_at",
        "_told",
        "members",
        "size",
    )

    def __init__(self, size: int, reader: NewsReader, owner: Owner) -> None:
        self.size = size
        self.members = 0
        self._reader = reader
        self._owner = owner
        self._lock = threading.Lock()
        self._log: list[Event] = []
        self._end = 0
        self._refreshed_at = -1
        self._ended = False
        self._told = False

    @property
    def ended(self) -> bool:
        """Whether no further event will come; what is there may still be read."""
        return self._ended

    @property
    def end_position(self) -> int:
        """The position from which on a reader that comes now gets everything."""
        with self._lock:
            return self._end

    def offer(self, event: Event) -> bool:
        """Append an event; never waits. Always true: that a reader is too slow is found when it reads."""
        with self._lock:
            if self._ended:
                return True
            if event is REFRESH_EVENT:
                self._refreshed_at = self._end
            self._log.append(event)
            self._end += 1
            if len(self._log) >= 2 * self.size:  # seldom, so that it costs next to nothing
                del self._log[: -self.size]
            told, self._told = self._told, True
        if not told:
            self._reader.news(self)
        return True

    def end(self) -> None:
        """Take no further event; readers get what is there, and see `ended`."""
        with self._lock:
            self._ended = True
        self._reader.news(self)

    def read(self, position: int, until: int | None = None, readers: int = 1) -> tuple[list[Event], int]:
        """The events from a position on, and the next position; for `readers` who have the same.

        `until` is a position to stop at, otherwise all is read. Two refreshes in a row say no
        more than one.
        """
        with self._lock:
            if until is None:
                self._told = False
                until = self._end
            first = self._end - len(self._log)
            # Each event that meets a full queue leaves a refresh alone in it, so every `size`th does.
            overflows = max(0, until - position - 1) // self.size
            start = until - (until - position - 1) % self.size if overflows else position
            start = min(max(start, first), until)
            events = self._log[start - first : until - first]
            refreshed = self._refreshed_at >= start
        if start > position:
            events.insert(0, REFRESH_EVENT)
            self._owner.count_refreshes(max(1, overflows) * readers)
        return _without_repeated_refreshes(events) if refreshed else events, until

    def forget(self, position: int) -> None:
        """Let go of what comes before a position: every reader has passed it."""
        with self._lock:
            del self._log[: max(0, len(self._log) - (self._end - position))]

    def leave(self, *, stalled: bool = False) -> None:
        """Be no reader any more; `stalled` when it took nothing for too long. Once for each reader."""
        self._owner.leave(self, stalled=stalled)


def _without_repeated_refreshes(events: list[Event]) -> list[Event]:
    later = (event for before, event in pairwise(events) if event is not REFRESH_EVENT or before is not event)
    return [*events[:1], *later]
