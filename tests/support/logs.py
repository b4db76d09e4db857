"""Logs in memory, for what reads one: their answers come when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pgfanout.delivery.log import Answer, Ends, Found, News, Page, always, number_of
from pgfanout.delivery.replay import KeptPage
from pgfanout.event import Event
from pgfanout.topic import Topic

TENANT = "11111111-1111-4111-8111-111111111111"
TOPICS = (Topic("orders", TENANT),)


def logged(number: int) -> Event:
    """An event of the log."""
    return Event("orders", b"%d" % number, id=str(number))


class MemoryLog:
    """Has what was committed to it; `page_size` events are answered at once, and none up to `pruned_to`."""

    def __init__(self, *, refill: bool = True, page_size: int = 3, complete: bool = True) -> None:
        self.refill = refill
        self.complete = complete
        self.page_size = page_size
        self.begun = self.offered = self.pruned_to = 0
        self.last = 0
        self.events: list[Event] = []
        self.numbers: set[int] = set()
        self.asked: deque[tuple[int, bool, Answer, Callable[[], bool]]] = deque()
        self.replays = 0

    def commit(self, number: int, *, ours: bool = True) -> Event:
        """The next event; of another topic unless it is `ours`."""
        assert number > self.last
        self.last = number
        self.numbers.add(number)
        event = logged(number)
        if ours:
            self.events.append(event)
        return event

    def knows(self, number: int) -> bool:
        return number == self.pruned_to or (number > self.pruned_to and number in self.numbers)

    def had(self, number: int) -> bool:
        """Whether it knows a number, or knew it before that was pruned. A tail may vouch for such a number."""
        return number in (0, self.pruned_to) or number in self.numbers

    def lose(self, count: int) -> None:
        """The last numbers are gone, as after a fail-over."""
        kept = sorted(self.numbers)[: max(0, len(self.numbers) - count)]
        self.numbers = set(kept)
        self.last = max([self.pruned_to, *kept])
        self.events = [event for event in self.events if number_of(event) in self.numbers]

    def ask(
        self,
        topics: Sequence[Topic],
        after: int,
        answer: Answer,
        *,
        known: bool = False,
        again: int = 0,
        wanted: Callable[[], bool] = always,
    ) -> None:
        assert tuple(topics) == TOPICS
        self.replays += not again
        self.asked.append((after, known, answer, wanted))

    def answer(self) -> bool:
        """Answer the oldest question, if there is one that can be answered yet."""
        for _ in range(len(self.asked)):
            after, known, answer, wanted = self.asked.popleft()
            page = self.page(after, known=known)
            if page is not None and after > self.offered:
                self.asked.append((after, known, answer, wanted))
                continue
            answer(page)
            return True
        return False

    def page(self, after: int, *, known: bool = False) -> Page | None:
        if not (self.pruned_to <= after <= self.last and (known or self.knows(after))):
            return None
        found = [event for event in self.events if after < number_of(event)]
        full = len(found) > self.page_size
        page = Page(found[: self.page_size], number_of(found[self.page_size - 1]) if full else self.last)
        return KeptPage(after, page.until, page, list(map(number_of, page.events)), 0).part(after, self.offered)


class Question(NamedTuple):
    after: int
    answer: Answer
    known: bool = False
    wanted: Callable[[], bool] = always

    def until(self, last: int) -> None:
        """Answer with all the numbers up to the last."""
        self.answer(Page([logged(number) for number in range(self.after + 1, last + 1)], last))


class ManualLog:
    """A `Log` that notes what it is asked."""

    refill = True
    complete = True

    def __init__(self, last: int = 0) -> None:
        self.begun = self.offered = last
        self.questions: list[Question] = []

    def ask(
        self,
        topics: Sequence[Topic],
        after: int,
        answer: Answer,
        *,
        known: bool = False,
        again: int = 0,
        wanted: Callable[[], bool] = always,
    ) -> None:
        self.questions.append(Question(after, answer, known, wanted))

    def renew(self) -> None:
        """Nobody reads it in a session."""

    def advanced(self) -> None:
        """No question waits for that."""

    def start_pruning(self) -> None:
        """There is nothing to prune."""

    def close(self, timeout: float) -> None:
        """There is no thread."""

    def reach(self, number: int) -> Event:
        """The event of a number, which is offered next."""
        self.begun = self.offered = number
        return logged(number)


class AskedSession:
    """A `LogSession` that a test gives the answers that it expects to be asked for."""

    def ends(self) -> Ends:
        raise AssertionError("not expected")

    def knows(self, number: int) -> bool:
        raise AssertionError("not expected")

    def among(self, numbers: Sequence[int]) -> set[int]:
        raise AssertionError("not expected")

    def news(self, after: int, last: int) -> News:
        raise AssertionError("not expected")

    def one(self, number: int) -> Event | None:
        raise AssertionError("not expected")

    def page(self, topics: Sequence[Topic], after: int, *, known: bool) -> Found | None:
        raise AssertionError("not expected")

    def is_too_much(self, topics: Sequence[Topic], after: int) -> bool:
        raise AssertionError("not expected")

    def prune(self, batch: int) -> int | None:
        raise AssertionError("not expected")
