"""Waker: threads that wait are woken one after the other, and none is forgotten."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgfanout.delivery.waker import Waker
from pgfanout.event import CLOSE_EVENT, Event

from ..support.subscriptions import FedSubscription
from ..support.wait import eventually

# Private members: that a thread waits shows nowhere else.

PATIENCE = 20.0
EVENT = Event("orders", b"1")


class Waiter:
    """Notes that it was woken; `waits` tells whether somebody was there."""

    def __init__(self, waits: bool, woken: list[Waiter]) -> None:
        self._waits = waits
        self._woken = woken

    def wake(self) -> bool:
        self._woken.append(self)
        return self._waits


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


def test_one_is_woken_at_a_time_in_their_order() -> None:
    woken: list[Waiter] = []
    waker, waiters = Waker(), [Waiter(True, woken) for _ in range(3)]
    for waiter in waiters:
        waker.add(waiter)
    assert woken == []
    for number in range(4):
        waker.wake_next()
        assert woken == waiters[: number + 1]


def test_where_nobody_waits_the_next_is_woken_instead() -> None:
    woken: list[Waiter] = []
    waker, waiters = Waker(), [Waiter(waits, woken) for waits in (False, False, True, True)]
    for waiter in waiters:
        waker.add(waiter)
    waker.wake_next()
    assert woken == waiters[:3]


def test_a_start_wakes_a_few() -> None:
    woken: list[Waiter] = []
    waker, waiters = Waker(), [Waiter(True, woken) for _ in range(20)]
    waker.wake_some()
    assert woken == []
    for waiter in waiters:
        waker.add(waiter)
    waker.wake_some()
    assert woken == waiters[:8]


def test_an_offer_wakes_nobody_before_the_relay_does(pool: ThreadPoolExecutor) -> None:
    waker = Waker()
    subscription = FedSubscription(8, waker=waker)
    got = pool.submit(subscription.get, PATIENCE)
    eventually(lambda: subscription._backlog._waiting)
    subscription.offer(EVENT)
    subscription.offer(EVENT)
    assert not got.done()
    waker.wake_some()
    assert got.result(PATIENCE) is EVENT


def test_each_that_wakes_wakes_the_next(pool: ThreadPoolExecutor) -> None:
    waker = Waker()
    subscriptions = [FedSubscription(8, waker=waker) for _ in range(50)]
    got = [pool.submit(subscription.get, PATIENCE) for subscription in subscriptions]
    eventually(lambda: all(subscription._backlog._waiting for subscription in subscriptions))
    for subscription in subscriptions:
        subscription.offer(EVENT)
    waker.wake_some()
    assert [future.result(PATIENCE) for future in got] == [EVENT] * 50


def test_all_who_wait_on_one_subscription_get_what_was_offered_at_once(pool: ThreadPoolExecutor) -> None:
    waker = Waker()
    subscription = FedSubscription(8, waker=waker)
    got = [pool.submit(subscription.get, PATIENCE) for _ in range(5)]
    eventually(lambda: subscription._backlog._waiting == 5)
    for _ in range(5):
        subscription.offer(EVENT)
    waker.wake_some()
    assert [future.result(PATIENCE) for future in got] == [EVENT] * 5


def test_one_whose_time_is_over_passes_the_turn_on(pool: ThreadPoolExecutor) -> None:
    waker = Waker()
    other = FedSubscription(8, waker=waker)
    got = pool.submit(other.get, PATIENCE)
    eventually(lambda: other._backlog._waiting)
    other.offer(EVENT)  # nobody wakes the waker
    with pytest.raises(queue.Empty):
        FedSubscription(8, waker=waker).get(0.001)
    assert got.result(PATIENCE) is EVENT


def test_who_is_woken_though_nothing_is_left_does_not_keep_the_turn(pool: ThreadPoolExecutor) -> None:
    waker = Waker()
    empty, other = FedSubscription(8, waker=waker), FedSubscription(8, waker=waker)
    got = pool.submit(other.get, 2 * PATIENCE)
    eventually(lambda: other._backlog._waiting)
    empty._backlog._waiting = 1
    waker.add(empty._backlog)
    other.offer(EVENT)
    waker.wake_next()
    assert got.result(PATIENCE) is EVENT


@pytest.mark.parametrize("take", ["get", "get_all"])
def test_who_takes_what_another_was_woken_for_wakes_the_next(pool: ThreadPoolExecutor, take: str) -> None:
    waker = Waker()
    shared, other = FedSubscription(8, waker=waker), FedSubscription(8, waker=waker)
    got = pool.submit(other.get, 2 * PATIENCE)
    eventually(lambda: other._backlog._waiting)
    shared._backlog._waiting = 1  # a thread that comes too late
    shared.offer(EVENT)
    other.offer(EVENT)
    waker.wake_next()
    assert not got.done()
    getattr(shared._backlog, take)()
    assert got.result(PATIENCE) is EVENT


def test_an_end_needs_no_waker(pool: ThreadPoolExecutor) -> None:
    subscription = FedSubscription(8, waker=Waker())
    got = [pool.submit(subscription.get, PATIENCE) for _ in range(5)]
    eventually(lambda: subscription._backlog._waiting == 5)
    subscription.end()
    assert [future.result(PATIENCE) for future in got] == [CLOSE_EVENT] * 5


def test_nobody_is_forgotten_while_readers_come_wait_and_give_up(pool: ThreadPoolExecutor) -> None:
    waker, stop = Waker(), threading.Event()
    subscriptions = [FedSubscription(100_000, waker=waker) for _ in range(20)]
    got = [
        pool.submit(read, subscription, 0.001 * number or PATIENCE) for number, subscription in enumerate(subscriptions)
    ]
    others = [pool.submit(impatient, FedSubscription(1, waker=waker), stop) for _ in range(4)]
    for _ in range(2000):
        for subscription in subscriptions:
            subscription.offer(EVENT)
        waker.wake_some()
    eventually(lambda: not any(subscription._backlog.queue for subscription in subscriptions))
    stop.set()
    for subscription in subscriptions:
        subscription.end()
    assert [future.result(PATIENCE) for future in got] == [2000] * 20
    for future in others:
        future.result(PATIENCE)


def read(subscription: FedSubscription, patience: float) -> int:
    """The number of events until the end; waits over and over, so long each time."""
    count = 0
    while True:
        try:
            event = subscription.get(patience)
        except queue.Empty:
            continue
        if event is CLOSE_EVENT:
            return count
        count += 1


def impatient(subscription: FedSubscription, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            subscription.get(0.0005)
        except queue.Empty:
            pass
