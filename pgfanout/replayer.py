"""Replayer: the thread that reads the log for readers that missed something, and prunes it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from .delivery.log import Answer, LogSession, LogStore, UnreadableLogError, always
from .delivery.questions import Question, Questions
from .delivery.replay import KeptPage, Replay
from .rate_limit import RateLimit
from .threads import lock_time, start_thread
from .topic import Topic

__all__ = ["Replayer"]

logger = logging.getLogger("pgfanout")

_IDLE_TIME = 10.0
"""Seconds after which an idle session is closed."""
_PRUNE_BATCH = 1_000
_PAUSES = (0.1, 1.5)


class Replayer:
    """A hub's `Log`: one thread and one session read for all readers.

    Tenants take turns (see `Questions`), and a page is read once for all that need it (see `Replay`). A question that
    its reader does not want any more costs no query.

    `begun` and `offered` are written by the listener's thread alone. Any thread reads them.

    `_changed` guards the attributes below it. The thread starts with the first question, or the first pruning. `close`
    ends it, and cuts its session. The thread reads, and calls `answer`, without the lock.
    """

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._replay = Replay(complete=store.complete)
        self.refill = store.refill
        self.complete = store.complete
        self.begun = self.offered = 0
        self.replays = self.replayed_events = self.pruned = 0
        self.rows = self.pruned_to = 0
        self._delay = _PAUSES[0]
        self._lines = RateLimit(60.0)
        self._changed = threading.Condition()
        self._questions = Questions()
        self._held: list[Question] = []  # they wait until this process has offered their number
        self._renewals = 0
        self._prune_at = float("inf")
        self._stopped = False
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
            if self._stopped:
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
            if self._prune_at == float("inf") and not self._stopped:
                self._start()
                self._prune_at = time.monotonic() + self._jitter() * 0.1
                self._changed.notify()

    def advanced(self) -> None:
        """Take up the questions that waited for a greater `offered`. For the listener's thread."""
        if self._held:
            with self._changed:
                self._changed.notify()

    def close(self, timeout: float) -> None:
        """End the thread. Wait `timeout` seconds at most. Open questions get no answer. Idempotent."""
        with self._changed:
            self._stopped = True
            thread = self._thread
            self._changed.notify()
        self._store.stop()
        if thread is not None and thread is not threading.current_thread():
            thread.join(lock_time(timeout))
            if thread.is_alive():
                logger.warning("the history's thread did not stop within %g s and is left behind", timeout)

    # Its own thread.

    def _start(self) -> None:
        if self._thread is None:
            self._thread = start_thread("pgfanout-history", self._run)

    def _run(self) -> None:
        while self._wait(None):
            try:
                self._session()
            except Exception as error:
                if not self._stopped:
                    self._survive(error)

    def _survive(self, error: Exception) -> None:
        self._complain(error)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, self._delay * random.uniform(0.5, 1.0))
        self._delay = min(2 * self._delay, _PAUSES[1])

    def _complain(self, error: Exception) -> None:
        with suppress(Exception):  # the application's log handlers
            self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        held_back = self._lines.take()
        if held_back is None:
            return
        words = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnreadableLogError):
            logger.error("the history can't be read (%s): is it installed, with this role as a reader?", words)
        elif isinstance(error, self._store.errors):
            logger.warning("the history can't be read (%s), trying again; %d more failures", words, held_back)
        else:
            logger.error("the history's thread failed, and goes on", exc_info=error)

    def _session(self) -> None:
        """Work as long as there is something to do."""
        renewals = self._renewals
        try:
            with self._store.open() as session:
                while self._wait(_IDLE_TIME) and renewals == self._renewals:
                    self._work(session, renewals)
                    self._delay = _PAUSES[0]
        finally:
            self._replay.forget()

    def _wait(self, timeout: float | None) -> bool:
        """Wait for something to do. Return False when there is nothing in time, or never will be."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._stopped:
                self._take_up_held()
                now = time.monotonic()
                if self._questions or now >= self._prune_at:
                    return True
                if now >= deadline:
                    return False
                until = min(self._prune_at, deadline)
                self._changed.wait(None if until == float("inf") else until - now)
        return False

    def _take_up_held(self) -> None:
        waiting: list[Question] = []
        for question in self._held:
            if not self._has_to_wait(question.after):
                self._questions.add(question)
            elif question.wanted():
                waiting.append(question)
        self._held = waiting  # never empty while there are some: `advanced` looks without the lock

    def _has_to_wait(self, after: int) -> bool:
        """Whether there is nothing after a number yet: it is ahead of what was offered, or it is the number of the very
        event that is being offered. A reader that has followed since then gets that event in no other way."""
        offered = self.offered
        return after > offered or after == offered < self.begun

    def _work(self, session: LogSession, renewals: int) -> None:
        with self._changed:
            questions = self._questions.take()
        if questions:
            try:
                kept = self._replay.find(session, questions[0])
            except UnreadableLogError as error:
                self._complain(error)
                kept = None
            except BaseException:
                self._ask_again([question._replace(tries=question.tries + 1) for question in questions])
                raise
            offered = self.offered  # read first: the listener renews before it goes on with a new session
            if renewals == self._renewals:
                self._answer(questions, kept, offered)
            else:
                self._ask_again(questions)
        if time.monotonic() >= self._prune_at:
            self._prune(session)

    def _ask_again(self, questions: list[Question]) -> None:
        with self._changed:
            for question in questions:
                self._questions.add(question)

    def _answer(self, questions: list[Question], kept: KeptPage | None, offered: int) -> None:
        """Answer questions that ask the same with what was `offered`, or hold them until there is an answer."""
        after = questions[0].after
        if kept is not None and self._has_to_wait(after):
            with self._changed:
                self._held = [*self._held, *questions]
            return
        page = None if kept is None else kept.part(after, offered)
        for question in questions:
            if page is not None:
                self.replayed_events += len(page.events)
            question.answer(page)

    def _prune(self, session: LogSession) -> None:
        """Remove events that may go, a batch at a time, as long as there is no question."""
        self._prune_at = time.monotonic() + self._jitter()  # also if it fails
        gone = session.prune(_PRUNE_BATCH)
        self.pruned += gone or 0
        ends = session.ends()
        self.rows, self.pruned_to = ends.rows, ends.pruned_to
        if gone == _PRUNE_BATCH:
            self._prune_at = time.monotonic()

    def _jitter(self) -> float:
        return self._store.prune_every * random.uniform(0.5, 1.0)
