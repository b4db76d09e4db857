"""NotifyHub: the one object that a process publishes and subscribes through.

It knows no database. A backend sends texts and runs a listener that hands texts back.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
import weakref
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from . import envelope
from .delivery.feed import Feed, Mailbox
from .delivery.follower import Follower
from .delivery.log import Log, numbered
from .delivery.reader import Reader
from .delivery.registry import Consumer
from .delivery.subscription import Subscription
from .delivery.tail import BUFFER_BYTES
from .dispatcher import Dispatcher
from .fork import renew_in_children
from .lifecycle import Lifecycle, Listener
from .stats import HubStats
from .topic import Topic, topics

__all__ = ["NotifyHub", "live_hubs"]

logger = logging.getLogger("pgfanout")

_Hub = TypeVar("_Hub", bound="NotifyHub")

# No WeakSet: listing one fails when another thread makes or drops a hub meanwhile.
_live: weakref.WeakKeyDictionary[NotifyHub, None] = weakref.WeakKeyDictionary()


def live_hubs() -> list[NotifyHub]:
    """The hubs of this process: what a server's shutdown hook has to close."""
    return [hub for ref in _live.keyrefs() if (hub := ref()) is not None]


class NotifyHub(ABC):
    """Subscribe, publish, start, close. Making one opens nothing and starts nothing.

    Every method may be called from any thread. `close` must not be called from a signal handler,
    which could interrupt the very code whose lock it needs: let the handler raise `SystemExit`.

    A hub that was made, or even started, before a `fork` works in the child: everything is made
    anew there. Subscriptions stay with the process that made them.
    """

    _log: Log | None

    def __init__(self, *, buffer_size: int = 32, buffer_bytes: int = BUFFER_BYTES) -> None:
        for name, value in (("buffer_size", buffer_size), ("buffer_bytes", buffer_bytes)):
            if value < 1:
                raise ValueError(f"{name} has to be at least 1, not {value}")
        self._buffer_size = buffer_size
        self._buffer_bytes = buffer_bytes
        self._renew()
        _live[self] = None
        renew_in_children(self._renew)

    # What a backend adds.

    @abstractmethod
    def _new_listener(self) -> Listener:
        """A listener that calls `_listening`, `_not_listening`, `_receive` and `_heartbeat`.

        While it waits for something to arrive, it calls `_receive` after `_pause()` seconds, with nothing.
        """

    @abstractmethod
    def _send(self, texts: Sequence[str], executor: Any) -> None:
        """Send the texts, all or none, in their order."""

    def _new_log(self) -> Log | None:
        """Where events can be read again, if the backend has something like that."""
        return None

    def _read_cursor(self, executor: Any) -> str | None:
        """Where the log ends for the executor's transaction."""
        raise NotImplementedError(f"{type(self).__name__} has no log to read a cursor from")

    def _compose(self, *event: Any) -> str:
        """The text to send for the arguments of a publish. Raises `InvalidEventError`, `PayloadTooLargeError`."""
        return envelope.compose(*event)

    def _close_sender(self, timeout: float) -> None:  # noqa: B027
        """Let go what `_send` holds, within `timeout` seconds."""

    # What it offers.

    def start(self, timeout: float = 10.0) -> None:
        """Start the listener's thread and wait, `timeout` seconds at most, until it listens.

        Idempotent; `subscribe` does it when nobody did. Raises `HubConfigurationError` at once
        for what waiting won't cure, `HubTimeoutError` for what it might have cured, and
        `HubClosedError`. Once the hub has listened, nothing stops it but `close`.
        """
        self._lifecycle.check_open()
        self._lifecycle.start(timeout)

    def start_in_background(self) -> None:
        """Start the listener's thread and return at once. The thread tries until `close`, whatever fails.

        What fails is in `stats().last_error`, and in the log at a bounded rate. Idempotent. Raises `HubClosedError`.
        """
        self._lifecycle.keep_trying()

    def await_first_start(self, timeout: float) -> bool:
        """Start the listener's thread like `start_in_background`, and return whether the hub listens.

        For threads of a server, which must not wait for a database that is away: the first thread that asks waits,
        `timeout` seconds at most, until the hub listens or has failed once. No other thread of the process waits.
        Raises `HubClosedError`.
        """
        return self._lifecycle.await_first_start(timeout)

    def run(self) -> None:
        """Listen in the calling thread until `close`; the hub is closed when it returns.

        It waits for a server as long as it takes. Raises `HubConfigurationError`, `HubClosedError`.
        """
        try:
            self._lifecycle.run()
        finally:
            self.close()

    def close(self, timeout: float = 5.0) -> None:
        """Give every subscription `CLOSE_EVENT`, then stop the listener.

        Idempotent, from any thread. Waits `timeout` seconds at most for the listener's thread
        and for a publish that is under way, and logs a warning for what takes longer.
        """
        self._to_end.extend(self._dispatcher.registry.seal())
        while self._to_end:  # what an exception leaves here, the next call ends
            with suppress(IndexError, ValueError):  # another thread closes, too
                consumer = self._to_end[0]
                consumer.end()
                self._to_end.remove(consumer)
        self._dispatcher.wake()
        deadline = time.monotonic() + timeout
        self._lifecycle.close(timeout)
        self._close_sender(max(0.0, deadline - time.monotonic()))

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
        registry, relay = self._dispatcher.registry, self._dispatcher.relay
        subscription = Subscription(
            self._buffer_size,
            registry.remove,
            relay,
            self._log,
            wanted,
            buffer_bytes=self._buffer_bytes,
            on_drop=registry.drop,
        )
        registry.add(subscription.consumer, wanted)
        subscription.begin(numbered(after) if isinstance(after, str) else after)
        return subscription

    @property
    def has_history(self) -> bool:
        """Whether events are kept for those who missed them."""
        return self._log is not None

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
        if self._log is None:
            return None
        if executor is not None:
            return self._read_cursor(executor)
        self.start(start_timeout)
        return str(self._log.offered)

    def follow(self, topics: Iterable[Topic], mailbox: Mailbox, after: int | None = None) -> tuple[Feed, Reader]:
        """The feed of some topics, and a new reader of it: what the streamer has in place of a subscription.

        The reader begins with what comes from now on, or with what came `after` a number of the history. `Feed.leave`
        gives it back. All feeds of a hub have one mailbox. Before the hub listens for the first time the feed is
        `early`: its reader begins with the refresh that comes as soon as the hub listens. Never waits. Raises
        `HubClosedError`.
        """
        self._dispatcher.mailbox = mailbox
        registry, wanted = self._dispatcher.registry, tuple(topics)
        early = not self.has_listened
        feed = registry.join(wanted, lambda: self._new_feed(mailbox, wanted))
        feed.begin()
        if early:
            feed.early = True
            if self.has_listened:  # the listener may have looked for early feeds before this one was marked
                self._dispatcher.refresh_early()
        return feed, feed.reader(after)

    def follow_in_thread(self, feed: Feed, reader: Reader) -> Follower:
        """What a stream goes on with that can't leave its thread: nothing is subscribed anew, and nothing missed."""
        return Follower(feed, reader, self._dispatcher.relay)

    def _new_feed(self, mailbox: Mailbox, topics: tuple[Topic, ...]) -> Feed:
        registry = self._dispatcher.registry
        return Feed(self._buffer_size, mailbox, registry, topics, self._log, buffer_bytes=self._buffer_bytes)

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
        self._lifecycle.check_open()
        texts = [self._compose(*event) for event in events]
        if texts:
            self._send(texts, executor)

    def stats(self) -> HubStats:
        """A snapshot of the hub's state and counters. Never waits."""
        lifecycle, dispatcher = self._lifecycle, self._dispatcher
        registry = dispatcher.registry
        return HubStats(
            listening=lifecycle.listening,
            since=lifecycle.since,
            reconnects=lifecycle.reconnects,
            last_error=lifecycle.last_error,
            received=self._received,
            undecodable=dispatcher.undecodable,
            unroutable=dispatcher.unroutable,
            unlogged=dispatcher.unlogged,
            delivered=dispatcher.delivered,
            refreshes=dispatcher.refreshes + registry.refreshes,
            gaps=dispatcher.gaps,
            dead_connections=self._dead_connections,
            queue_usage=self._queue_usage,
            stalled_readers=registry.stalled,
            failed_streams=registry.failed,
            subscriptions=len(registry),
            detached=max(0, registry.shared_members - registry.followers),
            kept_in_thread=dict(self._kept_in_thread),
        )

    def count_kept_in_thread(self, reason: str) -> None:
        """Count a stream that keeps its server's thread, for `stats`."""
        with self._kept_lock:
            self._kept_in_thread[reason] += 1

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._lifecycle.closed

    @property
    def listening(self) -> bool:
        """Whether notifications arrive now."""
        return self._lifecycle.listening

    @property
    def has_listened(self) -> bool:
        """Whether notifications have ever arrived in this process."""
        return self._lifecycle.has_listened

    def __enter__(self: _Hub) -> _Hub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What the listener calls, in its thread. The counters are written by that thread alone.

    def _listening(self) -> None:
        """Notifications arrive from now on. What came before is a gap for everyone who is there."""
        again = self._lifecycle.now_listening()
        if again:
            self._dispatcher.gap()
        elif again is not None:
            self._dispatcher.refresh_early()

    def _not_listening(self, error: str, dead: bool = False) -> None:
        """Nothing arrives from now on; `dead` when the server did not answer in time."""
        self._dead_connections += dead
        self._lifecycle.not_listening(error)

    def _heartbeat(self, queue_usage: float) -> None:
        self._dispatcher.registry.remove_dropped()
        self._queue_usage = queue_usage

    def _receive(self, texts: Iterable[str]) -> None:
        """Hand each text's event to those who follow its topic."""
        for text in texts:
            self._received += 1
            try:
                topic, event = envelope.decode(text)
            except envelope.UnroutableEnvelopeError:
                self._dispatcher.unroutable += 1
            except envelope.MalformedEnvelopeError as error:
                self._dispatcher.take_malformed(error)
            else:
                self._dispatcher.offer(topic, event)
        self._settle()

    def _settle(self) -> None:
        """The end of a batch: tell the gaps that are due, and wake who has something to read."""
        self._dispatcher.tell_lost()
        self._dispatcher.wake()

    def _pause(self) -> float | None:
        """Seconds until `_receive` has to be called even if nothing arrives; None when it need not."""
        return self._dispatcher.pause()

    def _renew(self) -> None:
        self._to_end: deque[Consumer] = deque()
        self._dispatcher = Dispatcher()
        self._log = self._new_log()
        self._lifecycle = Lifecycle(self._new_listener)
        self._received = self._dead_connections = 0
        self._queue_usage = 0.0
        self._kept_lock = threading.Lock()  # guards the counter, and nothing else
        self._kept_in_thread: Counter[str] = Counter()
