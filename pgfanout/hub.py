"""NotifyHub: the one object that a process publishes and subscribes through."""

from __future__ import annotations

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
from .executor import Executor
from .fork import renew_in_children
from .payload import JsonDefault
from .stats import HubStats
from .topic import TenantId, topics

__all__ = ["NotifyHub", "core_of", "live_hubs"]

_Hub = TypeVar("_Hub", bound="NotifyHub")

# No WeakSet: listing one fails when another thread makes or drops a hub meanwhile.
_live: weakref.WeakKeyDictionary[NotifyHub, None] = weakref.WeakKeyDictionary()


def live_hubs() -> list[NotifyHub]:
    """The hubs of this process. A server's shutdown hook closes them."""
    return [hub for ref in _live.keyrefs() if (hub := ref()) is not None]


def core_of(hub: NotifyHub) -> Core:
    """A hub's core in this process, for streams and servers."""
    return hub._core


class NotifyHub:
    """Subscribe, publish, start, close. Making one opens nothing and starts nothing.

    Every method may be called from any thread. Do not call `close` from a signal handler: the handler may have
    interrupted code that holds a lock which `close` needs. Let the handler raise `SystemExit` instead.

    A hub that was made or started before a `fork` works in the child, which makes a new core for it. Subscriptions stay
    with the process that made them.
    """

    def __init__(
        self,
        new_backend: Callable[[], Backend],
        *,
        buffer_size: int = 32,
        buffer_bytes: int = BUFFER_BYTES,
        json_default: JsonDefault | None = None,
    ) -> None:
        """`new_backend` is called once in each process. Raise `ValueError` for a buffer that holds nothing.

        `json_default` converts values in payloads that JSON does not have, as the `default` of `json.dumps`.
        """
        for name, value in (("buffer_size", buffer_size), ("buffer_bytes", buffer_bytes)):
            if value < 1:
                raise ValueError(f"{name} has to be at least 1, not {value}")
        self._json_default = json_default
        self._new_core = partial(Core, new_backend, buffer_size, buffer_bytes)
        self._core = self._new_core(self)
        _live[self] = None
        renew_in_children(self._begin_anew)

    def start(self, timeout: float = 10.0) -> None:
        """Start the listener's thread. Block until the hub listens, for at most `timeout` seconds.

        Idempotent. `subscribe` calls it. Raise `HubConfigurationError` at once for an error that waiting won't cure,
        `HubTimeoutError` when the time is over, and `HubClosedError`. Once the hub has listened, only `close` stops it.
        """
        self._core.lifecycle.check_open()
        self._core.lifecycle.start(timeout)

    def start_in_background(self) -> None:
        """Start the listener's thread and return at once. The thread retries until `close`, whatever fails.

        Errors are in `stats().last_error`, and in the log at a bounded rate. Idempotent. Raise `HubClosedError`.
        """
        self._core.lifecycle.keep_trying()

    def run(self) -> None:
        """Listen in the calling thread. Block until `close`. The hub is closed when it returns.

        It retries without end while the server is away. Raise `HubConfigurationError` and `HubClosedError`.
        """
        try:
            self._core.lifecycle.run()
        finally:
            self.close()

    def close(self, timeout: float = 5.0) -> None:
        """Give every subscription `CLOSE_EVENT`, then stop the listener.

        Idempotent, from any thread. Block for at most `timeout` seconds until the listener's thread, and a publish that
        is under way, have ended. Log a warning if they have not.
        """
        self._core.close(timeout)

    def subscribe(
        self,
        channels: str | Iterable[str],
        tenant_id: TenantId | Iterable[TenantId],
        *,
        after: str | None = None,
        start_timeout: float = 10.0,
    ) -> Subscription:
        """Subscribe to one channel or several, of one tenant or several (see `TenantId`).

        Events that are committed after it returns are delivered, or a refresh stands for them. With history, `after` is
        a `cursor` or an event's id. The events since then come first. A refresh comes first if the log can't tell them,
        if `after` is no cursor, or without history. A subscription that is garbage-collected is closed.

        Start the hub if it was not started, and block for at most `start_timeout` seconds for that alone. Raise
        `InvalidEventError`, `HubClosedError` and what `start` raises.
        """
        wanted = topics(channels, tenant_id)
        self.start(start_timeout)
        return self._core.subscribe(wanted, None if after is None else numbered(str(after)))

    @property
    def has_history(self) -> bool:
        """Whether the backend keeps events that can be read again."""
        return self._core.log is not None

    def cursor(self, *, executor: Executor | None = None, start_timeout: float = 10.0) -> str | None:
        """Return where the history ends, as far as this process knows. Return None without history.

        A cursor is opaque text, like the id of an event of the history. Keep it as it is, and pass it to `subscribe`.

        A query that starts now sees everything that was committed up to the cursor. So a page misses nothing if it gets
        the cursor before it reads its state, and opens its stream with `?last_event_id=` and the cursor. Start the hub
        if it was not started, and raise what `start` raises. Otherwise it never blocks.

        A transaction of REPEATABLE READ or SERIALIZABLE keeps the snapshot of its first query. Pass its `executor` (as
        for `publish`), and the cursor is read in that transaction, with the rights of its role. That blocks for a round
        trip, needs no listener, and raises the executor's errors.
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
        tenant_id: TenantId,
        payload: Any,
        *,
        type: str = "",
        executor: Executor | None = None,
    ) -> None:
        """Send one event. The payload is any JSON value, or `bytes` that are JSON already.

        If the `executor`'s connection is in a transaction, the event is delivered when that commits, and never if it
        rolls back. `pgfanout.Executor` says what it may be. A session of SQLAlchemy is flushed first. Block for a round
        trip. Raise `InvalidEventError`, `PayloadTooLargeError` and `TypeError` (of an executor that can't be one)
        before anything is sent, `HubClosedError`, and the executor's own errors.
        """
        self.publish_many([(channel, tenant_id, payload, type)], executor=executor)

    def publish_many(self, events: Iterable[Sequence[Any]], *, executor: Executor | None = None) -> None:
        """Send many events in one round trip, all or none, in their order.

        Each is `(channel, tenant_id, payload)` or `(channel, tenant_id, payload, type)`. All are checked before any is
        sent. Raise what `publish` raises.
        """
        self._core.lifecycle.check_open()
        backend = self._core.backend
        texts = [backend.compose(*event, json_default=self._json_default) for event in events]
        if texts:
            backend.send(texts, executor)

    def stats(self) -> HubStats:
        """Return a snapshot of the hub's state and counters. Never blocks."""
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
        self._core = self._new_core(self)
