"""Subscribers of several kinds, each a thread that keeps a record of what it received.

A further kind is a further subclass of `Subscriber`, of which a schedule makes some.
"""

from __future__ import annotations

import json
import queue
import random
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from urllib.parse import urlencode

from pgfanout import CLOSE_EVENT, REFRESH_EVENT, NotifyHub, PgFanoutError, Subscription
from tests.support.sse import EventSource, SentEvent

from .oracle import Item, Record, Topic

__all__ = ["HubSubscriber", "StreamSubscriber", "Subscriber"]

FENCE = "fence"
"""The type of the events that end a schedule, one for each topic."""


class Subscriber:
    """Follows some channels of one tenant until every one of them has brought its fence.

    `temper` is how it reads: a slow one pauses, a stalling one stops for a while, a stalled one until it is settled; a
    leaving one goes and comes back, which begins a new record.
    """

    def __init__(self, name: str, topics: Sequence[Topic], temper: str, seed: str) -> None:
        assert len({topic.tenant for topic in topics}) == 1
        self.name = f"{name} ({temper})"
        self.topics = frozenset(topics)
        self.channels = [topic.channel for topic in topics]
        self.temper = temper
        self.records: list[Record] = []
        self.done = threading.Event()
        self.begun = threading.Event()
        self.live_at = float("inf")
        self.error: BaseException | None = None
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._fenced: set[Topic] = set()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    @property
    def tenant(self) -> str:
        return next(iter(self.topics)).tenant

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def settle(self) -> None:
        """The faults are over: read on without pauses."""
        self.temper = "steady"

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive(), f"{self.name} hangs"

    def _run(self) -> None:
        try:
            while not (self._stop.is_set() or self.done.is_set()):
                self._follow()
        except BaseException as error:
            self.error = error
        finally:
            self.begun.set()

    def _follow(self) -> None:
        """One visit: until the end, or until it leaves."""
        raise NotImplementedError

    def _new_record(self) -> Record:
        record = Record(f"{self.name} #{len(self.records)}", self.topics)
        self.records.append(record)
        return record

    def _received(self, record: Record, payload: bytes, type: str, id: str) -> None:
        record.items.append(Item(payload, type, monotonic(), id))
        if type == FENCE:
            self._fenced.add(Topic(json.loads(payload)["fence"], self.tenant))
            if self._fenced == self.topics:
                self.live_at = monotonic()
                self.done.set()

    def _pause(self) -> None:
        if self.temper == "slow":
            self._stop.wait(self._random.uniform(0, 0.02))
        elif self.temper == "stalling" and self._random.random() < 0.05:
            self._stop.wait(self._random.uniform(0.1, 0.8))
        while self.temper == "stalled" and not self._stop.is_set():
            self._stop.wait(0.05)

    def _wants_to_leave(self) -> bool:
        return self.temper == "leaving" and self._random.random() < 0.05


class HubSubscriber(Subscriber):
    """A subscription of a hub in this process."""

    def __init__(self, name: str, topics: Sequence[Topic], temper: str, seed: str, hub: NotifyHub) -> None:
        super().__init__(name, topics, temper, seed)
        self._hub = hub
        self._reads_all = self._random.random() < 0.7
        # Whoever waits without a limit hears nothing if nobody wakes it.
        self._patience = self._random.choice((0.2, None))
        self._subscription: Subscription | None = None

    def stop(self) -> None:
        super().stop()
        if self._subscription is not None:
            self._subscription.close()

    def _follow(self) -> None:
        with self._subscribe() as self._subscription:
            subscription = self._subscription
            record = self._new_record()
            record.since = monotonic()
            self.begun.set()
            while not (self._stop.is_set() or self.done.is_set() or self._wants_to_leave()):
                self._read(subscription, record)
                self._pause()

    def _subscribe(self) -> Subscription:
        while True:
            try:
                return self._hub.subscribe(self.channels, self.tenant)
            except PgFanoutError:
                if self._stop.wait(0.05):
                    raise

    def _read(self, subscription: Subscription, record: Record) -> None:
        waiting = subscription._backlog.qsize()
        if waiting > subscription.buffer_size:
            record.faults.append(f"{waiting} events waited in a buffer of {subscription.buffer_size}")
        try:
            wait = self._patience
            events = subscription.get_all(wait) if self._reads_all else [subscription.get(wait)]
        except queue.Empty:
            return
        for event in events:
            if event is REFRESH_EVENT:
                record.refresh(monotonic())
            elif event is CLOSE_EVENT:
                if not self._stop.is_set():
                    record.faults.append("the subscription was closed")
                self._stop.set()
            else:
                if event.channel not in self.channels:
                    record.faults.append(f"an event of the channel {event.channel!r}")
                self._received(record, event.payload, event.type, event.id)


class StreamSubscriber(Subscriber):
    """A browser's EventSource on a stream of the site: it comes back by itself, with its last event id.

    `detach` is what the site is asked for: "auto" or "never". `cut_allowed` tells whether a stream may end without a
    farewell at the moment.
    """

    def __init__(
        self,
        name: str,
        topics: Sequence[Topic],
        temper: str,
        seed: str,
        url: str,
        detach: str,
        cut_allowed: Callable[[], bool],
    ) -> None:
        super().__init__(name, topics, temper, seed)
        self._url = url
        self._detach = detach
        self._cut_allowed = cut_allowed
        self._last_event_id: str | None = None
        # Between a server and a reader on one machine the kernel holds megabytes, and hides how slow the reader is.
        self._buffer = self._random.choice((None, 2048))
        # A full socket takes no farewell either, and a worker that stops does not wait for a reader that reads nothing.
        self._may_miss_the_farewell = self._buffer is not None and temper in ("stalled", "stalling")

    def _follow(self) -> None:
        try:
            source = EventSource(
                self._stream_url(), last_event_id=self._last_event_id, timeout=15.0, receive_buffer=self._buffer
            )
        except (OSError, AssertionError):  # the server is down, or stopped while it answered
            self._stop.wait(0.05)
            return
        with source:
            if source.headers.get("content-type") == "text/event-stream" and source.status == 200:
                self._visit(source)
        self._stop.wait(self._random.uniform(0.0, 0.05))

    def _stream_url(self) -> str:
        query = [("tenant", self.tenant), ("detach", self._detach), *(("channel", each) for each in self.channels)]
        if self._buffer is not None:
            query.append(("buffer", str(self._buffer)))
        return f"{self._url}/events?{urlencode(query)}"

    def _visit(self, source: EventSource) -> None:
        if not self._opens(source):
            return
        record, last = self.records[-1], ""
        while not (self._stop.is_set() or self.done.is_set()):
            if self._wants_to_leave():
                source.reset() if self._random.random() < 0.5 else source.close()
                return
            for event in source.take(0.2):
                last = event.type
                self._take(record, event)
            self._last_event_id = source.last_event_id or None
            # After what it brought: a short stream may have come in one piece, from its opening to its end.
            if source.ended or source.cut:
                self._judge_the_end(source, record, last)
                return
            self._pause()

    def _opens(self, source: EventSource) -> bool:
        """Wait for the opening comment; a refusal has none."""
        try:
            source.wait_for(lambda s: s.comments or s.ended or s.cut, timeout=15.0)
        except AssertionError:
            return False
        if not source.comments:
            return False
        # Another worker may be behind the one that was left: what a stream repeats of another is no disorder.
        self._new_record().since = monotonic()
        if self._last_event_id is not None and not self._starts_with_refresh(source):
            self.records[-1].faults.append("a stream that was resumed did not start with a refresh")
        self._last_event_id = source.last_event_id or None
        if self._last_event_id is None:
            self.records[-1].faults.append("a stream began without an id: no browser could tell that it comes back")
        self.begun.set()
        return True

    def _starts_with_refresh(self, source: EventSource) -> bool:
        try:
            source.wait_for(lambda s: s.received or s.ended or s.cut, timeout=15.0)
        except AssertionError:
            return False
        return source.cut or (bool(source.received) and source.received[0].type == "refresh")

    def _take(self, record: Record, event: SentEvent) -> None:
        if event.type == "refresh":
            record.refresh(monotonic())
        elif event.type != "close":
            type = "" if event.type == "message" else event.type
            self._received(record, event.data.encode(), type, event.last_event_id)

    def _judge_the_end(self, source: EventSource, record: Record, last: str) -> None:
        honest = source.ended and last == "close" and source.retry is not None
        if not honest and not self._may_miss_the_farewell and not self._cut_allowed():
            record.faults.append(f"a stream ended without a farewell (ended={source.ended}, last={last!r})")
