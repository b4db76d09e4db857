"""Tail: what is offered, in which order, and how far everyone may believe to be at each moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from pgfanout import Event
from pgfanout.backends.postgres.log import Ends, LogTable, Query
from pgfanout.backends.postgres.tail import Tail
from pgfanout.topic import Topic

from .support.logs import ManualLog, logged

TOPIC = Topic("orders", "11111111-1111-4111-8111-111111111111")


def query(statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    raise AssertionError("the table below answers without one")


class Table(LogTable):
    """One that has all the numbers between two."""

    def __init__(self) -> None:
        super().__init__("pgfanout", "pgfanout_events", 100)
        self.found = Ends(0, 10, 10)
        self.fails = False

    def ends(self, query: Query) -> Ends:
        return self.found

    def is_too_much(self, query: Query, after: int) -> bool:
        return False

    def one(self, query: Query, number: int) -> tuple[Topic, Event] | None:
        if self.fails:
            raise psycopg.OperationalError("the connection is lost")
        return (TOPIC, logged(number)) if number <= self.found.last else None

    def missed(self, query: Query, after: int, last: int) -> Iterator[list[tuple[Topic, Event]]]:
        yield [(TOPIC, logged(number)) for number in range(after + 1, last + 1)]


class Audience:
    """Notes what it is told, and how far the position was then."""

    def __init__(self, position: ManualLog) -> None:
        self.position = position
        self.told: list[tuple[str, int, int]] = []
        self.follows = True
        self.asleep = 0  # how many were offered something that nobody was woken for

    def offer(self, topic: Topic, event: Event) -> None:
        self.asleep += 1
        self.told.append((event.id, self.position.begun, self.position.offered))

    def gap(self) -> None:
        self.told.append(("gap", self.position.begun, self.position.offered))

    def wake(self) -> None:
        self.asleep = 0

    def has_followers(self, topic: Topic) -> bool:
        self.told.append(("followers?", self.position.begun, self.position.offered))
        return self.follows


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def position() -> ManualLog:
    return ManualLog()


@pytest.fixture
def audience(position: ManualLog) -> Audience:
    return Audience(position)


@pytest.fixture
def tail(table: Table, position: ManualLog, audience: Audience) -> Tail:
    """One that has begun, after number 10."""
    tail = Tail(table, position, audience)
    assert tail.catch_up(query)
    assert (position.begun, position.offered, audience.told) == (10, 10, [])
    return tail


def test_an_event_has_begun_before_it_is_offered_and_was_offered_after_that(
    tail: Tail, position: ManualLog, audience: Audience
) -> None:
    tail.take(TOPIC, logged(11))
    assert audience.told == [("11", 11, 10)]
    assert position.offered == 11


def test_what_was_missed_is_offered_and_not_once_more(tail: Tail, table: Table, audience: Audience) -> None:
    table.found = Ends(0, 12, 12)
    assert tail.catch_up(query)
    for number in (11, 12, 13):
        tail.take(TOPIC, logged(number))
    assert [name for name, _, _ in audience.told] == ["11", "12", "13"]


def test_nobody_is_believed_to_be_beyond_a_gap_before_it_was_told(
    tail: Tail, table: Table, position: ManualLog, audience: Audience
) -> None:
    table.found = Ends(15, 20, 5)
    assert not tail.catch_up(query)
    assert audience.told == [("gap", 20, 10)]
    assert position.offered == 20


def test_nor_beyond_numbers_that_contradict_each_other(
    tail: Tail, table: Table, position: ManualLog, audience: Audience
) -> None:
    tail.take(TOPIC, logged(1000))
    table.found = Ends(0, 20, 20)
    tail.take(TOPIC, logged(20))
    assert audience.told[1:] == [("gap", 20, 1000)]
    assert position.offered == 20


@pytest.mark.parametrize("follows", [True, False])
def test_an_event_that_has_to_be_fetched_has_begun_before_its_followers_are_looked_up(
    tail: Tail, table: Table, position: ManualLog, audience: Audience, follows: bool
) -> None:
    audience.follows = follows
    table.found = Ends(0, 11, 11)
    assert tail.fetch(TOPIC, "11")
    assert audience.told == [("followers?", 11, 10), ("11", 11, 10)][: 1 + follows]
    assert (position.begun, position.offered) == (11, 11)


def test_an_event_that_could_not_be_fetched_is_filled_in_later(tail: Tail, table: Table, audience: Audience) -> None:
    table.found, table.fails = Ends(0, 11, 11), True
    with pytest.raises(psycopg.OperationalError):
        tail.fetch(TOPIC, "11")
    assert tail.catch_up(query)
    assert [name for name, _, _ in audience.told] == ["followers?", "11"]


def test_a_reference_to_nothing_changes_nothing(tail: Tail, position: ManualLog) -> None:
    assert not tail.fetch(TOPIC, "11")
    assert (position.begun, position.offered) == (10, 10)


def test_what_was_pruned_while_it_was_filled_in_is_a_gap(
    table: Table, position: ManualLog, audience: Audience, tail: Tail
) -> None:
    tail.catch_up(query)
    table.found = Ends(15, 20, 5)
    read = iter([Ends(5, 20, 15)])
    table.ends = lambda query: next(read, table.found)  # type: ignore[method-assign]
    assert not tail.catch_up(query)
    assert audience.told[-1][0] == "gap"
    assert position.offered == 20


def test_a_small_number_is_somebodys_own_id(table: Table, position: ManualLog, audience: Audience) -> None:
    table.found = Ends(100, 110, 10)
    tail = Tail(table, position, audience)
    assert tail.catch_up(query)
    tail.take(TOPIC, logged(17))
    assert audience.told == [("", 110, 110)]


def test_a_listener_that_was_given_up_does_not_move_the_position_back(
    table: Table, position: ManualLog, audience: Audience, tail: Tail
) -> None:
    tail.catch_up(query)
    ends = table.ends

    def slow(query: Query) -> Ends:
        found = ends(query)
        position.begun = position.offered = 14  # the next listener has gone on meanwhile
        return found

    table.ends = slow  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        tail.catch_up(query)
    assert (position.begun, position.offered) == (14, 14)


@pytest.mark.parametrize("asks", ["fetch", "contradiction"])
def test_nobody_sleeps_who_has_something_to_read_while_the_server_is_asked(
    tail: Tail, table: Table, audience: Audience, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    seen: list[int] = []

    def lost(*given: object) -> None:
        seen.append(audience.asleep)
        raise psycopg.OperationalError("the connection is lost")

    tail.take(TOPIC, logged(12))
    assert audience.asleep == 1
    for name in ("one", "ends"):
        monkeypatch.setattr(table, name, lost)
    with pytest.raises(psycopg.OperationalError):
        tail.fetch(TOPIC, "13") if asks == "fetch" else tail.take(TOPIC, logged(11))
    assert seen == [0]
