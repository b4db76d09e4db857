"""Subscription: the overflow rule, the end, and many threads at one queue."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgfanout import MemoryHub
from pgfanout.delivery.backlog import Backlog
from pgfanout.delivery.subscription import Subscription
from pgfanout.event import CLOSE_EVENT, REFRESH_EVENT, Event
from pgfanout.hub import core_of

from ..support.subscriptions import FedSubscription
from ..support.wait import eventually

# Private members: what the registry still has, and that a thread waits, shows nowhere else.

PATIENCE = 20.0
TENANT = "11111111-1111-4111-8111-111111111111"

T = TypeVar("T")


def event(number: int) -> Event:
    return Event("orders", str(number).encode())


def drain(subscription: FedSubscription) -> list[Event]:
    """What waits now; everything else is in the future."""
    try:
        return subscription.get_all(timeout=0)
    except queue.Empty:
        return []


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def told_to(told: list[Backlog]) -> Callable[..., None]:
    """Note which queue was closed."""
    return lambda backlog, **how: told.append(backlog)


def waiting(pool: ThreadPoolExecutor, subscription: Subscription, wait: Callable[[], T]) -> Future[T]:
    """Run `wait` in a thread; returns when that thread waits on the subscription's queue."""
    waiters = subscription._backlog.not_empty._waiters  # type: ignore[attr-defined]
    before = len(waiters)
    future = pool.submit(wait)
    eventually(lambda: len(waiters) > before or future.done(), interval=0.001)
    assert not future.done()
    return future


def test_a_subscription_tells_its_buffer_size() -> None:
    assert FedSubscription(7).buffer_size == 7


def test_events_come_out_in_the_order_in_which_they_came() -> None:
    subscription = FedSubscription(3)
    assert [subscription.offer(event(n)) for n in range(3)] == [True, True, True]
    assert [subscription.get() for _ in range(3)] == [event(0), event(1), event(2)]


def test_an_event_that_meets_a_full_queue_turns_everything_into_one_refresh() -> None:
    subscription = FedSubscription(3)
    for n in range(3):
        subscription.offer(event(n))
    assert subscription.offer(event(3)) is False
    assert drain(subscription) == [REFRESH_EVENT]


def test_later_events_follow_the_refresh() -> None:
    subscription = FedSubscription(2)
    for n in range(4):
        subscription.offer(event(n))
    assert drain(subscription) == [REFRESH_EVENT, event(3)]


def test_a_buffer_of_one_knows_either_an_event_or_a_refresh() -> None:
    subscription = FedSubscription(1)
    assert [subscription.offer(event(n)) for n in range(3)] == [True, False, False]
    assert drain(subscription) == [REFRESH_EVENT]


def test_room_that_a_reader_makes_can_be_used() -> None:
    subscription = FedSubscription(1)
    subscription.offer(event(0))
    subscription.get()
    assert subscription.offer(event(1)) is True
    assert drain(subscription) == [event(1)]


def test_two_refreshes_in_a_row_are_one() -> None:
    subscription = FedSubscription(3)
    assert subscription.offer(REFRESH_EVENT) is True
    assert subscription.offer(REFRESH_EVENT) is True
    assert drain(subscription) == [REFRESH_EVENT]


def test_a_refresh_after_an_event_is_one_more() -> None:
    subscription = FedSubscription(4)
    for each in (REFRESH_EVENT, event(0), REFRESH_EVENT):
        subscription.offer(each)
    assert drain(subscription) == [REFRESH_EVENT, event(0), REFRESH_EVENT]


def test_a_refresh_that_was_read_does_not_swallow_the_next_one() -> None:
    subscription = FedSubscription(4)
    subscription.offer(REFRESH_EVENT)
    subscription.get()
    subscription.offer(REFRESH_EVENT)
    assert drain(subscription) == [REFRESH_EVENT]


def test_a_refresh_that_meets_a_full_queue_takes_its_place() -> None:
    subscription = FedSubscription(2)
    for n in range(2):
        subscription.offer(event(n))
    assert subscription.offer(REFRESH_EVENT) is False
    assert drain(subscription) == [REFRESH_EVENT]


def test_a_refresh_that_meets_a_full_queue_with_a_refresh_at_its_end_changes_nothing() -> None:
    subscription = FedSubscription(2)
    subscription.offer(event(0))
    subscription.offer(REFRESH_EVENT)
    assert subscription.offer(REFRESH_EVENT) is True
    assert drain(subscription) == [event(0), REFRESH_EVENT]


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0])
def test_get_without_time_left_takes_what_is_there_and_raises_empty_otherwise(timeout: float) -> None:
    subscription = FedSubscription(2)
    subscription.offer(event(0))
    assert subscription.get(timeout) == event(0)
    with pytest.raises(queue.Empty):
        subscription.get(timeout)


def test_get_raises_empty_when_the_time_has_passed() -> None:
    with pytest.raises(queue.Empty):
        FedSubscription(2).get(0.001)


def test_get_all_raises_empty_when_the_time_has_passed() -> None:
    with pytest.raises(queue.Empty):
        FedSubscription(2).get_all(0.001)


def test_get_all_takes_everything_that_waits() -> None:
    subscription = FedSubscription(3)
    for n in range(3):
        subscription.offer(event(n))
    assert subscription.get_all() == [event(0), event(1), event(2)]
    assert drain(subscription) == []


@pytest.mark.parametrize("timeout", [None, PATIENCE, float("inf"), 1e300])
def test_get_waits_for_an_event(pool: ThreadPoolExecutor, timeout: float | None) -> None:
    subscription = FedSubscription(2)
    future = waiting(pool, subscription, lambda: subscription.get(timeout))
    subscription.offer(event(0))
    assert future.result(PATIENCE) == event(0)


def test_get_all_waits_for_the_first_event(pool: ThreadPoolExecutor) -> None:
    subscription = FedSubscription(2)
    future = waiting(pool, subscription, subscription.get_all)
    subscription.offer(event(0))
    assert future.result(PATIENCE) == [event(0)]


def test_what_is_queued_at_the_hubs_end_can_still_be_read() -> None:
    subscription = FedSubscription(3)
    subscription.offer(event(0))
    subscription.end()
    assert subscription.closed
    assert [subscription.get(), subscription.get(), subscription.get()] == [event(0), CLOSE_EVENT, CLOSE_EVENT]


def test_get_all_ends_with_the_end() -> None:
    subscription = FedSubscription(3)
    subscription.offer(event(0))
    subscription.end()
    assert subscription.get_all() == [event(0), CLOSE_EVENT]
    assert subscription.get_all() == [CLOSE_EVENT]


def test_a_full_queue_has_room_for_the_end() -> None:
    subscription = FedSubscription(1)
    subscription.offer(event(0))
    subscription.end()
    assert subscription.get_all() == [event(0), CLOSE_EVENT]


def test_closing_drops_what_is_queued() -> None:
    subscription = FedSubscription(3)
    subscription.offer(event(0))
    subscription.close()
    assert subscription.closed
    assert subscription.get_all() == [CLOSE_EVENT]


@pytest.mark.parametrize("finish", [FedSubscription.end, FedSubscription.close])
def test_nothing_is_queued_after_the_end(finish: Callable[[FedSubscription], None]) -> None:
    subscription = FedSubscription(1)
    finish(subscription)
    assert [subscription.offer(each) for each in (event(0), event(1), REFRESH_EVENT)] == [True, True, True]
    assert subscription.get_all() == [CLOSE_EVENT]


def test_a_subscription_is_open_until_it_ends() -> None:
    subscription = FedSubscription(1)
    subscription.offer(event(0))
    assert subscription.closed is False


def test_closing_again_is_harmless_and_tells_who_it_is() -> None:
    told: list[Backlog] = []
    subscription = FedSubscription(1, told_to(told))
    subscription.close()
    subscription.close()
    assert set(told) == {subscription.consumer}
    assert subscription.get() is CLOSE_EVENT


def test_the_hubs_end_is_not_reported_back_to_it() -> None:
    told: list[Backlog] = []
    FedSubscription(1, told_to(told)).end()
    assert told == []


def test_the_end_of_a_with_block_closes() -> None:
    told: list[Backlog] = []
    subscription = FedSubscription(1, told_to(told))
    with subscription:
        before = subscription.closed
    assert (before, subscription.closed) == (False, True)
    assert told == [subscription.consumer]


def test_a_with_block_closes_and_hides_no_error() -> None:
    subscription = FedSubscription(1)
    with pytest.raises(LookupError), subscription:
        raise LookupError
    assert subscription.closed


def test_iteration_ends_after_the_close_event() -> None:
    subscription = FedSubscription(3)
    for n in range(2):
        subscription.offer(event(n))
    subscription.end()
    assert list(subscription) == [event(0), event(1), CLOSE_EVENT]


def test_iteration_of_what_has_ended_tells_the_end_again() -> None:
    subscription = FedSubscription(3)
    subscription.close()
    assert [list(subscription), list(subscription)] == [[CLOSE_EVENT], [CLOSE_EVENT]]


@pytest.mark.parametrize("finish", [FedSubscription.end, FedSubscription.close])
def test_the_end_wakes_every_thread_that_waits(
    pool: ThreadPoolExecutor, finish: Callable[[FedSubscription], None]
) -> None:
    subscription = FedSubscription(3)
    futures = [waiting(pool, subscription, subscription.get) for _ in range(3)]
    finish(subscription)
    assert [future.result(PATIENCE) for future in futures] == [CLOSE_EVENT] * 3


def test_the_end_wakes_a_thread_that_iterates(pool: ThreadPoolExecutor) -> None:
    subscription = FedSubscription(3)
    future = waiting(pool, subscription, lambda: list(subscription))
    subscription.close()
    assert future.result(PATIENCE) == [CLOSE_EVENT]


def test_the_end_wakes_a_thread_that_waits_for_all(pool: ThreadPoolExecutor) -> None:
    subscription = FedSubscription(3)
    future = waiting(pool, subscription, subscription.get_all)
    subscription.end()
    assert future.result(PATIENCE) == [CLOSE_EVENT]


def test_each_of_several_waiting_threads_gets_an_event(pool: ThreadPoolExecutor) -> None:
    subscription = FedSubscription(8)
    futures = [waiting(pool, subscription, subscription.get) for _ in range(3)]
    for n in range(3):
        subscription.offer(event(n))
    assert {future.result(PATIENCE) for future in futures} == {event(0), event(1), event(2)}


def test_many_readers_get_every_event_once(pool: ThreadPoolExecutor) -> None:
    subscription = FedSubscription(10_000)
    readers = [pool.submit(list, subscription) for _ in range(4)]
    for n in range(2_000):
        subscription.offer(event(n))
    subscription.end()
    read = [each for reader in readers for each in reader.result(PATIENCE)]
    assert read.count(CLOSE_EVENT) == 4
    numbers = [each.json() for each in read if each is not CLOSE_EVENT]
    assert sorted(numbers) == list(range(2_000))


def test_a_reader_that_is_slower_than_the_writer_finds_a_refresh_in_every_gap(pool: ThreadPoolExecutor) -> None:
    subscription = FedSubscription(4)
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
    subscription = FedSubscription(1)
    thread = threading.Thread(target=lambda: [subscription.offer(event(n)) for n in range(1000)], daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# What waits is bounded in bytes, too.


def large(number: int, size: int) -> Event:
    """An event whose payload has so many bytes."""
    return Event("orders", b"%*d" % (size, number))


def test_a_subscription_tells_how_many_bytes_it_holds() -> None:
    assert (FedSubscription(1).buffer_bytes, FedSubscription(1, buffer_bytes=7).buffer_bytes) == (262_144, 7)


def test_events_may_fill_the_bytes_and_one_more_turns_everything_into_one_refresh() -> None:
    subscription = FedSubscription(32, buffer_bytes=30)
    assert [subscription.offer(large(n, 10)) for n in range(3)] == [True, True, True]
    assert subscription.offer(large(3, 1)) is False
    assert subscription.offer(large(4, 10)) is True
    assert drain(subscription) == [REFRESH_EVENT, large(4, 10)]


def test_an_event_above_the_limit_is_held_alone() -> None:
    subscription = FedSubscription(32, buffer_bytes=30)
    assert subscription.offer(large(0, 1000)) is True
    assert subscription.offer(REFRESH_EVENT) is True
    assert drain(subscription) == [large(0, 1000), REFRESH_EVENT]
    assert [subscription.offer(large(n, 1000)) for n in range(2)] == [True, False]
    assert drain(subscription) == [REFRESH_EVENT]


@pytest.mark.parametrize("take", [FedSubscription.get, FedSubscription.get_all])
def test_bytes_that_a_reader_makes_free_can_be_used(take: Callable[[FedSubscription], object]) -> None:
    subscription = FedSubscription(32, buffer_bytes=10)
    for n in range(5):
        assert subscription.offer(large(n, 10)) is True
        take(subscription)


def test_bytes_that_an_overflow_or_the_end_makes_free_are_free() -> None:
    subscription = FedSubscription(1, buffer_bytes=20)
    for n in range(3):
        subscription.offer(large(n, 15))
    assert subscription.get(0) is REFRESH_EVENT
    assert subscription.offer(large(3, 15)) is True
    subscription.close()
    assert subscription._backlog._tail.bytes == 0


# One that nobody has any more.


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with MemoryHub() as hub:
        yield hub


@pytest.fixture
def without_collections() -> Iterator[None]:
    """What is dropped is found by its last reference."""
    gc.disable()
    yield
    gc.enable()


def break_out(hub: MemoryHub) -> None:
    for _ in subscribed(hub):
        break


def fail(hub: MemoryHub) -> None:
    with suppress(LookupError):
        for _ in subscribed(hub):
            raise LookupError


def leave_before_the_first(hub: MemoryHub) -> None:
    iter(subscribed(hub))


def run_an_iterator_by_hand(hub: MemoryHub) -> None:
    next(iter(subscribed(hub)))


def drop_at_once(hub: MemoryHub) -> None:
    subscribed(hub)


def get_one(hub: MemoryHub) -> None:
    subscribed(hub).get(PATIENCE)


def drop_in_a_circle(hub: MemoryHub) -> None:
    circle: list[object] = [subscribed(hub)]
    circle.append(circle)


def subscribed(hub: MemoryHub) -> Subscription:
    """A subscription with an event to read."""
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, 0)
    return subscription


WAYS = [break_out, fail, leave_before_the_first, run_an_iterator_by_hand, drop_at_once, get_one]


@pytest.mark.usefixtures("without_collections")
@pytest.mark.parametrize("drop", WAYS)
def test_a_subscription_that_nobody_has_leaves_the_hub(hub: MemoryHub, drop: Callable[[MemoryHub], None]) -> None:
    for _ in range(20):
        drop(hub)
    assert hub.stats().subscriptions == 0


def test_a_subscription_in_a_circle_that_nobody_has_leaves_the_hub_after_a_collection(hub: MemoryHub) -> None:
    drop_in_a_circle(hub)
    gc.collect()
    assert hub.stats().subscriptions == 0


@pytest.mark.usefixtures("without_collections")
@pytest.mark.parametrize("happens", ["an event", "an event of another topic", "a gap", "a heartbeat", "a subscriber"])
def test_a_dropped_subscription_is_gone_at_the_next_thing_that_happens(hub: MemoryHub, happens: str) -> None:
    """Nobody has to open another one, or to look."""
    kept = hub.subscribe("stock", TENANT)
    hub.subscribe("orders", TENANT)
    registry = core_of(hub).dispatcher.registry
    assert len(registry._topics) == 2
    if happens == "an event":
        hub.publish("orders", TENANT, 1)
    elif happens == "an event of another topic":
        hub.publish("stock", TENANT, 1)
    elif happens == "a gap":
        core_of(hub).dispatcher.gap()
    elif happens == "a heartbeat":
        core_of(hub).sink.heartbeat(0.0)
    else:
        hub.subscribe("stock", TENANT).close()
    eventually(lambda: set(registry._topics) == {kept._backlog})


@pytest.mark.usefixtures("without_collections")
def test_what_a_dropped_subscription_held_is_let_go(hub: MemoryHub) -> None:
    consumer = weakref.ref(subscribed(hub)._backlog)
    assert hub.stats().subscriptions == 0
    assert consumer() is None


@pytest.mark.parametrize("read", [Subscription.get, lambda subscription: next(iter(subscription))])
def test_a_reader_that_waits_keeps_its_subscription(
    hub: MemoryHub, pool: ThreadPoolExecutor, read: Callable[[Subscription], Event]
) -> None:
    future = pool.submit(lambda: read(hub.subscribe("orders", TENANT)))
    eventually(lambda: hub.stats().subscriptions == 1)
    (consumer,) = core_of(hub).dispatcher.registry._topics
    assert isinstance(consumer, Backlog)
    waiters = consumer.not_empty._waiters  # type: ignore[attr-defined]
    eventually(lambda: waiters)
    gc.collect()
    hub.publish("orders", TENANT, "still there")
    assert future.result(PATIENCE).json() == "still there"
    eventually(lambda: hub.stats().subscriptions == 0)


def test_a_loop_keeps_its_subscription_between_two_events(hub: MemoryHub) -> None:
    seen: list[object] = []
    hub.start()
    for each in subscribed(hub):
        gc.collect()
        assert hub.stats().subscriptions == 1
        seen.append(each.json())
        if len(seen) == 3:
            break
        hub.publish("orders", TENANT, len(seen))
    assert seen == [0, 1, 2]


def test_a_finaliser_takes_no_lock(hub: MemoryHub) -> None:
    """It may run in the middle of whatever holds them, in the same thread."""
    subscription = subscribed(hub)
    registry, backlog = core_of(hub).dispatcher.registry, subscription._backlog
    with registry._lock, backlog.mutex:
        del subscription
    assert hub.stats().subscriptions == 0
    assert backlog.ended


@pytest.mark.parametrize("leave", [Subscription.close, lambda subscription: subscription._backlog.end()])
def test_a_subscription_that_had_ended_leaves_nothing_to_remove(
    hub: MemoryHub, leave: Callable[[Subscription], None]
) -> None:
    subscription = subscribed(hub)
    leave(subscription)
    del subscription
    gc.collect()
    assert core_of(hub).dispatcher.registry._dropped.empty()


def test_subscriptions_that_are_dropped_in_a_burst_all_leave(hub: MemoryHub, pool: ThreadPoolExecutor) -> None:
    def come_and_go() -> None:
        for _ in range(200):
            for _ in subscribed(hub):
                break

    for future in [pool.submit(come_and_go) for _ in range(8)]:
        future.result(PATIENCE)
    gc.collect()
    assert hub.stats().subscriptions == 0
    assert not core_of(hub).dispatcher.registry._consumers


class OverflowRule(RuleBasedStateMachine):
    """A subscription beside a model that is nothing but a list and the words of the rule."""

    @initialize(size=st.integers(1, 4), room=st.integers(1, 40))
    def begin(self, size: int, room: int) -> None:
        self.size, self.room = size, room
        self.subscription = FedSubscription(size, buffer_bytes=room)
        self.model: list[Event] = []
        self.ended = False
        self.count = 0

    @rule(size=st.integers(4, 30))
    def offer_an_event(self, size: int) -> None:
        self.count += 1
        new = large(self.count, size)
        held = sum(len(each.payload) for each in self.model if each is not REFRESH_EVENT)
        too_large = held > 0 and held + size > self.room
        overflows = not self.ended and (len(self.model) == self.size or too_large)
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
    def it_is_bounded(self) -> None:
        if hasattr(self, "subscription"):
            waiting = [each for each in self.subscription._backlog.queue if each is not REFRESH_EVENT]
            assert len(waiting) <= 1 or sum(len(each.payload) for each in waiting) <= self.room

    @invariant()
    def it_knows_whether_it_has_ended(self) -> None:
        assert self.subscription.closed is self.ended


TestOverflowRule = OverflowRule.TestCase
