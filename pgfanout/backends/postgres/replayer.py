"""Replayer: the thread that reads the log for those who missed something, and prunes it."""

from __future__ import annotations

import logging
import random
import threading
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg

from ...delivery.log import Answer, Page, always, number_of
from ...errors import HubConfigurationError
from ...rate_limit import RateLimit
from ...threads import start_thread
from ...topic import Topic
from . import conninfo
from .history import History
from .log import LogTable, prepare
from .publisher import abandon
from .questions import Question, Questions
from .watchdog import Watchdog

__all__ = ["Replayer"]

logger = logging.getLogger("pgfanout")

_IDLE_TIME = 10.0
"""Seconds after which it lets its session go."""
_KEPT_PAGES = 32
_KEPT_BYTES = 4 * 1024 * 1024
"""Of payload in all kept pages; the newest is kept in any case."""
_TRIES = 10
"""Times that a page may fail to be read, each with a session of its own; others come first meanwhile."""
_KEPT_REFUSALS = 256
_COUNTED_EVERY = 20
"""Pages of a replay after which it is counted again how much is left."""
_PRUNE_BATCH = 1_000
_PAUSES = (0.1, 1.5)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _KeptPage(NamedTuple):
    """A page that others may have asked for, too: what came after a number does not change any more."""

    after: int
    until: int
    page: Page
    numbers: list[int]
    size: int
    """Bytes of payload."""

    def has(self, number: int) -> bool:
        """Whether an event of it has that number."""
        return number in self.numbers[bisect_left(self.numbers, number) :][:1]


class Replayer:
    """A hub's `Log`: one session reads for everyone, and reads a page once for all who need it.

    Tenants take turns (see `Questions`), and each question costs one bounded query, the first of a long replay two. A
    question that its reader does not want any more costs none.

    `begun` and `offered` are written by the listener's thread alone, and read by any.

    `_changed` guards the attributes below it. The thread works on its connection without it; it starts
    with the first need, and ends with `close`, which cuts the connection. `_answer`s are given without it.
    """

    def __init__(self, parameters: conninfo.Parameters, table: LogTable, history: History, timeout: float) -> None:
        self._parameters = parameters
        self._table = table
        self._history = history
        self._timeout = timeout
        self.refill = history.refill
        self.complete = history.log_only
        self.begun = 0
        self.offered = 0
        self.replays = self.replayed_events = self.pruned = 0
        self.rows = self.pruned_to = 0
        self._connection: psycopg.Connection[Any] | None = None
        self._watchdog = Watchdog()
        self._pages: OrderedDict[tuple[tuple[Topic, ...], int], _KeptPage] = OrderedDict()
        self._too_much: OrderedDict[tuple[Topic, ...], int] = OrderedDict()  # of topics: too much came after that
        self._delay = _PAUSES[0]
        self._lines = RateLimit(60.0)
        self._changed = threading.Condition()
        self._questions = Questions()
        self._held: list[Question] = []  # they wait for this process to come to their number
        self._renewals = 0
        self._prune_at = float("inf")
        self._thread: threading.Thread | None = None

    # For any thread.

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
        """See `Log.ask`."""
        with self._changed:
            if self._watchdog.stopped:
                return
            self._start()
            self.replays += not again
            self._questions.add(Question(tuple(topics), after, answer, known, again, wanted))
            self._changed.notify()

    def renew(self) -> None:
        """Read with a new session from now on: the listener has one, perhaps with another server. Never waits."""
        with self._changed:
            self._renewals += 1
            self._changed.notify()

    def start_pruning(self) -> None:
        """Prune from now on, every now and then. Idempotent."""
        with self._changed:
            if self._prune_at == float("inf") and not self._watchdog.stopped:
                self._start()
                self._prune_at = time.monotonic() + self._jitter() * 0.1
                self._changed.notify()

    def advanced(self) -> None:
        """`offered` has gone up: those who are ahead of it may have waited for that. For the listener."""
        if self._held:
            with self._changed:
                self._changed.notify()

    def close(self, timeout: float) -> None:
        """End the thread; waits `timeout` seconds at most. Whoever has asked gets no answer. Idempotent."""
        self._watchdog.stop()
        with self._changed:
            thread = self._thread
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                logger.warning("the history's thread did not stop within %g s and is left behind", timeout)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection."""
        abandon(self._connection)
        self._watchdog.abandon()

    # Its own thread.

    def _start(self) -> None:
        if self._thread is None:
            self._thread = start_thread("pgfanout-history", self._run)

    def _run(self) -> None:
        while self._wait(None):
            try:
                self._session()
            except Exception as error:
                if not self._watchdog.stopped:
                    self._survive(error)

    def _survive(self, error: Exception) -> None:
        try:
            self._complain(error)
        except Exception:  # the application's log handlers
            pass
        self._watchdog.wait_stopped(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(2 * self._delay, _PAUSES[1])

    def _complain(self, error: Exception) -> None:
        held_back = self._lines.take()
        if held_back is None:
            return
        if isinstance(error, psycopg.ProgrammingError):  # no such table, no right to read it
            logger.error("the history can't be read (%s): is it installed, with this role as a reader?", _words(error))
        elif isinstance(error, (psycopg.Error, HubConfigurationError)):
            logger.warning("the history can't be read (%s), trying again; %d more failures", _words(error), held_back)
        else:
            logger.error("the history's thread failed, and goes on", exc_info=error)

    def _session(self) -> None:
        """Work as long as there is something to do."""
        renewals = self._renewals
        connection = self._connection = conninfo.connect(self._parameters, "pgfanout-history")
        try:
            connection.prepare_threshold = 2
            prepare(connection)
            with self._watchdog.watch(connection.fileno()):
                with self._watchdog.limit(self._timeout):
                    conninfo.settle(connection)
                while self._wait(_IDLE_TIME) and renewals == self._renewals:
                    self._work(renewals)
                    self._delay = _PAUSES[0]
        finally:
            connection.close()
            self._pages.clear()  # the next server may be another one
            self._too_much.clear()

    def _wait(self, timeout: float | None) -> bool:
        """Wait for something to do; False when there is nothing in time, or never will be."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._watchdog.stopped:
                self._take_up_held()
                now = time.monotonic()
                if self._questions or now >= self._prune_at:
                    return True
                if deadline is not None and now >= deadline:
                    return False
                self._changed.wait(_soonest(now, self._prune_at, deadline))
        return False

    def _take_up_held(self) -> None:
        waiting: list[Question] = []
        for question in self._held:
            if not self._has_to_wait(question.after):
                self._questions.add(question)
            elif question.wanted():
                waiting.append(question)
        self._held = waiting  # at no moment empty while there are some: `advanced` looks without the lock

    def _has_to_wait(self, after: int) -> bool:
        """Whether there is nothing after a number yet: it is ahead of what was offered, or is that of the very event
        that is being offered, which those who follow since then don't get in any other way."""
        offered = self.offered
        return after > offered or after == offered < self.begun

    def _query(self, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        with self._watchdog.limit(self._timeout):
            return conninfo.execute(self._connection, statement, params).fetchall()

    def _work(self, renewals: int) -> None:
        with self._changed:
            questions = self._questions.take()
        if questions:
            try:
                kept = self._find(questions[0])
            except psycopg.ProgrammingError as error:
                self._complain(error)
                kept = None
            except BaseException:
                self._ask_again([question._replace(tries=question.tries + 1) for question in questions])
                raise
            if renewals == self._renewals:
                self._answer(questions, kept)
            else:
                self._ask_again(questions)
        if time.monotonic() >= self._prune_at:
            self._prune()

    def _ask_again(self, questions: list[Question]) -> None:
        with self._changed:
            for question in questions:
                self._questions.add(question)

    def _answer(self, questions: list[Question], kept: _KeptPage | None) -> None:
        """Answer questions that ask the same, or hold them until there is an answer."""
        after = questions[0].after
        if kept is None:
            page = None
        elif self._has_to_wait(after):
            with self._changed:
                self._held = [*self._held, *questions]
            return
        else:
            page = self._cut(kept, after)
        for question in questions:
            if page is not None:
                self.replayed_events += len(page.events)
            question.answer(page)

    def _find(self, question: Question) -> _KeptPage | None:
        """The page that answers a question, or None where the answer is a refresh."""
        if question.tries >= _TRIES or not (question.known or self.complete):
            return None
        if question.after <= self._too_much.get(question.topics, -1):
            return None
        return self._kept(question) or self._read(question)

    def _kept(self, question: Question) -> _KeptPage | None:
        for (topics, after), kept in self._pages.items():
            here = topics == question.topics and after <= question.after < kept.until
            if here and (question.known or question.after == after or kept.has(question.after)):
                return kept
        return None

    def _read(self, question: Question) -> _KeptPage | None:
        topics, after = question.topics, question.after
        found = self._table.page(self._query, topics, after, known=question.known)
        if found is None:
            return None
        if found.more and question.again % _COUNTED_EVERY == 0 and self._table.is_too_much(self._query, topics, after):
            _keep(self._too_much, topics, after, _KEPT_REFUSALS)
            return None
        page = found.page
        numbers, size = [number_of(event) for event in page.events], sum(len(event.payload) for event in page.events)
        kept = _KeptPage(after, page.until, page, numbers, size)
        _keep(self._pages, (topics, after), kept, _KEPT_PAGES)
        while len(self._pages) > 1 and self._kept_bytes > _KEPT_BYTES:
            self._pages.popitem(last=False)
        return kept

    @property
    def _kept_bytes(self) -> int:
        return sum(kept.size for kept in self._pages.values())

    def _cut(self, kept: _KeptPage, after: int) -> Page:
        """What of a page came after a number, as far as it was offered to those who follow."""
        until = min(kept.until, self.offered)
        if (after, until) == (kept.after, kept.until):
            return kept.page
        events = kept.page.events[bisect_right(kept.numbers, after) : bisect_right(kept.numbers, until)]
        return Page(events, max(after, until))

    def _prune(self) -> None:
        """Remove what may go, in small parts, as long as nobody asks for something."""
        self._prune_at = time.monotonic() + self._jitter()  # also if it fails
        gone = self._table.prune(self._query, _PRUNE_BATCH, self._history.prune_every)
        self.pruned += gone or 0
        ends = self._table.ends(self._query)
        self.rows, self.pruned_to = ends.rows, ends.pruned_to
        if gone == _PRUNE_BATCH:
            self._prune_at = time.monotonic()

    def _jitter(self) -> float:
        return self._history.prune_every * random.uniform(0.5, 1.0)


def _keep(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value, count: int) -> None:
    """Put something in, and let go what is there for longest beyond a count."""
    kept[key] = value
    while len(kept) > count:
        kept.popitem(last=False)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _soonest(now: float, prune_at: float, deadline: float | None) -> float | None:
    at = prune_at if deadline is None else min(prune_at, deadline)
    return None if at == float("inf") else max(0.0, at - now)
