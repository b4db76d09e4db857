"""Replayer: one thread that reads for everyone, whatever fails."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from pgfanout.backends.postgres import replayer as module
from pgfanout.backends.postgres.conninfo import parse
from pgfanout.backends.postgres.history import History
from pgfanout.backends.postgres.log import Ends, LogTable, Query
from pgfanout.backends.postgres.replayer import Replayer
from pgfanout.log import Page
from pgfanout.topic import Topic

from .support.logs import TENANT, TOPICS, logged
from .support.wait import eventually

PATIENCE = 20.0


class Table(LogTable):
    """Has the numbers 1 to 10; a topic may fail."""

    def __init__(self) -> None:
        super().__init__("pgfanout", "pgfanout_events", 100)
        self.failing: set[str] = set()
        self.reads = 0
        self.prunes = 0

    def page(self, query: Query, topics: Sequence[Topic], after: int) -> Page | None:
        self.reads += 1
        if topics[0].channel in self.failing:
            raise psycopg.DataError("this can't be read")
        return Page([logged(number) for number in range(after + 1, 11)], 10)

    def prune(self, query: Query, batch: int, every: float) -> int | None:
        self.prunes += 1
        raise psycopg.errors.InsufficientPrivilege("no right to")

    def ends(self, query: Query) -> Ends:
        return Ends(0, 10, 10)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def replayer(table: Table, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replayer]:
    monkeypatch.setattr(module, "_PAUSES", (0.001, 0.01))
    replayer = Replayer(parse(database_url), table, History(prune_every=1000.0), 5.0)
    replayer.begun = replayer.offered = 10
    yield replayer
    replayer.close(PATIENCE)


def ask(replayer: Replayer, after: int, topics: Sequence[Topic] = TOPICS) -> queue.Queue[Page | None]:
    answers: queue.Queue[Page | None] = queue.Queue()
    replayer.ask(topics, after, answers.put)
    return answers


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
