"""NotifyHub: the one object that a process publishes and subscribes through."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from .backend import Backend
from .core import Core
from .delivery.log import numbered
from .delivery.subscription import Subscription
from .delivery.tail import BUFFER_BYTES
from .fork import renew_in_children
from .stats import HubStats
from .topic import topics

__all__ = ["NotifyHub", "core_of", "live_hubs"]

_Hub = TypeVar("_Hub", bound="NotifyHub")

# No WeakSet: listing one fails when another thread makes or drops a hub meanwhile.
_live: weakref.WeakKeyDictionary[NotifyHub, None] = weakref.WeakKeyDictionary()


def live_hubs() -> list[NotifyHub]:
    """The hubs of this process: what a server's shutdown hook has to close."""
    return [hub for ref in _live.keyrefs() if (hub := ref()) is not None]


def core_of(hub: NotifyHub) -> Core:
    """What a hub has in this process: for streams and servers, which need more of it than users."""
    return hub._core


class NotifyHub:
    """Subscribe, publish, start, close. Making one opens nothing and starts nothing.

    Every method may be called from any thread. `close` must not be called from a signal handler,
    which could interrupt the very code whose lock it needs: let the handler raise `SystemExit`.

    A hub that was made, or even started, before a `fork` works in the child: everything is made
    anew there. Subscriptions stay with the process that made them.
    """

    def __init__(
        self, new_backend: Callable[[], Backend], *, buffer_size: int = 32, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        """`new_backend` makes what carries the events, once in each process. Raises `ValueError`."""
        for name, value in (("buffer_size", buffer_size), ("buffer_bytes", buffer_bytes)):
            if value < 1:
                raise ValueError(f"{name} has to be at least 1, not {value}")
        self._new_core = partial(Core, new_backend, buffer_size, buffer_bytes)
        self._core = self._new_core()
        _live[self] = None
        renew_in_children(self._begin_anew)

    def start(self, timeout: float = 10.0) -> None:
        """Start the listener's thread and wait, `timeout` seconds at most, until it listens.

        Idempotent; `subscribe` does it when nobody did. Raises `HubConfigurationError` at once
        for what waiting won't cure, `HubTimeoutError` for what it might have cured, and
        `HubClosedError`. Once the hub has listened, nothing stops it but `close`.
        """
        self._core.lifecycle.check_open()
        self._core.lifecycle.start(timeout)

    def start_in_background(self) -> None:
        """Start the listener's thread and return at once. The thread tries until `close`, whatever fails.

        What fails is in `stats().last_error`, and in the log at a bounded rate. Idempotent. Raises `HubClosedError`.
        """
        self._core.lifecycle.keep_trying()

    def run(self) -> None:
        """Listen in the calling thread until `close`; the hub is closed when it returns.

        It waits for a server as long as it takes. Raises `HubConfigurationError`, `HubClosedError`.
        """
        try:
            self._core.lifecycle.run()
        finally:
            self.close()

    def close(self, timeout: float = 5.0) -> None:
        """Give every subscription `CLOSE_EVENT`, then stop the listener.

        Idempotent, from any thread. Waits `timeout` seconds at most for the listener's thread
        and for a publish that is under way, and logs a warning for what takes longer.
        """
        self._core.close(timeout)

    def subscribe(
        self,
        channels: str | Iterable[str],
        tenant_id: str | uuid.UUID,
        *,
        after: int | str | None = None,
        start_timeout: float = 10.0,
    ) -> Subscription:
        """A subscription to one channel of a tenant, or to several.

        What is committed after it returns is delivered, or told as a gap. With history, `after` is a
        `cursor` or an event's id: what was committed since then comes first, or a refresh when that is
        not known. A subscription that is dropped is closed.
        Starts the hub when nobody did; that, and that alone, may wait. Raises `InvalidEventError`,
        `HubClosedError` and what `start` raises.
        """
        wanted = topics(channels, tenant_id)
        self.start(start_timeout)
        return self._core.subscribe(wanted, numbered(after) if isinstance(after, str) else after)

    @property
    def has_history(self) -> bool:
        """Whether events are kept for those who missed them."""
        return self._core.log is not None

    def cursor(self, *, executor: Any = None, start_timeout: float = 10.0) -> str | None:
        """Where the history ends, as far as this process knows; None without history.

        What was committed up to there is seen by whoever queries the database from now on. So a
        page that gets the cursor before it reads its state, and opens its stream with
        `?last_event_id=` and the cursor, misses nothing. Starts the hub when nobody did, and raises
        what `start` raises; otherwise it never waits.

        A transaction of REPEATABLE READ or SERIALIZABLE has its snapshot from its first query on: what counts is what
        that sees. With the page's `executor` (as for `publish`) the cursor is read in its transaction, by a role that
        may read the history. That blocks for a round trip, needs no listener, and raises the executor's errors.
        """
        if self._core.log is None:
            return None
        if executor is not None:
            return self._core.backend.read_cursor(executor)
        self.start(start_timeout)
        return str(self._core.log.offered)

    def publish(
        self,
        channel: str,
        tenant_id: str | uuid.UUID,
        payload: Any,
        *,
        type: str = "",
        executor: Any = None,
    ) -> None:
        """Send one event: a payload that JSON can hold, or `bytes` that are JSON already.

        With an `executor` whose connection is in a transaction, the event is delivered when it
        commits, and never when it rolls back. Blocks for a round trip. Raises
        `InvalidEventError` and `PayloadTooLargeError` before anything is sent, `HubClosedError`,
        and the executor's own errors.
        """
        self.publish_many([(channel, tenant_id, payload, type)], executor=executor)

    def publish_many(self, events: Iterable[Sequence[Any]], *, executor: Any = None) -> None:
        """Send many events in one round trip, all or none, in their order.

        Each is `(channel, tenant_id, payload)` or `(channel, tenant_id, payload, type)`.
        Everything is checked before anything is sent; raises what `publish` raises.
        """
        self._core.lifecycle.check_open()
        backend = self._core.backend
        texts = [backend.compose(*event) for event in events]
        if texts:
            backend.send(texts, executor)

    def stats(self) -> HubStats:
        """A snapshot of the hub's state and counters. Never waits."""
        return self._core.stats()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._core.lifecycle.closed

    @property
    def listening(self) -> bool:
        """Whether notifications arrive now."""
        return self._core.lifecycle.listening

    @property
    def has_listened(self) -> bool:
        """Whether notifications have ever arrived in this process."""
        return self._core.lifecycle.has_listened

    def __enter__(self: _Hub) -> _Hub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin_anew(self) -> None:
        self._core.abandon()
        self._core = self._new_core()
