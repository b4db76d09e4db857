"""Subscription: one consumer's handle on a bounded queue, with the overflow rule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from ..event import CLOSE_EVENT, Event
from .backlog import Backlog

__all__ = ["Subscription"]


def _nothing(backlog: Backlog, *, stalled: bool = False) -> None:
    pass


class Subscription:
    """What `hub.subscribe` returns: a bounded queue of the events of its topics.

    At most `buffer_size` events wait in it, and at most `buffer_bytes` of their payloads or one event. When one more
    arrives, all of them are dropped and one `REFRESH_EVENT` stands in their place and in that event's; later events
    follow it. With a log that refills, the oldest make room instead, and are read again when their turn comes.

    Iterating, or `get`, waits for events; after `CLOSE_EVENT` the iteration ends. Any thread may
    use it, and `close` it while another one waits.

    A subscription that nobody has any more leaves the hub by itself, soon: the hub has its queue alone. A loop over
    it, and a `get` that waits, have it.
    """

    def __init__(
        self,
        backlog: Backlog,
        on_close: Callable[..., object] = _nothing,
        on_drop: Callable[[Backlog], object] = _nothing,
    ) -> None:
        """The hub has the `backlog`, and not the subscription.

        `on_close` is called with the backlog, and with `stalled=True` when the reader has stalled. `on_drop` is called
        with the backlog by the finaliser of a subscription that was not closed. It may run in the middle of anything,
        in any thread, so it must take no lock.
        """
        self._backlog = backlog
        self._on_close = on_close
        self._on_drop = on_drop

    @property
    def cursor(self) -> int | None:
        """Everything of its topics up to this number of the log has been read; None without a log."""
        return self._backlog.cursor

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

    def close(self, *, stalled: bool = False) -> None:
        """Leave the hub. Idempotent, never waits; other threads that wait get `CLOSE_EVENT`.

        `hub.stats()` counts it as a reader that `stalled` when it is closed for that.
        """
        self._on_close(self._backlog, stalled=stalled)
        self._backlog.end(drop=True)

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.get()
            yield event
            if event is CLOSE_EVENT:
                return

    def __del__(self) -> None:
        if not self._backlog.ended:
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
