"""Intake: what is offered, in which order, and how far everyone may believe to be at each moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from pgfanout import Event
from pgfanout.delivery import intake as module
from pgfanout.delivery.dispatcher import Dispatcher
from pgfanout.delivery.intake import LogIntake
from pgfanout.delivery.log import Ends, News
from pgfanout.envelope import MalformedEnvelopeError, encode
from pgfanout.event import checked_event
from pgfanout.topic import Topic

from ..support.logs import AskedSession, ManualLog, logged

# Private members: the bound of a replay is the store's, and these tests have a session alone.

TENANT = "11111111-1111-4111-8111-111111111111"
TOPIC = Topic("orders", TENANT)
PART = 4


class Table(AskedSession):
    """A session of a log that has some numbers, and reads four at once; the payloads of some are large."""

    def __init__(self) -> None:
        self.pruned_to = 0
        self.numbers = list(range(1, 11))
        self.large: set[int] = set()
        self.fails = False
        self.asked: list[str] = []

    def add(self, *numbers: int) -> None:
        self.numbers += numbers

    def ask(self, what: str) -> None:
        self.asked.append(what)
        if self.fails:
            raise psycopg.OperationalError("the connection is lost")

    def ends(self) -> Ends:
        self.ask("ends")
        return Ends(self.pruned_to, max([self.pruned_to, *self.numbers]), len(self.numbers))

    def knows(self, number: int) -> bool:
        return number == self.pruned_to or number in self.numbers

    def among(self, numbers: Sequence[int]) -> set[int]:
        self.ask("among")
        return set(numbers).intersection(self.numbers)

    def news(self, after: int, last: int = 2**63 - 1) -> News:
        self.ask("news")
        found = [number for number in self.numbers if after < number <= last]
        part = [(number, TOPIC, None if number in self.large else logged(number)) for number in found[:PART]]
        return News(self.pruned_to, part, len(found) >= PART)

    def one(self, number: int) -> Event | None:
        self.ask("one")
        return logged(number) if number in self.numbers else None


class Followers(Dispatcher):
    """Notes what it is told, and how far the position was then."""

    def __init__(self, position: ManualLog) -> None:
        super().__init__()
        self.position = position
        self.told: list[tuple[str, int, int]] = []
        self.follows = True
        self.exists = False
        self.asleep = 0  # how many were offered something that nobody was woken for
        self.unroutable = 0

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.told]

    def note(self, what: str) -> None:
        self.told.append((what, self.position.begun, self.position.offered))

    def offer(self, topic: Topic, event: Event) -> None:
        self.asleep += 1
        self.note(event.id or event.payload.decode())

    def gap(self) -> None:
        self.note("gap")

    def skip(self, after: int, until: int) -> None:
        self.note(f"skip {after} to {until}")

    def wake(self) -> None:
        self.asleep = 0

    def has_followers(self, topic: Topic) -> bool:
        return self.follows

    def has_consumers(self) -> bool:
        return self.exists

    def take_malformed(self, error: MalformedEnvelopeError) -> None:
        self.note("malformed")

    def take_unlogged(self, topic: Topic) -> None:
        self.note("unlogged")


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def position() -> ManualLog:
    return ManualLog()


@pytest.fixture
def followers(position: ManualLog) -> Followers:
    return Followers(position)


@pytest.fixture
def intake(table: Table, position: ManualLog, followers: Followers) -> LogIntake:
    """One that has begun, after number 10."""
    return begun(table, position, followers)


@pytest.fixture
def open_intake(table: Table, position: ManualLog, followers: Followers) -> LogIntake:
    """The same, of a hub that delivers what others notify as well."""
    return begun(table, position, followers, log_only=False)


def begun(table: Table, position: ManualLog, followers: Followers, *, log_only: bool = True) -> LogIntake:
    position.complete = log_only
    intake = LogIntake(position, followers, max_replay=100)
    assert intake.catch_up(table)
    assert (position.begun, position.offered, followers.told) == (10, 10, [])
    table.asked.clear()
    return intake


def text(number: int | str, payload: bytes = b"1") -> str:
    """What is notified of an event; its id is the number."""
    return encode(Event("orders", payload, id=str(number)), TENANT)


def unnumbered(name: str) -> str:
    """An event of somebody else's."""
    return encode(Event("orders", b'"%b"' % name.encode()), TENANT)


# Notifications.


def test_an_event_has_begun_before_it_is_offered_and_was_offered_after_that(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers
) -> None:
    table.add(11)
    intake.receive([text(11)])
    assert followers.told == [("11", 11, 10)]
    assert position.offered == 11


def test_a_batch_costs_one_question(intake: LogIntake, table: Table, followers: Followers) -> None:
    table.add(11, 12, 13)
    intake.receive([text(11), text(12), text(13)])
    assert followers.names == ["11", "12", "13"]
    assert table.asked == ["news"]


def test_what_was_read_before_its_notification_came_is_offered_once(
    intake: LogIntake, table: Table, followers: Followers
) -> None:
    table.add(11, 12, 13)
    intake.receive([text(11)])
    intake.receive([text(12), text(13)])
    assert followers.names == ["11", "12", "13"]
    assert table.asked == ["news"]


def test_no_notifications_are_no_question(intake: LogIntake, table: Table) -> None:
    intake.receive([])
    assert table.asked == []


def test_what_is_offered_is_what_the_log_has_and_not_what_was_notified(
    intake: LogIntake, table: Table, followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[Event] = []
    monkeypatch.setattr(followers, "offer", lambda topic, event: offered.append(event))
    table.add(11)
    intake.receive([text(11, b'"forged"')])
    assert offered == [logged(11)]


@pytest.mark.parametrize("forged", [5, 12, 999_999_999_999_999_999])
def test_an_invented_number_is_no_event_moves_nothing_and_hides_nothing(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers, forged: int
) -> None:
    table.numbers.remove(5)
    intake.receive([text(forged)])
    assert followers.names == ["unlogged"]
    assert (position.begun, position.offered) == (10, 10)
    table.add(13)
    intake.receive([text(13)])
    assert followers.names == ["unlogged", "13"]


def test_an_event_comes_whatever_its_notification_has_become(
    intake: LogIntake, table: Table, followers: Followers
) -> None:
    table.add(11, 12, 13)
    intake.receive(["", "damaged"])
    assert followers.names == ["malformed", "malformed", "11", "12", "13"]


def test_an_event_that_was_passed_long_ago_is_asked_for(
    intake: LogIntake, table: Table, followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    table.add(*range(11, 18))
    intake.receive([text(17)])
    table.asked.clear()
    intake.receive([text(11), text(12)])
    assert followers.names == [str(number) for number in range(11, 18)]
    assert table.asked == ["news", "among"]


def test_what_nobody_can_follow_is_counted_and_passed_over(intake: LogIntake, followers: Followers) -> None:
    intake.receive([encode(checked_event("x" * 64, b"1", "", ""), TENANT)])
    assert (followers.unroutable, followers.told) == (1, [])


# Events past the log.


def test_what_is_past_the_log_is_not_delivered_where_the_log_has_everything(
    intake: LogIntake, followers: Followers
) -> None:
    intake.receive([unnumbered("a"), text("somebody's own"), text(3 * 10**17)])
    assert followers.names == ["unlogged"] * 3


def test_what_is_past_the_log_comes_in_its_turn_and_without_a_number(
    open_intake: LogIntake, table: Table, followers: Followers
) -> None:
    table.add(11, 12, 13)
    table.numbers.remove(7)
    open_intake.receive([unnumbered("a"), text(11), text(7, b'"b"'), unnumbered("c"), text(12)])
    assert followers.names == ['"a"', "11", '"c"', "12", '"b"']
    open_intake.receive([unnumbered("d"), text(13)])
    assert followers.names[5:] == ['"d"', "13"]


def test_in_a_large_batch_the_events_of_the_log_come_before_what_is_past_it(
    open_intake: LogIntake, table: Table, followers: Followers
) -> None:
    table.add(11, 12, 13)
    open_intake.receive([*[unnumbered("a")] * 62, text(11), text(12)])
    assert followers.names == ["11", "12", "13", *['"a"'] * 62]
    open_intake.receive([unnumbered("b")] * 16)
    assert table.asked == ["news"], "a small batch of others asks nothing"


def test_a_damaged_notification_has_the_log_read_to_its_end(
    open_intake: LogIntake, table: Table, followers: Followers
) -> None:
    table.add(11, 12, 13)
    open_intake.receive([text(11), "damaged"])
    assert followers.names == ["11", "malformed", "12", "13"]


def test_an_unnumbered_event_alone_asks_nothing(open_intake: LogIntake, table: Table, followers: Followers) -> None:
    table.add(11)
    open_intake.receive([unnumbered("a")])
    assert followers.names == ['"a"']
    assert table.asked == []


# Large payloads.


@pytest.mark.parametrize("follows", [True, False])
def test_a_large_payload_is_read_where_somebody_follows(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers, follows: bool
) -> None:
    followers.follows = follows
    table.add(11)
    table.large.add(11)
    intake.receive([text(11)])
    assert table.asked == ["news", "one"][: 1 + follows]
    assert followers.told == [("11", 11, 10)][:follows]
    assert (position.begun, position.offered) == (11, 11)


def test_an_event_has_begun_before_its_payload_is_read(
    intake: LogIntake, table: Table, position: ManualLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.add(11)
    table.large.add(11)
    seen: list[tuple[int, int]] = []

    def look(*given: Any) -> Event:
        seen.append((position.begun, position.offered))
        return logged(11)

    monkeypatch.setattr(table, "one", look)
    intake.receive([text(11)])
    assert seen == [(11, 10)]


def test_an_event_whose_payload_was_pruned_in_this_moment_is_a_gap(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.add(11)
    table.large.add(11)
    monkeypatch.setattr(table, "one", lambda *given: None)
    intake.receive([text(11)])
    assert followers.told == [("gap", 11, 10)]
    assert position.offered == 11


# A new session.


def test_what_was_missed_is_offered_and_not_once_more(intake: LogIntake, table: Table, followers: Followers) -> None:
    table.add(*range(11, 20))
    assert intake.catch_up(table)
    assert followers.names == [str(number) for number in range(11, 20)]
    assert followers.asleep == 0
    table.add(20)
    intake.receive([text(number) for number in range(15, 21)])
    assert followers.names == [str(number) for number in range(11, 21)]


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([*range(1, 10), 15, 16], id="the last commits were lost"),
        pytest.param([15], id="the log was emptied"),
        pytest.param([*range(1, 9)], id="it ends before"),
        pytest.param([], id="nothing is left"),
    ],
)
def test_a_position_that_the_log_does_not_know_is_a_gap(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers, numbers: list[int]
) -> None:
    table.numbers = numbers
    assert not intake.catch_up(table)
    last = max(numbers, default=0)
    # Where the log ends before the position, no number is this process's own until everyone was told.
    assert followers.told == [("gap", last, 10 if last >= 10 else 0)]
    assert (position.begun, position.offered) == (last, last)


def test_a_position_where_the_log_begins_is_known(intake: LogIntake, table: Table, followers: Followers) -> None:
    table.pruned_to, table.numbers = 10, [11]
    assert intake.catch_up(table)
    assert followers.names == ["11"]


def test_nobody_is_believed_to_be_beyond_a_gap_before_it_was_told(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers
) -> None:
    table.pruned_to, table.numbers = 15, [20]
    assert not intake.catch_up(table)
    assert followers.told == [("gap", 20, 10)]
    assert position.offered == 20


def test_what_was_pruned_while_it_was_filled_in_is_a_gap(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.add(*range(11, 21))
    news = table.news

    def prune_after_it(*given: Any) -> News:
        found = news(*given)
        table.pruned_to, table.numbers = 17, [18, 19, 20]
        return found

    monkeypatch.setattr(table, "news", prune_after_it)
    assert not intake.catch_up(table)
    assert followers.names == ["11", "12", "13", "14", "gap"]
    assert position.offered == 20


def test_what_was_pruned_before_it_was_read_is_a_gap(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers
) -> None:
    table.add(20)
    table.pruned_to = 15
    intake.receive([text(20)])
    assert followers.told == [("gap", 20, 10)]
    assert position.offered == 20


def test_when_too_much_was_missed_each_reader_is_sent_to_the_log(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers
) -> None:
    intake._max_replay = 6
    table.add(*range(11, 101))
    assert intake.catch_up(table)
    assert followers.names == ["11", "12", "13", "14", "15", "16", "skip 16 to 100"]
    assert followers.told[-1] == ("skip 16 to 100", 100, 16)
    assert (position.offered, followers.asleep) == (100, 0)


def test_when_too_much_was_missed_everyone_refreshes_where_nobody_refills(
    intake: LogIntake, table: Table, position: ManualLog, followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position, "refill", False)
    intake._max_replay = 2
    table.add(*range(11, 101))
    assert not intake.catch_up(table)
    assert followers.told[-1] == ("gap", 100, 12)


def test_filling_takes_no_longer_than_it_may(
    intake: LogIntake, table: Table, followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FILL_TIME", -1.0)
    table.add(*range(11, 101))
    assert intake.catch_up(table)
    assert followers.names == ["11", "skip 11 to 100"]


def test_every_new_session_is_a_gap_where_others_notify_as_well(
    open_intake: LogIntake, table: Table, followers: Followers
) -> None:
    assert not open_intake.catch_up(table)
    assert followers.told == [("gap", 10, 10)]


def test_readers_that_are_there_before_the_first_session_refresh(
    table: Table, position: ManualLog, followers: Followers
) -> None:
    followers.exists = True
    assert not LogIntake(position, followers, max_replay=100).catch_up(table)
    assert followers.told == [("gap", 10, 0)]
    assert position.offered == 10


# Failures.


@pytest.mark.parametrize("large", [set(), {11}, {12}])
def test_what_could_not_be_read_is_filled_in_later(
    intake: LogIntake, table: Table, followers: Followers, monkeypatch: pytest.MonkeyPatch, large: set[int]
) -> None:
    table.add(11, 12)
    table.large = large
    with monkeypatch.context() as patch:
        patch.setattr(table, "one", lost)
        patch.setattr(table, "news", table.news if large else lost)
        with pytest.raises(psycopg.OperationalError):
            intake.receive([text(11)])
    assert intake.catch_up(table)
    assert followers.names == ["11", "12"]


def lost(*given: object) -> Any:
    raise psycopg.OperationalError("the connection is lost")


def test_a_listener_that_was_given_up_does_not_move_the_position_back(
    table: Table, position: ManualLog, followers: Followers, intake: LogIntake
) -> None:
    ends = table.ends

    def slow() -> Ends:
        found = ends()
        position.begun = position.offered = 14  # the next listener has gone on meanwhile
        return found

    table.ends = slow  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        intake.catch_up(table)
    assert (position.begun, position.offered) == (14, 14)


def test_nor_one_that_has_an_event_past_the_log_to_read(
    open_intake: LogIntake, table: Table, followers: Followers
) -> None:
    table.add(11)
    table.fails = True
    with pytest.raises(psycopg.OperationalError):
        open_intake.receive([unnumbered("a"), text(11)])
    assert (followers.names, followers.asleep) == (['"a"'], 0)


@pytest.mark.parametrize("asks", ["one", "news", "among"])
def test_nobody_sleeps_who_has_something_to_read_while_the_server_is_asked(
    intake: LogIntake, table: Table, followers: Followers, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    table.add(*range(11, 16))
    table.large = {12} if asks == "one" else set()
    ask, seen = getattr(table, asks), []

    def look(*given: Any) -> Any:
        seen.append(followers.asleep)
        return ask(*given)

    monkeypatch.setattr(table, asks, look)
    intake.receive([text(11), text(3)])
    assert seen
    assert set(seen) == {0}


def test_while_a_loss_is_told_no_number_of_the_lost_log_is_this_process_own(
    table: Table, position: ManualLog, followers: Followers
) -> None:
    intake = begun(table, position, followers)
    followers.exists = True
    table.numbers = list(range(1, 8))  # 8 to 10 are lost
    intake.catch_up(table)
    (told,) = [each for each in followers.told if each[0] == "gap"]
    assert told == ("gap", 7, 0)
    assert (position.begun, position.offered) == (7, 7)


def test_a_number_that_is_drawn_again_after_a_loss_is_news(
    table: Table, position: ManualLog, followers: Followers
) -> None:
    intake = begun(table, position, followers)
    for number in (11, 12, 13):
        table.add(number)
        intake.receive([text(number)])
    table.numbers = list(range(1, 11))
    intake.catch_up(table)
    followers.told.clear()
    table.add(11)
    intake.receive([text(11)])
    assert followers.names == ["11"]
    assert position.offered == 11
