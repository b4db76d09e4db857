"""Random steps of the whole streamer: whatever happens, and whenever, it costs those whom it concerns.

The streamer is driven turn by turn, without its thread. Clients are real sockets. Two hubs, one with a log, have two
feeds each. In the middle of a turn, before any read of a feed or write to a socket, something else may happen: that is
what other threads, other processes and the network do.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from pgfanout.delivery.feed import Feed
from pgfanout.delivery.log import Answer, Page, always
from pgfanout.delivery.registry import Registry
from pgfanout.event import REFRESH_EVENT, Event
from pgfanout.streams import sse
from pgfanout.streams.detached import audience as audience_module
from pgfanout.streams.detached import broadcast as broadcast_module
from pgfanout.streams.detached import connection as connection_module
from pgfanout.streams.detached import loop as loop_module
from pgfanout.streams.detached import mailbox as mailbox_module
from pgfanout.streams.detached.connection import Connection
from pgfanout.streams.detached.streamer import Streamer
from pgfanout.topic import Topic

from ...support.detached import Client, reset
from ...support.sse import SentEvent

# Private members: the tests take the streamer's steps one by one, and compare all that it has.

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="nothing is detached here")

SIZE, BYTES, LARGEST = 4, 5_000, 6_000
KEEPALIVE = 10.0
POISON = "poison"
TENANT = "11111111-1111-4111-8111-111111111111"
ORDERS, STOCK = Topic("orders", TENANT), Topic("stock", TENANT)


class SteppedLog:
    """A log of a hub: has what was published, and answers when it is told to."""

    refill = True
    complete = True

    def __init__(self) -> None:
        self.begun = self.offered = 0
        self.events: list[tuple[Topic, Event]] = []
        self.asked: deque[tuple[tuple[Topic, ...], int, Answer]] = deque()

    def ask(
        self,
        topics: Sequence[Topic],
        after: int,
        answer: Answer,
        *,
        known: bool = False,
        again: int = 0,
        wanted: Callable[[], bool] = always,
    ) -> None:
        self.asked.append((tuple(topics), after, answer))

    def answer(self, *, knows: bool, size: int = 3) -> None:
        """Answer the oldest question, with a part of what is known."""
        topics, after, answer = self.asked.popleft()
        if after > self.offered:
            self.asked.append((topics, after, answer))  # it is held until there is something
        elif not knows:
            answer(None)
        else:
            found = [event for topic, event in self.events if topic in topics and int(event.id) > after]
            answer(Page(found[:size], int(found[size - 1].id) if len(found) > size else self.offered))


class Hub:
    """The side of a hub that the streamer sees. Its events are numbered, in the log or not."""

    def __init__(self, world: World, *, log: bool) -> None:
        self.world = world
        self.registry = Registry()
        self.log = SteppedLog() if log else None
        self.events: list[tuple[int, Topic]] = []
        self.number = 0
        self.ended = False
        self.has_told_a_gap = False
        self.poisoned: set[Topic] = set()

    def follow(self, topics: tuple[Topic, ...]) -> Feed:
        def make() -> Feed:
            return SteppedFeed(SIZE, self.world.streamer.mailbox, self.registry, topics, self.log, buffer_bytes=BYTES)

        feed = self.registry.join(topics, make)
        assert isinstance(feed, SteppedFeed)
        feed.world = self.world
        feed.begin()
        return feed

    def publish(self, topic: Topic, size: int, type: str = "") -> None:
        self.number += 1
        payload = json.dumps([self.number, "x" * size]).encode()
        event = Event(topic.channel, payload, type, str(self.number) if self.log is not None else "")
        self.events.append((self.number, topic))
        if self.log is not None:
            self.log.events.append((topic, event))
            self.log.begun = self.number
        for consumer in self.registry.of(topic):
            consumer.offer(event)
        if self.log is not None:
            self.log.offered = self.number
        self.world.streamer.mailbox.wake()

    def gap(self) -> None:
        self.has_told_a_gap = True
        for consumer in self.registry.all():
            consumer.offer(REFRESH_EVENT)
        self.world.streamer.mailbox.wake()

    def end(self) -> None:
        self.ended = True
        for consumer in self.registry.seal():
            consumer.end()
        self.world.streamer.mailbox.wake()

    def has_between(self, topics: tuple[Topic, ...], after: int, before: int) -> bool:
        return any(after < number < before and topic in topics for number, topic in self.events)


class SteppedFeed(Feed):
    """A feed between whose answers things happen."""

    world: World

    def read(self, *arguments: Any, **options: Any) -> list[Event]:
        self.world.moment()
        return super().read(*arguments, **options)

    def take(self, *arguments: Any, **options: Any) -> list[Event]:
        self.world.moment()
        return super().take(*arguments, **options)


class SteppedConnection(Connection):
    """A connection that knows whether anything may still be done with it."""

    stream: Stream

    def write(self) -> bool:
        assert not self.stream.gone, "a connection that was closed is written"
        return super().write()


class Stream:
    """A connection, and what its client has and should have."""

    def __init__(self, hub: Hub, topics: tuple[Topic, ...], after: int | None, *, chunked: bool, small: bool) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
            if small:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.hub, self.topics = hub, topics
        self.feed = hub.follow(topics)
        self.has = self.feed.begun if hub.log is not None else hub.number
        self.has = self.has if after is None else after
        """Nothing up to this number is missing."""
        self.seen = self.has
        self.is_ahead = self.has > hub.number
        """Whether its client has what this hub has not offered yet. After a refresh it may get some of that again."""
        self.excused = False
        """Whether it may end at any time: its client has left, or was made to fail."""
        self.gone = self.adopted = self.closed = False
        self.number = ours.fileno()
        head = b": open\n\n"
        self.client = Client(theirs, chunked=chunked, skip=len(head))
        self.connection = SteppedConnection(
            ours.detach(),
            self.feed,
            self.feed.reader(after),
            chunked=chunked,
            head=head,
            keepalive=KEEPALIVE,
            on_close=self.on_close,
        )
        self.connection.stream = self

    def on_close(self) -> None:
        assert not self.gone, "a connection is closed twice"
        self.gone = True
        self.hub.world.owners.pop(self.number, None)
        self.hub.world.failing.discard(self.number)
        assert self.excused or self.may_end, "a client was cut for nothing"

    @property
    def may_end(self) -> bool:
        return self.hub.ended or bool(self.hub.poisoned.intersection(self.topics))

    def read(self, size: int = 1 << 16) -> bool:
        """Read once; whether there was something."""
        if self.client.ended or self.client.connection.fileno() < 0:
            return False
        try:
            data = self.client.connection.recv(size)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data and (self.excused or bool(self.hub.poisoned)):
            self.client.ended = True  # it may have been cut in the middle of everything
        else:
            self.client.take(data)
        events, self.client._unread = self.client._unread, []
        for event in events:
            self.saw(event)
        return True

    def saw(self, event: SentEvent) -> None:
        assert not self.closed, f"{event} came after the close"
        if event.type == "close":
            self.closed = True
            assert self.hub.ended
        elif event.type == "refresh":
            # It covers what was published by now, of which some may come all the same.
            assert self.hub.has_told_a_gap or self.hub.log is None, "a refresh came for nothing"
            self.has = max(self.has, self.hub.number)
            if self.is_ahead:
                self.seen = 0
        else:
            number = json.loads(event.data)[0]
            assert number > self.seen, f"{number} came after {self.seen}"
            assert not self.hub.has_between(self.topics, self.has, number), f"{number} came after {self.has}"
            self.seen, self.has = number, max(self.has, number)

    def check_everything_came(self) -> None:
        assert not self.hub.has_between(self.topics, self.has, sys.maxsize), f"nothing came after {self.has}"


class World:
    """The streamer, its hubs and all streams; and what happens in the next moments of a turn."""

    def __init__(self, random: random.Random) -> None:
        self.now = 1000.0
        self._random = random
        self.owners: dict[int, Stream] = {}
        self.failing: set[int] = set()
        self.streams: list[Stream] = []
        self._likely = 0.0
        self._happens: Callable[[], object] = lambda: None
        self._real_writes = os.write, os.writev
        self._stack = ExitStack()
        self._patch()
        self.streamer = Streamer()
        self.streamer.prepare()
        assert self.streamer._loop is not None
        self.loop = self.streamer._loop
        wait = self.loop.poller.wait
        self.loop.poller.wait = lambda pause: wait(0.0)  # type: ignore[method-assign]
        self.errors: list[BaseException | None] = []
        self.loop.log_failure = lambda what, error: self.errors.append(error)  # type: ignore[method-assign]
        self.hubs = [Hub(self, log=True), Hub(self, log=False)]

    def _patch(self) -> None:
        thread = SimpleNamespace(is_alive=lambda: True, name="the test's own")
        clock = SimpleNamespace(monotonic=lambda: self.now)
        frame = sse._frame

        def frame_unless_poisoned(event: Event, data: bytes) -> bytes:
            if event.type == POISON:
                raise ZeroDivisionError(POISON)
            return frame(event, data)

        for where, name, value in (
            (mailbox_module, "start_thread", lambda *arguments: thread),
            (mailbox_module, "time", clock),
            (audience_module, "time", clock),
            (loop_module, "time", clock),
            (connection_module, "time", clock),
            (broadcast_module, "time", clock),
            (broadcast_module, "_FEW", 1),
            (broadcast_module, "_SLICE", 1),
            (loop_module, "random", self._random),
            (os, "write", self._write),
            (os, "writev", self._writev),
            (sse, "_frame", frame_unless_poisoned),
            (loop_module.logger, "disabled", True),
        ):
            self._stack.enter_context(mock.patch.object(where, name, value))

    def close(self) -> None:
        for stream in self.streams:
            stream.excused = True
            stream.client.connection.close()
            if not stream.adopted:
                stream.connection.close(stalled=False)
        with mock.patch.object(self.loop.poller, "wait", return_value=[]):
            self.streamer._give_up(self.loop, ZeroDivisionError())
        self.streamer.abandon()
        self._stack.close()

    def _write(self, descriptor: int, data: Any) -> int:
        self._before_write(descriptor)
        return self._real_writes[0](descriptor, data)

    def _writev(self, descriptor: int, parts: Any) -> int:
        self._before_write(descriptor)
        return self._real_writes[1](descriptor, parts)

    def _before_write(self, descriptor: int) -> None:
        self.moment()
        assert descriptor in self.owners, "a descriptor that was closed is written"
        if descriptor in self.failing:
            raise ZeroDivisionError

    @property
    def waiting(self) -> list[Stream]:
        """The streams that are still their servers'."""
        return [stream for stream in self.streams if not stream.adopted]

    # What happens in a turn.

    def moment(self) -> None:
        """Something may happen here."""
        if self._random.random() < self._likely:
            self._happens()

    def turn(self, likely: float = 0.0, happens: Callable[[], object] = lambda: None) -> None:
        """A turn of the streamer; how likely it is that something happens in each of its moments."""
        wait = self.loop.poller.wait
        self._likely, self._happens = likely, happens

        def wait_and_be_late(pause: float | None) -> list[tuple[int, int]]:
            events = wait(pause)
            self.moment()
            return events

        with mock.patch.object(self.loop.poller, "wait", wait_and_be_late):
            self.streamer._turn(self.loop)  # an error here would cut everybody
        self._likely = 0.0

    def make_due(self, streams: list[Stream]) -> None:
        """Have the streams come up together, in this order."""
        wheel = self.loop._wheel
        for stream in streams:
            wheel.discard(stream.connection)
        for stream in streams:
            wheel.add(stream.connection, self.now)

    def settle(self) -> None:
        """Turns and answers until nothing happens any more; clients read all."""
        quiet = 0
        while quiet < 3:
            self.turn()
            log = self.hubs[0].log
            assert log is not None
            asked = len(log.asked)
            for _ in range(asked):
                log.answer(knows=True)
            busy = len(log.asked) < asked or self.streamer.mailbox.arrivals
            for stream in self.streams:
                while stream.read():
                    busy = True
            quiet = 0 if busy else quiet + 1


FEEDS = ((0, (ORDERS,)), (0, (ORDERS,)), (0, (ORDERS, STOCK)), (1, (ORDERS,)), (1, (STOCK,)))

STEPS = {
    "turn": 12,
    "pass_time": 5,
    "arrive": 8,
    "adopt": 4,
    "publish": 8,
    "answer": 6,
    "read": 5,
    "leave": 2,
    "send": 2,
    "gap": 1,
    "end": 1,
    "fail": 1,
    "poison": 0.2,
    "settle": 1,
}
"""How often each is done, compared with the others."""

MEANWHILE = {"arrive": 3, "adopt": 2, "publish": 3, "answer": 2, "leave": 4, "end": 1, "gap": 1, "send": 1, "fail": 0.5}
"""What may happen in the middle of a turn, likewise."""


class Steps:
    """Each client that nothing has happened to gets its events, each once and in order, or a refresh, and a close."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(self.random)
        self.done: list[str] = []

    def run(self, count: int) -> None:
        """So many steps, and the end of it all. The error of a step tells the last ones."""
        try:
            for _ in range(count):
                self.do(STEPS)
                self.nothing_that_was_let_go_is_left_anywhere()
            self.finish()
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}, after {' '.join(self.done[-30:])}") from error
        finally:
            self.world.close()

    def do(self, steps: dict[str, float]) -> None:
        [name] = self.random.choices(list(steps), list(steps.values()))
        self.done.append(name if steps is STEPS else f"({name})")
        getattr(self, name)()

    def finish(self) -> None:
        while self.world.waiting:
            self.adopt()
        self.settle()
        for hub in self.world.hubs:
            hub.end()
        self.world.settle()
        for stream in self.world.streams:
            if not stream.excused and not stream.hub.poisoned:
                assert (stream.closed, stream.client.ended, stream.gone) == (True, True, True)

    # What arrives.

    def arrive(self) -> None:
        if len(self.world.owners) >= 10:
            return
        number, topics = self.random.choice(FEEDS)
        hub = self.world.hubs[number]
        comes_back = hub.log is not None and self.random.random() < 0.6
        after = max(0, hub.number - self.random.randint(-2, 6)) if comes_back else None
        small, chunked = self.random.random() < 0.3, self.random.random() < 0.5
        stream = self.follow(hub, topics, after, chunked=chunked, small=small)
        if self.random.random() < 0.7:
            self.adopt(stream)

    def follow(self, hub: Hub, topics: tuple[Topic, ...], after: int | None, *, chunked: bool, small: bool) -> Stream:
        stream = Stream(hub, topics, after, chunked=chunked, small=small)
        assert stream.number not in self.world.owners
        self.world.owners[stream.number] = stream
        self.world.streams.append(stream)
        return stream

    def connect(self, hub: Hub, topics: tuple[Topic, ...], *, after: int | None = None, small: bool = False) -> Stream:
        stream = self.follow(hub, topics, after, chunked=False, small=small)
        self.adopt(stream)
        return stream

    def adopt(self, stream: Stream | None = None) -> None:
        waiting = self.world.waiting
        if stream is None and waiting:
            stream = waiting[0]
        if stream is not None:
            stream.adopted = True
            self.world.streamer.adopt(stream.connection)

    # What hubs and logs do.

    def publish(self) -> None:
        hub, topic = self.random.choice(self.world.hubs), self.random.choice([ORDERS, ORDERS, STOCK])
        for _ in range(self.random.choice([1, 1, 2, 6])):
            hub.publish(topic, self.random.choice([1, 1, 3000, LARGEST]))

    def gap(self) -> None:
        self.random.choice(self.world.hubs).gap()

    def end(self) -> None:
        """A hub ends, and there is another one."""
        which = self.random.randrange(2)
        self.world.hubs[which].end()
        self.world.hubs[which] = Hub(self.world, log=which == 0)

    def answer(self) -> None:
        hub = self.world.hubs[0]
        assert hub.log is not None
        if hub.log.asked:
            knows = self.random.random() < 0.9
            hub.has_told_a_gap = hub.has_told_a_gap or not knows
            hub.log.answer(knows=knows, size=self.random.randint(1, 4))

    def poison(self) -> None:
        """An event that can't be encoded: it ends its feed's streams."""
        self.world.hubs[1].poisoned.add(STOCK)
        self.world.hubs[1].publish(STOCK, 1, POISON)

    # What clients do.

    def one(self) -> Stream | None:
        alive = [stream for stream in self.world.streams if not stream.gone and stream.client.connection.fileno() >= 0]
        return self.random.choice(alive) if alive else None

    def read(self) -> None:
        if stream := self.one():
            stream.read(self.random.randint(1, 10_000))

    def leave(self) -> None:
        stream = self.one()
        if stream is None:
            return
        stream.excused = True
        way = self.random.choice(["close", "reset", "half-close"])
        if way == "half-close":
            stream.client.connection.shutdown(socket.SHUT_WR)
        elif way == "reset":
            reset(stream.client.connection)
        else:
            stream.client.connection.close()

    def fail(self) -> None:
        """From now on, whatever is done with its socket raises what nobody expects."""
        if stream := self.one():
            stream.excused = True
            self.world.failing.add(stream.number)

    def send(self) -> None:
        stream = self.one()
        if stream is None:
            return
        size = self.random.choice([1, 500, 70_000])
        stream.excused = stream.excused or size == 70_000
        try:
            stream.client.connection.send(b"x" * size)
        except OSError:
            stream.excused = True

    # What the streamer does.

    def turn(self) -> None:
        self.world.turn(self.random.choice([0.0, 0.0, 0.1, 0.3]), lambda: self.do(MEANWHILE))

    def pass_time(self) -> None:
        self.world.now += self.random.choice([1.0, 9.5, 30.0])
        self.turn()

    def settle(self) -> None:
        self.world.settle()
        for stream in self.world.streams:
            if stream.adopted and not stream.excused and not stream.may_end:
                stream.check_everything_came()

    def nothing_that_was_let_go_is_left_anywhere(self) -> None:
        loop, streams = self.world.loop, self.world.streams
        unexpected = [error for error in self.world.errors if not isinstance(error, ZeroDivisionError)]
        assert not unexpected, "something failed that was not made to fail"
        present = set(loop.connections.values())
        arriving = set(self.world.streamer.mailbox.arrivals)
        assert present | arriving == {stream.connection for stream in streams if stream.adopted and not stream.gone}
        assert all(connection.descriptor == descriptor for descriptor, connection in loop.connections.items())
        scheduled = {connection for slot in loop._wheel._slots.values() for connection in slot}
        assert scheduled == present, "a connection that was closed is scheduled, or one that is there is not"
        assert all(sum(map(len, connection.rest)) <= LARGEST + 500 for connection in present), "more than one event"
        for feed, audience in loop._audiences.items():
            of_feed = {connection for connection in present if connection.feed is feed}
            assert len(of_feed) == audience.size > 0
            assert {*audience.current, *audience.replaying} <= of_feed
            assert feed.members == len([stream for stream in streams if stream.feed is feed and not stream.gone])


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_costs_those_whom_it_concerns(seed: int) -> None:
    Steps(seed).run(150)


# Some of it, not by chance.


@pytest.fixture
def steps() -> Iterator[Steps]:
    steps = Steps(0)
    yield steps
    steps.world.close()


def fill(stream: Stream) -> None:
    """Publish until its socket is full."""
    for _ in range(3):
        stream.hub.publish(ORDERS, 3000)
        stream.hub.world.turn()
    assert stream.connection.rest


@pytest.mark.parametrize("with_one_behind", [False, True], ids=["alone", "beside one that is behind"])
def test_a_page_that_comes_back_while_its_hub_ends_gets_its_close_and_so_do_the_others(
    steps: Steps, with_one_behind: bool
) -> None:
    world, hub = steps.world, steps.world.hubs[0]
    bystander = steps.connect(world.hubs[1], (ORDERS,))
    first = steps.connect(hub, (ORDERS,), small=with_one_behind)
    world.turn()
    if with_one_behind:
        fill(first)
    hub.publish(ORDERS, 1)
    back = steps.connect(hub, (ORDERS,), after=hub.number)
    hub.end()
    world.turn()
    steps.nothing_that_was_let_go_is_left_anywhere()
    world.settle()
    assert (first.closed, back.closed, bystander.gone) == (True, True, False)


@pytest.mark.parametrize("others", [0, 1])
def test_a_stream_that_leaves_while_keepalives_are_written_is_passed_over(steps: Steps, others: int) -> None:
    """The first of them joins its feed, and the write of that feed's news finds that the second has left."""
    world, hub = steps.world, steps.world.hubs[0]
    assert hub.log is not None
    back = steps.connect(hub, (ORDERS,), after=1)  # ahead of this process by one
    left = steps.connect(hub, (ORDERS,))
    for _ in range(others):
        steps.connect(hub, (ORDERS,))
    world.turn()

    def happens() -> None:
        left.excused = True
        left.client.connection.close()
        hub.publish(ORDERS, 1)
        hub.publish(ORDERS, 1)

    world.now += 3 * KEEPALIVE
    world.make_due([back, left])
    with mock.patch.object(world.loop, "keep_alive", after(happens, world.loop.keep_alive)):
        world.turn()
    steps.nothing_that_was_let_go_is_left_anywhere()
    world.settle()
    assert (left.gone, back.gone) == (True, False)
    steps.finish()


def after(first: Callable[[], object], then: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        then()

    return both


def test_what_a_socket_did_for_one_connection_is_not_done_to_the_next_with_its_number(steps: Steps) -> None:
    """Its client leaves, the streamer has heard of it, and before it deals with that there is another connection."""
    world, hub = steps.world, steps.world.hubs[0]
    stays, left = steps.connect(hub, (ORDERS,)), steps.connect(hub, (ORDERS,))
    world.turn()
    left.excused = True
    left.client.connection.close()
    world.turn()
    assert left.gone
    comes = steps.connect(hub, (ORDERS,))
    assert comes.number == left.number
    world.settle()
    hub.publish(ORDERS, 1)
    steps.settle()
    assert (stays.gone, comes.gone) == (False, False)
