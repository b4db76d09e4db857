"""Backlog: what waits for the reader of a subscription."""

from __future__ import annotations

import queue

from .event import CLOSE_EVENT, REFRESH_EVENT, Event
from .relay import Relay

__all__ = ["Backlog"]


class Backlog(queue.Queue[Event]):
    """A `queue.Queue` whose writer never waits, and which can end.

    Its `mutex` guards the deque and the attributes below it; it is held for a few operations on
    them and for nothing else. Once ended, the queue yields what it holds and then `CLOSE_EVENT`
    for ever, so that every thread that waits on it wakes up and learns the end.

    Whoever has waited on it wakes the next of the `relay`.
    """

    ended = False

    def __init__(self, maxsize: int, relay: Relay | None) -> None:
        super().__init__(maxsize)
        self._relay = relay
        self._waiting = 0
        self._told = False

    def _qsize(self) -> int:
        return len(self.queue) + self.ended

    def _get(self) -> Event:
        return self.queue.popleft() if self.queue else CLOSE_EVENT

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
        room = len(self.queue) < self.maxsize
        if not room:
            self.queue.clear()
            event = REFRESH_EVENT
        self.queue.append(event)
        return room

    def _tail(self) -> Event | None:
        return self.queue[-1] if self.queue else None

    def end(self, *, drop: bool) -> None:
        with self.mutex:
            self.ended = True
            if drop:
                self.queue.clear()
            self.not_empty.notify_all()

    def take_rest(self) -> list[Event]:
        """Everything that is there now, the end included."""
        with self.mutex:
            rest = list(self.queue)
            self.queue.clear()
            if self.ended:
                rest.append(CLOSE_EVENT)
            others = self._waiting
        if others:
            self._pass_on()
        return rest
