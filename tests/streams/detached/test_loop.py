"""Loop: a detached stream and the log, step by step."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from pgfanout import REFRESH_EVENT
from pgfanout.delivery.feed import Feed
from pgfanout.delivery.registry import Registry
from pgfanout.streams.detached.connection import Connection
from pgfanout.topic import Topic

from ...support.detached import loop_without_thread, tcp_pair
from ...support.logs import ManualLog
from ...support.sse import parse

# Private members: the mailbox of a loop without a thread.

TOPICS = (Topic("orders", "11111111-1111-4111-8111-111111111111"),)

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="nothing is detached here")


class Quiet:
    """A reader of news that the test stands in for."""

    def news(self, feed: Feed) -> None:
        pass

    def wake(self) -> None:
        pass


class Rig:
    """One stream of a feed of two events, whose client has everything up to a number and wants the rest."""

    def __init__(self, last: int, number: int, buffer_bytes: int = 100) -> None:
        self.log = ManualLog(last)
        registry = Registry()
        self.feed = registry.join(TOPICS, lambda: self.new_feed(registry, buffer_bytes))
        self.feed.begin()
        self.loop = loop_without_thread()
        server, self.client = tcp_pair()
        server.setblocking(False)
        self.connection = Connection(
            server.detach(),
            self.feed,
            self.feed.reader(number),
            chunked=False,
            head=b"",
            keepalive=60.0,
            on_close=lambda: None,
        )
        self.loop.poller.watch(self.connection)
        self.loop.admit(self.connection)

    def new_feed(self, registry: Registry, buffer_bytes: int) -> Feed:
        return Feed(2, Quiet(), registry, TOPICS, self.log, buffer_bytes=buffer_bytes)

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            self.feed.offer(self.log.reach(number))

    def refresh(self) -> None:
        self.feed.offer(REFRESH_EVENT)

    def broadcast(self) -> None:
        self.loop.broadcast(self.feed)

    def advance(self) -> None:
        """As when its socket has room."""
        self.loop.handle([(self.connection.descriptor, select.EPOLLOUT)])

    def answer(self, question: int, until: int) -> None:
        self.log.questions[question].until(until)
        self.loop.handle([])

    def received(self) -> list[str]:
        self.client.setblocking(False)
        try:
            data = self.client.recv(65536)
        except BlockingIOError:
            return []
        return [event.data if event.type == "message" else event.type for event in parse(data)]

    def close(self) -> None:
        self.loop.cut()
        self.loop.abandon()
        self.client.close()
        self.loop._mailbox.abandon()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Its client is ahead of this process by two events."""
    rig = Rig(last=3, number=5)
    yield rig
    rig.close()


def test_a_client_that_is_ahead_goes_on_where_it_was(rig: Rig) -> None:
    assert [question.after for question in rig.log.questions] == [5]
    rig.offer(4, 5, 6)
    rig.broadcast()
    rig.answer(0, until=6)
    assert rig.received() == ["6"]


def test_a_stream_that_joined_with_a_question_open_asks_again_when_it_falls_behind(rig: Rig) -> None:
    rig.offer(4, 5)
    rig.broadcast()
    rig.advance()
    rig.answer(0, until=5)
    rig.offer(*range(6, 14))
    rig.broadcast()
    assert [question.after for question in rig.log.questions] == [5, 5]
    rig.answer(1, until=13)
    assert rig.received() == [str(number) for number in range(6, 14)]


def test_an_answer_to_an_earlier_question_is_not_taken_for_the_next(rig: Rig) -> None:
    rig.offer(4, 5)
    rig.broadcast()
    rig.advance()
    rig.offer(*range(6, 14))
    rig.broadcast()
    rig.answer(1, until=13)
    rig.offer(*range(14, 22))
    rig.broadcast()
    rig.answer(0, until=13)
    rig.answer(2, until=21)
    assert rig.received() == [str(number) for number in range(6, 22)]


def test_a_stream_that_reads_the_log_across_a_refresh_is_told_and_gets_nothing_twice(rig: Rig) -> None:
    rig.offer(4, 5)
    rig.refresh()
    rig.offer(6, 7)
    rig.broadcast()
    rig.answer(0, until=7)  # too late: it may be of the log from before the refresh
    assert rig.received() == ["refresh", "6", "7"]
    rig.offer(8)
    rig.broadcast()
    assert rig.received() == ["8"]


def test_a_stream_that_fell_behind_before_a_refresh_is_told_before_anything_that_the_log_has_by_then(rig: Rig) -> None:
    """Since the refresh it may be the log of another server, which lacks what the stream has."""
    rig.offer(4, 5)
    rig.broadcast()
    rig.answer(0, until=5)
    rig.offer(*range(6, 14))
    rig.broadcast()
    assert rig.received() == []
    rig.refresh()
    rig.answer(1, until=13)
    rig.broadcast()
    assert rig.received() == ["refresh"]
    rig.offer(14)
    rig.broadcast()
    assert rig.received() == ["14"]


@pytest.mark.parametrize(("buffer_bytes", "asked"), [(1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [1, 4]), (5, [1])])
def test_of_a_page_a_stream_takes_what_it_may_hold_and_asks_for_the_rest(buffer_bytes: int, asked: list[int]) -> None:
    """An event has one byte of payload here."""
    rig = Rig(last=6, number=1, buffer_bytes=buffer_bytes)
    try:
        received: list[str] = []
        for _ in asked:
            rig.answer(-1, until=6)
            received += rig.received()
        assert received == ["2", "3", "4", "5", "6"]
        assert [question.after for question in rig.log.questions] == asked
    finally:
        rig.close()
