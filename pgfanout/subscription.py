"""Subscription: one consumer's handle on a bounded queue, with the overflow rule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final

from .backlog import Backlog
from .event import CLOSE_EVENT, REFRESH_EVENT, Event
from .log import Log
from .refill import RefillingBacklog
from .relay import Relay
from .topic import Topic

__all__ = ["Subscription"]


class Subscription:
    """What `hub.subscribe` returns: a bounded queue of the events of its topics.

    At most `buffer_size` events wait in it. When one more arrives, all of them are dropped and
    one `REFRESH_EVENT` stands in their place and in that event's; later events follow it. With a
    log that refills, the oldest makes room instead, and is read again when its turn comes.

    Iterating, or `get`, waits for events; after `CLOSE_EVENT` the iteration ends. Any thread may
    use it, and `close` it while another one waits.
    """

    members: Final = 1
    """How many there are of it, for the registry."""

    def __init__(
        self,
        buffer_size: int,
        on_close: Callable[..., object] | None = None,
        relay: Relay | None = None,
        log: Log | None = None,
        topics: Sequence[Topic] = (),
    ) -> None:
        """`on_close` is called with the subscription, and `stalled=True` when it is let go.

        With a `relay`, what is offered wakes nobody before `relay.start()`. With a `log` that has the
        events of its topics, `begin` comes before the first `get`.
        """
        if buffer_size < 1:
            raise ValueError(f"buffer_size has to be at least 1, not {buffer_size}")
        self._log_backlog = None if log is None else RefillingBacklog(buffer_size, relay, log, topics)
        self._backlog = self._log_backlog or Backlog(buffer_size, relay)
        self._on_close = on_close

    def begin(self, after: int | None) -> None:
        """What it begins with, once events are offered to it: the first after that number of the log, or
        the next. Without a log, what came after a number is not known: a refresh."""
        if self._log_backlog is not None:
            self._log_backlog.begin(after)
        elif after is not None:
            self._backlog.offer(REFRESH_EVENT)

    @property
    def cursor(self) -> int | None:
        """Everything of its topics up to this number of the log has been read; None without a log."""
        return None if self._log_backlog is None else self._log_backlog.cursor

    @property
    def buffer_size(self) -> int:
        """How many events can wait."""
        return self._backlog.maxsize

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
        first = self.get(timeout)
        return [first] if first is CLOSE_EVENT else [first, *self._backlog.take_rest()]

    def offer(self, event: Event) -> bool:
        """Queue an event, never waiting. False when a `REFRESH_EVENT` replaced the backlog."""
        return self._backlog.offer(event)

    def skip(self, after: int, until: int) -> None:
        """Everything after one number of the log, up to another, was not offered: it is read there. Never waits."""
        if self._log_backlog is not None:
            self._log_backlog.skip(after, until)

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
    # A queue refuses negative times; "the time is over" is an ordinary result of subtracting. And a lock refuses times
    # that it can't count, infinity among them.
    return None if timeout is None or timeout > threading.TIMEOUT_MAX else max(0.0, timeout)
