"""Backlog: the bounded queue of one subscription."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from ..event import CLOSE_EVENT, REFRESH_EVENT, Event
from ..topic import Topic
from .log import Log, Page, number_of
from .reader import Question, Reader
from .relay import Relay
from .tail import BUFFER_BYTES, Tail

__all__ = ["Backlog"]

_Taken = TypeVar("_Taken", Event, "list[Event]")


class Backlog(queue.Queue[Event]):
    """A `queue.Queue` whose writer never waits, and which can end.

    Its deque is a tail with one reader, which alone decides what comes next. It holds at most `maxsize` events, and at
    most `max_bytes` of their payloads or one event. When one more event comes, a refresh takes the place of all of
    them. With a log that refills, the oldest event gives way instead, and is read again when its turn comes. Only a
    thread that waits asks for a page, so a consumer that stalls causes no reading.

    The registry has the backlog and not its subscription: it does not keep a subscription that is no longer used.

    `mutex` guards the tail, the reader and the attributes below them, for a few operations. `ended` may be read without
    it. Once ended, the queue yields what it holds, and then `CLOSE_EVENT` for ever: every thread that waits wakes up
    and learns of the end.

    A thread that has waited here wakes the next one of the `relay`.
    """

    members: Final = 1
    """How many readers there are of it, for the registry."""

    ended = False

    def __init__(
        self,
        maxsize: int,
        relay: Relay | None = None,
        log: Log | None = None,
        topics: Sequence[Topic] = (),
        max_bytes: int = BUFFER_BYTES,
    ) -> None:
        super().__init__(maxsize)
        self._log = log
        self._topics = topics
        self._relay = relay
        self._tail = Tail(maxsize, max_bytes, log)
        self.queue = self._tail.events
        self._reader = Reader(0)
        self._ready: deque[Event] = deque()  # handed out by the reader, and not taken yet
        self._number = 0  # everything up to it was taken, or is of other topics
        self._waiting = 0
        self._told = False

    def begin(self, after: int | None) -> None:
        """Begin after that number of the log, or now; once, when events are offered already, and before the first
        `get`. Without a log, what came after a number is not known: a refresh."""
        if self._log is None:
            if after is not None:
                self.offer(REFRESH_EVENT)
            return
        # An event that is being offered may miss the queue: it was looked up who follows before this one did.
        begun, offered = self._log.begun, self._log.offered
        with self.mutex:
            self._tail.floor = max(self._tail.floor, begun)
            if after is None:
                self._reader.advance(offered)
                self._number = offered
            else:
                self._reader = Reader.after(after, self._tail)
                self._number = after

    @property
    def max_bytes(self) -> int:
        """How many bytes of payload can wait, where it's more than one event."""
        return self._tail.max_bytes

    @property
    def cursor(self) -> int | None:
        """Everything up to this number of the log was taken, or is of other topics; None without a log."""
        if self._log is None:
            return None
        with self.mutex:
            if not self._ready:
                self._number = self._reader.cursor(self._tail)
            return self._number

    # For the thread that reads.

    def get(self, block: bool = True, timeout: float | None = None) -> Event:
        """As `queue.Queue.get`."""
        return self._take_or_wait(self._take_one, timeout if block else 0.0)

    def get_all(self, timeout: float | None = None) -> list[Event]:
        """Everything that is there, the end included; waits for the first event like `get`."""
        return self._take_or_wait(self._take_all, timeout)

    def _take_or_wait(self, take: Callable[[], _Taken | None], timeout: float | None) -> _Taken:
        with self.mutex:
            taken = take()
            others = self._waiting
        if taken is not None:
            if others:
                self._pass_on()
            return taken
        try:
            return self._wait(take, timeout)
        finally:
            self._pass_on()

    def _wait(self, take: Callable[[], _Taken | None], timeout: float | None) -> _Taken:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._reader.behind:
                self._ask()
            with self.mutex:
                self._waiting += 1
                try:
                    left = None if deadline is None else max(0.0, deadline - time.monotonic())
                    if not self.not_empty.wait_for(self._is_due, left):
                        raise queue.Empty
                finally:
                    self._waiting -= 1
                taken = take()
                if self._waiting and self._is_due():  # several wait, and one was woken for several events
                    self.not_empty.notify()
            if taken is not None:
                return taken

    def _is_due(self) -> bool:
        """Whether a thread that waits has something to take, or to ask."""
        if self._ready or self.ended:
            return True
        tail, reader = self._tail, self._reader
        if reader.behind:
            return reader.asked is None or tail.gap > reader.position
        return tail.end_position > reader.position

    def _take_one(self) -> Event | None:
        if self._ready:
            event = self._ready.popleft()
        elif events := self._read(self._reader.position + 1):
            event = events[0]
            self._ready.extend(events[1:])
        else:
            return CLOSE_EVENT if self.ended else None
        self._number = (number_of(event) or self._number) if self._ready else self._reader.number
        return event

    def _take_all(self) -> list[Event] | None:
        events = self._read(self._tail.end_position)
        if self._ready:
            events = [*self._ready, *events]
            self._ready.clear()
        self._number = self._reader.number
        if self.ended:
            events.append(CLOSE_EVENT)
        return events or None

    def _read(self, until: int) -> list[Event]:
        events = self._reader.read(self._tail, until)
        self._tail.forget(self._reader.position)
        return events

    def _qsize(self) -> int:
        waiting = 0 if self._reader.behind else self._tail.end_position - self._reader.position
        return len(self._ready) + waiting + self.ended

    # For the listener.

    def offer(self, event: Event) -> bool:
        """Append an event; never waits. False when a refresh has taken the place of what waited."""
        with self.mutex:
            if self.ended:
                return True
            if event is REFRESH_EVENT:
                room = self._append_refresh()
            else:
                if self._log is not None:
                    self._note_idle(self._log.offered)
                room = self._tail.append(event) or self._make_room()
            if not self._waiting or self._told:
                return room
            news = self._note_news()
        if news and self._relay is not None:
            self._relay.news(self)
        return room

    def skip(self, after: int, until: int) -> None:
        """See `Consumer`. Without a log that refills it, what was not offered is lost: a refresh stands for it."""
        if self._log is None:
            self.offer(REFRESH_EVENT)
            return
        with self.mutex:
            if self.ended:
                return
            self._note_idle(after)
            self._tail.leave_to_log(until)
            news = self._note_news()
        if news and self._relay is not None:
            self._relay.news(self)

    def wake(self) -> bool:
        """Wake one thread that waits, if there is one, and something for it."""
        with self.mutex:
            self._told = False
            needed = self._waiting > 0 and self._is_due()
            if needed:
                self.not_empty.notify()
        return needed

    def end(self, *, drop: bool = False) -> None:
        """Take nothing more, and `drop` what waits; every thread that waits wakes up. Idempotent, never waits."""
        with self.mutex:
            self.ended = True
            if drop:
                self._ready.clear()
                self._reader = Reader(self._tail.end_position, self._reader.number)
                self._tail.forget(self._tail.end_position)
            self.not_empty.notify_all()

    def _note_news(self) -> bool:
        """Wake a thread that waits; or, with a relay, tell whether that is to be told."""
        if not self._waiting or self._told:
            return False
        self._told = self._relay is not None
        if self._relay is None:
            self.not_empty.notify()
        return self._told

    def _append_refresh(self) -> bool:
        tail = self._tail
        if tail.events and tail.events[-1] is REFRESH_EVENT:
            tail.renew_refresh()
            return True
        return tail.append_refresh() or self._make_room()

    def _note_idle(self, number: int) -> None:
        """Nothing came up to a number since the reader reached the end, so it need not ask for that."""
        if self._reader.position == self._tail.end_position and not self._reader.behind:
            self._reader.advance(number)

    def _make_room(self) -> bool:
        tail = self._tail
        if not (self._reader.behind or tail.refills):
            tail.lose()
            self._reader.position = tail.first_position
            return False
        gap = tail.gap
        tail.fit()
        return tail.gap == gap

    # What the log is for.

    def _ask(self) -> None:
        with self.mutex:
            question = None if self._ready or self.ended else self._reader.ask()
        if question is not None:
            assert self._log is not None
            self._log.ask(
                self._topics,
                question.after,
                partial(self._answer, question),
                known=question.known,
                again=question.again,
                wanted=lambda: question is self._reader.asked and not self.ended,
            )

    def _answer(self, question: Question, page: Page | None) -> None:
        """In the thread of the log."""
        with self.mutex:
            if self.ended:
                return
            self._ready.extend(self._reader.take(self._tail, question, page))
            if self._is_due():
                self.not_empty.notify()

    def _pass_on(self) -> None:
        """Wake the next one of the relay. Every thread that was woken does, and every one that may have taken what
        another thread was woken for, which sleeps again then."""
        if self._relay is not None:
            self._relay.wake_next()
