"""A reader of a feed that waits in a thread. What it gets is the model's matter (test_reader)."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from pgfanout.delivery.feed import Feed
from pgfanout.delivery.follower import Follower
from pgfanout.delivery.registry import Registry
from pgfanout.delivery.waker import Waker
from pgfanout.event import CLOSE_EVENT, REFRESH_EVENT, Event

from ..support.logs import TOPICS, ManualLog, logged
from ..support.wait import eventually

# Private members: that a thread waits shows nowhere else.

PATIENCE = 20.0


class Rig:
    """A feed of a registry, a follower of it, and a thread that reads."""

    def __init__(self, log: ManualLog | None = None, size: int = 4) -> None:
        self.registry = Registry()
        self.waker = Waker()
        self.feed = self.registry.join(TOPICS, lambda: Feed(size, self, self.registry, TOPICS, log))
        self.feed.begin()
        self.follower = Follower(self.feed, self.feed.reader(), self.waker)
        self.stack = ExitStack()
        self.pool = self.stack.enter_context(ThreadPoolExecutor(1))
        self.stack.callback(self.follower.close)

    def news(self, feed: Feed) -> None:
        pass

    def wake(self) -> None:
        pass

    def waiting(self, read: Callable[[], list[Event]] | None = None) -> Future[list[Event]]:
        """The thread waits for events."""
        future = self.pool.submit(read or (lambda: self.follower.get_all(PATIENCE)))
        eventually(lambda: self.follower._waiting)
        return future

    def offer(self, *events: Event) -> None:
        """As the listener does with a batch."""
        for event in events:
            self.feed.offer(event)
        self.waker.wake_some()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    with rig.stack:
        yield rig


def test_a_thread_that_waits_gets_what_comes(rig: Rig) -> None:
    waiting = rig.waiting()
    rig.offer(logged(1), logged(2))
    assert waiting.result(PATIENCE) == [logged(1), logged(2)]
    waiting = rig.waiting()
    rig.offer(logged(3))
    assert waiting.result(PATIENCE) == [logged(3)]


def test_it_wakes_when_its_turn_comes_and_not_before(rig: Rig) -> None:
    waiting = rig.waiting()
    rig.feed.offer(logged(1))
    rig.feed.offer(logged(2))
    assert not waiting.done()
    assert rig.waker.wake_next()
    assert waiting.result(PATIENCE) == [logged(1), logged(2)]
    assert not rig.waker.wake_next()


def test_when_the_time_has_passed_the_queue_is_empty(rig: Rig) -> None:
    with pytest.raises(queue.Empty):
        rig.follower.get_all(0)


def test_what_came_before_the_end_is_read_and_then_the_end(rig: Rig) -> None:
    rig.offer(logged(1))
    for consumer in rig.registry.seal():
        consumer.end()
    assert rig.follower.get_all(0) == [logged(1)]
    assert rig.follower.get_all(0) == rig.follower.get_all(0) == [CLOSE_EVENT]


def test_a_thread_that_waits_learns_of_the_end(rig: Rig) -> None:
    waiting = rig.waiting()
    for consumer in rig.registry.seal():
        consumer.end()
    rig.waker.wake_some()
    assert waiting.result(PATIENCE) == [CLOSE_EVENT]


def test_another_thread_may_close_it(rig: Rig) -> None:
    waiting = rig.waiting()
    rig.follower.close()
    assert waiting.result(PATIENCE) == [CLOSE_EVENT]
    rig.offer(logged(1))
    assert rig.follower.get_all(0) == [CLOSE_EVENT]


def test_it_leaves_its_feed_once_and_is_counted_as_it_left(rig: Rig) -> None:
    assert (rig.registry.shared_members, rig.registry.followers) == (1, 1)
    rig.follower.close(stalled=True)
    rig.follower.close()
    assert (rig.registry.shared_members, rig.registry.followers, rig.registry.stalled) == (0, 0, 1)


def test_it_is_as_slow_as_any_reader(rig: Rig) -> None:
    rig.offer(*map(logged, range(1, 7)))
    assert rig.follower.get_all(0) == [REFRESH_EVENT, logged(6)]
    assert rig.registry.refreshes == 1


def test_a_thread_that_waits_is_woken_by_an_answer_of_the_log() -> None:
    log = ManualLog(10)
    rig = Rig(log)
    with rig.stack:
        rig.offer(*(log.reach(number) for number in range(11, 30)))
        waiting = rig.waiting()
        [question] = log.questions
        assert question.wanted()
        question.until(29)
        assert [event.id for event in waiting.result(PATIENCE)] == [str(number) for number in range(11, 30)]
        assert rig.follower.number == 29
        assert not question.wanted()


def test_closed_it_wants_no_answer() -> None:
    log = ManualLog(10)
    rig = Rig(log)
    with rig.stack:
        rig.offer(*(log.reach(number) for number in range(11, 30)))
        with pytest.raises(queue.Empty):
            rig.follower.get_all(0)
        [question] = log.questions
        rig.follower.close()
        assert not question.wanted()


def test_without_a_log_it_has_no_cursor(rig: Rig) -> None:
    assert rig.follower.number is None


def test_nothing_is_lost_between_threads() -> None:
    count = 3_000
    rig = Rig(size=count)
    read: list[Event] = []

    def reading() -> list[Event]:
        while len(read) < count:
            read.extend(rig.follower.get_all(PATIENCE))
        return read

    with rig.stack:
        future = rig.waiting(reading)
        for number in range(1, count + 1):
            rig.offer(logged(number))
        assert future.result(PATIENCE) == [logged(number) for number in range(1, count + 1)]
