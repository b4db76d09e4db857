"""Subscription: the overflow rule, the end, and many threads at one queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgfanout.event import CLOSE_EVENT, REFRESH_EVENT, Event
from pgfanout.subscription import Subscription

from .support.wait import eventually

PATIENCE = 20.0

T = TypeVar("T")


def event(number: int) -> Event:
    return Event("orders", str(number).encode())


def drain(subscription: Subscription) -> list[Event]:
    """What waits now; everything else is in the future."""
    try:
        return subscription.get_all(timeout=0)
    except queue.Empty:
        return []


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def waiting(pool: ThreadPoolExecutor, subscription: Subscription, wait: Callable[[], T]) -> Future[T]:
    """Run `wait` in a thread; returns when that thread waits on the subscription's queue."""
    waiters = subscription._backlog.not_empty._waiters  # type: ignore[attr-defined]
    before = len(waiters)
    future = pool.submit(wait)
    eventually(lambda: len(waiters) > before or future.done(), interval=0.001)
    assert not future.done()
    return future


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_has_to_hold_something(size: int) -> None:
    with pytest.raises(ValueError, match=f"buffer_size has to be at least 1, not {size}"):
        Subscription(size)


def test_a_subscription_tells_its_buffer_size() -> None:
    assert Subscription(7).buffer_size == 7


def test_events_come_out_in_the_order_in_which_they_came() -> None:
    subscription = Subscription(3)
    assert [subscription.offer(event(n)) for n in range(3)] == [True, True, True]
    assert [subscription.get() for _ in range(3)] == [event(0), event(1), event(2)]


def test_an_event_that_meets_a_full_queue_turns_everything_into_one_refresh() -> None:
    subscription = Subscription(3)
    for n in range(3):
        subscription.offer(event(n))
    assert subscription.offer(event(3)) is False
    assert drain(subscription) == [REFRESH_EVENT]


def test_later_events_follow_the_refresh() -> None:
    subscription = Subscription(2)
    for n in range(4):
        subscription.offer(event(n))
    assert drain(subscription) == [REFRESH_EVENT, event(3)]


def test_a_buffer_of_one_knows_either_an_event_or_a_refresh() -> None:
    subscription = Subscription(1)
    assert [subscription.offer(event(n)) for n in range(3)] == [True, False, False]
    assert drain(subscription) == [REFRESH_EVENT]


def test_room_that_a_reader_makes_can_be_used() -> None:
    subscription = Subscription(1)
    subscription.offer(event(0))
    subscription.get()
    assert subscription.offer(event(1)) is True
    assert drain(subscription) == [event(1)]


def test_two_refreshes_in_a_row_are_one() -> None:
    subscription = Subscription(3)
    assert subscription.offer(REFRESH_EVENT) is True
    assert subscription.offer(REFRESH_EVENT) is True
    assert drain(subscription) == [REFRESH_EVENT]


def test_a_refresh_after_an_event_is_one_more() -> None:
    subscription = Subscription(4)
    for each in (REFRESH_EVENT, event(0), REFRESH_EVENT):
        subscription.offer(each)
    assert drain(subscription) == [REFRESH_EVENT, event(0), REFRESH_EVENT]


def test_a_refresh_that_was_read_does_not_swallow_the_next_one() -> None:
    subscription = Subscription(4)
    subscription.offer(REFRESH_EVENT)
    subscription.get()
    subscription.offer(REFRESH_EVENT)
    assert drain(subscription) == [REFRESH_EVENT]


def test_a_refresh_that_meets_a_full_queue_takes_its_place() -> None:
    subscription = Subscription(2)
    for n in range(2):
        subscription.offer(event(n))
    assert subscription.offer(REFRESH_EVENT) is False
    assert drain(subscription) == [REFRESH_EVENT]


def test_a_refresh_that_meets_a_full_queue_with_a_refresh_at_its_end_changes_nothing() -> None:
    subscription = Subscription(2)
    subscription.offer(event(0))
    subscription.offer(REFRESH_EVENT)
    assert subscription.offer(REFRESH_EVENT) is True
    assert drain(subscription) == [event(0), REFRESH_EVENT]


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0])
def test_get_without_time_left_takes_what_is_there_and_raises_empty_otherwise(timeout: float) -> None:
    subscription = Subscription(2)
    subscription.offer(event(0))
    assert subscription.get(timeout) == event(0)
    with pytest.raises(queue.Empty):
        subscription.get(timeout)


def test_get_raises_empty_when_the_time_has_passed() -> None:
    with pytest.raises(queue.Empty):
        Subscription(2).get(0.001)


def test_get_all_raises_empty_when_the_time_has_passed() -> None:
    with pytest.raises(queue.Empty):
        Subscription(2).get_all(0.001)


def test_get_all_takes_everything_that_waits() -> None:
    subscription = Subscription(3)
    for n in range(3):
        subscription.offer(event(n))
    assert subscription.get_all() == [event(0), event(1), event(2)]
    assert drain(subscription) == []


@pytest.mark.parametrize("timeout", [None, PATIENCE, float("inf"), 1e300])
def test_get_waits_for_an_event(pool: ThreadPoolExecutor, timeout: float | None) -> None:
    subscription = Subscription(2)
    future = waiting(pool, subscription, lambda: subscription.get(timeout))
    subscription.offer(event(0))
    assert future.result(PATIENCE) == event(0)


def test_get_all_waits_for_the_first_event(pool: ThreadPoolExecutor) -> None:
    subscription = Subscription(2)
    future = waiting(pool, subscription, subscription.get_all)
    subscription.offer(event(0))
    assert future.result(PATIENCE) == [event(0)]


def test_what_is_queued_at_the_hubs_end_can_still_be_read() -> None:
    subscription = Subscription(3)
    subscription.offer(event(0))
    subscription.end()
    assert subscription.closed
    assert [subscription.get(), subscription.get(), subscription.get()] == [event(0), CLOSE_EVENT, CLOSE_EVENT]


def test_get_all_ends_with_the_end() -> None:
    subscription = Subscription(3)
    subscription.offer(event(0))
    subscription.end()
    assert subscription.get_all() == [event(0), CLOSE_EVENT]
    assert subscription.get_all() == [CLOSE_EVENT]


def test_a_full_queue_has_room_for_the_end() -> None:
    subscription = Subscription(1)
    subscription.offer(event(0))
    subscription.end()
    assert subscription.get_all() == [event(0), CLOSE_EVENT]


def test_closing_drops_what_is_queued() -> None:
    subscription = Subscription(3)
    subscription.offer(event(0))
    subscription.close()
    assert subscription.closed
    assert subscription.get_all() == [CLOSE_EVENT]


@pytest.mark.parametrize("finish", [Subscription.end, Subscription.close])
def test_nothing_is_queued_after_the_end(finish: Callable[[Subscription], None]) -> None:
    subscription = Subscription(1)
    finish(subscription)
    assert [subscription.offer(each) for each in (event(0), event(1), REFRESH_EVENT)] == [True, True, True]
    assert subscription.get_all() == [CLOSE_EVENT]


def test_a_subscription_is_open_until_it_ends() -> None:
    subscription = Subscription(1)
    subscription.offer(event(0))
    assert subscription.closed is False


def test_closing_again_is_harmless_and_tells_who_it_is() -> None:
    told: list[Subscription] = []
    subscription = Subscription(1, told.append)
    subscription.close()
    subscription.close()
    assert set(told) == {subscription}
    assert subscription.get() is CLOSE_EVENT


def test_the_hubs_end_is_not_reported_back_to_it() -> None:
    told: list[Subscription] = []
    Subscription(1, told.append).end()
    assert told == []


def test_the_end_of_a_with_block_closes() -> None:
    told: list[Subscription] = []
    with Subscription(1, told.append) as subscription:
        before = subscription.closed
    assert (before, subscription.closed) == (False, True)
    assert told == [subscription]


def test_a_with_block_closes_and_hides_no_error() -> None:
    subscription = Subscription(1)
    with pytest.raises(LookupError), subscription:
        raise LookupError
    assert subscription.closed


def test_iteration_ends_after_the_close_event() -> None:
    subscription = Subscription(3)
    for n in range(2):
        subscription.offer(event(n))
    subscription.end()
    assert list(subscription) == [event(0), event(1), CLOSE_EVENT]


def test_iteration_of_what_has_ended_tells_the_end_again() -> None:
    subscription = Subscription(3)
    subscription.close()
    assert [list(subscription), list(subscription)] == [[CLOSE_EVENT], [CLOSE_EVENT]]


@pytest.mark.parametrize("finish", [Subscription.end, Subscription.close])
def test_the_end_wakes_every_thread_that_waits(
    pool: ThreadPoolExecutor, finish: Callable[[Subscription], None]
) -> None:
    subscription = Subscription(3)
    futures = [waiting(pool, subscription, subscription.get) for _ in range(3)]
    finish(subscription)
    assert [future.result(PATIENCE) for future in futures] == [CLOSE_EVENT] * 3


def test_the_end_wakes_a_thread_that_iterates(pool: ThreadPoolExecutor) -> None:
    subscription = Subscription(3)
    future = waiting(pool, subscription, lambda: list(subscription))
    subscription.close()
    assert future.result(PATIENCE) == [CLOSE_EVENT]


def test_the_end_wakes_a_thread_that_waits_for_all(pool: ThreadPoolExecutor) -> None:
    subscription = Subscription(3)
    future = waiting(pool, subscription, subscription.get_all)
    subscription.end()
    assert future.result(PATIENCE) == [CLOSE_EVENT]


def test_each_of_several_waiting_threads_gets_an_event(pool: ThreadPoolExecutor) -> None:
    subscription = Subscription(8)
    futures = [waiting(pool, subscription, subscription.get) for _ in range(3)]
    for n in range(3):
        subscription.offer(event(n))
    assert {future.result(PATIENCE) for future in futures} == {event(0), event(1), event(2)}


def test_many_readers_get_every_event_once(pool: ThreadPoolExecutor) -> None:
    subscription = Subscription(10_000)
    readers = [pool.submit(list, subscription) for _ in range(4)]
    for n in range(2_000):
        subscription.offer(event(n))
    subscription.end()
    read = [each for reader in readers for each in reader.result(PATIENCE)]
    assert read.count(CLOSE_EVENT) == 4
    numbers = [each.json() for each in read if each is not CLOSE_EVENT]
    assert sorted(numbers) == list(range(2_000))


def test_a_reader_that_is_slower_than_the_writer_finds_a_refresh_in_every_gap(pool: ThreadPoolExecutor) -> None:
    subscription = Subscription(4)
    reader = pool.submit(list, subscription)
    for n in range(20_000):
        subscription.offer(event(n))
    subscription.end()
    last = -1
    gap = False
    for each in reader.result(PATIENCE)[:-1]:
        if each is REFRESH_EVENT:
            gap = True
        else:
            assert each.json() > last if gap else each.json() == last + 1
            last, gap = each.json(), False
    assert gap or last == 19_999


def test_a_writer_never_waits_for_a_reader() -> None:
    subscription = Subscription(1)
    thread = threading.Thread(target=lambda: [subscription.offer(event(n)) for n in range(1000)], daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


class OverflowRule(RuleBasedStateMachine):
    """A subscription beside a model that is nothing but a list and the words of the rule."""

    @initialize(size=st.integers(1, 4))
    def begin(self, size: int) -> None:
        self.size = size
        self.subscription = Subscription(size)
        self.model: list[Event] = []
        self.ended = False
        self.count = 0

    @rule()
    def offer_an_event(self) -> None:
        self.count += 1
        new = event(self.count)
        overflows = not self.ended and len(self.model) == self.size
        assert self.subscription.offer(new) is not overflows
        if overflows:
            self.model = [REFRESH_EVENT]
        elif not self.ended:
            self.model.append(new)

    @rule()
    def offer_a_refresh(self) -> None:
        folded = self.ended or self.model[-1:] == [REFRESH_EVENT]
        overflows = not folded and len(self.model) == self.size
        assert self.subscription.offer(REFRESH_EVENT) is not overflows
        if overflows:
            self.model = [REFRESH_EVENT]
        elif not folded:
            self.model.append(REFRESH_EVENT)

    @rule()
    def get(self) -> None:
        if self.model:
            assert self.subscription.get(timeout=0) is self.model.pop(0)
        elif self.ended:
            assert self.subscription.get(timeout=0) is CLOSE_EVENT
        else:
            with pytest.raises(queue.Empty):
                self.subscription.get(timeout=0)

    @rule()
    def get_all(self) -> None:
        expected = [*self.model, *([CLOSE_EVENT] if self.ended else [])]
        assert drain(self.subscription) == expected
        self.model = []

    @precondition(lambda self: self.count > 3)
    @rule()
    def end(self) -> None:
        self.subscription.end()
        self.ended = True

    @precondition(lambda self: self.count > 3)
    @rule()
    def close(self) -> None:
        self.subscription.close()
        self.ended, self.model = True, []

    @invariant()
    def it_knows_whether_it_has_ended(self) -> None:
        assert self.subscription.closed is self.ended


TestOverflowRule = OverflowRule.TestCase
