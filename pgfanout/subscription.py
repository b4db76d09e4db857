"""Subscription: one consumer's handle on a bounded queue, with the overflow rule."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final

from .event import CLOSE_EVENT, REFRESH_EVENT, Event
from .relay import Relay

__all__ = ["Subscription"]


class _Backlog(queue.Queue[Event]):
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
            if self._waiting and self.queue:  # several wait here, and one of them was woken for several events
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
            room = len(self.queue) < self.maxsize
            if not room:
                self.queue.clear()
                event = REFRESH_EVENT
            self.queue.append(event)
            if not self._waiting or self._told:
                return room
            if self._relay is None:
                self.not_empty.notify()
                return room
            self._told = True
        self._relay.news(self)
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


class Subscription:
    """What `hub.subscribe` returns: a bounded queue of the events of its topics.

    At most `buffer_size` events wait in it. When one more arrives, all of them are dropped and
    one `REFRESH_EVENT` stands in their place and in that event's; later events follow it.

    Iterating, or `get`, waits for events; after `CLOSE_EVENT` the iteration ends. Any thread may
    use it, and `close` it while another one waits.
    """

    members: Final = 1
    """How many there are of it, for the registry."""

    def __init__(
        self, buffer_size: int, on_close: Callable[..., object] | None = None, relay: Relay | None = None
    ) -> None:
        """`on_close` is called with the subscription, and `stalled=True` when it is let go.

        With a `relay`, what is offered wakes nobody before `relay.start()`.
        """
        if buffer_size < 1:
            raise ValueError(f"buffer_size has to be at least 1, not {buffer_size}")
        self._backlog = _Backlog(buffer_size, relay)
        self._on_close = on_close

    @property
    def buffer_size(self) -> int:
        """How many events can wait."""
        return self._backlog.maxsize

    @property
    def closed(self) -> bool:
        """Whether no further event will be queued; what is queued may still be read."""
        return self._backlog.ended

    def get(self, timeout: float | None = None) -> Event:
        """The next event; waits for it, `timeout` seconds at most, or for ever.

        Raises `queue.Empty` when the time has passed. After the end it returns `CLOSE_EVENT`,
        however often it is called.
        """
        return self._backlog.get(timeout=_seconds(timeout))

    def get_all(self, timeout: float | None = None) -> list[Event]:
        """Every event that waits, at least one; waits for the first like `get`.

        The list ends with `CLOSE_EVENT` when the subscription has ended.
        """
        first = self.get(timeout)
        return [first] if first is CLOSE_EVENT else [first, *self._backlog.take_rest()]

    def offer(self, event: Event) -> bool:
        """Queue an event, never waiting. False when a `REFRESH_EVENT` replaced the backlog."""
        return self._backlog.offer(event)

    def end(self) -> None:
        """The hub's end: what is queued can still be read, `CLOSE_EVENT` comes after it."""
        self._backlog.end(drop=False)

    def close(self) -> None:
        """Leave the hub. Idempotent, never waits; other threads that wait get `CLOSE_EVENT`."""
        self._backlog.end(drop=True)
        if self._on_close is not None:
            self._on_close(self)

    def let_go(self) -> None:
        """Close it because its reader has stalled, which `hub.stats()` counts. Idempotent, never waits."""
        if self._on_close is not None:
            self._on_close(self, stalled=True)
        self.close()

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.get()
            yield event
            if event is CLOSE_EVENT:
                return

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _seconds(timeout: float | None) -> float | None:
    # A queue refuses negative times; "the time is over" is an ordinary result of subtracting.
    return None if timeout is None else max(0.0, timeout)
