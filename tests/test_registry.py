"""Registry: who gets a topic's events."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgfanout.errors import HubClosedError
from pgfanout.registry import Consumer, Registry
from pgfanout.subscription import Subscription
from pgfanout.topic import Topic

PATIENCE = 20.0

TENANT, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
ORDERS, STOCK = Topic("orders", TENANT), Topic("stock", TENANT)


def consumer() -> Consumer:
    return Subscription(1)


def test_a_new_registry_is_empty() -> None:
    registry = Registry()
    assert (len(registry), registry.all(), registry.of(ORDERS)) == (0, [], ())


def test_a_topic_has_those_who_were_added_to_it() -> None:
    registry = Registry()
    one, other = consumer(), consumer()
    registry.add(one, [ORDERS, STOCK])
    registry.add(other, iter([ORDERS]))
    assert registry.of(ORDERS) == (one, other)
    assert registry.of(STOCK) == (one,)


def test_the_same_channel_of_another_tenant_is_another_topic() -> None:
    registry = Registry()
    registry.add(consumer(), [ORDERS])
    assert registry.of(Topic("orders", OTHER)) == ()


def test_everyone_is_listed_and_counted_once() -> None:
    registry = Registry()
    one, other = consumer(), consumer()
    registry.add(one, [ORDERS, STOCK])
    registry.add(other, [ORDERS])
    assert registry.all() == [one, other]
    assert len(registry) == 2


def test_who_was_removed_is_in_no_topic_and_the_others_stay() -> None:
    registry = Registry()
    one, other = consumer(), consumer()
    registry.add(one, [ORDERS, STOCK])
    registry.add(other, [ORDERS])
    registry.remove(one)
    assert (registry.of(ORDERS), registry.of(STOCK), registry.all()) == ((other,), (), [other])


def test_removing_again_or_a_stranger_is_harmless() -> None:
    registry = Registry()
    one, other = consumer(), consumer()
    registry.add(one, [ORDERS])
    registry.remove(other)
    assert registry.all() == [one]
    registry.remove(one)
    registry.remove(one)
    assert len(registry) == 0


def test_a_topic_that_nobody_wants_any_more_takes_no_memory() -> None:
    registry = Registry()
    one = consumer()
    registry.add(one, [ORDERS, STOCK])
    registry.remove(one)
    assert not registry._consumers
    assert not registry._topics


def test_what_a_reader_got_does_not_change_under_it() -> None:
    registry = Registry()
    one, other = consumer(), consumer()
    registry.add(one, [ORDERS])
    before = registry.of(ORDERS)
    registry.add(other, [ORDERS])
    registry.remove(one)
    assert before == (one,)


def test_sealing_hands_out_everyone_once_and_forgets_them() -> None:
    registry = Registry()
    one, other = consumer(), consumer()
    registry.add(one, [ORDERS, STOCK])
    registry.add(other, [ORDERS])
    assert registry.seal() == [one, other]
    assert (registry.seal(), registry.all(), registry.of(ORDERS), len(registry)) == ([], [], (), 0)


def test_a_sealed_registry_accepts_nobody() -> None:
    registry = Registry()
    registry.seal()
    with pytest.raises(HubClosedError):
        registry.add(consumer(), [ORDERS])
    assert registry.all() == []


def test_who_leaves_a_sealed_registry_is_not_missed() -> None:
    registry = Registry()
    one = consumer()
    registry.add(one, [ORDERS])
    registry.seal()
    registry.remove(one)
    assert len(registry) == 0


def test_nobody_is_lost_when_many_threads_come_and_go() -> None:
    registry = Registry()
    together = threading.Barrier(8, timeout=PATIENCE)

    def come_and_go() -> Consumer:
        together.wait()
        for _ in range(300):
            passing = consumer()
            registry.add(passing, [ORDERS, STOCK])
            registry.remove(passing)
        staying = consumer()
        registry.add(staying, [ORDERS, STOCK])
        return staying

    with ThreadPoolExecutor(8) as pool:
        stayed = {future.result() for future in [pool.submit(come_and_go) for _ in range(8)]}
    assert set(registry.of(ORDERS)) == set(registry.of(STOCK)) == set(registry.all()) == stayed
    assert len(registry.of(ORDERS)) == len(registry) == 8


def test_everyone_who_was_accepted_is_handed_out_when_sealing_meets_a_rush() -> None:
    registry = Registry()
    rush = threading.Barrier(9, timeout=PATIENCE)

    def rush_in() -> list[Consumer]:
        accepted: list[Consumer] = []
        rush.wait()
        while True:
            new = consumer()
            try:
                registry.add(new, [ORDERS])
            except HubClosedError:
                return accepted
            accepted.append(new)

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(rush_in) for _ in range(8)]
        rush.wait()
        ended = registry.seal()
        accepted = {each for future in futures for each in future.result()}
    assert set(ended) == accepted
