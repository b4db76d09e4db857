"""Tail: how far a process has offered the log to those who follow it, and what it has missed."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from ...event import Event
from ...log import number_of, numbered
from ...topic import Topic
from .log import LogTable, Query

__all__ = ["Tail"]

logger = logging.getLogger("pgfanout")


class Audience(Protocol):
    """Who follows: see `Dispatcher`."""

    def offer(self, topic: Topic, event: Event) -> None: ...
    def wake(self) -> None: ...
    def has_followers(self, topic: Topic) -> bool: ...
    def gap(self) -> None: ...


class Position(Protocol):
    """Where everyone can see how far it is; see `Log`."""

    begun: int
    offered: int


class Tail:
    """Offers events in the order of their numbers, each once, and reads what no notification has brought.

    For the listener's thread. What arrives up to `_read_until` was read before, or is covered by a refresh. Whoever has
    something to read is woken before the server is asked, whose answer may take its time, or never come.
    """

    def __init__(self, table: LogTable, position: Position, audience: Audience) -> None:
        self._table = table
        self._position = position
        self._audience = audience
        self._query: Query | None = None
        self._read_until = 0
        self._pruned_to = 0  # nothing up to it is notified any more
        self._has_unnumbered = False
        self._complain_at = 0.0
        self.fills = 0
        self.filled_events = 0

    def catch_up(self, query: Query) -> bool:
        """Begin with a new session: offer what was missed since the last one. False when the log can't
        tell all of it, and everyone was told to refresh. Raises `HubConfigurationError` and psycopg's errors.
        """
        before = self._position.offered
        ends = self._table.ends(query)
        if self._position.offered != before:
            raise RuntimeError("another listener has gone on meanwhile")  # `start` gave up on this one
        self._query = query
        first = not before
        complete = ends.include(before) and not self._has_unnumbered and not self._table.is_too_much(query, before)
        if not (complete or first):
            self._refresh(ends.last)
            return False
        self._pruned_to = self._pruned_to or ends.pruned_to
        if not first and not self._fill(query, before, ends.last):
            self._refresh(ends.last)
            return False
        self._position.begun = self._position.offered = self._read_until = ends.last
        return True

    def check(self) -> None:
        """Make sure that this is still the log that notifies us. Raises what `catch_up` raises."""
        if self._query is not None:
            self._table.ends(self._query)

    def take(self, topic: Topic, event: Event) -> None:
        """Offer an event that was notified, unless it was offered before."""
        number = number_of(event)
        if 0 < number <= self._pruned_to:  # somebody's own id, and no number
            event, number = Event.checked(event.channel, event.payload, event.type, ""), 0
        if not number:
            self._has_unnumbered = True
            self._audience.offer(topic, event)
        elif self._is_next(number):
            self._offer(number, topic, event)

    def fetch(self, topic: Topic, id: str) -> bool:
        """Offer an event whose notification has nothing but its topic and its number; False when there is none."""
        number = numbered(id)
        if not number or not self._is_next(number):
            return number > 0
        # First, as with every event: who follows from here on is not to wait for one that was looked up without them.
        before, self._position.begun = self._position.begun, number
        found = None
        if self._audience.has_followers(topic):
            assert self._query is not None
            self._audience.wake()
            found = self._table.one(self._query, number)
            if found is None:
                self._position.begun = before
                return False
        self._offer(number, *(found or (topic, None)))
        return True

    def _fill(self, query: Query, after: int, last: int) -> bool:
        self.fills += 1
        for part in self._table.missed(query, after, last):
            if self._table.ends(query).pruned_to > after:  # after the part was read, so it may lack some
                return False
            for topic, event in part:
                self._offer(number_of(event), topic, event)
                after = number_of(event)
            self.filled_events += len(part)
            self._audience.wake()
        return self._table.ends(query).pruned_to <= after

    def _refresh(self, last: int) -> None:
        """Tell everyone to, and go on after a number. That is everyone's cursor when they were told, and not before:
        who got it and lost the connection then would never hear of what was before it."""
        self._position.begun = self._read_until = last
        self._audience.gap()
        self._position.offered = last

    def _is_next(self, number: int) -> bool:
        if number > self._position.begun:
            return True
        if number > self._read_until:
            self._contradiction()
        return False

    def _offer(self, number: int, topic: Topic, event: Event | None) -> None:
        self._position.begun = number
        if event is not None:
            self._audience.offer(topic, event)
        self._position.offered = number

    def _contradiction(self) -> None:
        """Numbers come in their order. One that does not, or one before it, is somebody's invention, and what
        it has hidden nobody knows: everyone is to refresh, and it goes on from what the log says.
        """
        assert self._query is not None
        self._audience.wake()
        last = self._table.ends(self._query).last
        now = time.monotonic()
        if now >= self._complain_at:
            self._complain_at = now + 10.0
            logger.warning(
                "a notification had a number out of its turn; everyone is told to refresh. Does somebody else than the"
                " history notify this channel?"
            )
        self._refresh(last)
