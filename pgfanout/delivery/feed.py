"""Feed: the tail of one set of topics, held once for all readers that follow exactly these."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from ..event import REFRESH_EVENT, Event
from ..topic import Topic
from .log import Log, Page
from .reader import Question, Reader
from .tail import BUFFER_BYTES, Tail

__all__ = ["Feed", "Mailbox"]


_NO_EVENTS: Final[list[Event]] = []
"""What a feed has that has nothing. Never appended to: a list for each of thousands of idle feeds would be in the
garbage collector's way."""


class Owner(Protocol):
    """The registry that a feed is in."""

    def leave(self, consumer: Feed, *, stalled: bool = False) -> None:
        """Note that a reader has left."""

    def count_refreshes(self, count: int) -> None:
        """Count refreshes of readers that were too slow."""

    def count_failure(self) -> None:
        """Count a reader that ends because of an error in pgfanout."""

    def count_followers(self, change: int) -> None:
        """Count readers that keep a thread."""


class Mailbox(Protocol):
    """Of the thread that reads the feeds of a hub."""

    def news(self, feed: Feed) -> None:
        """Note that a feed has something to read. Called once until the feed is read. Never blocks."""

    def wake(self) -> None:
        """Have the thread read the feeds that were noted. Never blocks."""


class ThreadOfReader(Protocol):
    """A reader of the feed that has a thread of its own."""

    def news(self) -> None:
        """Note that there is something to read. Never blocks."""


class Feed(Tail):
    """A tail with a lock, so that the listener appends while the thread of the readers reads.

    An event costs the listener one append, however many readers there are. A reader that stalls keeps no event in
    memory that the others don't. Each reader gets a refresh, or has to read the log, as if it had a queue of `size`
    events of its own.

    `members` is the number of readers; the registry writes it.

    `_lock` guards the tail and the attributes below it, and the readers while they read. It is held for a few
    operations on a list.
    """

    __slots__ = ("_ended", "_followers", "_lock", "_mailbox", "_notified", "_owner", "_topics", "early", "members")

    def __init__(
        self,
        size: int,
        mailbox: Mailbox,
        owner: Owner,
        topics: Sequence[Topic] = (),
        log: Log | None = None,
        *,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        super().__init__(size, buffer_bytes, log)
        self.events = _NO_EVENTS
        self.members = 0
        self.early = False
        """Whether its readers came before the hub listened for the first time. The first refresh ends that. Until then
        they get no number, since nobody knows what they have missed."""
        self._topics = topics
        self._mailbox = mailbox
        self._owner = owner
        self._lock = threading.Lock()
        self._followers: tuple[ThreadOfReader, ...] = ()
        self._ended = False
        self._notified = False

    # For the listener, and for threads that bring a reader.

    def begin(self) -> None:
        """Note that events are offered from now on. Idempotent."""
        begun = self.begun
        with self._lock:
            if self.floor < 0:
                self.floor = begun

    def offer(self, event: Event) -> bool:
        """Append an event. Never blocks. Always return True: a reader finds out when it reads that it was too slow."""
        with self._lock:
            if self._ended:
                return True
            if self.events is _NO_EVENTS:
                self.events = []
            if event is REFRESH_EVENT:
                self.early = False
                self.append_refresh()
            else:
                self.events.append(event)  # as `append`, without its look at the bounds: only a reader can be too slow
                self.bytes += len(event.payload)
            if len(self.events) >= 2 * self.size or self.bytes > self.max_bytes:  # seldom, since it takes its time
                self.fit()
            notified, self._notified = self._notified, True
        if not notified or self._followers:
            self._notify(notified)
        return True

    def skip(self, after: int, until: int) -> None:
        """Have every reader read the log for what it has not read: the events after one number, up to another, are not
        offered. Never blocks."""
        with self._lock:
            if self._ended:
                return
            self.leave_to_log(until)
            notified, self._notified = self._notified, True
        self._notify(notified)

    def end(self) -> None:
        """Take no further event. Readers get what is in the feed, and then see `ended`."""
        with self._lock:
            self._ended = True
        self._notify(False)

    @property
    def ended(self) -> bool:
        """Whether no further event will come. Events in the feed may still be read."""
        return self._ended

    @property
    def offered(self) -> int:
        """See `Tail.offered`; 0 as long as the feed is early."""
        return 0 if self.early else super().offered

    # For the thread of the readers, and for threads that bring one.

    def reader(self, after: int | None = None) -> Reader:
        """Return a new reader, from now on or `after` a number from outside. An early feed ignores the number, since
        its readers begin with a refresh."""
        with self._lock:
            if after is not None and not self.early:
                return Reader.after(after, self)
            return Reader(self.end_position, self.offered)

    def read(self, reader: Reader, until: int | None = None, readers: int = 1) -> list[Event]:
        """See `Reader.read`. `readers` is how many consumers share this reader."""
        with self._lock:
            if until is None:
                self._notified = False
            events = reader.read(self, until)
        self._count_refreshes(reader, readers)
        return events

    def ask(
        self, reader: Reader, answer: Callable[[Question, Page | None], object], wanted: Callable[[Question], bool]
    ) -> None:
        """Ask the log for the page that a reader needs, if it needs one now. Other threads call `answer` and `wanted`
        with the question; see `Log.ask`."""
        question = reader.ask()
        if question is not None:
            assert self.log is not None
            self.log.ask(
                self._topics,
                question.after,
                partial(answer, question),
                known=question.known,
                again=question.again,
                wanted=partial(wanted, question),
            )

    def take(self, reader: Reader, question: Question, page: Page | None) -> list[Event]:
        """See `Reader.take`."""
        with self._lock:
            events = reader.take(self, question, page)
        self._count_refreshes(reader, 1)
        return events

    def cursor(self, reader: Reader) -> int:
        """See `Reader.cursor`."""
        with self._lock:
            return reader.cursor(self)

    def has_news(self, reader: Reader) -> bool:
        """Whether a reader has something to read, or to ask."""
        return reader.behind or self.end_position > reader.position or self._ended

    def drop_read(self, position: int) -> None:
        """Drop the events before a position that every reader has passed."""
        with self._lock:
            self.forget(position)
            if not self.events:
                self.events = _NO_EVENTS

    def count_failure(self) -> None:
        """Count a reader that ends because of an error in pgfanout."""
        self._owner.count_failure()

    def leave(self, *, stalled: bool = False) -> None:
        """Note that a reader has left, because its client has `stalled` or not. Call it once for each reader."""
        self._owner.leave(self, stalled=stalled)

    def add_follower(self, follower: ThreadOfReader) -> None:
        """Notify a reader that has a thread of its own, too."""
        with self._lock:
            self._followers = (*self._followers, follower)
        self._owner.count_followers(1)

    def remove_follower(self, follower: ThreadOfReader) -> None:
        """Undo `add_follower`."""
        with self._lock:
            self._followers = tuple(each for each in self._followers if each is not follower)
        self._owner.count_followers(-1)

    def _notify(self, notified: bool) -> None:
        if not notified:
            self._mailbox.news(self)
        for follower in self._followers:
            follower.news()

    def _count_refreshes(self, reader: Reader, readers: int) -> None:
        if reader.refreshes:
            count, reader.refreshes = reader.refreshes, 0
            self._owner.count_refreshes(count * readers)
