"""Streamer and its loop: one thread that writes all streams, whoever comes, leaves, stalls or closes."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import logging
import os
import select
import signal
import socket
import sys
import termios
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from pgfanout import CLOSE_EVENT, REFRESH_EVENT, Event, HubClosedError, MemoryHub
from pgfanout.delivery.feed import Feed
from pgfanout.delivery.reader import Reader
from pgfanout.hub import core_of
from pgfanout.streams import sse
from pgfanout.streams.detached import audience as audience_module
from pgfanout.streams.detached import broadcast as broadcast_module
from pgfanout.streams.detached import connection as connection_module
from pgfanout.streams.detached import loop as loop_module
from pgfanout.streams.detached import mailbox as mailbox_module
from pgfanout.streams.detached import streamer as streamer_module
from pgfanout.streams.detached.connection import Connection
from pgfanout.streams.detached.loop import Loop
from pgfanout.streams.detached.streamer import Streamer
from pgfanout.streams.detached.streamer import streamer as own_streamer
from pgfanout.streams.detached.wheel import Wheel
from pgfanout.topic import topics

from ...support.child import FORKS, in_child
from ...support.detached import (
    BUFFER,
    PATIENCE,
    Client,
    loop_without_thread,
    open_descriptors,
    read_to_end,
    reset,
    tcp_pair,
)
from ...support.sse import SentEvent
from ...support.wait import eventually

# Private members: that the thread sleeps, and what the loop has, shows nowhere else; failures are put into the loop.

TENANT, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
KINDS = pytest.mark.parametrize("chunked", [False, True], ids=["plain", "chunked"])


class Stream:
    """A detached stream, from the hub to the client, in steps."""

    def __init__(
        self,
        hub: MemoryHub,
        streamer: Streamer,
        channel: str = "orders",
        *,
        chunked: bool = True,
        keepalive: float = 60.0,
        reads: bool = True,
        ends: tuple[socket.socket, socket.socket] | None = None,
        encoder: sse.Encoder = sse.encode,
        connection_class: type[Connection] = Connection,
    ) -> None:
        """One that `reads` nothing at first has a socket that is full from the beginning."""
        hub.start()
        server, connection = ends or tcp_pair(None if reads else BUFFER)
        server.setblocking(False)
        head = b"" if reads else b"x" * (16 * BUFFER)
        self.streamer = streamer
        self.client = Client(connection, chunked=chunked, skip=len(head))
        self.gone = threading.Event()
        self.closed: list[str] = []
        streamer.prepare()
        try:
            feed, reader = core_of(hub).follow(topics(channel, TENANT), streamer.mailbox)
        except HubClosedError:
            server.close()
            connection.close()
            raise
        self.connection = connection_class(
            server.detach(),
            feed,
            reader,
            chunked=chunked,
            head=head,
            keepalive=keepalive,
            encoder=encoder,
            on_close=self._on_close,
        )

    def _on_close(self) -> None:
        self.closed.append(threading.current_thread().name)
        self.gone.set()

    def adopt(self) -> Stream:
        self.connection.write()
        self.streamer.adopt(self.connection)
        return self

    def leave(self) -> None:
        """Leave as a browser does, and return when the streamer has noticed."""
        self.client.connection.close()
        assert self.gone.wait(PATIENCE), "the streamer did not notice that a client has left"

    def data(self, count: int) -> list[str]:
        return [event.type if event.type != "message" else event.data for event in self.client.events(count)]


class Open:
    """Opens streams that the fixture ends."""

    def __init__(self, hub: MemoryHub, streamer: Streamer) -> None:
        self._hub, self._streamer = hub, streamer
        self.made: list[Stream] = []

    def __call__(self, channel: str = "orders", **options: Any) -> Stream:
        return self.follow(channel, **options).adopt()

    def follow(self, channel: str = "orders", **options: Any) -> Stream:
        """Up to the step before the adoption."""
        stream = Stream(self._hub, self._streamer, channel, **options)
        self.made.append(stream)
        return stream


@pytest.fixture
def streamer() -> Iterator[Streamer]:
    """One of the test's own; in the end it has let everything go, and no listener is left that could wake it."""
    streamer = Streamer()
    yield streamer
    streamer.cut(PATIENCE)
    assert streamer.wait_until_empty(PATIENCE)
    eventually(lambda: streamer.mailbox.thread is None)
    streamer.abandon()


@pytest.fixture
def hub(streamer: Streamer) -> Iterator[MemoryHub]:
    """Closed before the streamer lets its descriptor go, which outside of tests stays for good."""
    with MemoryHub(buffer_size=2000, buffer_bytes=1 << 26) as hub:
        yield hub


@pytest.fixture
def open_stream(hub: MemoryHub, streamer: Streamer) -> Iterator[Open]:
    opened = Open(hub, streamer)
    yield opened
    for stream in opened.made:
        stream.client.connection.close()
    for stream in opened.made:
        assert stream.gone.wait(PATIENCE)
        assert len(stream.closed) == 1
    assert hub.stats().subscriptions == 0


def settle(hub: MemoryHub) -> None:
    """Return when everything that was published before has been offered."""
    with hub.subscribe("settle", OTHER) as clock:
        hub.publish("settle", OTHER, "tick")
        while clock.get(PATIENCE) is REFRESH_EVENT:
            pass


# Events.


@KINDS
def test_events_reach_the_client_in_their_order(hub: MemoryHub, open_stream: Open, chunked: bool) -> None:
    stream = open_stream(chunked=chunked)
    for number in range(100):
        hub.publish("orders", TENANT, number)
    assert stream.data(100) == [str(number) for number in range(100)]


def test_an_event_has_its_type_and_its_id(hub: MemoryHub, open_stream: Open) -> None:
    stream, subscription = open_stream(), hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, {"id": 42}, type="order.created")
    event = subscription.get(PATIENCE)
    assert stream.client.events(1) == [SentEvent("order.created", '{"id":42}', event.id)]
    subscription.close()


@pytest.fixture
def framed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The data of each frame that is made."""
    made: list[bytes] = []
    frame = sse._frame

    def note(event: Event, data: bytes) -> bytes:
        made.append(data)
        return frame(event, data)

    monkeypatch.setattr(sse, "_frame", note)
    return made


def test_streams_of_one_feed_get_an_event_each_in_its_form_and_a_form_is_encoded_once(
    hub: MemoryHub, open_stream: Open, framed: list[bytes]
) -> None:
    forms = [(encoder, chunked) for encoder in (sse.encode, sse.encode_text) for chunked in (False, True)] * 2
    streams = [open_stream(encoder=encoder, chunked=chunked) for encoder, chunked in forms]
    hub.publish("orders", TENANT, "<b>1</b>")
    for (encoder, _), stream in zip(forms, streams, strict=True):
        assert stream.data(1) == ["<b>1</b>" if encoder is sse.encode_text else '"<b>1</b>"']
    assert sorted(framed) == [b'"<b>1</b>"', b"<b>1</b>"]


@pytest.mark.parametrize(("encoder", "data"), [(sse.encode, b'"<b>1</b>"'), (sse.encode_text, b"<b>1</b>")])
def test_a_form_that_no_stream_wants_is_not_encoded(
    hub: MemoryHub, open_stream: Open, framed: list[bytes], encoder: sse.Encoder, data: bytes
) -> None:
    stream = open_stream(encoder=encoder)
    hub.publish("orders", TENANT, "<b>1</b>")
    assert stream.data(1) == [data.decode()]
    assert framed == [data]


def test_a_slow_client_gets_its_form(hub: MemoryHub, open_stream: Open) -> None:
    slow, other = open_stream(reads=False, encoder=sse.encode_text), open_stream()
    hub.publish_many([("orders", TENANT, str(number)) for number in range(20)])
    assert other.data(20) == [f'"{number}"' for number in range(20)]
    assert slow.data(20) == [str(number) for number in range(20)]


def test_every_stream_of_a_topic_gets_its_events_and_no_others(hub: MemoryHub, open_stream: Open) -> None:
    streams = [open_stream(chunked=number % 2 == 0) for number in range(6)]
    others = [open_stream("stock", chunked=number % 2 == 0) for number in range(2)]
    hub.publish_many(
        [("orders", TENANT, 1), ("orders", OTHER, "not ours"), ("stock", TENANT, 2), ("orders", TENANT, 3)]
    )
    assert [stream.data(2) for stream in streams] == [["1", "3"]] * 6
    hub.publish("stock", TENANT, 4)
    assert [stream.data(2) for stream in others] == [["2", "4"]] * 2


def test_who_comes_later_gets_what_is_published_from_then_on(hub: MemoryHub, open_stream: Open) -> None:
    early = open_stream()
    hub.publish("orders", TENANT, 1)
    assert early.data(1) == ["1"]
    late = open_stream()
    hub.publish("orders", TENANT, 2)
    assert early.data(1) == late.data(1) == ["2"]


def test_all_streams_of_a_process_have_one_thread(open_stream: Open, streamer: Streamer) -> None:
    before = streamers()
    open_stream("orders")
    (thread,) = streamers() - before
    assert thread.daemon
    for channel in ("stock", "orders", "stock"):
        open_stream(channel)
    assert streamers() - before == {thread}
    assert streamer.open == 4


def streamers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "pgfanout-streamer"}


# Slow clients.


@KINDS
def test_a_slow_client_gets_every_byte(hub: MemoryHub, open_stream: Open, chunked: bool) -> None:
    stream = open_stream(ends=tcp_pair(BUFFER), chunked=chunked)
    pad = "x" * 7000
    for start in range(0, 300, 10):
        hub.publish_many([("orders", TENANT, [number, pad]) for number in range(start, start + 10)])
    settle(hub)
    eventually(lambda: stream.connection.blocked)
    events: list[SentEvent] = []
    while len(events) < 300:
        connection = stream.client.connection
        assert select.select([connection], [], [], PATIENCE)[0]
        stream.client.take(connection.recv(3001))
        events += stream.client.read(0)
    assert [json.loads(event.data) for event in events] == [[number, pad] for number in range(300)]
    hub.publish("orders", TENANT, "afterwards")
    assert stream.data(1) == ['"afterwards"']
    assert hub.stats().refreshes == 0


def test_a_client_that_reads_nothing_costs_the_others_nothing(hub: MemoryHub, open_stream: Open) -> None:
    stalled = [open_stream(reads=False, chunked=number % 2 == 0) for number in range(3)]
    reading = open_stream()
    for number in range(50):
        hub.publish("orders", TENANT, number)
        assert reading.data(1) == [str(number)]
    assert [stream.data(50) for stream in stalled] == [[str(number) for number in range(50)]] * 3


@pytest.fixture
def small(streamer: Streamer) -> Iterator[tuple[MemoryHub, Open]]:
    """A hub of small buffers."""
    with MemoryHub(buffer_size=3) as hub:
        opened = Open(hub, streamer)
        yield hub, opened
        for stream in opened.made:
            stream.leave()


@pytest.mark.parametrize(
    ("count", "expected"), [(3, ["0", "1", "2"]), (4, ["refresh"]), (6, ["refresh", "4", "5"]), (7, ["refresh"])]
)
@KINDS
def test_a_client_that_reads_nothing_gets_one_refresh_and_what_came_later(
    small: tuple[MemoryHub, Open], streamer: Streamer, chunked: bool, count: int, expected: list[str]
) -> None:
    hub, open_stream = small
    stream = open_stream(reads=False, chunked=chunked)
    for number in range(count):
        hub.publish("orders", TENANT, number)
    settle(hub)
    streamer.close_left(PATIENCE)
    assert stream.data(len(expected)) == expected
    hub.publish("orders", TENANT, "later")
    assert stream.data(1) == ['"later"']
    assert hub.stats().refreshes == (count - 1) // 3


def test_a_gap_is_told_to_everyone_who_has_left_nothing_unread_once(hub: MemoryHub, open_stream: Open) -> None:
    streams = [open_stream(), open_stream("stock"), open_stream(reads=False)]
    core_of(hub).backend.send(["no envelope", "nor is this"], None)
    eventually(lambda: hub.stats().gaps == 2)
    settle(hub)
    hub.publish_many([("orders", TENANT, 1), ("stock", TENANT, 1)])
    for stream in streams:
        told = stream.data(1)
        while (told := told + stream.data(1))[-1] == "refresh":
            pass
        assert told[-1] == "1"
        assert set(told[:-1]) == {"refresh"}
    assert hub.stats().refreshes == 0


def test_a_gap_is_told_at_once_though_no_event_follows_it(
    hub: MemoryHub, open_stream: Open, streamer: Streamer
) -> None:
    """As after an outage: everything else may be quiet."""
    streams = [open_stream(), open_stream("stock")]
    hub.publish_many([("orders", TENANT, 1), ("stock", TENANT, 1)])
    assert [stream.data(1) for stream in streams] == [["1"]] * 2
    eventually(lambda: streamer.mailbox._sleeps_until > time.monotonic())
    core_of(hub).dispatcher.gap()
    assert [stream.data(1) for stream in streams] == [["refresh"]] * 2


# Leaving.


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize("way", [socket.socket.close, reset, lambda client: client.shutdown(socket.SHUT_WR)])
def test_a_client_that_leaves_is_noticed_though_nothing_is_sent(
    hub: MemoryHub, open_stream: Open, way: Callable[[socket.socket], object], others: int
) -> None:
    staying = [open_stream() for _ in range(others)]
    stream = open_stream()
    assert hub.stats().detached == others + 1
    way(stream.client.connection)
    assert stream.gone.wait(PATIENCE)
    eventually(lambda: (hub.stats().subscriptions, hub.stats().detached) == (others, others))
    assert stream.closed == ["pgfanout-streamer"]
    hub.publish("orders", TENANT, 1)
    assert [each.data(1) for each in staying] == [["1"]] * others
    assert hub.stats().stalled_readers == 0


def test_a_client_that_leaves_while_it_was_too_slow_is_noticed(hub: MemoryHub, open_stream: Open) -> None:
    stream = open_stream(reads=False)
    hub.publish("orders", TENANT, 1)
    settle(hub)
    stream.leave()


def test_a_client_that_has_left_before_the_adoption_is_noticed(open_stream: Open) -> None:
    stream = open_stream.follow()
    stream.client.connection.close()
    stream.adopt()
    assert stream.gone.wait(PATIENCE)


class VanishedConnection(Connection):
    """A connection whose client has acknowledged nothing for too long."""

    def error(self) -> OSError | None:
        return OSError(errno.ETIMEDOUT, "timed out")


def test_a_client_that_vanished_is_counted_as_stalled(hub: MemoryHub, open_stream: Open) -> None:
    open_stream(connection_class=VanishedConnection).leave()
    open_stream().leave()
    assert hub.stats().stalled_readers == 1


def test_what_a_client_sends_is_no_reason_to_end_its_stream(hub: MemoryHub, open_stream: Open) -> None:
    stream = open_stream()
    stream.client.connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    hub.publish("orders", TENANT, 1)
    assert stream.data(1) == ["1"]
    hub.close()
    assert [event.type for event in stream.client.to_end()] == ["close"]


def test_no_descriptor_is_left_of_a_stream(hub: MemoryHub, open_stream: Open) -> None:
    open_stream().leave()
    before = open_descriptors()
    for way in (socket.socket.close, reset):
        stream = open_stream()
        way(stream.client.connection)
        assert stream.gone.wait(PATIENCE)
    assert open_descriptors() == before


# Waiting for those who have left.


def test_after_settling_those_who_had_left_are_gone(open_stream: Open, streamer: Streamer) -> None:
    streams = []
    for _ in range(20):
        ends = socket.socketpair()  # what one end does the other sees at once
        streams.append(open_stream(ends=ends))
    for _ in range(10):
        streams.pop().client.connection.close()
    streamer.close_left(PATIENCE)
    assert streamer.open == 10
    assert not any(stream.gone.is_set() for stream in streams)


def test_settling_without_streams_does_not_wait(streamer: Streamer) -> None:
    streamer.close_left(60.0)
    streamer.prepare()
    streamer.close_left(60.0)


def test_whoever_settles_while_the_thread_ends_does_not_wait_for_nothing(open_stream: Open, streamer: Streamer) -> None:
    began = time.monotonic()
    for _ in range(200):
        stream = open_stream(ends=socket.socketpair())
        stream.client.connection.close()
        streamer.close_left(PATIENCE)
        assert stream.gone.is_set()
    assert time.monotonic() - began < PATIENCE


def test_waiting_for_the_end_tells_whether_it_came(open_stream: Open, streamer: Streamer) -> None:
    assert streamer.wait_until_empty(0.0)
    stream = open_stream()
    assert not streamer.wait_until_empty(0.01)
    stream.leave()
    assert streamer.wait_until_empty(PATIENCE)


# The thread.


def test_a_new_streamer_has_no_thread_and_no_descriptor() -> None:
    threads, descriptors = threading.enumerate(), open_descriptors()
    assert Streamer().open == 0
    assert (threading.enumerate(), open_descriptors()) == (threads, descriptors)


def test_preparing_starts_no_thread_and_may_be_repeated(streamer: Streamer) -> None:
    before = threading.enumerate()
    streamer.prepare()
    descriptors = open_descriptors()
    streamer.prepare()
    assert (threading.enumerate(), open_descriptors()) == (before, descriptors)


def test_the_thread_ends_with_the_last_stream_and_starts_again(
    hub: MemoryHub, open_stream: Open, streamer: Streamer
) -> None:
    before = streamers()
    first, second = open_stream(), open_stream()
    (thread,) = streamers() - before
    first.leave()
    second.leave()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert streamer.open == 0
    third = open_stream()
    (other,) = streamers() - before
    assert other is not thread
    hub.publish("orders", TENANT, 1)
    assert third.data(1) == ["1"]


def test_a_streamer_that_was_idle_needs_no_further_descriptor(open_stream: Open) -> None:
    open_stream().leave()
    before = open_descriptors()
    open_stream().leave()
    assert open_descriptors() == before


def test_without_a_thread_the_stream_stays_with_its_owner(
    open_stream: Open, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = open_stream.follow()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            streamer.adopt(stream.connection)
    assert streamer.open == 0
    assert stream.closed == []
    assert streamer._loop is not None
    with pytest.raises(FileNotFoundError):  # or the descriptor of another connection would be watched
        streamer._loop.poller._poll.unregister(stream.connection.descriptor)
    stream.connection.close(stalled=False)
    assert open_stream().data(0) == []


def test_where_no_thread_runs_news_are_not_kept(hub: MemoryHub, streamer: Streamer) -> None:
    for number in range(10):
        feed, _ = core_of(hub).follow(topics(f"channel{number}", TENANT), streamer.mailbox)
        hub.publish(f"channel{number}", TENANT, 1)
        settle(hub)
        feed.leave()
    assert not streamer.mailbox.feeds


def test_a_thread_that_ends_leaves_no_news(hub: MemoryHub, open_stream: Open, streamer: Streamer) -> None:
    stream = open_stream()
    loop = streamer._loop
    assert loop is not None

    def end() -> None:
        loop.cut()
        streamer.mailbox.news(stream.connection.feed)

    assert streamer.mailbox.call(end)
    assert streamer.wait_until_empty(PATIENCE)
    eventually(lambda: streamer.mailbox.thread is None)
    assert not streamer.mailbox.feeds


def test_a_failure_of_the_clean_up_ends_no_thread(
    hub: MemoryHub,
    open_stream: Open,
    streamer: Streamer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = open_stream()
    failing = [ZeroDivisionError(), ZeroDivisionError(), ZeroDivisionError()]

    def fail(*arguments: object, **options: object) -> None:
        if failing:
            raise failing.pop()

    monkeypatch.setattr(streamer._loop, "keep_alive", fail)
    with monkeypatch.context() as patch:
        patch.setattr(streamer._loop, "cut", fail)
        patch.setattr(loop_module.logger, "error", fail)  # as a filter of the application's may
        assert streamer.mailbox.call(lambda: None)
        eventually(lambda: not failing)
    hub.publish("orders", TENANT, 1)
    assert stream.data(1) == ["1"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_was_ended_has_a_successor(hub: MemoryHub, open_stream: Open, streamer: Streamer) -> None:
    stream = open_stream()
    thread = streamer.mailbox.thread
    assert thread is not None
    assert streamer.mailbox.call(sys.exit)
    thread.join(PATIENCE)
    other = open_stream()
    hub.publish("orders", TENANT, 1)
    assert stream.data(1) == other.data(1) == ["1"]


def test_a_failure_that_lasts_ends_those_who_arrive(
    open_stream: Open, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of being tried again and again without a pause."""
    admitted = open_stream()

    def fail(pause: float | None) -> Any:
        raise OSError(errno.EBADF, "Bad file descriptor")

    assert streamer._loop is not None
    with monkeypatch.context() as patch:
        patch.setattr(streamer._loop.poller, "wait", fail)
        streamer.mailbox.wake()
        assert admitted.gone.wait(PATIENCE)
        assert open_stream().gone.wait(PATIENCE)


def test_without_descriptors_nothing_is_prepared_and_later_it_is(
    hub: MemoryHub, open_stream: Open, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: int) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    for module, name in ((os, "eventfd"), (select, "epoll")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            with pytest.raises(OSError, match="too many"):
                streamer.prepare()
    stream = open_stream()
    hub.publish("orders", TENANT, 1)
    assert stream.data(1) == ["1"]


# The end.


def test_when_the_hub_closes_every_stream_gets_what_there_is_a_retry_a_close_and_a_proper_end(
    hub: MemoryHub, open_stream: Open, streamer: Streamer
) -> None:
    streams = [open_stream(channel, chunked=number % 2 == 0) for number in range(10) for channel in ("orders", "stock")]
    streams += [open_stream(reads=False, chunked=chunked) for chunked in (False, True)]
    hub.publish_many([("orders", TENANT, 1), ("stock", TENANT, 1)])
    settle(hub)
    hub.close()
    retries = set()
    for stream in streams:
        assert [event.type for event in stream.client.to_end()] == ["message", "close"]
        (retry,) = stream.client.parser.retries
        assert 300 <= retry <= 3000
        retries.add(retry)
        assert stream.gone.wait(PATIENCE)
    assert len(retries) > 10
    assert streamer.wait_until_empty(PATIENCE)
    assert hub.stats().stalled_readers == 0


def test_the_end_of_one_hub_is_not_that_of_another(open_stream: Open, streamer: Streamer, hub: MemoryHub) -> None:
    with MemoryHub() as other:
        opened = Open(other, streamer)
        stays, ends = open_stream(), opened()
        other.close()
        assert [event.type for event in ends.client.to_end()] == ["close"]
        hub.publish("orders", TENANT, 1)
        assert stays.data(1) == ["1"]
        ends.client.connection.close()


def test_cutting_ends_every_connection_as_it_is(hub: MemoryHub, open_stream: Open, streamer: Streamer) -> None:
    streams = [open_stream(), open_stream(reads=False), open_stream("stock", chunked=False)]
    streamer.cut(PATIENCE)
    assert streamer.open == 0
    for stream in streams:
        assert stream.gone.is_set()
        with contextlib.suppress(ConnectionResetError):
            while data := stream.client.connection.recv(1 << 20):
                assert b"close" not in data
    assert hub.stats().subscriptions == 0


def test_cutting_without_streams_does_nothing(streamer: Streamer) -> None:
    streamer.cut(60.0)
    streamer.prepare()
    streamer.cut(60.0)


def test_after_a_cut_there_can_be_streams_again(hub: MemoryHub, open_stream: Open, streamer: Streamer) -> None:
    open_stream()
    streamer.cut(PATIENCE)
    stream = open_stream()
    hub.publish("orders", TENANT, 1)
    assert stream.data(1) == ["1"]


# Arrivals.


def test_news_that_come_between_following_and_the_adoption_are_delivered(hub: MemoryHub, open_stream: Open) -> None:
    stream = open_stream.follow()
    hub.publish("orders", TENANT, 1)
    settle(hub)
    stream.adopt()
    assert stream.data(1) == ["1"]


def test_news_are_delivered_when_others_have_read_them_before_the_adoption(hub: MemoryHub, open_stream: Open) -> None:
    early = open_stream()
    stream = open_stream.follow()
    for number in range(10):
        hub.publish("orders", TENANT, number)
    assert early.data(10) == [str(number) for number in range(10)]
    late = open_stream.follow()
    hub.publish("orders", TENANT, 10)
    assert early.data(1) == ["10"]
    assert stream.adopt().data(11) == [str(number) for number in range(11)]
    assert late.adopt().data(1) == ["10"]
    hub.publish("orders", TENANT, 11)
    assert early.data(1) == stream.data(1) == late.data(1) == ["11"]


def test_news_are_delivered_when_the_others_have_left_before_the_adoption(hub: MemoryHub, open_stream: Open) -> None:
    early = open_stream()
    stream = open_stream.follow()
    hub.publish("orders", TENANT, 1)
    assert early.data(1) == ["1"]
    early.leave()
    hub.publish("orders", TENANT, 2)
    settle(hub)
    assert stream.adopt().data(2) == ["1", "2"]


def test_news_from_before_the_adoption_are_delivered_though_the_thread_sleeps(
    hub: MemoryHub, open_stream: Open, streamer: Streamer
) -> None:
    open_stream("stock", keepalive=1000.0)
    stream = open_stream.follow(keepalive=2000.0)
    hub.publish("orders", TENANT, 1)
    settle(hub)
    streamer.close_left(PATIENCE)
    eventually(lambda: streamer.mailbox._sleeps_until > time.monotonic())
    assert stream.adopt().data(1) == ["1"]


@pytest.mark.parametrize("others", [0, 1])
@KINDS
def test_a_hub_that_closes_between_following_and_the_adoption_ends_the_stream(
    hub: MemoryHub, open_stream: Open, streamer: Streamer, others: int, chunked: bool
) -> None:
    early = [open_stream() for _ in range(others)]
    stream = open_stream.follow(chunked=chunked)
    hub.publish("orders", TENANT, 1)
    settle(hub)
    hub.close()
    for each in early:
        assert [event.type for event in each.client.to_end()] == ["message", "close"]
    stream.adopt()
    assert [event.type for event in stream.client.to_end()] == ["message", "close"]


def test_a_stream_that_arrives_without_a_wake_gets_its_events(hub: MemoryHub, open_stream: Open) -> None:
    first = open_stream(keepalive=1000.0)
    hub.publish("orders", TENANT, 1)
    assert first.data(1) == ["1"]
    crowd = [open_stream(keepalive=2000.0) for _ in range(20)]
    other_topic = open_stream("stock", keepalive=2000.0)
    hub.publish_many([("orders", TENANT, 2), ("stock", TENANT, 2)])
    assert [stream.data(1) for stream in (first, *crowd, other_topic)] == [["2"]] * 22


def test_a_stream_that_arrives_without_a_wake_and_leaves_is_noticed(open_stream: Open) -> None:
    open_stream(keepalive=1000.0)
    open_stream(keepalive=2000.0).leave()


def test_a_crowd_that_arrives_does_not_wake_the_thread_for_each(
    hub: MemoryHub, open_stream: Open, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_stream(keepalive=100.0)
    eventually(lambda: streamer.mailbox._sleeps_until > time.monotonic() + 50)
    woken: list[int] = []
    real = os.eventfd_write

    def write(descriptor: int, value: int) -> None:
        woken.append(value)
        real(descriptor, value)

    monkeypatch.setattr(os, "eventfd_write", write)
    crowd = [open_stream(keepalive=1000.0) for _ in range(20)]
    assert woken == []
    assert streamer.open == 21
    hub.publish("orders", TENANT, 1)
    assert [stream.data(1) for stream in (first, *crowd)] == [["1"]] * 21


def test_a_stream_that_arrives_while_the_thread_sleeps_for_long_gets_its_keepalive(open_stream: Open) -> None:
    open_stream(keepalive=1000.0)
    stream = open_stream(keepalive=0.1)
    wait_for_comments(stream, 2)


def test_a_stream_that_arrives_without_a_wake_is_silent_no_longer_than_its_keepalive_says(
    open_stream: Open, streamer: Streamer
) -> None:
    open_stream(keepalive=1.0)
    eventually(lambda: 0.5 < streamer.mailbox._sleeps_until - time.monotonic() < 0.89)  # so another's does not wake it
    began = time.monotonic()
    stream = open_stream(keepalive=1.0)
    wait_for_comments(stream, 1)
    assert time.monotonic() - began < 1.6


def test_a_single_stream_gets_its_keepalives(open_stream: Open) -> None:
    began = time.monotonic()
    stream = open_stream(keepalive=0.4, chunked=False)
    wait_for_comments(stream, 1)
    assert time.monotonic() - began >= 0.9 * 0.4 - 2 * Wheel.TICK
    wait_for_comments(stream, 3)
    assert stream.client.content == sse.KEEPALIVE * len(stream.client.parser.comments)


def wait_for_comments(stream: Stream, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(stream.client.parser.comments) < count:
        assert time.monotonic() < deadline, f"no keepalive came after {stream.client.parser.comments}"
        assert stream.client.read(1.0) == []


# Failing.


@pytest.mark.parametrize("name", ["broadcast", "keep_alive", "handle"])
def test_when_the_loop_fails_all_streams_are_cut_and_others_may_come(
    hub: MemoryHub,
    open_stream: Open,
    streamer: Streamer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    streams = [open_stream() for _ in range(3)]
    hub.publish("orders", TENANT, 1)
    assert [stream.data(1) for stream in streams] == [["1"]] * 3
    works = getattr(Loop, name)
    failed = threading.Event()

    def fail_once(*arguments: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError("nobody expected this")
        return works(*arguments)

    monkeypatch.setattr(Loop, name, fail_once)
    with caplog.at_level(logging.ERROR, "pgfanout"):
        streams.append(open_stream("stock"))
        hub.publish_many([("orders", TENANT, 2), ("stock", TENANT, 2)])
        for stream in streams[:3]:  # the last one may come after the failure
            assert stream.gone.wait(PATIENCE)
            assert b"close" not in read_to_end(stream.client.connection)
        streams[3].leave()
    assert "the streamer failed; all streams are cut" in caplog.text
    assert "nobody expected this" in caplog.text
    eventually(lambda: hub.stats().subscriptions == 0)
    assert hub.stats().failed_streams in (3, 4)
    settle(hub)
    again = [open_stream(), open_stream()]
    hub.publish("orders", TENANT, 3)
    assert [stream.data(1) for stream in again] == [["3"]] * 2


class Failing(Connection):
    """A connection that fails in one of the steps that are made with it."""

    def write(self) -> bool:
        if threading.current_thread().name == "pgfanout-streamer":
            raise ZeroDivisionError("nobody expected this")
        return super().write()


class FailingOnce(Connection):
    """A connection that fails at a client's word."""

    def drop_input(self) -> bool:
        raise ZeroDivisionError("nobody expected this")


class FailingAtTheEnd(Connection):
    """A connection whose end fails, as an application's `call_on_close` may."""

    def close(self, *, stalled: bool) -> None:
        super().close(stalled=stalled)
        raise ZeroDivisionError("nobody expected this")


def test_an_error_of_one_connection_ends_that_one(
    hub: MemoryHub, open_stream: Open, caplog: pytest.LogCaptureFixture
) -> None:
    others = [open_stream(chunked=chunked) for chunked in (False, True)]
    with caplog.at_level(logging.ERROR, "pgfanout"):
        broken = [open_stream(connection_class=Failing), open_stream(connection_class=FailingOnce)]
        broken[1].client.connection.sendall(b"x")
        for stream in broken:
            assert stream.gone.wait(PATIENCE)
            assert b"close" not in read_to_end(stream.client.connection)
        eventually(lambda: hub.stats().failed_streams == 2)
    hub.publish("orders", TENANT, 1)
    assert [stream.data(1) for stream in others] == [["1"]] * 2
    assert caplog.text.count("a stream failed") == 1, "the others are counted in the next line"
    assert "nobody expected this" in caplog.text


def test_an_error_at_the_end_of_one_connection_costs_the_others_nothing(
    hub: MemoryHub, open_stream: Open, caplog: pytest.LogCaptureFixture
) -> None:
    stays = open_stream()
    with caplog.at_level(logging.ERROR, "pgfanout"):
        open_stream(connection_class=FailingAtTheEnd).leave()
        hub.publish("orders", TENANT, 1)
        assert stays.data(1) == ["1"]
    eventually(lambda: "the end of a stream failed" in caplog.text)


@pytest.mark.parametrize("slow", [False, True], ids=["current", "behind"])
def test_an_event_that_can_not_be_encoded_ends_the_streams_of_its_feed(
    hub: MemoryHub, open_stream: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, slow: bool
) -> None:
    concerned = [open_stream(reads=not slow), open_stream(chunked=False, reads=not slow)]
    other = open_stream("stock")
    frame = sse._frame

    def fail(event: Event, data: bytes) -> bytes:
        if event.payload == b'"poison"':
            raise ZeroDivisionError("nobody expected this")
        return frame(event, data)

    monkeypatch.setattr(sse, "_frame", fail)
    with caplog.at_level(logging.ERROR, "pgfanout"):
        hub.publish_many([("orders", TENANT, "poison"), ("stock", TENANT, 1)])
        for stream in concerned:
            with contextlib.suppress(ConnectionResetError):
                assert b"close" not in read_to_end(stream.client.connection)
            assert stream.gone.wait(PATIENCE)
    assert other.data(1) == ["1"]
    assert caplog.text.count("a feed failed; its streams are cut") == 1
    assert hub.stats().failed_streams == 2


class FailingFeed(Feed):
    """A feed that fails when it is asked."""

    def read(self, reader: Reader, until: int | None = None, readers: int = 1) -> list[Event]:
        raise ZeroDivisionError("nobody expected this")


def test_a_feed_that_fails_when_its_first_reader_comes_ends_that_one(
    hub: MemoryHub, open_stream: Open, streamer: Streamer
) -> None:
    other = open_stream("stock")
    registry = core_of(hub).dispatcher.registry
    wanted = topics("orders", TENANT)
    feed = registry.join(wanted, lambda: FailingFeed(8, Mailbox(), registry, wanted))
    stream = open_stream()
    streamer.close_left(PATIENCE)  # it is admitted: nothing that is to be written wakes the thread for it
    assert stream.gone.wait(PATIENCE)
    feed.leave()
    hub.publish("stock", TENANT, 1)
    assert other.data(1) == ["1"]


# What clients send.


def test_a_client_that_sends_without_an_end_is_let_go(hub: MemoryHub, open_stream: Open) -> None:
    stays, sends = open_stream(), open_stream()
    stays.client.connection.sendall(b"x" * 30_000)
    with contextlib.suppress(ConnectionError):
        for _ in range(1000):
            sends.client.connection.sendall(b"x" * 65_536)
    assert sends.gone.wait(PATIENCE)
    hub.publish("orders", TENANT, 1)
    assert stays.data(1) == ["1"]
    assert (hub.stats().failed_streams, hub.stats().stalled_readers) == (0, 0)


def test_what_a_client_sends_is_held_by_nobody(open_stream: Open) -> None:
    stream = open_stream()
    for _ in range(4):
        stream.client.connection.sendall(b"x" * 10_000)
        eventually(lambda: waiting_input(stream.connection.descriptor) == 0)
    eventually(lambda: stream.connection.received == 40_000)


def waiting_input(descriptor: int) -> int:
    """Bytes in the kernel that nobody has read."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


# A crowd.


def test_news_do_not_wait_for_a_crowd_of_arrivals(
    hub: MemoryHub, open_stream: Open, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Admissions are slow here. Of those who arrive while an event comes, a few are admitted before it is written."""
    stream = open_stream()
    hub.publish("orders", TENANT, 0)
    assert stream.data(1) == ["0"]
    admit, admitted = Loop.admit, []

    def slow(loop: Loop, connection: Connection) -> None:
        admitted.append(connection)
        time.sleep(2 * streamer_module._ADMISSION_TIME)
        admit(loop, connection)

    monkeypatch.setattr(Loop, "admit", slow)
    held, hold = threading.Event(), threading.Event()

    def wait_with_the_turn() -> None:
        held.set()
        hold.wait(PATIENCE)

    assert streamer.mailbox.call(wait_with_the_turn)  # one errand: a turn that has one admits all
    assert held.wait(PATIENCE)
    crowd = [open_stream("stock") for _ in range(50)]
    written_after: list[int] = []
    monkeypatch.setattr(Loop, "broadcast", noting(Loop.broadcast, lambda: written_after.append(len(admitted))))
    hub.publish("orders", TENANT, 1)
    settle(hub)
    hold.set()
    assert stream.data(1) == ["1"]
    assert written_after[0] <= 2
    hub.publish("stock", TENANT, 1)
    assert [each.data(1) for each in crowd] == [["1"]] * 50


def noting(function: Callable[..., None], note: Callable[[], object]) -> Callable[..., None]:
    """The function, with something that is done before it."""

    def noted(*arguments: object) -> None:
        note()
        function(*arguments)

    return noted


def test_a_crowd_is_admitted_without_a_pause(
    hub: MemoryHub, open_stream: Open, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_stream(keepalive=1000.0)
    eventually(lambda: streamer.mailbox._sleeps_until > time.monotonic())
    monkeypatch.setattr(streamer_module, "_ADMISSION_TIME", 0.0)
    for _ in range(20):
        open_stream(keepalive=1000.0)
    streamer.mailbox.wake()
    eventually(lambda: not streamer.mailbox.arrivals)


def test_a_crowd_does_not_wait_for_an_event_to_be_admitted(open_stream: Open, streamer: Streamer) -> None:
    """An event is written at once to all who were admitted, and to each of the others on its own."""
    crowd = mailbox_module._CROWD
    open_stream(keepalive=100.0)  # the thread wakes for it before the others' time, and not soon
    eventually(lambda: streamer.mailbox._sleeps_until > time.monotonic())
    for _ in range(3 * crowd):
        open_stream(keepalive=1000.0)
    eventually(lambda: len(streamer.mailbox.arrivals) < crowd)


# Races.


def test_every_stream_gets_its_event_while_the_thread_ends_and_starts(
    hub: MemoryHub, open_stream: Open, streamer: Streamer
) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)

    def come_and_go(number: int) -> None:
        channel = f"channel {number}"
        together.wait()
        for turn in range(100):
            stream = open_stream(channel, ends=socket.socketpair(), chunked=turn % 2 == 0)
            hub.publish(channel, TENANT, turn)
            assert stream.data(1) == [str(turn)]
            stream.client.connection.close()
            if turn % 3:
                assert stream.gone.wait(PATIENCE)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(come_and_go, number) for number in range(3)]:
            future.result(4 * PATIENCE)
    assert streamer.wait_until_empty(PATIENCE)


def test_whoever_comes_or_goes_while_events_flow_loses_none(hub: MemoryHub, open_stream: Open) -> None:
    """Each stream gets all numbers from its first one on, though others of its feed come and leave."""
    stop = threading.Event()

    def publish() -> int:
        number = 0
        while not stop.is_set():
            hub.publish("orders", TENANT, number)
            number += 1
            if number % 20 == 0:
                settle(hub)
        return number

    def come_and_go() -> None:
        for _ in range(40):
            stream = open_stream(ends=socket.socketpair())
            numbers = [int(text) for text in stream.data(1)]
            while len(numbers) < 50:
                numbers += [int(event.data) for event in stream.client.read(PATIENCE)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            stream.client.connection.close()

    with ThreadPoolExecutor(4) as pool:
        publishing = pool.submit(publish)
        try:
            for future in [pool.submit(come_and_go) for _ in range(3)]:
                future.result(4 * PATIENCE)
        finally:
            stop.set()
        assert publishing.result(PATIENCE) > 50


def test_whoever_comes_while_the_hub_closes_gets_the_end(streamer: Streamer) -> None:
    for _ in range(10):
        with MemoryHub() as hub:
            hub.start()
            opened = Open(hub, streamer)
            together = threading.Barrier(3, timeout=PATIENCE)

            def come(opened: Open = opened, together: threading.Barrier = together) -> None:
                together.wait()
                with contextlib.suppress(HubClosedError):
                    while True:
                        opened()

            with ThreadPoolExecutor(2) as pool:
                futures = [pool.submit(come) for _ in range(2)]
                together.wait()
                hub.close()
                for future in futures:
                    future.result(PATIENCE)
            for stream in opened.made:
                assert [event.type for event in stream.client.to_end()] == ["close"]
                assert stream.gone.wait(PATIENCE)
                stream.client.connection.close()


# A fork.


def polls() -> set[str]:
    """The descriptors that this process waits with."""
    return {each for each in open_descriptors() if "eventpoll" in each or "eventfd" in each}


@FORKS
def test_a_forked_child_has_none_of_the_parents_streams_and_leaves_them_alone(hub: MemoryHub) -> None:
    others = polls()  # those of an event loop that another test has left, for example
    opened = Open(hub, own_streamer)
    streams = [opened(), opened("stock"), opened()]
    hub.publish_many([("orders", TENANT, 0), ("stock", TENANT, 0)])
    assert [stream.data(1) for stream in streams] == [["0"]] * 3  # so all were admitted
    sockets = {os.readlink(f"/proc/self/fd/{stream.connection.descriptor}") for stream in streams}

    def child() -> Any:
        held = {each.split(" ")[1] for each in open_descriptors()}
        kinds = sorted(polls() - others)
        stream = Open(hub, own_streamer)()
        hub.publish("orders", TENANT, "child")
        told = stream.data(1)
        own = own_streamer.open
        hub.close()
        ended = [event.type for event in stream.client.to_end()]
        return [sorted(held & sockets), kinds, told, own, ended]

    assert in_child(child) == [[], [], ['"child"'], 1, ["close"]]
    assert own_streamer.open == 3
    hub.publish_many([("orders", TENANT, 1), ("stock", TENANT, 1)])
    assert [stream.data(1) for stream in streams] == [["1"]] * 3
    hub.close()
    for stream in streams:
        assert [event.type for event in stream.client.to_end()] == ["close"]
        stream.client.connection.close()
        assert stream.gone.wait(PATIENCE)


@FORKS
def test_a_stream_that_ends_while_a_child_is_alive_ends_for_its_client(hub: MemoryHub, streamer: Streamer) -> None:
    """This streamer is not the process's own, so its connections are open in the child, as those of one that was
    forked at the wrong moment would be."""
    opened = Open(hub, streamer)
    streams = [opened(), opened(chunked=False)]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os.close(writer)
        os.read(reader, 1)  # until the parent is done
        os._exit(0)
    try:
        hub.publish("orders", TENANT, 1)
        assert [stream.data(1) for stream in streams] == [["1"]] * 2
        hub.close()
        for stream in streams:
            assert [event.type for event in stream.client.to_end()] == ["close"]
            stream.client.connection.close()
            assert stream.gone.wait(PATIENCE)
        assert streamer.wait_until_empty(PATIENCE)
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(pid, 0)


@FORKS
def test_arrivals_that_nobody_has_admitted_are_not_the_childs_either(hub: MemoryHub) -> None:
    streamer = Streamer()
    streamer.prepare()
    stream = Stream(hub, streamer)
    streamer.mailbox.arrivals.append(stream.connection)
    link = os.readlink(f"/proc/self/fd/{stream.connection.descriptor}")

    def child() -> Any:
        streamer.abandon()
        return [streamer.open, any(link in each for each in open_descriptors())]

    assert in_child(child) == [0, False]
    streamer.mailbox.arrivals.clear()
    streamer.abandon()
    stream.connection.close(stalled=False)
    stream.client.connection.close()


def test_the_processs_own_streamer_has_nothing_before_anything_was_detached() -> None:
    assert streamer_module.streamer is own_streamer
    assert own_streamer.open == 0


# The loop by hand: at the pace of a clock of the test's own.


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Mailbox:
    """The test itself."""

    def news(self, feed: Feed) -> None:
        pass

    def wake(self) -> None:
        pass


class Bench:
    """A loop, and streams of one feed on socket pairs."""

    def __init__(self, hub: MemoryHub, clock: Clock) -> None:
        self.clock = clock
        self.loop = loop_without_thread()
        self.hub = hub
        self.clients: list[socket.socket] = []
        self.feed: Feed

    def follow(self, *, keepalive: float = 10.0, head: bytes = b"") -> Connection:
        server, client = socket.socketpair()
        server.setblocking(False)
        client.setblocking(False)
        self.clients.append(client)
        self.feed, reader = core_of(self.hub).follow(topics("orders", TENANT), Mailbox())
        return Connection(
            server.detach(),
            self.feed,
            reader,
            chunked=False,
            head=head,
            keepalive=keepalive,
            on_close=lambda: None,
        )

    def admit(self, *, keepalive: float = 10.0, head: bytes = b"") -> Connection:
        connection = self.follow(keepalive=keepalive, head=head)
        self.loop.poller.watch(connection)
        self.loop.admit(connection)
        return connection

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            self.feed.offer(Event("orders", b"%d" % number))

    def received(self, number: int = 0) -> bytes:
        try:
            return self.clients[number].recv(1 << 20)
        except BlockingIOError:
            return b""

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.loop.keep_alive()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (loop_module, connection_module, broadcast_module, audience_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def bench(hub: MemoryHub, clock: Clock) -> Iterator[Bench]:
    hub.start()
    bench = Bench(hub, clock)
    yield bench
    bench.loop.cut()
    bench.loop.abandon()
    bench.loop._mailbox.abandon()
    for client in bench.clients:
        client.close()


def frame(*numbers: int) -> bytes:
    return b"".join(b"data: %d\n\n" % number for number in numbers)


def test_a_keepalive_comes_after_the_silence_and_again_after_the_next(bench: Bench) -> None:
    bench.admit(keepalive=10.0)
    for _ in range(3):
        bench.pass_time(9.0 - 2 * Wheel.TICK)
        assert bench.received() == b""
        bench.pass_time(1.0 + 2 * Wheel.TICK)
        assert bench.received() == sse.KEEPALIVE


def test_no_keepalive_comes_while_events_flow(bench: Bench) -> None:
    bench.admit(keepalive=10.0)
    for number in range(50):
        bench.pass_time(2.0)
        bench.offer(number)
        bench.loop.broadcast(bench.feed)
        assert bench.received() == frame(number)
    bench.pass_time(9.0 - 2 * Wheel.TICK)
    assert bench.received() == b""
    for _ in range(25):
        bench.pass_time(Wheel.TICK)
    assert bench.received() == sse.KEEPALIVE


def test_the_events_of_other_topics_do_not_break_the_silence(bench: Bench) -> None:
    bench.admit(keepalive=10.0)
    other = core_of(bench.hub).follow(topics("stock", TENANT), Mailbox())[0]
    for _ in range(5):
        bench.pass_time(1.9)
        other.offer(Event("stock", b"1"))
        bench.loop.broadcast(other)
    bench.pass_time(0.6)
    assert bench.received() == sse.KEEPALIVE
    other.leave()


def test_each_stream_has_a_keepalive_of_its_own(bench: Bench) -> None:
    bench.admit(keepalive=10.0)
    bench.admit(keepalive=1.0)
    bench.pass_time(1.0)
    assert (bench.received(0), bench.received(1)) == (b"", sse.KEEPALIVE)
    bench.pass_time(9.0)
    assert (bench.received(0), bench.received(1)) == (sse.KEEPALIVE, sse.KEEPALIVE)


def due_ticks(loop: Loop) -> list[int]:
    """How many streams come up at each time."""
    return [len(loop._wheel._slots[tick]) for tick in sorted(loop._wheel._slots) if loop._wheel._slots[tick]]


def test_many_who_were_written_to_at_once_do_not_come_up_at_once(bench: Bench) -> None:
    for _ in range(200):
        bench.admit(keepalive=10.0)
    ticks = due_ticks(bench.loop)
    assert len(ticks) >= 15
    assert max(ticks) < 40
    for _ in range(3):
        bench.offer(1)
        bench.loop.broadcast(bench.feed)
        for number in range(200):
            assert bench.received(number) == frame(1)
        came = keepalives(bench, 10.0 + Wheel.TICK)
        assert len(came) == 200
        assert all(len(times) == 1 for times in came.values())
        at = [times[0] for times in came.values()]
        assert 9.0 - 2 * Wheel.TICK <= min(at) < 9.3
        assert max(at) > 9.7


def keepalives(bench: Bench, seconds: float) -> dict[int, list[float]]:
    """When the streams got their keepalives, while so many seconds passed."""
    came: dict[int, list[float]] = {}
    began = bench.clock.now
    while bench.clock.now < began + seconds:
        bench.pass_time(Wheel.TICK)
        for number in range(len(bench.clients)):
            if bench.received(number) == sse.KEEPALIVE:
                came.setdefault(number, []).append(bench.clock.now - began)
    return came


def test_there_is_no_pause_to_be_made_when_there_are_no_streams(bench: Bench) -> None:
    assert bench.loop.pause() is None
    bench.admit(keepalive=10.0)
    assert bench.loop.pause() is not None
    bench.loop.cut()
    assert bench.loop.pause() is None


def fill(bench: Bench, number: int = 0) -> bytes:
    """Events that no socket has room for; their frames."""
    payload = json.dumps("x" * 100_000).encode()
    for _ in range(20):
        bench.feed.offer(Event("orders", payload))
    bench.loop.broadcast(bench.feed)
    return b"data: %b\n\n" % payload * 20


def test_who_is_behind_gets_no_keepalive_in_between(bench: Bench) -> None:
    connection = bench.admit(keepalive=10.0)
    expected = fill(bench)
    waiting = [connection.blocked]
    for _ in range(30):
        bench.pass_time(1.0)
    assert drain(bench) == expected
    waiting.append(connection.blocked)
    assert waiting == [True, False]
    for _ in range(11):
        bench.pass_time(1.0)
    assert bench.received() == sse.KEEPALIVE


def drain(bench: Bench, number: int = 0) -> bytes:
    """Read, and have the loop write, until there is nothing more."""
    received = b""
    while data := bench.received(number):
        received += data
        bench.loop.handle(bench.loop.poller.wait(0.0))
    return received


def test_who_had_no_room_is_watched_for_some_and_then_no_more(bench: Bench) -> None:
    bench.admit()
    assert bench.loop.poller.wait(0.0) == []  # a socket with room is no event
    fill(bench)
    assert bench.loop.poller.wait(0.0) == []
    drain(bench)
    assert bench.loop.poller.wait(0.0) == []
    bench.offer(1)
    bench.loop.broadcast(bench.feed)
    assert bench.received() == frame(1)


def test_a_head_that_did_not_leave_before_leaves_first(bench: Bench) -> None:
    bench.admit(head=b"HTTP/1.1 200 OK\r\n\r\n")
    bench.offer(1)
    bench.loop.broadcast(bench.feed)
    assert bench.received() == b"HTTP/1.1 200 OK\r\n\r\n" + frame(1)
    assert bench.loop.poller.wait(0.0) in ([], [(bench.loop._mailbox.descriptor, select.EPOLLIN)])


def test_events_that_everyone_has_are_not_held(bench: Bench) -> None:
    bench.admit()
    bench.admit()
    bench.offer(1, 2, 3)
    bench.loop.broadcast(bench.feed)
    assert bench.feed.events == []
    bench.offer(4)
    bench.loop.broadcast(bench.feed)
    assert bench.received(1) == frame(1, 2, 3, 4)


def test_events_are_held_for_one_who_is_behind_or_on_its_way(bench: Bench) -> None:
    bench.admit()
    late = bench.follow()
    bench.offer(1)
    bench.loop.broadcast(bench.feed)
    assert len(bench.feed.events) == 1
    bench.loop.poller.watch(late)
    bench.loop.admit(late)
    assert bench.received(1) == frame(1)
    big = fill(bench)
    bench.offer(2)
    bench.loop.broadcast(bench.feed)
    assert drain(bench, 0) == frame(1) + big + frame(2)
    assert drain(bench, 1) == big + frame(2)
    bench.offer(3)
    bench.loop.broadcast(bench.feed)
    assert bench.feed.events == []


def test_news_without_a_reader_here_are_left_for_the_one_who_comes(bench: Bench) -> None:
    connection = bench.follow()
    bench.offer(1)
    bench.loop.broadcast(bench.feed)
    bench.loop.poller.watch(connection)
    bench.loop.admit(connection)
    assert bench.received() == frame(1)


def test_who_follows_later_gets_no_event_from_before_though_it_was_not_written_yet(bench: Bench) -> None:
    bench.admit()
    bench.offer(1)
    bench.admit()
    assert bench.received(0) == frame(1)
    bench.offer(2)
    bench.loop.broadcast(bench.feed)
    assert (bench.received(0), bench.received(1)) == (frame(2), frame(2))


class EndingFeed(Feed):
    """A feed that gets its last event, and its end, right after it was read."""

    def read(self, reader: Reader, until: int | None = None, readers: int = 1) -> list[Event]:
        events = super().read(reader, until, readers)
        if until is None and events and not self.ended:
            self.offer(Event("orders", b"2"))
            self.end()
        return events


def test_an_event_that_comes_between_reading_and_the_end_is_delivered(bench: Bench) -> None:
    registry = core_of(bench.hub).dispatcher.registry
    feed = registry.join(topics("orders", TENANT), lambda: EndingFeed(8, Mailbox(), registry))
    bench.admit()
    feed.leave()
    bench.offer(1)
    bench.loop.broadcast(feed)
    bench.loop.broadcast(feed)
    received = bench.received()
    assert received.startswith(frame(1, 2) + b"retry: ")
    assert received.endswith(sse.encode(CLOSE_EVENT))
    assert bench.loop.connections == {}


class BusyFeed(Feed):
    """A feed that gets another event whenever it was read, up to 100."""

    def read(self, reader: Reader, until: int | None = None, readers: int = 1) -> list[Event]:
        events = super().read(reader, until, readers)
        if until is None and events and self.end_position < 100:
            self.offer(Event("orders", b"%d" % (self.end_position + 1)))
        return events


def test_the_sockets_have_their_turn_though_each_broadcast_finds_further_news(bench: Bench) -> None:
    registry = core_of(bench.hub).dispatcher.registry
    feed = registry.join(topics("orders", TENANT), lambda: BusyFeed(8, Mailbox(), registry))
    bench.admit()
    feed.leave()
    bench.offer(1)
    bench.loop.broadcast(feed)
    assert bench.received() == frame(1)
    assert list(bench.loop._mailbox.feeds) == [feed]
    bench.loop.broadcast()
    assert bench.received() == frame(2)


class UnforgettingFeed(Feed):
    """A feed that fails when it is to let go of what all have."""

    def drop_read(self, position: int) -> None:
        raise ZeroDivisionError("nobody expected this")


def test_a_feed_that_fails_after_its_events_were_written_costs_its_own_streams_alone(bench: Bench) -> None:
    registry = core_of(bench.hub).dispatcher.registry
    feed = registry.join(topics("orders", TENANT), lambda: UnforgettingFeed(8, Mailbox(), registry))
    bench.admit()
    feed.leave()
    bench.offer(1)
    bench.loop.broadcast(feed)
    assert bench.received() == frame(1)
    assert bench.loop.connections == {}
    assert bench.hub.stats().failed_streams == 1


def test_who_has_left_does_not_come_up_any_more(bench: Bench) -> None:
    bench.admit()
    bench.admit()
    bench.clients[0].close()
    bench.loop.handle(bench.loop.poller.wait(0.0))
    assert due_ticks(bench.loop) == [1]
    bench.clients[1].close()
    bench.loop.handle(bench.loop.poller.wait(0.0))
    assert due_ticks(bench.loop) == []
    bench.pass_time(20.0)


def test_nothing_more_is_heard_of_a_connection_that_a_child_still_has(bench: Bench) -> None:
    connection = bench.admit()
    copy = os.dup(connection.descriptor)
    try:
        bench.clients[0].close()
        bench.loop.handle(bench.loop.poller.wait(0.0))
        assert bench.loop.connections == {}
        assert bench.loop.poller.wait(0.0) == []
    finally:
        os.close(copy)


def test_an_event_for_a_descriptor_that_is_gone_is_none(bench: Bench) -> None:
    connection = bench.admit()
    bench.clients[0].close()
    events = bench.loop.poller.wait(0.0)
    assert [descriptor for descriptor, _ in events] == [connection.descriptor]
    bench.loop.handle(events)
    bench.loop.handle(events)
    assert bench.loop.connections == {}


def test_a_wake_is_taken_note_of_once(bench: Bench) -> None:
    os.eventfd_write(bench.loop._mailbox.descriptor, 3)
    events = bench.loop.poller.wait(PATIENCE)
    assert events == [(bench.loop._mailbox.descriptor, select.EPOLLIN)]
    bench.loop.handle(events)
    assert bench.loop.poller.wait(0.0) == []
