"""Questions: what readers ask the log, in a fair order."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from ..topic import Topic
from .log import Answer, always

__all__ = ["Question", "Questions"]

_SWEPT_FROM = 64


class Question(NamedTuple):
    """See `Log.ask`."""

    topics: tuple[Topic, ...]
    after: int
    answer: Answer
    known: bool = False
    again: int = 0
    wanted: Callable[[], bool] = always
    tries: int = 0
    """How often it has failed."""


_Same = OrderedDict[tuple[int, bool], "list[Question]"]
_Sets = OrderedDict[tuple[Topic, ...], _Same]

_SEVERAL: Final = ""
"""Stands for the tenant of a question about topics of several tenants."""


class Questions:
    """A queue in which tenants take turns, and within a tenant its sets of topics.

    Sets of topics of several tenants have one turn together, so no tenant pays for them more than for another tenant.
    A tenant with a thousand questions delays another tenant's question by one. Questions that have failed come when
    there are no others. A question that is no longer wanted is not taken. Such questions are removed when they may be
    half of the queue, so the queue has at most twice as many questions as there are readers.

    The owner's lock guards it.
    """

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, _Sets] = OrderedDict()
        self._failed: deque[Question] = deque()
        self._size = 0
        self._sweep_at = _SWEPT_FROM

    def __len__(self) -> int:
        return self._size + len(self._failed)

    def add(self, question: Question) -> None:
        """Put a question into the queue."""
        if len(self) >= self._sweep_at:
            self._sweep()
        if question.tries:
            self._failed.append(question)
        else:
            self._put(question)

    def take(self) -> list[Question]:
        """Take the next wanted question, with all that ask the same. Return an empty list when there is none."""
        while self._tenants:
            if questions := [question for question in self._next() if question.wanted()]:
                return questions
        while self._failed:
            question = self._failed.popleft()
            if question.wanted():
                return [question]
        return []

    def _next(self) -> list[Question]:
        tenant, sets = self._tenants.popitem(last=False)
        topics, waiting = sets.popitem(last=False)
        _, same = waiting.popitem(last=False)
        if waiting:
            sets[topics] = waiting
        if sets:
            self._tenants[tenant] = sets
        self._size -= len(same)
        return same

    def _put(self, question: Question) -> None:
        sets = self._tenants.setdefault(_tenant_of(question), OrderedDict())
        waiting = sets.setdefault(question.topics, OrderedDict())
        waiting.setdefault((question.after, question.known), []).append(question)
        self._size += 1

    def _sweep(self) -> None:
        wanted = [
            question
            for sets in self._tenants.values()
            for waiting in sets.values()
            for same in waiting.values()
            for question in same
            if question.wanted()
        ]
        self._tenants.clear()
        self._size = 0
        for question in wanted:
            self._put(question)
        self._failed = deque(question for question in self._failed if question.wanted())
        self._sweep_at = max(_SWEPT_FROM, 2 * len(self))


def _tenant_of(question: Question) -> str:
    tenants = {topic.tenant for topic in question.topics}
    return tenants.pop() if len(tenants) == 1 else _SEVERAL
