"""Subscribers, each a thread that keeps a record of what it received: those of a hub, and what all kinds share.

A further kind is a further subclass of `Subscriber`, of which a schedule makes some.
"""

from __future__ import annotations

import json
import queue
import random
import threading
from collections.abc import Iterable, Sequence
from time import monotonic

from pgfanout import CLOSE_EVENT, REFRESH_EVENT, NotifyHub, PgFanoutError, Subscription

from .record import Item, Record, Topic
from .topics import kind_of

__all__ = ["FENCE", "HubSubscriber", "Subscriber"]

FENCE = "fence"
"""The type of the events that end a schedule, one for each topic."""


class Subscriber:
    """Follows some channels of one tenant or several until each topic has brought its fence.

    `temper` is how it reads: a slow one pauses, a stalling one stops for a while, a stalled one until it is settled; a
    leaving one goes and comes back, which begins a new record unless there is history. `paths` are those of the hubs
    that it follows, or has its cursors from.
    """

    def __init__(self, name: str, topics: Sequence[Topic], temper: str, seed: str, paths: Iterable[str]) -> None:
        self.name = f"{name} ({temper})"
        self.topics = frozenset(topics)
        self.channels = [topic.channel for topic in topics]
        self.tenants = sorted({topic.tenant for topic in topics})
        self.temper = temper
        self.paths = frozenset(paths)
        self.records: list[Record] = []
        self.done = threading.Event()
        self.begun = threading.Event()
        self.live_at = float("inf")
        self.error: BaseException | None = None
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._fenced: set[Topic] = set()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

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
        record = Record(f"{self.name} #{len(self.records)}", self.topics, paths=self.paths)
        self.records.append(record)
        return record

    def _received(self, record: Record, payload: bytes, type: str, id: str) -> None:
        record.items.append(Item(payload, type, monotonic(), id))
        if type == FENCE:
            self._fenced.add(Topic(*json.loads(payload)["fence"]))
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
    """A subscription of a hub in this process; with history it comes back with its cursor, or its last number, and may
    begin with the hub's cursor."""

    def __init__(self, name: str, topics: Sequence[Topic], temper: str, seed: str, hub: NotifyHub, path: str) -> None:
        super().__init__(name, topics, temper, seed, {path})
        self._hub = hub
        self._is_prompt = temper == "steady" and path == "large"
        self._reads_all = self._random.random() < 0.7
        # Whoever waits without a limit hears nothing if nobody wakes it.
        self._patience = self._random.choice((0.2, None))
        self._begins_by_cursor = hub.has_history and self._random.random() < 0.5
        self._resumes_by_cursor = self._random.random() < 0.5
        self._after: str | None = None
        self._subscription: Subscription | None = None

    def stop(self) -> None:
        super().stop()
        if self._subscription is not None:
            self._subscription.close()

    def _follow(self) -> None:
        goes_on = self._after is not None
        since = self._begin_by_cursor() if self._begins_by_cursor and not goes_on else None
        asked = monotonic()
        with self._subscribe() as self._subscription:
            subscription = self._subscription
            record = self.records[-1] if goes_on else self._new_record()
            record.prompt = self._is_prompt
            record.since = min(record.since, monotonic() if since is None else since)
            if self._after is not None:
                record.come_back(asked, str(self._after))
            self.begun.set()
            while not (self._stop.is_set() or self.done.is_set() or self._wants_to_leave()):
                self._read(subscription, record)
                self._pause()
            if self._hub.has_history:
                self._after = self._last_number(subscription, record)

    def _begin_by_cursor(self) -> float | None:
        """What a page does that is rendered now, and follows later; the time from which on it misses nothing, or None
        while the hub can't tell where the history ends."""
        self._after = self._hub.cursor()
        if self._after is None:
            return None
        now = monotonic()
        self._stop.wait(self._random.uniform(0.0, 0.1))
        return now

    def _last_number(self, subscription: Subscription, record: Record) -> str | None:
        if self._resumes_by_cursor or not (record.items and record.items[-1].id):
            return subscription.cursor
        return record.items[-1].id

    def _subscribe(self) -> Subscription:
        while True:
            try:
                tenants = [kind_of(tenant, self._random) for tenant in self.tenants]
                wanted = tenants if len(tenants) > 1 else tenants[0]
                return self._hub.subscribe(self.channels, wanted, after=self._after)
            except PgFanoutError:
                if self._stop.wait(0.05):
                    raise

    def _read(self, subscription: Subscription, record: Record) -> None:
        with subscription._backlog.mutex:  # the listener appends an event before it makes room
            waiting = len(subscription._backlog.queue)  # what was read again from a history is no part of it
        if waiting > subscription.buffer_size:
            record.faults.append(f"{waiting} events waited in a buffer of {subscription.buffer_size}")
        try:
            wait = self._patience
            events = subscription.get_all(wait) if self._reads_all else [subscription.get(wait)]
        except queue.Empty:
            return
        for event in events:
            if event is REFRESH_EVENT:
                record.refresh(monotonic(), "among the events of a subscription")
            elif event is CLOSE_EVENT:
                if not self._stop.is_set():
                    record.faults.append("the subscription was closed")
                self._stop.set()
            else:
                if event.channel not in self.channels:
                    record.faults.append(f"an event of the channel {event.channel!r}")
                self._received(record, event.payload, event.type, event.id)
