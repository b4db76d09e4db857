"""Core: what a hub has in one process."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from .attempt import Listener
from .backend import Backend, Sink
from .delivery.backlog import Backlog
from .delivery.dispatcher import Dispatcher
from .delivery.feed import Feed, Mailbox
from .delivery.follower import Follower
from .delivery.intake import LogIntake, TextIntake
from .delivery.reader import Reader
from .delivery.registry import Consumer
from .delivery.subscription import Subscription
from .lifecycle import Lifecycle
from .replayer import Replayer
from .stats import HubStats
from .topic import Topic

__all__ = ["Core"]


class Core:
    """The backend, the listener's thread and everything that subscribes, in one process.

    A forked child makes a new one, and lets go of its parent's with `abandon`: the parent's threads don't exist there,
    and its locks may be held for ever. Methods may be called from any thread.
    """

    def __init__(
        self, new_backend: Callable[[], Backend], buffer_size: int, buffer_bytes: int, owner: object = None
    ) -> None:
        self._owner = owner
        """The hub. The listener's thread has the core and so keeps the hub, though the application may drop it and keep
        a subscription alone: a server's shutdown hook finds hubs, and has to close this one."""
        self.backend = new_backend()
        self.lifecycle = Lifecycle(self._new_listener)
        self.dispatcher = Dispatcher()
        self.log: Replayer | None
        self.intake: TextIntake | LogIntake
        if self.backend.log is None:
            self.log = None
            self.intake = TextIntake(self.dispatcher)
        else:
            self.log = Replayer(self.backend.log)
            self.intake = LogIntake(self.log, self.dispatcher, max_replay=self.backend.log.max_replay)
            self.dispatcher.fills_gaps = self.log.complete
        self.sink = Sink(self.lifecycle, self.dispatcher, self.intake)
        self._buffer_size = buffer_size
        self._buffer_bytes = buffer_bytes
        self._to_end: deque[Consumer] = deque()
        self._kept_lock = threading.Lock()  # guards the counter, and nothing else
        self._kept_in_thread: Counter[str] = Counter()

    def _new_listener(self) -> Listener:
        return self.backend.new_listener(self.sink)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connections."""
        self.lifecycle.abandon()
        if self.backend.log is not None:
            self.backend.log.abandon()
        self.backend.abandon()

    def close(self, timeout: float) -> None:
        """See `NotifyHub.close`."""
        self._to_end.extend(self.dispatcher.registry.seal())
        while self._to_end:  # the next call ends what an exception leaves here
            with suppress(IndexError, ValueError):  # another thread closes, too
                consumer = self._to_end[0]
                consumer.end()
                self._to_end.remove(consumer)
        self.dispatcher.wake()
        deadline = time.monotonic() + timeout
        self.lifecycle.close(timeout)
        if self.log is not None:
            self.log.close(max(0.0, deadline - time.monotonic()))
        self.backend.close(max(0.0, deadline - time.monotonic()))

    def subscribe(self, topics: Sequence[Topic], after: int | None) -> Subscription:
        """A subscription to topics, from now on or after a number. Never waits. Raises `HubClosedError`."""
        registry = self.dispatcher.registry
        backlog = Backlog(self._buffer_size, self.dispatcher.waker, self.log, topics, self._buffer_bytes)
        subscription = Subscription(backlog, on_close=registry.remove, on_drop=registry.drop)
        registry.add(backlog, topics)
        backlog.begin(after)
        return subscription

    def follow(self, topics: Iterable[Topic], mailbox: Mailbox, after: int | None = None) -> tuple[Feed, Reader]:
        """The feed of some topics, and a new reader of it, for a stream that leaves its thread.

        The reader begins with what comes from now on, or with what came `after` a number. `Feed.leave` gives it back.
        All feeds of a hub have one mailbox. Before the hub listens for the first time the feed is `early`: its readers
        begin with the refresh that comes as soon as the hub listens. Never waits. Raises `HubClosedError`.
        """
        self.dispatcher.mailbox = mailbox
        wanted = tuple(topics)
        early = not self.lifecycle.has_listened
        feed = self.dispatcher.registry.join(wanted, lambda: self._new_feed(mailbox, wanted))
        feed.begin()
        if early:
            feed.early = True
            if self.lifecycle.has_listened:  # the listener may have looked for early feeds before this one was marked
                self.dispatcher.refresh_early()
        return feed, feed.reader(after)

    def follow_in_thread(self, feed: Feed, reader: Reader) -> Follower:
        """What a stream goes on with that can't leave its thread. Nothing is subscribed anew, and nothing missed."""
        return Follower(feed, reader, self.dispatcher.waker)

    def count_kept_in_thread(self, reason: str) -> None:
        """Count a stream that keeps its server's thread, for `stats`."""
        with self._kept_lock:
            self._kept_in_thread[reason] += 1

    def stats(self) -> HubStats:
        """See `NotifyHub.stats`."""
        lifecycle, dispatcher, sink, log = self.lifecycle, self.dispatcher, self.sink, self.log
        registry = dispatcher.registry
        stats = HubStats(
            listening=lifecycle.listening,
            since=lifecycle.since,
            reconnects=lifecycle.reconnects,
            last_error=lifecycle.last_error,
            received=sink.received,
            undecodable=dispatcher.undecodable,
            unroutable=dispatcher.unroutable,
            unlogged=dispatcher.unlogged,
            delivered=dispatcher.delivered,
            refreshes=dispatcher.refreshes + registry.refreshes,
            gaps=dispatcher.gaps,
            dead_connections=sink.dead_connections,
            queue_usage=sink.queue_usage,
            stalled_readers=registry.stalled,
            failed_streams=registry.failed,
            subscriptions=len(registry),
            detached=max(0, registry.shared_members - registry.followers),
            kept_in_thread=dict(self._kept_in_thread),
            fills=self.intake.fills,
            filled_events=self.intake.filled_events,
        )
        if log is None:
            return stats
        return replace(
            stats,
            log_size=log.rows,
            oldest_cursor=str(log.pruned_to or ""),
            replays=log.replays,
            replayed_events=log.replayed_events,
            pruned=log.pruned,
        )

    def _new_feed(self, mailbox: Mailbox, topics: tuple[Topic, ...]) -> Feed:
        registry = self.dispatcher.registry
        return Feed(self._buffer_size, mailbox, registry, topics, self.log, buffer_bytes=self._buffer_bytes)
