"""Reader: the place of one consumer, and what comes next there.

What comes next is in the reader's tail; if it is not, in the log; and if the log can't tell, a refresh stands for it.
This module has all of that rule, and nothing else: no lock, no thread, no socket.
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
"""Pages in a row that lead nowhere before a reader is told to refresh."""


class Question(NamedTuple):
    """A page that a reader needs. See `Log.ask`."""

    after: int
    known: bool
    again: int


class Reader:
    """A place in a tail (`position`) and in the log (`number`).

    Everything before `position` was handed out, or a refresh that was handed out stands for it. The same holds for
    everything up to `number`.

    A reader that is not `behind` gets what comes next from its tail. One that is behind gets pages of the log, and
    joins the tail again as soon as that has everything after `number`. Meanwhile `position` stays where the reader came
    or left the tail. A gap behind that place ends the replay with a refresh: the log may be another one now, and its
    numbers mean something else.

    The owner of the tail guards the reader as well.
    """

    __slots__ = ("asked", "asks", "behind", "fruitless", "had", "known", "number", "position", "refreshes")

    def __init__(self, position: int, number: int = 0, *, behind: bool = False, known: bool = True) -> None:
        self.position = position
        self.had = position
        """While it is behind: what it has had of the tail ends there. It may join no earlier."""
        self.number = number
        self.behind = behind
        self.known = known
        """Whether the log vouches for `number`. A number that a client has sent may be anything."""
        self.asked: Question | None = None
        """What the log was asked and has not answered."""
        self.asks = 0
        """Pages that were asked for since it is behind."""
        self.fruitless = 0
        """How many of the last pages led nowhere."""
        self.refreshes = 0
        """Refreshes that it was told for being too slow, or since the log could not help."""

    # For its consumer.

    @classmethod
    def after(cls, number: int, tail: Tail) -> Reader:
        """A reader that begins after a number from outside, whether the log knows that or not."""
        reader = cls(tail.end_position, number, behind=True, known=False)
        reader.had = 0
        return reader

    def copy(self) -> Reader:
        """Another reader at the same place, which has asked for nothing."""
        reader = Reader(self.position, self.number, behind=self.behind, known=self.known)
        reader.had = self.had
        return reader

    def read(self, tail: Tail, until: int | None = None) -> list[Event]:
        """Hand out what comes next in the tail, up to a position or to the end.

        If nothing is handed out and the reader is `behind`, the log has what comes next: see `ask`. A refresh for what
        is gone may take the reader beyond the position that it was to stop at.
        """
        until = tail.end_position if until is None else min(until, tail.end_position)
        waiting = until - self.position
        if self.position < tail.first_position or tail.gap > self.position or self.behind or waiting > tail.size:
            return self._read_with_care(tail, until)
        return self._follow(tail, until) if waiting > 0 else []

    def ask(self) -> Question | None:
        """What to ask the log, if that is due now."""
        if not self.behind or self.asked is not None:
            return None
        self.asked = Question(self.number, self.known, self.asks)
        self.asks += 1
        return self.asked

    def take(self, tail: Tail, question: Question, page: Page | None) -> list[Event]:
        """Hand out a page that was asked for, as much of it as may wait for a reader; the rest is asked for again.

        None stands for a log that does not know the number, or can't tell what came after it. A page that comes too
        late is dropped.
        """
        if question is not self.asked:
            return []
        self.asked = None
        if tail.gap > self.position:
            return []  # the page may be of another log; `read` hands out the refresh
        self.fruitless = 0 if page is not None and page.until > self.number else self.fruitless + 1
        if page is None or self.fruitless >= _PATIENCE:
            return [self._give_up(tail)]
        count = _fitting(page.events, tail.max_bytes)
        self.number = page.until if count == len(page.events) else number_of(page.events[count - 1])
        self.known = True
        return page.events[:count]

    def advance(self, number: int) -> None:
        """Note that everything up to a number was handed out, or is of other topics."""
        self.number = max(self.number, number)

    def cursor(self, tail: Tail) -> int:
        """The number up to which everything was handed out, or is of other topics."""
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
        """Everything in the tail up to a position."""
        events = tail.slice(self.position, until)
        if tail.gap > self.position:
            # The numbers before a gap may be another log's, so the highest number counts for nothing here.
            self._go_on_after(tail.number_before(until))
        elif tail.log is not None:
            self.number = max(self.number, number_of(events[-1]), tail.offered if until == tail.end_position else 0)
        self.position = until
        return events

    def _pass_what_is_gone(self, tail: Tail, until: int, events: list[Event]) -> None:
        """Hand out a refresh for what the tail has no more, unless the log refills it."""
        if tail.refills and tail.gap <= self.position:
            self._fall_behind()
        elif tail.refills:
            events.append(self._pass_gap(tail))
        else:
            self._overflow(tail, until, events)

    def _overflow(self, tail: Tail, until: int, events: list[Event]) -> None:
        """The rule of a full queue: an event that meets one leaves a refresh in the place of everything. So each
        `size`th event that this reader has not had does."""
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
        # It may be lower than before. Where none can be told, the old one stays: a client that comes back with that may
        # get something once more, and misses nothing.
        self.number = self.number if number is None else number

    def _fall_behind(self) -> None:
        self.had, self.behind, self.known, self.asked, self.asks = self.position, True, True, None, 0

    def _join(self, tail: Tail, events: list[Event]) -> bool:
        """Go on in the tail if that has everything after the number."""
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
        """Go on behind the last gap. Its refresh stands for everything before it, in the tail and in the log."""
        self.number = max(0, tail.floor)
        self._end_replay(max(tail.gap, tail.first_position))
        return REFRESH_EVENT

    def _give_up(self, tail: Tail) -> Event:
        """Go on in the tail with what has come since. A refresh stands for what the log can't tell."""
        position = max(self.position, tail.first_position, tail.position_after(self.number) if self.known else 0)
        self._go_on_after(tail.number_before(position))
        self.refreshes += 1
        self._end_replay(position)
        return REFRESH_EVENT

    def _end_replay(self, position: int) -> None:
        self.position, self.behind, self.asked, self.fruitless = position, False, None, 0


def _without_repeated_refreshes(events: list[Event]) -> list[Event]:
    """Two refreshes in a row say no more than one."""
    later = (event for before, event in pairwise(events) if event is not REFRESH_EVENT or before is not event)
    return [*events[:1], *later]


def _fitting(events: Sequence[Event], room: int) -> int:
    """How many events have so many bytes of payload together at most; one at least, if there is one."""
    for count, event in enumerate(events):
        room -= len(event.payload)
        if room < 0:
            return max(1, count)
    return len(events)
