"""Replay: finds the pages that answer questions, and reads each once for all readers that need it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import NamedTuple, TypeVar

from ..topic import Topic
from .log import LogSession, Page, number_of
from .questions import Question

__all__ = ["KeptPage", "Replay"]

_KEPT_PAGES = 32
_KEPT_BYTES = 4 * 1024 * 1024
"""Of payload in all kept pages. The newest page is kept in any case."""
_KEPT_REFUSALS = 256
_TRIES = 10
"""Times that a page may fail to be read, each with a session of its own. Other questions come first meanwhile."""
_COUNTED_EVERY = 20
"""Pages of a replay after which the rest of it is counted again."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class KeptPage(NamedTuple):
    """A page that answers other questions, too: what came after a number does not change any more."""

    after: int
    until: int
    page: Page
    numbers: list[int]
    size: int
    """Bytes of payload."""

    def has(self, number: int) -> bool:
        """Whether an event of it has that number."""
        return number in self.numbers[bisect_left(self.numbers, number) :][:1]

    def part(self, after: int, last: int) -> Page:
        """Its events after a number, up to another: the last that was offered.

        A restored log may have lost later events. A hub that had not offered them is told nothing, and would offer
        others with numbers that the reader has passed.
        """
        until = min(self.until, last)
        if (after, until) == (self.after, self.until):
            return self.page
        events = self.page.events[bisect_right(self.numbers, after) : bisect_right(self.numbers, until)]
        return Page(events, max(after, until))


class Replay:
    """The pages that were read lately, and the questions that are known to have too long an answer.

    A question costs one bounded query, the first of a long replay two. For the thread that reads the log.
    """

    def __init__(self, *, complete: bool) -> None:
        self.complete = complete
        """See `Log`. If it is false, no number from outside is known."""
        self._pages: OrderedDict[tuple[tuple[Topic, ...], int], KeptPage] = OrderedDict()
        self._too_much: OrderedDict[tuple[Topic, ...], int] = OrderedDict()  # of topics: too much came after that

    def find(self, session: LogSession, question: Question) -> KeptPage | None:
        """The page that answers a question, or None where the answer is a refresh. Raises what the session raises."""
        if question.tries >= _TRIES or not (question.known or self.complete):
            return None
        if question.after <= self._too_much.get(question.topics, -1):
            return None
        return self._kept(question) or self._read(session, question)

    def forget(self) -> None:
        """Keep nothing: the next session may be with another server."""
        self._pages.clear()
        self._too_much.clear()

    def _kept(self, question: Question) -> KeptPage | None:
        for (topics, after), kept in self._pages.items():
            here = topics == question.topics and after <= question.after < kept.until
            if here and (question.known or question.after == after or kept.has(question.after)):
                return kept
        return None

    def _read(self, session: LogSession, question: Question) -> KeptPage | None:
        topics, after = question.topics, question.after
        found = session.page(topics, after, known=question.known)
        if found is None:
            return None
        if found.more and question.again % _COUNTED_EVERY == 0 and session.is_too_much(topics, after):
            _keep(self._too_much, topics, after, _KEPT_REFUSALS)
            return None
        kept = _to_keep(after, found.page)
        _keep(self._pages, (topics, after), kept, _KEPT_PAGES)
        while len(self._pages) > 1 and sum(each.size for each in self._pages.values()) > _KEPT_BYTES:
            self._pages.popitem(last=False)
        return kept


def _to_keep(after: int, page: Page) -> KeptPage:
    size = sum(len(event.payload) for event in page.events)
    return KeptPage(after, page.until, page, list(map(number_of, page.events)), size)


def _keep(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value, count: int) -> None:
    """Put something in, and drop the oldest beyond a count."""
    kept[key] = value
    while len(kept) > count:
        kept.popitem(last=False)
