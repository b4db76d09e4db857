"""Tail: the newest events of a set of topics, each at a position."""

from __future__ import annotations

from typing import Final

from ..event import REFRESH_EVENT, Event
from .log import Log, number_of

__all__ = ["BUFFER_BYTES", "Tail"]

BUFFER_BYTES: Final = 262_144
"""Bytes of payload that may wait for a reader, unless a hub is told otherwise."""


class Tail:
    """The newest events of some topics, and what is known about older ones.

    A position counts the events that were ever appended. The oldest event in the tail is at `first_position`. The next
    event will be at `end_position`.

    The tail has every event of its topics that was offered and has a number above `floor`. The log has the others.
    `floor` is -1 until the owner knows from which number on events are offered to the tail.

    `gap` is the position behind the last place where events may have been lost. A refresh stands there, or an event
    without a number was dropped, which no log has. A reader with a lower position gets a refresh. A reader that has
    read that refresh, and nothing behind it, has the number `gap_number`.

    At most `size` events may wait for a reader, with at most `max_bytes` of payload or one event. If `append` returns
    False, the owner has to make room with `fit` or `lose`.

    The owner's lock guards it.
    """

    __slots__ = ("bytes", "events", "first_position", "floor", "gap", "gap_number", "log", "max_bytes", "size")

    def __init__(self, size: int, max_bytes: int, log: Log | None) -> None:
        self.size = size
        self.max_bytes = max_bytes
        self.log = log
        """Where the events of these topics can be read again, if there is a history."""
        self.events: list[Event] = []
        self.bytes = 0
        """Bytes of payload in `events`. A refresh counts as 0."""
        self.first_position = 0
        """The position of the oldest event in the tail, or `end_position` if it is empty."""
        self.floor = -1
        self.gap = 0
        self.gap_number = 0

    @property
    def end_position(self) -> int:
        """The position of the next event."""
        return self.first_position + len(self.events)

    @property
    def refills(self) -> bool:
        """Whether a reader that is too slow gets dropped events from the log. Otherwise it gets a refresh."""
        return self.log is not None and self.log.refill

    @property
    def begun(self) -> int:
        """See `Log.begun`; 0 without a log."""
        return 0 if self.log is None else self.log.begun

    @property
    def offered(self) -> int:
        """See `Log.offered`; 0 without a log. Everything up to it has been appended."""
        return 0 if self.log is None else self.log.offered

    def append(self, event: Event) -> bool:
        """Put an event at the end. Return False if it is one too many. One event may wait whatever its size."""
        events = self.events
        events.append(event)
        self.bytes += len(event.payload)
        return len(events) <= self.size and (self.bytes <= self.max_bytes or self.bytes == len(event.payload))

    def append_refresh(self) -> bool:
        """Put a refresh at the end, for everything that has been offered. Return False if it is one too many."""
        self.events.append(REFRESH_EVENT)
        self._note_gap()
        return len(self.events) <= self.size

    def renew_refresh(self) -> None:
        """Have the refresh at the end stand for everything that has been offered by now. Its number may be lower than
        before, if the log has lost events since."""
        self._note_gap()

    def lose(self) -> None:
        """Replace everything with one refresh."""
        self.first_position += len(self.events)
        self.events.clear()
        self.bytes = 0
        self.append_refresh()

    def leave_to_log(self, until: int) -> None:
        """Drop everything. The log has it, and has further events up to a number that were never offered."""
        self.drop(len(self.events))
        self.first_position += 1  # in the place of what was not offered: no reader has passed it
        self.floor = until

    def drop(self, count: int) -> None:
        """Drop the oldest events, also if a reader has not had them."""
        position = self.first_position
        for event in self._pop(max(0, count)):
            position += 1
            if number_of(event):
                self._raise_floor(event, position)
            elif event is not REFRESH_EVENT and position > self.gap:
                self.gap, self.gap_number = position, max(0, self.floor)

    def fit(self) -> None:
        """Drop the oldest events until the rest may wait. The newest one stays, whatever its size."""
        count = max(0, len(self.events) - self.size)
        excess = self.bytes - self.max_bytes - _bytes_of(self.events[:count])
        while excess > 0 and count < len(self.events) - 1:
            excess -= _bytes_of(self.events[count : count + 1])
            count += 1
        self.drop(count)

    def forget(self, position: int) -> None:
        """Drop the events before a position. Every reader has had them, so nothing is lost."""
        first = self.first_position
        if position > first:
            dropped = self._pop(position - first)
            for at in range(len(dropped) if self.log is not None else 0, 0, -1):
                if self._raise_floor(dropped[at - 1], first + at):
                    return

    def slice(self, start: int, end: int) -> list[Event]:
        """The events from one position up to another. The tail must have all of them."""
        first = self.first_position
        return self.events[start - first : end - first]

    def number_before(self, position: int) -> int | None:
        """A number of the log up to which everything is before a position. None if there is no such number."""
        if position <= self.first_position:
            return max(0, self.floor)
        event = self.events[position - 1 - self.first_position]
        if event is REFRESH_EVENT:
            return self.gap_number if position == self.gap else None
        return number_of(event) or None

    def vouches_for(self, number: int) -> bool:
        """Whether the tail shows that the log has that very number. Events before a gap may be another log's."""
        if self.log is None or not self.log.complete:
            return False
        here = self.events[max(0, self.gap - self.first_position) :]
        return number in (self.floor, self.offered) or any(number_of(event) == number for event in here)

    def position_after(self, number: int) -> int:
        """The position behind everything up to a number, or `first_position` if all of that has been dropped."""
        for back, event in enumerate(reversed(self.events)):
            if event is REFRESH_EVENT or 0 < number_of(event) <= number:
                return self.end_position - back
        return self.first_position

    def has_unnumbered(self, start: int, end: int) -> bool:
        """Whether there is an event without a number between two positions: the log can't have it."""
        return start < end and not all(map(number_of, self.slice(max(start, self.first_position), end)))

    def _raise_floor(self, dropped: Event, position: int) -> bool:
        number = number_of(dropped)
        if number and position > self.gap:  # numbers before a gap may be another log's, and no reader needs them
            self.floor = number
        return number > 0

    def _note_gap(self) -> None:
        self.gap, self.gap_number, self.floor = self.end_position, self.begun, self.begun

    def _pop(self, count: int) -> list[Event]:
        dropped = self.events[:count]
        del self.events[:count]
        self.first_position += len(dropped)
        for event in dropped if self.events else ():
            if event is not REFRESH_EVENT:
                self.bytes -= len(event.payload)
        if not self.events:
            self.bytes = 0
        return dropped


def _bytes_of(events: list[Event]) -> int:
    return sum(len(event.payload) for event in events if event is not REFRESH_EVENT)
