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
from .tail import BUFFER_BYTES, Tail
from .waker import Waker

__all__ = ["Backlog"]

_Taken = TypeVar("_Taken", Event, "list[Event]")


class Backlog(queue.Queue[Event]):
    """A `queue.Queue` that never blocks its writer and that can end.

    Its deque is a tail with one reader, and the reader alone decides what comes next. The queue holds at most `maxsize`
    events with at most `max_bytes` of payload, or one larger event. When an event does not fit, a refresh replaces all
    events. With a log that refills, the oldest event is dropped instead, and is read from the log when its turn comes.
    Only a waiting thread asks for a page, so a stalled consumer causes no reads.

    The registry refers to the backlog and not to its subscription, so it does not keep an unused subscription alive.

    `mutex` guards the tail, the reader and the attributes below them. It is held for a few operations. `ended` may be
    read without it. Once ended, the queue yields what it holds, and then `CLOSE_EVENT` for ever. Every waiting thread
    wakes up and gets the end.

    A thread that has waited here has the `waker` wake the next one.
    """

    members: Final = 1
    """The number of readers, for the registry."""

    ended = False

    def __init__(
        self,
        maxsize: int,
        waker: Waker | None = None,
        log: Log | None = None,
        topics: Sequence[Topic] = (),
        max_bytes: int = BUFFER_BYTES,
    ) -> None:
        super().__init__(maxsize)
        self._log = log
        self._topics = topics
        self._waker = waker
        self._tail = Tail(maxsize, max_bytes, log)
        self.queue = self._tail.events
        self._reader = Reader(0)
        self._ready: deque[Event] = deque()  # handed out by the reader, and not taken yet
        self._number = 0  # everything up to it was taken or belongs to other topics
        self._waiting = 0
        self._told = False

    def begin(self, after: int | None) -> None:
        """Begin after a number of the log, or now if it is None. Call it once, after the registry has the backlog and
        before the first `get`. Without a log, nobody knows what came after the number: begin with a refresh."""
        if self._log is None:
            if after is not None:
                self.offer(REFRESH_EVENT)
            return
        # Up to `begun`, events may miss this queue: the listener looked up their followers before this one was added.
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
        """The most bytes of payload that may wait, unless a single event has more."""
        return self._tail.max_bytes

    @property
    def number(self) -> int | None:
        """Everything up to this number of the log was taken or belongs to other topics. None without a log."""
        if self._log is None:
            return None
        with self.mutex:
            if not self._ready:
                self._number = self._reader.cursor(self._tail)
            return self._number

    # For the consumer's threads.

    def get(self, block: bool = True, timeout: float | None = None) -> Event:
        """As `queue.Queue.get`."""
        return self._take_or_wait(self._take_one, timeout if block else 0.0)

    def get_all(self, timeout: float | None = None) -> list[Event]:
        """Return all events that wait, including the end. Block for the first one like `get`."""
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
                if self._waiting and self._is_due():  # one thread was woken for several events, others still wait
                    self.not_empty.notify()
            if taken is not None:
                return taken

    def _is_due(self) -> bool:
        """Whether a waiting thread has an event to take, the end, or a question to ask."""
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
        events = self._read()
        if self._ready:
            events = [*self._ready, *events]
            self._ready.clear()
        self._number = self._reader.number
        if self.ended:
            events.append(CLOSE_EVENT)
        return events or None

    def _read(self, until: int | None = None) -> list[Event]:
        events = self._reader.read(self._tail, until)
        self._tail.forget(self._reader.position)
        return events

    def _qsize(self) -> int:
        waiting = 0 if self._reader.behind else self._tail.end_position - self._reader.position
        return len(self._ready) + waiting + self.ended

    # For the listener.

    def offer(self, event: Event) -> bool:
        """Append an event. Never block. Return False if a refresh has replaced the events that waited."""
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
        if news and self._waker is not None:
            self._waker.add(self)
        return room

    def skip(self, after: int, until: int) -> None:
        """See `Consumer`. Without a log, the events that were not offered are lost: a refresh replaces them."""
        if self._log is None:
            self.offer(REFRESH_EVENT)
            return
        with self.mutex:
            if self.ended:
                return
            self._note_idle(after)
            self._tail.leave_to_log(until)
            news = self._note_news()
        if news and self._waker is not None:
            self._waker.add(self)

    def wake(self) -> bool:
        """Wake one waiting thread if there is something for it. Return whether one was woken."""
        with self.mutex:
            self._told = False
            needed = self._waiting > 0 and self._is_due()
            if needed:
                self.not_empty.notify()
        return needed

    def end(self, *, drop: bool = False) -> None:
        """Accept no more events, and `drop` those that wait. Wake all waiting threads. Idempotent. Never block."""
        with self.mutex:
            self.ended = True
            if drop:
                self._ready.clear()
                self._reader = Reader(self._tail.end_position, self._reader.number)
                self._tail.forget(self._tail.end_position)
            self.not_empty.notify_all()

    def _note_news(self) -> bool:
        """Wake a waiting thread. With a waker, return whether to add the queue to it instead."""
        if not self._waiting or self._told:
            return False
        self._told = self._waker is not None
        if self._waker is None:
            self.not_empty.notify()
        return self._told

    def _append_refresh(self) -> bool:
        tail = self._tail
        if tail.events and tail.events[-1] is REFRESH_EVENT:
            tail.renew_refresh()
            return True
        return tail.append_refresh() or self._make_room()

    def _note_idle(self, number: int) -> None:
        """Note that no event up to a number came since the reader reached the end, so it need not ask for them."""
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
        """Take the log's answer, in the log's thread."""
        with self.mutex:
            if self.ended:
                return
            self._ready.extend(self._reader.take(self._tail, question, page))
            if self._is_due():
                self.not_empty.notify()

    def _pass_on(self) -> None:
        """Have the waker wake the next thread. Called by a thread that was woken, and by one that may have taken the
        event of a woken thread, which then waits again."""
        if self._waker is not None:
            self._waker.wake_next()
