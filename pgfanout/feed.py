"""Feed: the events of one set of topics, once for all the readers that follow them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from .backlog import BUFFER_BYTES
from .event import REFRESH_EVENT, Event
from .log import Answer, Log, always, number_of
from .topic import Topic

__all__ = ["Feed", "NewsReader", "OverrunError"]


class Owner(Protocol):
    """The registry that a feed is in."""

    def leave(self, consumer: Feed, *, stalled: bool = False) -> None:
        """A reader has gone."""

    def count_refreshes(self, count: int) -> None:
        """So many readers were too slow."""

    def count_failure(self) -> None:
        """A reader ends because of an error of ours."""


class NewsReader(Protocol):
    """Who reads feeds, in a thread of its own."""

    def news(self, feed: Feed) -> None:
        """There is something to read in a feed; never waits. Nothing more is said of it until it was read."""

    def wake(self) -> None:
        """That was all for now: the time to read; never waits."""


class OverrunError(Exception):
    """What a reader is to get next is gone from the feed; the log has it."""


class Feed:
    """A bounded log that any number of readers share, each at a position of its own.

    What lies between a reader's position and the end is that reader's queue, with the rule of
    every queue here: the event that meets a full one, `size` events behind, leaves one refresh
    in the place of all of them, and later events follow it. So an event costs the listener one
    append, however many read it, and a reader that stalls holds nothing that others don't.

    The events together have at most `buffer_bytes` bytes of payload, or there is one event alone. A reader
    that is further behind gets a refresh in the place of what is gone.

    Positions count the events that were ever offered. `members` is how many readers there are;
    the registry that the feed is in writes it.

    With a `log`, a reader that is so far behind that its events are gone reads them there, and joins
    the feed where that has everything after what it has read: everything after `_floor` is here.
    Events without a number can't be read again, so a reader that has not passed `_lost_at` is told to
    refresh.

    `_lock` guards what is below it, for a few operations on a list.
    """

    __slots__ = (
        "_bytes",
        "_end",
        "_ended",
        "_events",
        "_floor",
        "_lock",
        "_lost_at",
        "_owner",
        "_reader",
        "_refreshed_at",
        "_told",
        "_topics",
        "buffer_bytes",
        "early",
        "log",
        "members",
        "size",
    )

    def __init__(
        self,
        size: int,
        reader: NewsReader,
        owner: Owner,
        topics: Sequence[Topic] = (),
        log: Log | None = None,
        *,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self.size = size
        self.buffer_bytes = buffer_bytes
        self.members = 0
        self.log = log
        self.early = False
        """Whether its readers came before the hub listened for the first time. A refresh ends that: until then nobody
        knows what they have missed, so they get no number."""
        self._topics = topics
        self._reader = reader
        self._owner = owner
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._bytes = 0
        self._end = 0
        self._refreshed_at = -1
        self._ended = False
        self._told = False
        self._floor = -1
        self._lost_at = 0

    def begin(self) -> None:
        """Events are offered from now on. Idempotent."""
        if self.log is not None and self._floor < 0:
            begun = self.log.begun
            with self._lock:
                self._floor = max(self._floor, begun)

    @property
    def ended(self) -> bool:
        """Whether no further event will come; what is there may still be read."""
        return self._ended

    @property
    def begun(self) -> int:
        """Of a reader that got its position before: it gets everything after this number. 0 without a log."""
        return 0 if self.log is None else self.log.begun

    @property
    def offered(self) -> int:
        """Everything up to this number is before the end position that is asked for next. 0 without a log."""
        return 0 if self.log is None or self.early else self.log.offered

    @property
    def gone(self) -> int:
        """Everything up to this number was dropped, or left to the log: it is before what a reader finds here."""
        return max(0, self._floor)

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
                self.early = False
                self._refreshed_at = self._end
                self._floor = self.begun
            self._events.append(event)
            self._bytes += len(event.payload)
            self._end += 1
            if len(self._events) >= 2 * self.size:  # seldom, so that it costs next to nothing
                self._drop(self.size)
            if self._bytes > self.buffer_bytes:
                self._drop(self._fitting())
            told, self._told = self._told, True
        if not told:
            self._reader.news(self)
        return True

    def skip(self, after: int, until: int) -> None:
        """Everything after one number of the log, up to another, was not offered: every reader gets what it has not
        read yet from the log. Never waits."""
        with self._lock:
            if self._ended:
                return
            self._drop(0)
            self._end += 1  # in the place of what was not offered: nobody has read it, and it is gone
            self._floor = until
            told, self._told = self._told, True
        if not told:
            self._reader.news(self)

    def end(self) -> None:
        """Take no further event; readers get what is there, and see `ended`."""
        with self._lock:
            self._ended = True
        self._reader.news(self)

    def read(self, position: int, until: int | None = None, readers: int = 1) -> tuple[list[Event], int]:
        """The events from a position on, and the next position; for `readers` who have the same.

        `until` is a position to stop at, otherwise all is read. Two refreshes in a row say no
        more than one. Raises `OverrunError` where the log refills.
        """
        with self._lock:
            if until is None:
                self._told = False
                until = self._end
            first = self._end - len(self._events)
            if self.log is not None and self.log.refill:
                if position < first and not self._has_to_refresh(position):
                    raise OverrunError
                overflows = 0
            else:
                # Each event that meets a full queue leaves a refresh alone in it, so every `size`th does.
                overflows = max(0, until - position - 1) // self.size
            start = until - (until - position - 1) % self.size if overflows else position
            start = min(max(start, first), until)
            events = self._events[start - first : until - first]
            refreshed = self._refreshed_at >= start
        if start > position:
            events.insert(0, REFRESH_EVENT)
            self._owner.count_refreshes(max(1, overflows) * readers)
        return _without_repeated_refreshes(events) if refreshed else events, until

    def join(self, after: int, since: int, passed: int, *, known: bool = True) -> tuple[int | None, int]:
        """The position from which on a reader that has read the log up to a number gets the rest; None as
        long as that is not here, or the log has to be asked first whether it knows the number.

        `since` is the position where the reader came, or fell behind; `passed` what it has read of the feed itself.
        What is returned second is to be the next `since`: if it's greater, there was a refresh that the
        reader is to be told first, since it has read beyond that.
        """
        assert self.log is not None
        offered = self.log.offered
        with self._lock:
            if self._has_to_refresh(since):
                if after < self._floor:
                    return max(self._refreshed_at, self._lost_at - 1), since
                since = passed = max(self._refreshed_at + 1, self._lost_at)
            if not 0 <= self._floor <= after <= offered:
                return None, since
            if not known and not self._vouches_for(after, offered):
                return None, since
            position = max(self._position_after(after), passed)
            if self._has_unnumbered(since, position):
                since = position  # the log had them not, and here they are passed by
            return position, since

    def after_gap(self, position: int) -> int:
        """The position after the last gap that a reader at a position has to be told; its own if there is none."""
        with self._lock:
            return max(self._refreshed_at + 1, self._lost_at) if self._has_to_refresh(position) else position

    def _vouches_for(self, number: int, offered: int) -> bool:
        """Whether the log has that very number, as far as can be seen here."""
        assert self.log is not None
        if not self.log.complete:
            return False
        first = self._end - len(self._events)
        here = self._events[max(0, self._refreshed_at + 1 - first) :]  # a refresh may mean another log
        return number in (self._floor, offered) or any(number_of(event) == number for event in here)

    def _has_unnumbered(self, start: int, end: int) -> bool:
        first = self._end - len(self._events)
        return not all(map(number_of, self._events[max(0, start - first) : max(0, end - first)]))

    def _position_after(self, number: int) -> int:
        for back, event in enumerate(reversed(self._events)):
            if event is REFRESH_EVENT or 0 < number_of(event) <= number:
                return self._end - back
        return self._end - len(self._events)

    def ask(
        self, after: int, answer: Answer, *, known: bool = False, again: int = 0, wanted: Callable[[], bool] = always
    ) -> None:
        """Ask the log for what came after a number; see there."""
        assert self.log is not None
        self.log.ask(self._topics, after, answer, known=known, again=again, wanted=wanted)

    def tell_refresh(self) -> None:
        """Count a reader that is told to refresh, since the log can't help it."""
        self._owner.count_refreshes(1)

    def forget(self, position: int) -> None:
        """Let go of what comes before a position: every reader has passed it."""
        with self._lock:
            lost_at = self._lost_at
            self._drop(self._end - position)
            self._lost_at = lost_at

    def _has_to_refresh(self, position: int) -> bool:
        return self._refreshed_at >= position or self._lost_at > position

    def _fitting(self) -> int:
        """How many of the newest events fit into `buffer_bytes`; the last one does in any case."""
        kept, excess = len(self._events), self._bytes - self.buffer_bytes
        while excess > 0 and kept > 1:  # each event is looked at once, when it is dropped
            excess -= len(self._events[-kept].payload)
            kept -= 1
        return kept

    def _drop(self, kept: int) -> None:
        """Keep only so many events."""
        count = max(0, len(self._events) - kept)
        dropped = self._events[:count]
        if self.log is not None:
            self._note_dropped(dropped, self._end - len(self._events))
        self._bytes -= sum(len(event.payload) for event in dropped)
        del self._events[:count]

    def _note_dropped(self, dropped: list[Event], position: int) -> None:
        for place, event in enumerate(dropped, position):
            number = number_of(event)
            if number and place > self._refreshed_at:  # nobody reads again what was before a refresh
                self._floor = number
            elif not number and event is not REFRESH_EVENT:
                self._lost_at = place + 1

    def count_failure(self) -> None:
        """Count a reader that ends because of an error of ours."""
        self._owner.count_failure()

    def leave(self, *, stalled: bool = False) -> None:
        """Be no reader any more; `stalled` when it took nothing for too long. Once for each reader."""
        self._owner.leave(self, stalled=stalled)


def _without_repeated_refreshes(events: list[Event]) -> list[Event]:
    later = (event for before, event in pairwise(events) if event is not REFRESH_EVENT or before is not event)
    return [*events[:1], *later]
