"""Subscription: one consumer's handle on a bounded queue."""

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

    At most `buffer_size` events wait in it, with at most `buffer_bytes` of payload or one event. If one more arrives,
    all of them are dropped, and one `REFRESH_EVENT` stands for them and for that event. Later events follow it. With
    history, the oldest events are dropped instead, and read again when it is their turn.

    Iterate it, or call `get`; both block until there is an event. The iteration ends after `CLOSE_EVENT`. Any thread
    may use the subscription, and `close` it while another thread waits.

    A subscription that is garbage-collected leaves the hub soon. A loop over it, or a waiting `get`, keeps it alive.
    """

    def __init__(
        self,
        backlog: Backlog,
        on_close: Callable[..., object] = _nothing,
        on_drop: Callable[[Backlog], object] = _nothing,
    ) -> None:
        """The hub refers to the `backlog` alone, so that an unused subscription is garbage-collected.

        `on_close` is called with the backlog, and with `stalled=True` when the reader has stalled. `on_drop` is called
        with the backlog by the finaliser of a subscription that was not closed. It may run in the middle of anything,
        in any thread, so it must take no lock.
        """
        self._backlog = backlog
        self._on_close = on_close
        self._on_drop = on_drop

    @property
    def cursor(self) -> str | None:
        """How far this subscription has read its topics: what to pass as `after=` to go on. None without history."""
        return None if (number := self.number) is None else str(number)

    @property
    def number(self) -> int | None:
        """The cursor as a number of the log, for streams."""
        return self._backlog.number

    @property
    def buffer_size(self) -> int:
        """How many events can wait."""
        return self._backlog.maxsize

    @property
    def buffer_bytes(self) -> int:
        """How many bytes of payload can wait, if they are of more than one event."""
        return self._backlog.max_bytes

    @property
    def closed(self) -> bool:
        """Whether no further event will be queued; what is queued may still be read."""
        return self._backlog.ended

    def get(self, timeout: float | None = None) -> Event:
        """Return the next event. Block until there is one, for at most `timeout` seconds (None: without a limit).

        Raise `queue.Empty` when the time has passed. After the end, every call returns `CLOSE_EVENT`.
        """
        return self._backlog.get(timeout=_seconds(timeout))

    def get_all(self, timeout: float | None = None) -> list[Event]:
        """Return every event that waits, at least one. Block for the first like `get`.

        The list ends with `CLOSE_EVENT` when the subscription has ended.
        """
        return self._backlog.get_all(_seconds(timeout))

    def close(self, *, stalled: bool = False) -> None:
        """Leave the hub. Idempotent, never blocks. Threads that wait in `get` receive `CLOSE_EVENT`.

        With `stalled`, `hub.stats()` counts a stalled reader.
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
    # A queue refuses negative times, which subtracting easily gives. A lock refuses times that it can't count, such as
    # infinity.
    return None if timeout is None or timeout > threading.TIMEOUT_MAX else max(0.0, timeout)
