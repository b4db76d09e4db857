"""RefillingBacklog: a backlog that gets from a log what it had no room for, and what came before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

from .backlog import BUFFER_BYTES, Backlog
from .event import REFRESH_EVENT, Event
from .log import PATIENCE, Log, Page, number_of
from .relay import Relay
from .topic import Topic

__all__ = ["RefillingBacklog"]


class RefillingBacklog(Backlog):
    """A backlog whose oldest event gives way to a new one, and is read again from the log.

    It is behind while events between its reader and its queue are missing: those after `_next`, up to
    `_floor`, the last that had to give way. Its reader gets pages of the log then, and the queue when
    they reach it. Only the reader asks for a page, so one that stalls causes no reading. `_question` is what
    it waits for an answer to; one to an earlier question came too late for what has happened since.

    An event without a number can't be read again: if one would give way, the rule is that of every
    backlog, and so it is when the log does not know.
    """

    def __init__(
        self,
        maxsize: int,
        relay: Relay | None,
        log: Log,
        topics: Sequence[Topic],
        max_bytes: int = BUFFER_BYTES,
    ) -> None:
        super().__init__(maxsize, relay, max_bytes)
        self._log = log
        self._topics = topics
        self._replayed: deque[Event] = deque()
        self._number = 0  # everything up to it was handed out
        self._floor = 0
        self._refreshed = 0  # what a refresh stands for ends there
        self._next = 0
        self._known = False  # whether the log has vouched for `_next`
        self._behind = False
        self._question: object = None
        self._asks = 0  # since it is behind
        self._fruitless = 0
        self._getting = 0  # readers that have asked, if they had to, or are about to wait

    def begin(self, after: int | None) -> None:
        """Begin after that number, or now; once, when events are offered already, and before the first `get`."""
        begun, offered = self._log.begun, self._log.offered
        with self.mutex:
            self._floor = max(self._floor, begun)
            self._number = self._next = begun if after is None else after
            if after is None:
                return
            if self._log.complete and self._floor <= after <= offered:  # it is this process's own position
                self._join()
            else:
                self._behind, self._known = True, False

    @property
    def cursor(self) -> int:
        """Everything up to this number was handed out, or is about none of the topics."""
        offered = self._log.offered  # asked first: what is offered later may be on its way
        with self.mutex:
            if not (self._behind or self._replayed or self.queue):
                self._number = max(self._number, offered)
            return self._number

    def _qsize(self) -> int:
        return len(self._replayed) + (0 if self._behind else len(self.queue)) + self.ended

    def _get(self) -> Event:
        if self._replayed:
            event = self._replayed.popleft()
        elif self._behind:  # at the end
            self._clear()
            event = super()._get()
        else:
            event = super()._get()
        self._count(event)
        return event

    def _count(self, event: Event) -> None:
        self._number = self._refreshed if event is REFRESH_EVENT else number_of(event) or self._number

    def get(self, block: bool = True, timeout: float | None = None) -> Event:
        """As `queue.Queue.get`."""
        with self.mutex:
            self._getting += 1
        try:
            self._ask()
            return super().get(block, timeout)
        finally:
            with self.mutex:
                self._getting -= 1

    def offer(self, event: Event) -> bool:
        """As every backlog, but that the oldest event gives way."""
        room = super().offer(event)
        if self._behind and self._getting:
            self._ask()  # a reader that waits can't
        return room

    def _ask(self) -> None:
        with self.mutex:
            if not self._behind or self._replayed or self._question or self.ended:
                return
            question = self._question = object()
            after, known, again = self._next, self._known, self._asks
            self._asks += 1
        self._log.ask(
            self._topics,
            after,
            partial(self._answer, question),
            known=known,
            again=again,
            wanted=lambda: question is self._question and not self.ended,
        )

    def take_rest(self) -> list[Event]:
        """Everything that is there now, the end included."""
        with self.mutex:
            rest = [self._get() for _ in range(self._qsize())]
            others = self._waiting
        if others:
            self._pass_on()
        return rest

    def end(self, *, drop: bool = False) -> None:
        """As every backlog; what is missing will not come."""
        if drop:
            with self.mutex:
                self._replayed.clear()
        super().end(drop=drop)

    def _put_event(self, event: Event) -> bool:
        if event is REFRESH_EVENT:
            self._put_refresh()
            return True
        while not self._has_room(event):
            if not self._let_oldest_go():
                self._start_over()
                return False
        self._append(event)
        return True

    def _put_refresh(self) -> None:
        if self._behind or not self._has_room(REFRESH_EVENT):
            self._start_over()
        else:
            self._refreshed = self._log.begun
            self._append(REFRESH_EVENT)

    def _fold_refresh(self) -> None:
        self._refreshed = self._log.begun  # may be lower: the log may have lost what it had at the first one

    def _let_oldest_go(self) -> bool:
        number = number_of(self.queue[0])
        if not number or not (self._behind or self._log.refill):
            return False
        if not self._behind:
            if any(waiting is REFRESH_EVENT for waiting in self.queue):
                return False  # the log may be another one now: nothing of it comes before that refresh
            self._fall_behind(number - 1)  # the reader has, or had, everything before
        self._pop()
        self._floor = number
        return True

    def _fall_behind(self, number: int) -> None:
        self._behind, self._next, self._known = True, number, True
        self._asks = self._fruitless = 0

    def skip(self, after: int, until: int) -> None:
        """Everything after one number, up to another, was not offered: the reader gets it, and what is queued, from the
        log. Never waits."""
        with self.mutex:
            if self.ended:
                return
            self._skip(after, until)
        if self._behind and self._getting:
            self._ask()  # a reader that waits can't

    def _skip(self, after: int, until: int) -> None:
        if not all(map(number_of, self.queue)):  # a refresh, or what can't be read again
            self._start_over()
            return
        if not self._behind:
            self._fall_behind(number_of(self.queue[0]) - 1 if self.queue else max(after, self._number))
        self._clear()
        self._floor = until

    def _start_over(self) -> None:
        """One refresh stands for everything that was to come."""
        self._replayed.clear()
        self._clear()
        self._append(REFRESH_EVENT)
        self._behind, self._question = False, None
        self._refreshed = self._log.begun

    def _join(self) -> None:
        """What the reader has had, or gets by pages, reaches the queue."""
        self._behind = False
        rest = [event for event in self.queue if not 0 < number_of(event) <= self._next]
        self._clear()
        for event in rest:
            self._append(event)

    def _answer(self, question: object, page: Page | None) -> None:
        with self.mutex:
            if self.ended or question is not self._question:
                return
            self._question = None
            self._take(page)
            if self._qsize():
                self.not_empty.notify()
        if self._behind and self._getting:
            self._ask()

    def _take(self, page: Page | None) -> None:
        fruitful = page is not None and page.until > self._next
        self._fruitless = 0 if fruitful else self._fruitless + 1
        if page is None:
            self._refresh_first()
            return
        self._replayed.extend(page.events)
        self._next, self._known = page.until, True
        if self._next >= self._floor:
            self._join()
        elif self._fruitless >= PATIENCE:
            self._refresh_first()

    def _refresh_first(self) -> None:
        """The queue goes on after a refresh, since what was before it can't be had."""
        if len(self.queue) < self.maxsize:
            self.queue.appendleft(REFRESH_EVENT)
            self._refreshed = self._floor
            self._behind = False
        else:
            self._start_over()
