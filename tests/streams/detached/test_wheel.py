"""Wheel: who is due, without a timer for each."""

from __future__ import annotations

import heapq

from hypothesis import given
from hypothesis import strategies as st

from pgfanout.streams.detached.wheel import Ticking, Wheel

# Private members: that nothing is left behind shows nowhere else.

TICK = Wheel.TICK


class Item(Ticking):
    """Something with a name."""

    def __init__(self, name: object = "") -> None:
        self.name = name
        self.tick = -1

    def __repr__(self) -> str:
        return f"<Item {self.name}>"


def test_an_empty_wheel_has_nothing_to_wait_for() -> None:
    wheel: Wheel[Item] = Wheel()
    assert (wheel.pop_due(1e9), wheel.wait(1e9)) == ([], None)


def test_an_item_comes_up_when_it_is_due_and_not_a_tick_before() -> None:
    wheel: Wheel[Item] = Wheel()
    item = Item()
    wheel.add(item, 10.0)
    assert wheel.pop_due(10.0 - 1.01 * TICK) == []
    assert wheel.pop_due(10.0) == [item]


def test_an_item_comes_up_once() -> None:
    wheel: Wheel[Item] = Wheel()
    wheel.add(Item(), 10.0)
    assert len(wheel.pop_due(20.0)) == 1
    assert (wheel.pop_due(30.0), wheel.wait(30.0)) == ([], None)


def test_all_that_are_due_come_up_and_the_others_stay() -> None:
    wheel: Wheel[Item] = Wheel()
    items = [Item(due) for due in (3.0, 1.0, 1.001, 2.0, 9.0)]
    for item in items:
        wheel.add(item, float(str(item.name)))
    assert [item.name for item in wheel.pop_due(3.0)] == [1.0, 1.001, 2.0, 3.0]
    assert wheel.pop_due(8.9) == []
    assert [item.name for item in wheel.pop_due(9.0)] == [9.0]


def test_the_wait_is_until_the_first_is_due_and_never_less_than_nothing() -> None:
    wheel: Wheel[Item] = Wheel()
    wheel.add(Item(), 10.0)
    wheel.add(Item(), 12.0)
    wait = wheel.wait(4.0)
    assert wait is not None
    assert 6.0 - TICK <= wait <= 6.0
    assert wheel.wait(11.0) == 0.0


def test_after_the_wait_something_is_due() -> None:
    """Else the thread that waits would turn round and round for nothing."""
    wheel: Wheel[Item] = Wheel()
    wheel.add(Item(), 1234.5678)
    now = 1234.0
    wait = wheel.wait(now)
    assert wait is not None
    assert len(wheel.pop_due(now + wait + 1e-6)) == 1


def test_who_was_discarded_does_not_come_up() -> None:
    wheel: Wheel[Item] = Wheel()
    gone, stays = Item("gone"), Item("stays")
    wheel.add(gone, 10.0)
    wheel.add(stays, 10.0)
    wheel.discard(gone)
    wheel.discard(gone)
    assert wheel.pop_due(10.0) == [stays]


def test_discarding_a_stranger_is_harmless() -> None:
    wheel: Wheel[Item] = Wheel()
    wheel.discard(Item())
    there = Item("there")
    wheel.add(there, 10.0)
    stranger = Item("stranger")
    stranger.tick = there.tick
    wheel.discard(stranger)
    assert wheel.pop_due(10.0) == [there]


def test_a_place_that_was_left_can_be_taken_again() -> None:
    wheel: Wheel[Item] = Wheel()
    item = Item()
    wheel.add(item, 10.0)
    wheel.discard(item)
    wheel.add(item, 10.0)
    assert wheel.pop_due(10.0) == [item]
    wheel.add(item, 10.0)
    assert wheel.pop_due(10.0) == [item]
    wheel.add(item, 11.0)
    assert wheel.wait(10.0) is not None


def test_an_item_that_is_due_already_comes_up_at_once() -> None:
    wheel: Wheel[Item] = Wheel()
    wheel.add(Item("late"), 1.0)
    assert wheel.wait(100.0) == 0.0
    assert len(wheel.pop_due(100.0)) == 1


def test_ten_thousand_items_take_no_more_places_than_there_are_ticks() -> None:
    wheel: Wheel[Item] = Wheel()
    for number in range(10_000):
        wheel.add(Item(number), 100.0 + number % 20 * TICK)
    assert len(wheel._slots) == len(wheel._ticks) <= 21
    assert len(wheel.pop_due(200.0)) == 10_000
    assert (wheel._slots, wheel._ticks) == ({}, [])


times = st.floats(0, 20, allow_nan=False)
commands = st.lists(st.tuples(st.sampled_from(["add", "discard", "pop"]), times, st.integers(0, 5)), max_size=60)


@given(commands)
def test_it_does_what_a_heap_of_timers_would(commands: list[tuple[str, float, int]]) -> None:
    wheel: Wheel[Item] = Wheel()
    items = [Item(number) for number in range(6)]
    timers: dict[Item, int] = {}
    for command, time, number in commands:
        item = items[number]
        if command == "add" and item not in timers:
            wheel.add(item, time)
            timers[item] = int(time / TICK)
        elif command == "discard":
            wheel.discard(item)
            timers.pop(item, None)
        else:
            expected = [each for each, tick in timers.items() if tick * TICK <= time]
            popped = wheel.pop_due(time)
            assert sorted(map(str, popped)) == sorted(map(str, expected))
            assert [each.tick for each in popped] == sorted(each.tick for each in popped)
            for each in expected:
                del timers[each]
        wait = wheel.wait(time)
        if timers:
            assert wait is not None
            assert wait <= max(0.0, min(timers.values()) * TICK - time)
        assert heapq.nsmallest(len(wheel._ticks), wheel._ticks) == sorted(wheel._slots)
