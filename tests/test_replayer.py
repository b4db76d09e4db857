"""Replayer: one thread that reads for everyone, whatever fails."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pgfanout import replayer as module
from pgfanout.delivery import replay
from pgfanout.delivery.log import Ends, Found, Page, UnreadableLogError
from pgfanout.replayer import Replayer
from pgfanout.topic import Topic

from .support.logs import TENANT, TOPICS, AskedSession, logged
from .support.wait import eventually

# Private members: which questions wait, and when it prunes next, shows nowhere else.

PATIENCE = 20.0


class LostError(Exception):
    """The connection is lost."""


class Table(AskedSession):
    """A store and its session, with the numbers 1 to 10. A topic may fail; the next question may wait for `go_on`."""

    refill = complete = True
    max_replay = 100
    prune_every = 1000.0
    errors: tuple[type[Exception], ...] = (LostError,)

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.asked: list[tuple[str, int]] = []
        self.counted: list[int] = []
        self.more = self.too_much = False
        self.go_on = threading.Event()
        self.go_on.set()
        self.prunes = 0

    @contextmanager
    def open(self) -> Iterator[Table]:
        yield self

    def stop(self) -> None:
        self.go_on.set()

    def abandon(self) -> None:
        """There is no connection."""

    @property
    def reads(self) -> int:
        return len(self.asked)

    def page(self, topics: Sequence[Topic], after: int, *, known: bool) -> Found | None:
        self.asked.append((topics[0].tenant, after))
        assert self.go_on.wait(PATIENCE)
        if topics[0].channel in self.failing:
            raise LostError("this can't be read")
        if not known and not 1 <= after <= 10:
            return None
        return Found(Page([logged(number) for number in range(after + 1, 11)], 10), self.more)

    def is_too_much(self, topics: Sequence[Topic], after: int) -> bool:
        self.counted.append(after)
        return self.too_much

    def prune(self, batch: int) -> int | None:
        self.prunes += 1
        raise UnreadableLogError("no right to")

    def ends(self) -> Ends:
        return Ends(0, 10, 10)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def replayer(table: Table, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replayer]:
    monkeypatch.setattr(module, "_PAUSES", (0.001, 0.01))
    replayer = Replayer(table)
    replayer.begun = replayer.offered = 10
    yield replayer
    replayer.close(PATIENCE)


def ask(replayer: Replayer, after: int, topics: Sequence[Topic] = TOPICS, **options: Any) -> queue.Queue[Page | None]:
    answers: queue.Queue[Page | None] = queue.Queue()
    replayer.ask(topics, after, answers.put, **options)
    return answers


def of(tenant: int) -> tuple[Topic, ...]:
    return (Topic("orders", str(tenant)),)


def test_a_page_is_read_once_for_all_who_need_it(table: Table, replayer: Replayer) -> None:
    pages = [ask(replayer, after).get(timeout=PATIENCE) for after in (3, 5, 3, 9)]
    assert [len(page.events) for page in pages if page is not None] == [7, 5, 7, 1]
    assert table.reads == 1


def test_what_can_not_be_read_holds_nobody_up_and_is_told_in_the_end(table: Table, replayer: Replayer) -> None:
    table.failing.add("broken")
    broken = ask(replayer, 3, (Topic("broken", TENANT),))
    assert ask(replayer, 3).get(timeout=PATIENCE) is not None
    assert broken.get(timeout=PATIENCE) is None


def test_an_answer_waits_for_what_was_not_offered_yet(table: Table, replayer: Replayer) -> None:
    replayer.begun = replayer.offered = 5
    ahead, behind = ask(replayer, 7), ask(replayer, 3)
    page = behind.get(timeout=PATIENCE)
    assert page is not None
    assert page.until == 5
    replayer.begun = replayer.offered = 10
    replayer.advanced()
    page = ahead.get(timeout=PATIENCE)
    assert page is not None
    assert [event.id for event in page.events] == ["8", "9", "10"]


def test_a_page_of_the_session_before_is_not_taken_for_what_the_new_one_has_offered(
    replayer: Replayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_on_meanwhile(after: int) -> bool:
        replayer.renew()
        replayer.begun = replayer.offered = 10
        return False

    replayer.begun = replayer.offered = 5
    monkeypatch.setattr(replayer, "_has_to_wait", go_on_meanwhile)
    page = ask(replayer, 3).get(timeout=PATIENCE)
    assert page is not None
    assert page.until == 5


def test_a_question_is_answered_though_the_log_line_about_it_fails(
    table: Table, replayer: Replayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(topics: Sequence[Topic], after: int, *, known: bool) -> Found | None:
        raise UnreadableLogError("no right to")

    def error(*arguments: object) -> None:
        raise ZeroDivisionError("the application's log handler")

    monkeypatch.setattr(table, "page", read)
    monkeypatch.setattr(module.logger, "error", error)
    assert ask(replayer, 3).get(timeout=PATIENCE) is None


def test_closing_may_wait_for_ever(replayer: Replayer) -> None:
    assert ask(replayer, 3).get(timeout=PATIENCE) is not None
    replayer.close(float("inf"))


def test_a_page_ends_where_this_process_has_come_to(table: Table, replayer: Replayer) -> None:
    # A fail-over may take the numbers beyond away. The listener sees no gap then, since it knows the number that was
    # offered last, and a reader that is ahead would miss the events that get these numbers next.
    replayer.begun = replayer.offered = 5
    for after, expected in ((3, ["4", "5"]), (5, []), (4, ["5"])):
        page = ask(replayer, after).get(timeout=PATIENCE)
        assert page is not None
        assert ([event.id for event in page.events], page.until) == (expected, 5)


def test_a_number_that_is_not_known_is_told_at_once_also_when_it_is_ahead(replayer: Replayer) -> None:
    replayer.begun = replayer.offered = 5
    for after in (0, 99, 10**17):
        assert ask(replayer, after).get(timeout=PATIENCE) is None


def test_a_page_that_is_kept_vouches_for_its_own_numbers_alone(
    table: Table, replayer: Replayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Found(Page([logged(number) for number in (4, 6, 10)], 10), False)

    def read(topics: Sequence[Topic], after: int, *, known: bool) -> Found | None:
        table.asked.append(("", after))
        return page if after == 3 else None

    monkeypatch.setattr(table, "page", read)
    expected = [3, 2, 1, None, 1]
    answers = [ask(replayer, after).get(timeout=PATIENCE) for after in (3, 4, 6, 5)]
    answers.append(ask(replayer, 7, known=True).get(timeout=PATIENCE))
    assert [None if page is None else len(page.events) for page in answers] == expected
    assert table.asked == [("", 3), ("", 5)]


def test_without_a_complete_log_no_number_from_outside_is_known(table: Table, replayer: Replayer) -> None:
    replayer._replay.complete = False
    assert ask(replayer, 3).get(timeout=PATIENCE) is None
    assert ask(replayer, 3, known=True).get(timeout=PATIENCE) is not None
    assert table.reads == 1


def test_tenants_take_turns(table: Table, replayer: Replayer) -> None:
    table.go_on.clear()
    answers = [ask(replayer, 3, of(1))]
    eventually(lambda: table.reads == 1)
    answers += [ask(replayer, after, of(1), again=1) for after in (9, 8, 7)]
    answers += [ask(replayer, after, of(2)) for after in (9, 8)]
    answers.append(ask(replayer, 9, of(3)))
    table.go_on.set()
    for answer in answers:
        assert answer.get(timeout=PATIENCE) is not None
    # What a kept page has is not read again.
    assert table.asked == [("1", 3), ("2", 9), ("3", 9), ("2", 8)]


def test_a_question_that_is_not_wanted_any_more_is_not_put(table: Table, replayer: Replayer) -> None:
    table.go_on.clear()
    first = ask(replayer, 3, of(1))
    eventually(lambda: table.reads == 1)
    left = threading.Event()
    dropped = [ask(replayer, after, of(1000 + after), wanted=lambda: not left.is_set()) for after in range(1, 10)]
    left.set()
    last = ask(replayer, 4, of(2))
    table.go_on.set()
    assert first.get(timeout=PATIENCE) is not None
    assert last.get(timeout=PATIENCE) is not None
    assert table.asked == [("1", 3), ("2", 4)]
    assert all(answers.empty() for answers in dropped)


def test_the_questions_of_readers_that_have_left_do_not_add_up(table: Table, replayer: Replayer) -> None:
    table.go_on.clear()
    first = ask(replayer, 3)
    eventually(lambda: table.reads == 1)
    for after in range(10_000):
        ask(replayer, after, wanted=lambda: False)
    assert len(replayer._questions) <= 100
    table.go_on.set()
    assert first.get(timeout=PATIENCE) is not None


def test_those_who_wait_for_this_process_and_leave_are_forgotten(replayer: Replayer) -> None:
    replayer.begun = replayer.offered = 5
    left = threading.Event()
    ask(replayer, 7, wanted=lambda: not left.is_set())
    eventually(lambda: replayer._held)
    left.set()
    assert ask(replayer, 3).get(timeout=PATIENCE) is not None
    eventually(lambda: not replayer._held)


def test_what_is_too_much_is_counted_once_for_a_replay_and_not_for_each_page(table: Table, replayer: Replayer) -> None:
    table.more = True
    for again in range(20):
        assert ask(replayer, 1, of(again), again=again).get(timeout=PATIENCE) is not None
    assert len(table.counted) == 1
    assert ask(replayer, 1, of(20), again=20).get(timeout=PATIENCE) is not None
    assert len(table.counted) == 2


def test_that_it_is_too_much_is_found_out_once_for_all(table: Table, replayer: Replayer) -> None:
    table.more = table.too_much = True
    assert [ask(replayer, after).get(timeout=PATIENCE) for after in (5, 5, 4)] == [None] * 3
    assert (table.reads, table.counted) == (1, [5])
    table.too_much = False
    assert ask(replayer, 6).get(timeout=PATIENCE) is not None


def test_a_new_session_of_the_listener_is_one_of_the_replayer(table: Table, replayer: Replayer) -> None:
    table.go_on.clear()
    before = ask(replayer, 3)
    eventually(lambda: table.reads == 1)
    replayer.renew()  # perhaps the old server answers
    table.go_on.set()
    assert before.get(timeout=PATIENCE) is not None
    assert table.reads == 2
    replayer.renew()
    assert ask(replayer, 3).get(timeout=PATIENCE) is not None
    assert table.reads == 3


def test_an_outage_is_one_line_in_the_log(table: Table, replayer: Replayer, caplog: pytest.LogCaptureFixture) -> None:
    table.failing.add("broken")
    assert ask(replayer, 3, (Topic("broken", TENANT),)).get(timeout=PATIENCE) is None
    assert table.reads == replay._TRIES
    assert len(caplog.messages) == 1


def test_a_thread_that_could_not_be_started_is_started_later(
    replayer: Replayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for call in (replayer.start_pruning, lambda: ask(replayer, 3)):
            with pytest.raises(RuntimeError):
                call()
    assert ask(replayer, 3).get(timeout=PATIENCE) is not None


def test_pruning_that_fails_is_tried_again_in_its_time_and_not_at_once(table: Table, replayer: Replayer) -> None:
    with replayer._changed:
        replayer._prune_at = 0.0
    assert ask(replayer, 3).get(timeout=PATIENCE) is not None
    eventually(lambda: table.prunes == 1)
    assert ask(replayer, 3).get(timeout=PATIENCE) is not None
    assert table.prunes == 1


def test_whoever_asks_a_closed_one_gets_no_answer(replayer: Replayer) -> None:
    replayer.close(PATIENCE)
    answers: list[Any] = []
    replayer.ask(TOPICS, 3, answers.append)
    assert answers == []
