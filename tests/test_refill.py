"""RefillingBacklog: what a reader had no room for comes from the log, in order and once."""

from __future__ import annotations

import queue

import pytest

from pgfanout import REFRESH_EVENT, Event
from pgfanout.refill import RefillingBacklog

from .support.log import ManualLog


@pytest.fixture
def log() -> ManualLog:
    return ManualLog()


@pytest.fixture
def backlog(log: ManualLog) -> RefillingBacklog:
    """Of two events, begun at the log's end."""
    backlog = RefillingBacklog(2, None, log, ())
    backlog.begin(None)
    return backlog


def offer(backlog: RefillingBacklog, log: ManualLog, *numbers: int) -> None:
    for number in numbers:
        backlog.offer(log.reach(number))


def take(backlog: RefillingBacklog) -> list[Event]:
    """What there is; asks for more."""
    events: list[Event] = []
    try:
        while True:
            events.append(backlog.get(timeout=0.0))
    except queue.Empty:
        return events


def names(events: list[Event]) -> list[str]:
    return [event.id or event.type for event in events]


def test_what_had_no_room_is_asked_for_once_and_comes_first(backlog: RefillingBacklog, log: ManualLog) -> None:
    offer(backlog, log, 1, 2, 3)
    assert take(backlog) == take(backlog) == []
    [question] = log.questions
    assert question.after == 0
    question.until(2)
    assert names(take(backlog)) == ["1", "2", "3"]


def test_an_answer_from_before_a_refresh_is_not_taken_for_the_next(backlog: RefillingBacklog, log: ManualLog) -> None:
    offer(backlog, log, 1, 2, 3)
    assert take(backlog) == []
    backlog.offer(REFRESH_EVENT)
    assert names(take(backlog)) == ["refresh"]
    offer(backlog, log, 4, 5, 6)
    assert take(backlog) == []
    early, late = log.questions
    assert late.after == 3
    early.until(3)
    assert take(backlog) == []
    late.until(6)
    assert names(take(backlog)) == ["4", "5", "6"]


@pytest.mark.parametrize("reads_between", [False, True])
def test_it_may_fall_behind_as_often_as_it_likes(
    backlog: RefillingBacklog, log: ManualLog, reads_between: bool
) -> None:
    received: list[str] = []
    for start in range(1, 40, 4):
        if reads_between:
            received += names(take(backlog))
        offer(backlog, log, *range(start, start + 4))
        received += names(take(backlog))
        log.questions[-1].until(start + 2)
    received += names(take(backlog))
    assert received == [str(number) for number in range(1, 41)]
