"""A model of the rule that every reader follows, for both kinds of tail.

Readers of one feed and readers with queues of their own follow the same topic. Whatever happens, in whatever order,
each of them gets every event once and in order, or a refresh stands for what is missing; and none is told to refresh
without a cause.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pgfanout.delivery.backlog import Backlog
from pgfanout.delivery.feed import Feed
from pgfanout.delivery.follower import Follower
from pgfanout.delivery.log import Page, number_of
from pgfanout.delivery.reader import Question
from pgfanout.delivery.registry import Registry
from pgfanout.delivery.waker import Waker
from pgfanout.event import CLOSE_EVENT, REFRESH_EVENT, Event

from ..support.logs import TOPICS, MemoryLog

__all__ = ["Readers"]

_BESIDE = [0, 0, 0, -50, 50, 250]
"""What is added to a number to invent another one, which no log draws."""
_MEANWHILE = ["nothing", "read", "come", "come back", "answer"]

MOST = 5
"""Consumers at a time."""


class Consumer(Protocol):
    """One reader, as its thread sees it."""

    def read(self) -> list[Event]:
        """What there is; asks the log if that is due."""

    def cursor(self) -> int:
        """Everything up to this number was read."""

    def leave(self) -> None:
        """Read no more."""


class FeedConsumer:
    """Reads a feed that others read as well, as the streamer does."""

    def __init__(self, feed: Feed, after: int | None) -> None:
        self._feed = feed
        self._reader = feed.reader(after)
        self._ready: list[Event] = []
        self._number = 0
        self._left = False

    def read(self) -> list[Event]:
        events, self._ready = self._ready, []
        events += self._feed.read(self._reader)
        self._feed.ask(self._reader, self._answer, self._wants)
        return events

    def cursor(self) -> int:
        if not self._ready:
            self._number = self._feed.cursor(self._reader)
        return self._number

    def leave(self) -> None:
        self._left = True
        self._feed.leave()

    def _answer(self, question: Question, page: Page | None) -> None:
        self.cursor()
        self._ready += self._feed.take(self._reader, question, page)

    def _wants(self, question: Question) -> bool:
        return not self._left and self._reader.asked is question


class QueueConsumer:
    """Reads a queue of its own, as the thread of a subscription does."""

    def __init__(self, backlog: Backlog, leave: Callable[[Backlog], object]) -> None:
        self._backlog = backlog
        self._leave = leave

    def read(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events.append(self._backlog.get(timeout=0))
            except queue.Empty:
                return events

    def cursor(self) -> int:
        return self._backlog.number or 0

    def leave(self) -> None:
        self._leave(self._backlog)
        self._backlog.end(drop=True)
        assert self._backlog.get(timeout=0) is CLOSE_EVENT


class FollowerConsumer:
    """Reads a feed in a thread of its own, as a stream does that can't leave its thread."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def read(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events += self._follower.get_all(0)
            except queue.Empty:
                return events

    def cursor(self) -> int:
        return self._follower.number or 0

    def leave(self) -> None:
        self._follower.close()
        assert self._follower.get_all(0) == [CLOSE_EVENT]


class Mailbox:
    """Readers are driven by the model, so nobody has to be told of news."""

    def news(self, feed: Feed) -> None:
        pass

    def wake(self) -> None:
        pass


class Client:
    """What a consumer has got, and what it may be told."""

    def __init__(self, consumer: Consumer, has: int, epoch: int, *, excused: bool) -> None:
        self.consumer = consumer
        self.has = has
        """Nothing up to this number is missing; -1 after a refresh, until the next event."""
        self.seen = has
        """The number of its last event; -1 after a refresh."""
        self.excused = excused
        """Whether something has happened that it may have to be told."""
        self.owed = False
        """Whether it has to be told before anything else: it came with a number that nobody knows."""
        self.epoch = epoch
        """That of the last refresh: what was committed after a later fail-over has to stand behind another one."""
        self.settled = False
        """Whether it has once had everything, and has not come back since."""
        self.given = 0
        """The last number that an event or its cursor has given it."""
        self.stale = False
        """Whether it has something that a fail-over has undone, and was not told."""


class Readers(RuleBasedStateMachine):
    """The log, the listener of one process, and consumers of some `kinds` that come, read, stall and leave."""

    kinds: Sequence[str] = ("feed", "queue", "follower")

    @initialize(
        size=st.integers(1, 4),
        room=st.integers(2, 12),
        known=st.integers(0, 6),
        refill=st.sampled_from([True, True, False]),
    )
    def begin(self, size: int, room: int, known: int, refill: bool) -> None:
        self.size, self.room = size, room
        self.log = MemoryLog(refill=refill)
        self.epoch = 0
        self.losses = 0
        self.epochs: dict[int, int] = {}
        self.drawn = [0]
        for _ in range(known):
            self._commit()
        self.log.begun = self.log.offered = self.log.last
        self.registry = Registry()
        self.clients: list[Client] = []

    def _commit(self, *, ours: bool = True) -> Event:
        """The next event. No two logs draw the same number: it would be one event's to nobody."""
        number = (self.log.last // 100 + 1) * 100 + self.losses
        self.drawn.append(number)
        event = self.log.commit(number, ours=ours)
        self.epochs[number] = self.epoch
        return event

    # Consumers.

    @precondition(lambda self: len(self.clients) < MOST)
    @rule(
        kind=st.integers(0, 2),
        missed=st.none() | st.integers(0, 8),
        beside=st.sampled_from(_BESIDE),
    )
    def come(self, kind: int, missed: int | None, beside: int) -> None:
        after = None if missed is None else max(0, self.drawn[-1 - min(missed, len(self.drawn) - 1)] + beside)
        known = after is None or self.log.knows(after)
        begun = self.log.begun
        consumer = self._new(self.kinds[kind % len(self.kinds)], after)
        has = begun if after is None else after if known else -1
        client = Client(consumer, has, self.epoch, excused=not known)
        client.owed = after is not None and not self.log.had(after)
        client.seen = has - 1 if after is None else has  # what is being offered may come as well
        self.clients.append(client)
        if after is None:
            self._check_cursor(client)

    def _new(self, kind: str, after: int | None) -> Consumer:
        if kind == "queue":
            return self._of_queue(after)
        feed = self._feed()
        if kind == "feed":
            return FeedConsumer(feed, after)
        return FollowerConsumer(Follower(feed, feed.reader(after), Waker()))

    def _feed(self) -> Feed:
        def make() -> Feed:
            return Feed(self.size, Mailbox(), self.registry, TOPICS, self.log, buffer_bytes=self.room)

        feed = self.registry.join(TOPICS, make)
        feed.begin()
        return feed

    def _of_queue(self, after: int | None) -> Consumer:
        backlog = Backlog(self.size, None, self.log, TOPICS, self.room)
        self.registry.add(backlog, TOPICS)
        backlog.begin(after)
        return QueueConsumer(backlog, self.registry.remove)

    @rule(which=st.integers(0, MOST - 1))
    def read(self, which: int) -> None:
        if which < len(self.clients):
            self._read(self.clients[which])

    @rule(which=st.integers(0, MOST - 1))
    def look_at_the_cursor(self, which: int) -> None:
        if which < len(self.clients):
            self._check_cursor(self.clients[which])

    @rule(which=st.integers(0, MOST - 1))
    def leave(self, which: int) -> None:
        if which < len(self.clients):
            self.clients.pop(which).consumer.leave()

    @rule(which=st.integers(0, MOST - 1), kind=st.integers(0, 2))
    def come_back(self, which: int, kind: int) -> None:
        """As a page does that is reloaded: it goes on where it was."""
        if which < len(self.clients):
            client = self.clients[which]
            self._read(client)
            after = client.consumer.cursor()
            client.consumer.leave()
            known = self.log.knows(after)
            client.excused, client.owed, client.settled = client.excused or not known, not self.log.had(after), False
            client.epoch = self.epoch if known else client.epoch
            client.consumer = self._new(self.kinds[kind % len(self.kinds)], after)

    # The listener, and the log.

    @rule(count=st.integers(1, 7), ours=st.booleans(), in_between=st.sampled_from(_MEANWHILE))
    def publish(self, count: int, ours: bool, in_between: str) -> None:
        for _ in range(count):
            event = self._commit(ours=ours)
            self.log.begun = self.log.last
            followers = self.registry.of(TOPICS[0])
            self._do(in_between)
            if ours:
                for each in followers:
                    each.offer(event)
            self._do(in_between)
            self.log.offered = self.log.last

    def _do(self, what: str) -> None:
        if what == "come" and len(self.clients) < MOST:
            self.come(len(self.clients), None, 0)
        elif what == "come back" and len(self.clients) < MOST:
            self.come(len(self.clients), 1, 0)
        elif what == "answer":
            self.log.answer()
        elif what == "read":
            for client in self.clients:
                self._read(client)

    @rule()
    def gap(self) -> None:
        self._excuse()
        for each in self.registry.all():
            each.offer(REFRESH_EVENT)

    @precondition(lambda self: self.log.refill)
    @rule(count=st.integers(1, 7), ours=st.booleans(), in_between=st.sampled_from(["nothing", "read", "answer"]))
    def skip(self, count: int, ours: bool, in_between: str) -> None:
        for _ in range(count):
            self._commit(ours=ours)
        for client in self.clients:
            client.settled = False  # it has to look in the log what that was
        before, self.log.begun = self.log.offered, self.log.last
        self._do(in_between)
        for each in self.registry.all():
            each.skip(before, self.log.last)
        self._do(in_between)
        self.log.offered = self.log.last

    @rule(count=st.integers(1, 4), ahead=st.integers(0, 3))
    def lose(self, count: int, ahead: int) -> None:
        """A fail-over: the last commits are gone, there are others, and the listener tells a gap."""
        self.log.lose(count)
        self._excuse()
        for client in self.clients:
            client.stale = client.stale or client.given > self.log.last
        self.epoch += 1
        self.losses += 1
        for _ in range(ahead):
            self._commit()
        if self.log.last < self.log.offered:
            self.log.offered = 0
        self.log.begun = self.log.last
        for each in self.registry.all():
            each.offer(REFRESH_EVENT)
        self.log.offered = self.log.last

    @rule(count=st.integers(2, 4), beside=st.sampled_from(["nothing", "come back"]))
    def lose_what_was_not_offered(self, count: int, beside: str) -> None:
        """A backup is restored that lacks the last commits. This process had not offered them, and notices nothing."""
        self._do(beside)
        for _ in range(count):
            self._commit()
        for what in ("read", "answer", "read"):
            self._do(what)
        self.log.lose(count)
        self.losses += 1
        self.publish(1, True, "nothing")

    @rule(kept=st.integers(0, 8))
    def prune(self, kept: int) -> None:
        numbers = sorted(self.log.numbers)
        self.log.pruned_to = max([self.log.pruned_to, *numbers[: max(0, len(numbers) - kept)]])
        for client in self.clients:
            has_all = not any(number_of(event) > client.has for event in self.log.events)
            idle = isinstance(client.consumer, QueueConsumer) and has_all and client.settled
            client.excused = client.excused or not idle

    @rule()
    def answer(self) -> None:
        self.log.answer()

    @rule()
    def settle(self) -> None:
        """Everything that each consumer gets as things are."""
        for _ in range(500):
            read = [self._read(client) for client in self.clients]
            if not (self.log.answer() or any(read)):
                break
        else:
            raise AssertionError("they ask for ever")
        for client in self.clients:
            self._nothing_is_missing(client, self.log.offered)
            assert not client.owed, "a client whose number nobody knows was not told"
            assert client.consumer.cursor() == self.log.offered
            client.excused, client.settled = False, True

    # What has to hold.

    def _excuse(self) -> None:
        for client in self.clients:
            client.excused = True

    def _read(self, client: Client) -> bool:
        events = client.consumer.read()
        for event in events:
            if event is REFRESH_EVENT:
                assert client.excused or not self.log.refill, "a refresh came for nothing"
                client.has = client.seen = -1
                client.given, client.owed = 0, False
                client.epoch, client.stale = self.epoch, False
                continue
            number = number_of(event)
            assert not client.owed, f"{number} came to a client whose number nobody knows"
            assert self.epochs[number] <= client.epoch, f"{number} came without a refresh for what was lost before it"
            assert number > client.seen, f"{number} came after {client.seen}"
            self._nothing_is_missing(client, number - 1)
            client.seen = client.has = client.given = number
            if number not in self.log.numbers:  # it was lost meanwhile, and a refresh has to come for that
                client.epoch = self.epochs[number]
        return bool(events)

    def _check_cursor(self, client: Client) -> None:
        cursor = client.consumer.cursor()
        if not self.log.knows(cursor):  # it is a refresh when it comes back
            assert client.excused, f"the cursor {cursor} is no number of the log"
        else:
            assert not client.stale, f"it was given {client.given}, which was lost, and the cursor {cursor}"
            self._nothing_is_missing(client, cursor)
            client.given = cursor

    def _nothing_is_missing(self, client: Client, until: int) -> None:
        if client.has >= 0:
            numbers = [number for number in map(number_of, self.log.events) if client.has < number <= until]
            missing = [number for number in numbers if self.epochs[number] <= client.epoch]
            assert not missing, f"{missing} did not come after {client.has}"
