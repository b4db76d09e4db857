"""Reader: the place of one consumer, and which events come next there.

The next events are in the reader's tail. If the tail has lost them, the log has them. If the log can't provide them, a
refresh replaces them. This module has this rule and nothing else: no lock, no thread, no socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from ..event import REFRESH_EVENT, Event
from .log import Page, number_of
from .tail import Tail

__all__ = ["Question", "Reader"]

_PATIENCE: Final = 3
"""Pages in a row without progress before a reader gets a refresh."""


class Question(NamedTuple):
    """A page that a reader needs: the arguments of `Log.ask`."""

    after: int
    known: bool
    again: int


class Reader:
    """A place in a tail (`position`) and in the log (`number`).

    Everything before `position` was handed out, or was replaced by a refresh that was handed out. The same holds for
    everything up to `number`.

    A reader that is not `behind` reads the next events from its tail. A reader that is behind reads pages of the log,
    and joins the tail again as soon as the tail has everything after `number`. Meanwhile `position` stays where the
    reader began or left the tail. A gap after that position ends the replay with a refresh: the log may be another one
    now, whose numbers mean something else.

    The lock of the tail's owner guards the reader, too.
    """

    __slots__ = ("asked", "asks", "behind", "fruitless", "had", "known", "number", "position", "refreshes")

    def __init__(self, position: int, number: int = 0, *, behind: bool = False, known: bool = True) -> None:
        self.position = position
        self.had = position
        """While the reader is behind: it has had the events of the tail before this position. It joins the tail here or
        later, so that it gets no event twice."""
        self.number = number
        self.behind = behind
        self.known = known
        """Whether `number` is known to be the log's. A number that a client has sent may be anything."""
        self.asked: Question | None = None
        """The question that the log has not answered yet."""
        self.asks = 0
        """Pages that the reader has asked for since it fell behind."""
        self.fruitless = 0
        """Pages in a row, up to the last one, that brought no progress."""
        self.refreshes = 0
        """Refreshes that the reader got because it was too slow, or because the log could not provide the events."""

    # For the consumer.

    @classmethod
    def after(cls, number: int, tail: Tail) -> Reader:
        """Return a reader that begins after a number that a client has sent. The log may not know the number."""
        reader = cls(tail.end_position, number, behind=True, known=False)
        reader.had = 0
        return reader

    def copy(self) -> Reader:
        """Return a reader at the same place that has asked for nothing."""
        reader = Reader(self.position, self.number, behind=self.behind, known=self.known)
        reader.had = self.had
        return reader

    def read(self, tail: Tail, until: int | None = None) -> list[Event]:
        """Return the next events of the tail, up to the position `until` or to the end.

        If it returns no event and the reader is `behind`, the log has the next events: see `ask`. A refresh for lost
        events may take the reader past `until`.
        """
        until = tail.end_position if until is None else min(until, tail.end_position)
        waiting = until - self.position
        if self.position < tail.first_position or tail.gap > self.position or self.behind or waiting > tail.size:
            return self._read_with_care(tail, until)
        return self._follow(tail, until) if waiting > 0 else []

    def ask(self) -> Question | None:
        """Return the next question to the log. None if the reader is not behind or waits for an answer."""
        if not self.behind or self.asked is not None:
            return None
        self.asked = Question(self.number, self.known, self.asks)
        self.asks += 1
        return self.asked

    def take(self, tail: Tail, question: Question, page: Page | None) -> list[Event]:
        """Return the events of a page that was asked for, up to the tail's `max_bytes`. The rest is asked for again.

        `page` is None if the log does not know the number, or can't provide what came after it. A page that comes too
        late is dropped.
        """
        if question is not self.asked:
            return []
        self.asked = None
        if tail.gap > self.position:
            return []  # the page may be of another log: `read` returns a refresh instead
        self.fruitless = 0 if page is not None and page.until > self.number else self.fruitless + 1
        if page is None or self.fruitless >= _PATIENCE:
            return [self._give_up(tail)]
        count = _fitting(page.events, tail.max_bytes)
        self.number = page.until if count == len(page.events) else number_of(page.events[count - 1])
        self.known = True
        return page.events[:count]

    def advance(self, number: int) -> None:
        """Note that everything up to a number was handed out or belongs to other topics."""
        self.number = max(self.number, number)

    def cursor(self, tail: Tail) -> int:
        """Return the number up to which everything was handed out or belongs to other topics."""
        if not self.behind and self.position == tail.end_position:
            self.number = max(self.number, tail.offered)
        return self.number

    # The rule.

    def _read_with_care(self, tail: Tail, until: int) -> list[Event]:
        told = tail.gap > self.position
        events: list[Event] = []
        if self.behind and not self._join(tail, events):
            return events
        if self.position < tail.first_position or not tail.refills:
            self._pass_what_is_gone(tail, until, events)
        if self.position < until and not self.behind:
            events += self._follow(tail, until)
        return _without_repeated_refreshes(events) if told else events

    def _follow(self, tail: Tail, until: int) -> list[Event]:
        """Return the tail's events up to a position, and go there."""
        events = tail.slice(self.position, until)
        if tail.gap > self.position:
            # The numbers before a gap may be another log's, and higher. So the highest number means nothing here.
            self._go_on_after(tail.number_before(until))
        elif tail.log is not None:
            self.number = max(self.number, number_of(events[-1]), tail.offered if until == tail.end_position else 0)
        self.position = until
        return events

    def _pass_what_is_gone(self, tail: Tail, until: int, events: list[Event]) -> None:
        """Add a refresh for events that the tail has lost. If the log can refill them, fall behind instead."""
        if tail.refills and tail.gap <= self.position:
            self._fall_behind()
        elif tail.refills:
            events.append(self._pass_gap(tail))
        else:
            self._overflow(tail, until, events)

    def _overflow(self, tail: Tail, until: int, events: list[Event]) -> None:
        """Act as a full queue: an event that does not fit replaces everything before it with a refresh. So does each
        `size`th event that this reader has not had."""
        waiting = until - self.position
        overflows = max(0, waiting - 1) // tail.size
        start = until - (waiting - 1) % tail.size if overflows else self.position
        start = max(start, tail.first_position)
        if start > self.position:
            self.position = start
            self._go_on_after(tail.number_before(start))
            self.refreshes += max(1, overflows)
            events.append(REFRESH_EVENT)

    def _go_on_after(self, number: int | None) -> None:
        # The number may be lower than before. If none is known, the old one stays: a client that reconnects with it may
        # get an event twice, but misses none.
        self.number = self.number if number is None else number

    def _fall_behind(self) -> None:
        self.had, self.behind, self.known, self.asked, self.asks = self.position, True, True, None, 0

    def _join(self, tail: Tail, events: list[Event]) -> bool:
        """Continue in the tail if it has everything after the number, or after a gap. Return whether it did."""
        if tail.gap > self.position:
            events.append(self._pass_gap(tail))
            return True
        if not 0 <= tail.floor <= self.number <= tail.offered:
            return False
        if not self.known and not tail.vouches_for(self.number):
            return False
        position = max(self.had, tail.position_after(self.number))
        if tail.has_unnumbered(self.position, position):  # the log did not have them
            self.refreshes += 1
            events.append(REFRESH_EVENT)
        self._end_replay(position)
        return True

    def _pass_gap(self, tail: Tail) -> Event:
        """Continue after the last gap. Its refresh replaces everything before it, in the tail and in the log."""
        self.number = max(0, tail.floor)
        self._end_replay(max(tail.gap, tail.first_position))
        return REFRESH_EVENT

    def _give_up(self, tail: Tail) -> Event:
        """Continue in the tail with the events that came since. A refresh replaces what the log can't provide."""
        position = max(self.position, tail.first_position, tail.position_after(self.number) if self.known else 0)
        self._go_on_after(tail.number_before(position))
        self.refreshes += 1
        self._end_replay(position)
        return REFRESH_EVENT

    def _end_replay(self, position: int) -> None:
        self.position, self.behind, self.asked, self.fruitless = position, False, None, 0


def _without_repeated_refreshes(events: list[Event]) -> list[Event]:
    """Return the events with each run of refreshes reduced to one, which says the same."""
    later = (event for before, event in pairwise(events) if event is not REFRESH_EVENT or before is not event)
    return [*events[:1], *later]


def _fitting(events: Sequence[Event], room: int) -> int:
    """Return how many of the first events fit into `room` bytes of payload, but at least one if there is one."""
    for count, event in enumerate(events):
        room -= len(event.payload)
        if room < 0:
            return max(1, count)
    return len(events)
