"""Subscription: one consumer's handle on a bounded queue, with the overflow rule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from ..event import CLOSE_EVENT, Event
from ..topic import Topic
from .backlog import Backlog
from .log import Log
from .relay import Relay
from .tail import BUFFER_BYTES

__all__ = ["Subscription"]


class Subscription:
    """What `hub.subscribe` returns: a bounded queue of the events of its topics.

    At most `buffer_size` events wait in it, and at most `buffer_bytes` of their payloads or one event. When one more
    arrives, all of them are dropped and one `REFRESH_EVENT` stands in their place and in that event's; later events
    follow it. With a log that refills, the oldest make room instead, and are read again when their turn comes.

    Iterating, or `get`, waits for events; after `CLOSE_EVENT` the iteration ends. Any thread may
    use it, and `close` it while another one waits.

    A subscription that nobody has any more leaves the hub by itself, soon: the hub has its `consumer` alone. A loop
    over it, and a `get` that waits, have it.
    """

    _on_drop: Callable[[Backlog], object] | None = None  # of one whose constructor has failed, too

    def __init__(
        self,
        buffer_size: int,
        on_close: Callable[..., object] | None = None,
        relay: Relay | None = None,
        log: Log | None = None,
        topics: Sequence[Topic] = (),
        *,
        buffer_bytes: int = BUFFER_BYTES,
        on_drop: Callable[[Backlog], object] | None = None,
    ) -> None:
        """`on_close` is called with the `consumer`, and `stalled=True` when the reader is let go.

        `on_drop` is called with the `consumer` by the finaliser of a subscription that was not closed. It may run in
        the middle of anything, in any thread, so it must take no lock.

        With a `relay`, what is offered wakes nobody before `relay.start()`. With a `log` that has the
        events of its topics, `begin` comes before the first `get`.
        """
        if buffer_size < 1:
            raise ValueError(f"buffer_size has to be at least 1, not {buffer_size}")
        if buffer_bytes < 1:
            raise ValueError(f"buffer_bytes has to be at least 1, not {buffer_bytes}")
        self._backlog = Backlog(buffer_size, relay, log, topics, buffer_bytes)
        self._on_close = on_close
        self._on_drop = on_drop

    def begin(self, after: int | None) -> None:
        """What it begins with, once events are offered to it: the first after that number of the log, or
        the next. Without a log, what came after a number is not known: a refresh."""
        self._backlog.begin(after)

    @property
    def cursor(self) -> int | None:
        """Everything of its topics up to this number of the log has been read; None without a log."""
        return self._backlog.cursor

    @property
    def consumer(self) -> Backlog:
        """What events are offered to, by the hub that has it in the place of the subscription."""
        return self._backlog

    @property
    def buffer_size(self) -> int:
        """How many events can wait."""
        return self._backlog.maxsize

    @property
    def buffer_bytes(self) -> int:
        """How many bytes of payloads can wait, where it's more than one event."""
        return self._backlog.max_bytes

    @property
    def closed(self) -> bool:
        """Whether no further event will be queued; what is queued may still be read."""
        return self._backlog.ended

    def get(self, timeout: float | None = None) -> Event:
        """The next event; waits for it, `timeout` seconds at most, or for ever (None or infinity).

        Raises `queue.Empty` when the time has passed. After the end it returns `CLOSE_EVENT`,
        however often it is called.
        """
        return self._backlog.get(timeout=_seconds(timeout))

    def get_all(self, timeout: float | None = None) -> list[Event]:
        """Every event that waits, at least one; waits for the first like `get`.

        The list ends with `CLOSE_EVENT` when the subscription has ended.
        """
        return self._backlog.get_all(_seconds(timeout))

    def offer(self, event: Event) -> bool:
        """Queue an event, never waiting. False when a `REFRESH_EVENT` replaced the backlog."""
        return self._backlog.offer(event)

    def end(self) -> None:
        """The hub's end: what is queued can still be read, `CLOSE_EVENT` comes after it."""
        self._backlog.end()

    def close(self) -> None:
        """Leave the hub. Idempotent, never waits; other threads that wait get `CLOSE_EVENT`."""
        self._backlog.end(drop=True)
        if self._on_close is not None:
            self._on_close(self._backlog)

    def let_go(self) -> None:
        """Close it because its reader has stalled, which `hub.stats()` counts. Idempotent, never waits."""
        if self._on_close is not None:
            self._on_close(self._backlog, stalled=True)
        self.close()

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.get()
            yield event
            if event is CLOSE_EVENT:
                return

    def __del__(self) -> None:
        if self._on_drop is not None and not self._backlog.ended:
            self._on_drop(self._backlog)

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
    # A queue refuses negative times; "the time is over" is an ordinary result of subtracting. And a lock refuses times
    # that it can't count, infinity among them.
    return None if timeout is None or timeout > threading.TIMEOUT_MAX else max(0.0, timeout)
