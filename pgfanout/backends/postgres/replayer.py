"""Replayer: the thread that reads the log for those who missed something, and prunes it."""

from __future__ import annotations

import logging
import random
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from ...errors import HubConfigurationError
from ...log import Answer, Page, number_of
from ...threads import start_thread
from ...topic import Topic
from . import conninfo
from .history import History
from .log import LogTable, prepare
from .publisher import abandon
from .watchdog import Watchdog

__all__ = ["Replayer"]

logger = logging.getLogger("pgfanout")

_IDLE_TIME = 10.0
"""Seconds after which it lets its session go."""
_KEPT_PAGES = 32
_TRIES = 10
"""Times that a page may fail to be read, each with a session of its own; others come first meanwhile."""
_PRUNE_BATCH = 1_000
_PAUSES = (0.1, 1.5)


class _Request(NamedTuple):
    topics: tuple[Topic, ...]
    after: int
    answer: Answer
    tries: int = 0


class _KeptPage(NamedTuple):
    """A page that others may have asked for, too: what came after a number does not change any more."""

    after: int
    until: int
    page: Page
    numbers: list[int]


class Replayer:
    """A hub's `Log`: one session reads for everyone, and reads a page once for all who need it.

    `begun` and `offered` are written by the listener's thread alone, and read by any.

    `_changed` guards the attributes below it. The thread works on its connection without it; it starts
    with the first need, and ends with `close`, which cuts the connection.
    """

    def __init__(self, parameters: conninfo.Parameters, table: LogTable, history: History, timeout: float) -> None:
        self._parameters = parameters
        self._table = table
        self._history = history
        self._timeout = timeout
        self.refill = history.refill
        self.begun = 0
        self.offered = 0
        self.replays = self.replayed_events = self.pruned = 0
        self.rows = self.pruned_to = 0
        self._connection: psycopg.Connection[Any] | None = None
        self._watchdog = Watchdog()
        self._pages: OrderedDict[tuple[tuple[Topic, ...], int], _KeptPage] = OrderedDict()
        self._delay = _PAUSES[0]
        self._changed = threading.Condition()
        self._requests: list[_Request] = []
        self._held: list[_Request] = []
        self._prune_at = float("inf")
        self._thread: threading.Thread | None = None

    # For any thread.

    def ask(self, topics: Sequence[Topic], after: int, answer: Answer, *, again: bool = False) -> None:
        """See `Log.ask`."""
        with self._changed:
            if self._watchdog.stopped:
                return
            self._start()
            self.replays += not again
            self._requests.append(_Request(tuple(topics), after, answer))
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
            if isinstance(error, (psycopg.Error, HubConfigurationError)):
                words = " ".join(str(error).split()) or type(error).__name__
                logger.warning("the history can't be read (%s), trying again", words)
            else:
                logger.error("the history's thread failed, and goes on", exc_info=error)
        except Exception:  # the application's log handlers
            pass
        self._watchdog.wait_stopped(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(2 * self._delay, _PAUSES[1])

    def _session(self) -> None:
        """Work as long as there is something to do."""
        connection = self._connection = conninfo.connect(self._parameters, "pgfanout-history")
        try:
            connection.prepare_threshold = 2
            prepare(connection)
            with self._watchdog.watch(connection.fileno()):
                with self._watchdog.limit(self._timeout):
                    conninfo.settle(connection)
                while self._wait(_IDLE_TIME):
                    self._work()
                    self._delay = _PAUSES[0]
        finally:
            connection.close()
            self._pages.clear()  # the next server may be another one

    def _wait(self, timeout: float | None) -> bool:
        """Wait for something to do; False when there is nothing in time, or never will be."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._watchdog.stopped:
                self._take_up_held()
                now = time.monotonic()
                if self._requests or now >= self._prune_at:
                    return True
                if deadline is not None and now >= deadline:
                    return False
                self._changed.wait(_soonest(now, self._prune_at, deadline))
        return False

    def _take_up_held(self) -> None:
        waiting: list[_Request] = []
        for request in self._held:
            (waiting if self._has_to_wait(request) else self._requests).append(request)
        self._held = waiting  # at no moment empty while there are some: `advanced` looks without the lock

    def _has_to_wait(self, request: _Request) -> bool:
        """Whether there is nothing for it yet: it is ahead of what was offered, or has come to the very event that
        is being offered, which those who follow since then don't get in any other way."""
        offered = self.offered
        return request.after > offered or request.after == offered < self.begun

    def _query(self, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        with self._watchdog.limit(self._timeout):
            return conninfo.execute(self._connection, statement, params).fetchall()

    def _work(self) -> None:
        with self._changed:
            requests, self._requests = sorted(self._requests, key=_by_topics), []
        done = 0
        try:
            for done, request in enumerate(requests):  # noqa: B007
                self._serve(request)
            done = len(requests)
        finally:
            if done < len(requests):
                with self._changed:
                    failed, *rest = requests[done:]
                    self._requests += [*rest, failed._replace(tries=failed.tries + 1)]
        if time.monotonic() >= self._prune_at:
            self._prune()

    def _serve(self, request: _Request) -> None:
        try:
            kept = None if request.tries >= _TRIES else self._kept(request) or self._read(request)
        except psycopg.ProgrammingError as error:  # no such table, no right to read it
            logger.error("the history can't be read (%s): is it installed, with this role as a reader?", error)
            kept = None
        if kept is None:
            request.answer(None)
        elif self._has_to_wait(request):
            with self._changed:
                self._held.append(request)
        else:
            request.answer(self._cut(kept, request.after))

    def _kept(self, request: _Request) -> _KeptPage | None:
        for (topics, after), kept in self._pages.items():
            if topics == request.topics and after <= request.after < kept.until:
                return kept
        return None

    def _read(self, request: _Request) -> _KeptPage | None:
        page = self._table.page(self._query, request.topics, request.after)
        if page is None:
            return None
        kept = _KeptPage(request.after, page.until, page, [number_of(event) for event in page.events])
        self._pages[request.topics, request.after] = kept
        while len(self._pages) > _KEPT_PAGES:
            self._pages.popitem(last=False)
        return kept

    def _cut(self, kept: _KeptPage, after: int) -> Page:
        """What of a page came after a number, as far as it was offered to those who follow."""
        until = min(kept.until, self.offered)
        if (after, until) == (kept.after, kept.until):
            self.replayed_events += len(kept.numbers)
            return kept.page
        events = kept.page.events[bisect_right(kept.numbers, after) : bisect_right(kept.numbers, until)]
        self.replayed_events += len(events)
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


def _by_topics(request: _Request) -> tuple[int, tuple[Topic, ...], int]:
    return request.tries, request.topics, request.after


def _soonest(now: float, prune_at: float, deadline: float | None) -> float | None:
    at = prune_at if deadline is None else min(prune_at, deadline)
    return None if at == float("inf") else max(0.0, at - now)
