"""Registry: who gets a topic's events."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgfanout.delivery.backlog import Backlog
from pgfanout.delivery.registry import Consumer, Registry
from pgfanout.errors import HubClosedError
from pgfanout.event import Event
from pgfanout.topic import Topic

# Private members: that nothing is left behind shows nowhere else.

PATIENCE = 20.0

TENANT, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
ORDERS, STOCK = Topic("orders", TENANT), Topic("stock", TENANT)


def consumer() -> Consumer:
    return Backlog(1, None)


class Shared:
    """A consumer that many share; the registry writes `members`."""

    def __init__(self) -> None:
        self.members = 0

    def offer(self, event: Event) -> bool:
        return True

    def skip(self, after: int, until: int) -> None:
        pass

    def end(self) -> None:
        pass


def joined(registry: Registry, topics: list[Topic], *, members: int) -> Shared:
    """A shared consumer that so many have joined."""
    (shared,) = {registry.join(topics, Shared) for _ in range(members)}
    return shared


def held(registry: Registry) -> list[dict[Any, Any]]:
    """Everything that takes memory for a consumer or a topic."""
    return [registry._consumers, registry._routes, registry._topics, registry._shared]


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


# Shared consumers.


def test_who_joins_the_same_topics_in_whatever_order_shares_a_consumer() -> None:
    registry = Registry()
    first = registry.join([ORDERS, STOCK], Shared)
    second = registry.join(iter([STOCK, ORDERS]), Shared)
    assert first is second
    assert first.members == 2
    assert registry.all() == [first]
    assert registry.of(ORDERS) == registry.of(STOCK) == (first,)


def test_who_joins_other_topics_has_another_consumer() -> None:
    registry = Registry()
    joined = [
        registry.join(topics, Shared) for topics in ([ORDERS], [STOCK], [ORDERS, STOCK], [Topic("orders", OTHER)])
    ]
    assert len(set(joined)) == 4
    assert [each.members for each in joined] == [1, 1, 1, 1]
    assert registry.of(ORDERS) == (joined[0], joined[2])


def test_a_shared_consumer_is_made_when_there_is_none() -> None:
    registry = Registry()
    made: list[Shared] = []

    def make() -> Shared:
        made.append(Shared())
        return made[-1]

    first = registry.join([ORDERS], make)
    assert registry.join([ORDERS], make) is first
    assert made == [first]


def test_members_are_counted_besides_those_who_were_added() -> None:
    registry = Registry()
    one = consumer()
    registry.add(one, [ORDERS])
    shared = joined(registry, [ORDERS], members=3)
    other = registry.join([STOCK], Shared)
    assert (len(registry), registry.shared_members) == (5, 4)
    registry.leave(shared)
    registry.remove(one)
    assert (len(registry), registry.shared_members, shared.members) == (3, 3, 2)
    assert registry.all() == [shared, other]


def test_the_last_member_who_leaves_takes_the_consumer_along() -> None:
    registry = Registry()
    shared = joined(registry, [ORDERS, STOCK], members=2)
    registry.leave(shared)
    assert registry.of(STOCK) == (shared,)
    registry.leave(shared)
    assert (registry.of(ORDERS), registry.of(STOCK), registry.all(), len(registry)) == ((), (), [], 0)
    assert held(registry) == [{}, {}, {}, {}]


def test_who_joins_after_the_last_has_left_has_a_new_consumer() -> None:
    registry = Registry()
    before = registry.join([ORDERS], Shared)
    registry.leave(before)
    after = registry.join([ORDERS], Shared)
    assert after is not before
    assert registry.of(ORDERS) == (after,)
    assert (before.members, after.members) == (0, 1)


def test_members_who_stalled_are_counted_as_well() -> None:
    registry = Registry()
    shared = joined(registry, [ORDERS], members=3)
    registry.leave(shared, stalled=True)
    registry.leave(shared)
    registry.leave(shared, stalled=True)
    assert registry.stalled == 2


def test_who_stalled_is_counted_once_however_often_it_is_removed() -> None:
    registry = Registry()
    one = consumer()
    registry.add(one, [ORDERS])
    registry.remove(one, stalled=True)
    registry.remove(one, stalled=True)
    assert registry.stalled == 1


def test_what_readers_were_told_is_summed_up() -> None:
    registry = Registry()
    registry.count_refreshes(2)
    registry.count_refreshes(0)
    registry.count_refreshes(3)
    assert registry.refreshes == 5


def test_sealing_hands_out_shared_consumers_once_with_the_others() -> None:
    registry = Registry()
    one = consumer()
    registry.add(one, [ORDERS])
    shared = joined(registry, [ORDERS, STOCK], members=2)
    assert registry.seal() == [one, shared]
    assert (registry.seal(), registry.all(), registry.of(ORDERS), len(registry)) == ([], [], (), 0)
    assert registry.shared_members == 0
    assert held(registry) == [{}, {}, {}, {}]


def test_nobody_joins_a_sealed_registry() -> None:
    registry = Registry()
    registry.join([ORDERS], Shared)
    registry.seal()
    with pytest.raises(HubClosedError):
        registry.join([ORDERS], Shared)
    assert (len(registry), registry.shared_members, held(registry)) == (0, 0, [{}, {}, {}, {}])


def test_members_who_leave_a_sealed_registry_are_not_missed_but_their_stalling_is_counted() -> None:
    registry = Registry()
    shared = joined(registry, [ORDERS], members=2)
    registry.seal()
    registry.leave(shared)
    registry.leave(shared, stalled=True)
    assert (shared.members, len(registry), registry.shared_members, registry.stalled) == (0, 0, 0, 1)


# Routes.


def test_a_route_is_made_once_and_anew_after_each_change() -> None:
    registry = Registry()
    one, other = consumer(), consumer()
    registry.add(one, [ORDERS])
    assert registry.of(ORDERS) == (one,)
    registry.add(other, [ORDERS, STOCK])
    second = registry.of(ORDERS)
    assert registry.of(ORDERS) is second == (one, other)
    shared = registry.join([STOCK, ORDERS], Shared)
    third = registry.of(ORDERS)
    assert third == (one, other, shared)
    registry.join([STOCK, ORDERS], Shared)
    assert registry.of(ORDERS) is third  # one member more is no change
    registry.leave(shared)
    assert registry.of(ORDERS) is third
    registry.leave(shared)
    assert registry.of(ORDERS) == (one, other)
    registry.remove(one)
    assert registry.of(ORDERS) == (other,)
    assert registry.of(STOCK) == (other,)


def test_a_change_of_one_topic_leaves_the_routes_of_others() -> None:
    registry = Registry()
    registry.add(consumer(), [ORDERS])
    registry.add(consumer(), [ORDERS])
    before = registry.of(ORDERS)
    passing = consumer()
    registry.add(passing, [STOCK])
    registry.remove(passing)
    assert registry.of(ORDERS) is before


def test_asking_for_a_topic_that_nobody_has_takes_no_memory() -> None:
    registry = Registry()
    for number in range(100):
        assert registry.of(Topic(f"channel {number}", TENANT)) == ()
    assert held(registry) == [{}, {}, {}, {}]


def test_what_comes_and_goes_in_many_threads_leaves_nothing_behind() -> None:
    registry = Registry()
    together = threading.Barrier(8, timeout=PATIENCE)
    choices = [[ORDERS], [STOCK], [ORDERS, STOCK], [STOCK, ORDERS]]

    def come_and_go(number: int) -> None:
        together.wait()
        for turn in range(500):
            topics = choices[(number + turn) % 4]
            shared = registry.join(topics, Shared)
            assert shared in registry.of(topics[0])
            assert 1 <= shared.members <= 8
            registry.leave(shared, stalled=not turn)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(come_and_go, number) for number in range(8)]:
            future.result(PATIENCE)
    assert (len(registry), registry.shared_members, registry.stalled) == (0, 0, 8)
    assert held(registry) == [{}, {}, {}, {}]


def test_every_member_who_was_accepted_has_a_consumer_that_is_handed_out_when_sealing_meets_a_rush() -> None:
    registry = Registry()
    rush = threading.Barrier(9, timeout=PATIENCE)

    def rush_in(number: int) -> list[Shared]:
        joined: list[Shared] = []
        rush.wait()
        while True:
            try:
                joined.append(registry.join([Topic(f"channel {(number + len(joined)) % 50}", TENANT)], Shared))
            except HubClosedError:
                return joined

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(rush_in, number) for number in range(8)]
        rush.wait()
        ended = registry.seal()
        joined = [each for future in futures for each in future.result(PATIENCE)]
    assert set(joined) == set(ended)
    assert sum(each.members for each in set(joined)) == len(joined)
    for each in joined:
        registry.leave(each)
    assert (len(registry), registry.shared_members, held(registry)) == (0, 0, [{}, {}, {}, {}])
