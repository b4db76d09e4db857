"""Backlog: what waits for the reader of a subscription."""

from __future__ import annotations

import queue
from typing import Final

from .event import CLOSE_EVENT, REFRESH_EVENT, Event
from .relay import Relay

__all__ = ["BUFFER_BYTES", "Backlog"]

BUFFER_BYTES: Final = 262_144
"""Bytes of payload that wait for a reader, unless a hub is told otherwise."""


class Backlog(queue.Queue[Event]):
    """A `queue.Queue` whose writer never waits, and which can end.

    It holds at most `maxsize` events, and at most `max_bytes` of their payloads or one event. A refresh takes no bytes.

    It stands for its subscription in the registry. So a subscription that nobody has any more is not kept by that.

    Its `mutex` guards the deque and the attributes below it; it is held for a few operations on
    them and for nothing else. `ended` may be read without it. Once ended, the queue yields what it holds and then
    `CLOSE_EVENT` for ever, so that every thread that waits on it wakes up and learns the end.

    Whoever has waited on it wakes the next of the `relay`.
    """

    members: Final = 1
    """How many readers there are of it, for the registry."""

    ended = False

    def __init__(self, maxsize: int, relay: Relay | None, max_bytes: int = BUFFER_BYTES) -> None:
        super().__init__(maxsize)
        self.max_bytes = max_bytes
        self._bytes = 0
        self._relay = relay
        self._waiting = 0
        self._told = False

    def _qsize(self) -> int:
        return len(self.queue) + self.ended

    def _get(self) -> Event:
        return self._pop() if self.queue else CLOSE_EVENT

    def _pop(self) -> Event:
        event: Event = self.queue.popleft()
        self._bytes -= _size(event)
        return event

    def _append(self, event: Event) -> None:
        self.queue.append(event)
        self._bytes += _size(event)

    def _clear(self) -> None:
        self.queue.clear()
        self._bytes = 0

    def _has_room(self, event: Event) -> bool:
        size = _size(event)
        too_large = size > 0 and self._bytes > 0 and self._bytes + size > self.max_bytes
        return len(self.queue) < self.maxsize and not too_large

    def get(self, block: bool = True, timeout: float | None = None) -> Event:
        """As `queue.Queue.get`."""
        with self.mutex:
            event = self._get() if self._qsize() else None
            others = self._waiting
        if event is not None:
            if others:
                self._pass_on()
            return event
        try:
            return self._wait(timeout if block else 0.0)
        finally:
            self._pass_on()

    def _wait(self, timeout: float | None) -> Event:
        with self.mutex:
            self._waiting += 1
            try:
                if not self.not_empty.wait_for(self._qsize, timeout):
                    raise queue.Empty
            finally:
                self._waiting -= 1
            event = self._get()
            if self._waiting and self._qsize():  # several wait here, and one of them was woken for several events
                self.not_empty.notify()
        return event

    def _pass_on(self) -> None:
        """Wake the next of the relay: whoever was woken does, and whoever may have taken what another
        was woken for, who sleeps again then."""
        if self._relay is not None:
            self._relay.wake_next()

    def wake(self) -> bool:
        """Wake one thread that waits, if there is one, and something for it."""
        with self.mutex:
            self._told = False
            needed = bool(self._waiting and self._qsize())
            if needed:
                self.not_empty.notify()
        return needed

    def offer(self, event: Event) -> bool:
        """Append; when full, one refresh takes the place of everything (False then).

        Two refreshes in a row say no more than one.
        """
        with self.mutex:
            if self.ended or (event is REFRESH_EVENT and self._tail() is event):
                self._fold_refresh()
                return True
            room = self._put_event(event)
            if not self._waiting or self._told:
                return room
            if self._relay is None:
                self.not_empty.notify()
                return room
            self._told = True
        self._relay.news(self)
        return room

    def _put_event(self, event: Event) -> bool:
        room = self._has_room(event)
        if not room:
            self._clear()
            event = REFRESH_EVENT
        self._append(event)
        return room

    def _fold_refresh(self) -> None:
        """The refresh that waits stands for another one, too."""

    def _tail(self) -> Event | None:
        return self.queue[-1] if self.queue else None

    def skip(self, after: int, until: int) -> None:
        """See `Consumer`: without a log that refills it, what was not offered is lost, so a refresh stands for it."""
        self.offer(REFRESH_EVENT)

    def end(self, *, drop: bool = False) -> None:
        """Take nothing more, and `drop` what waits; every thread that waits wakes up. Idempotent, never waits."""
        with self.mutex:
            self.ended = True
            if drop:
                self._clear()
            self.not_empty.notify_all()

    def take_rest(self) -> list[Event]:
        """Everything that is there now, the end included."""
        with self.mutex:
            rest = list(self.queue)
            self._clear()
            if self.ended:
                rest.append(CLOSE_EVENT)
            others = self._waiting
        if others:
            self._pass_on()
        return rest


def _size(event: Event) -> int:
    """How many bytes an event takes; none for a refresh, which takes the place of others."""
    return 0 if event is REFRESH_EVENT else len(event.payload)
