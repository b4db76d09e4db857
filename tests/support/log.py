"""A log for tests that answers when it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pgfanout import Event
from pgfanout.log import Answer, Page
from pgfanout.topic import Topic


def event(number: int) -> Event:
    """An event of the log, whose payload is its number."""
    return Event("orders", b"%d" % number, "", str(number))


class Question(NamedTuple):
    after: int
    answer: Answer

    def until(self, last: int) -> None:
        """Answer with all the numbers up to the last."""
        self.answer(Page([event(number) for number in range(self.after + 1, last + 1)], last))


class ManualLog:
    """A `Log` that notes what it is asked."""

    refill = True

    def __init__(self, last: int = 0) -> None:
        self.begun = self.offered = last
        self.questions: list[Question] = []

    def ask(self, topics: Sequence[Topic], after: int, answer: Answer, *, again: bool = False) -> None:
        self.questions.append(Question(after, answer))

    def reach(self, number: int) -> Event:
        """The event of a number, which is offered next."""
        self.begun = self.offered = number
        return event(number)
