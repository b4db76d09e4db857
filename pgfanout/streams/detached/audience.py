"""Audience: the connections of one feed. For the streamer's thread, so nothing here is locked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ...delivery.feed import Feed
from ...delivery.few import Few, Many, copied, excluding, including, members
from ...delivery.log import Page
from ...delivery.reader import Question
from ...event import REFRESH_EVENT, Event
from .. import sse
from .broadcast import Broadcast
from .connection import FORMS, Connection, chunk

__all__ = ["Audience", "FeedError"]


_NO_PAGE: tuple[Page | None, int, dict[sse.Encoder, bytes]] = (None, 0, {})


class FeedError(Exception):
    """An error, the cause of this one, that concerns all connections of a feed."""


@contextmanager
def _reading_feed() -> Iterator[None]:
    """Raise a `FeedError` for every error in here."""
    try:
        yield
    except Exception as error:
        raise FeedError from error


class Audience:
    """The connections of one feed: those that the loop has admitted and not closed.

    The current ones share `reader`: they have everything before its place, or get it with the broadcast. Each of the
    others has a reader of its own until it has come as far.
    """

    __slots__ = (
        "_current",
        "_forms",
        "_page",
        "_replaying",
        "broadcast",
        "ended",
        "feed",
        "reader",
        "size",
        "written_at",
    )

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.reader = feed.reader()
        self._current: Few[Connection] = None
        self._replaying: Few[Connection] = None
        self._forms = 0
        """The forms that connections have had here: bit number `form` is set. A set would be one more object for each
        audience."""
        self._page = _NO_PAGE
        """The last page, as long as connections read the log: how many of its events were put, and their bytes
        for each encoder."""
        self.size = 0
        """How many connections there are, current or not."""
        self.broadcast: Broadcast | None = None
        """What the current ones are about to get. The place of `reader` is behind it already."""
        self.ended = False
        """Whether the feed has ended, and `reader` has read all of it."""
        self.written_at = 0.0
        """When the current ones were written to last."""

    @property
    def current(self) -> tuple[Connection, ...]:
        """The connections that have everything that was read from the feed."""
        return members(self._current)

    @property
    def replaying(self) -> tuple[Connection, ...]:
        """The connections that read the log."""
        return members(self._replaying)

    @property
    def current_size(self) -> int:
        """How many connections are current."""
        return len(self._current) if isinstance(self._current, Many) else self._current is not None

    def is_current(self, connection: Connection) -> bool:
        """Whether a connection has everything that the current ones have."""
        return connection.reader is self.reader

    def join(self, connection: Connection) -> None:
        """Add a connection, which is not current yet."""
        self.size += 1
        self._forms |= 1 << connection.form
        self._note_replay(connection)

    def leave(self, connection: Connection) -> None:
        """Remove a connection."""
        self.exclude(connection)
        self._replaying = excluding(self._replaying, connection)
        self.size -= 1

    def include(self, connection: Connection) -> None:
        """Make an open connection a current one."""
        # The log may have told it more than had been offered when the shared reader came here. All of that is before
        # this position.
        self.reader.advance(connection.reader.number)
        connection.reader = self.reader
        self._current = including(self._current, connection)
        with _reading_feed():
            self._drop_read()

    def exclude(self, connection: Connection) -> None:
        """Give a connection a reader of its own. Idempotent."""
        if self.is_current(connection):
            self._current = excluding(self._current, connection)
            connection.reader = self.reader.copy()
            if self.broadcast is not None and (data := self.broadcast.withdraw(connection)):
                connection.rest = (data, *connection.rest)

    def catch_up(self, connection: Connection) -> bool:
        """Write what a connection lacks, and `close` after it if the feed has ended. Return whether it lacks nothing.
        If not, its socket is full, the log has what comes next, or it is ahead of the current ones.

        Raise `FeedError`, and `OSError` of the connection.
        """
        if not connection.write() or connection.ending:  # nothing is read before what was read has left
            return False
        reader = connection.reader
        with _reading_feed():
            events = self.feed.read(reader, self.reader.position)
            frames = list(map(connection.encoder, events))
        if frames:
            connection.put(*frames)
        self._note_replay(connection)
        if self.ended:
            connection.put_closing()
        return connection.write() and not reader.behind and reader.position <= self.reader.position

    def ask(self, connection: Connection, answer: Callable[[Connection, Question, Page | None], object]) -> bool:
        """Ask the log for the page that a connection needs, unless it has asked already. Return whether it needs one.

        `answer` is called in another thread, with the connection first.
        """

        def wanted(question: Question) -> bool:
            return connection.open and connection.reader.asked is question

        if connection.reader.behind:
            self.feed.ask(connection.reader, partial(answer, connection), wanted)
        return connection.reader.behind

    def take(self, connection: Connection, question: Question, page: Page | None) -> None:
        """Have a page of the log written next. Raises `FeedError`."""
        with _reading_feed():
            events = self.feed.take(connection.reader, question, page)
            if events:
                connection.put(self._framed(page, events, connection.encoder))

    def _framed(self, page: Page | None, events: list[Event], encoder: sse.Encoder) -> bytes:
        # Connections that come back together get the same page, and share its bytes.
        if events[0] is REFRESH_EVENT:
            return sse.encode_all(events)
        if self._page[0] is not page or self._page[1] != len(events):
            self._page = page, len(events), {}
        made = self._page[2]
        if encoder not in made:
            made[encoder] = sse.encode_all(events, encoder)
        return made[encoder]

    def read_news(self) -> tuple[Connection, ...]:
        """Read the feed's news for the current ones, and begin to write them. `write_slice` goes on until there is no
        `broadcast`. Return the connections that have to be advanced on their own."""
        self.ended = self.feed.ended  # asked first: what comes after the end is not taken
        events = self.feed.read(self.reader, readers=self.current_size)
        if self.reader.behind:
            return self._send_to_log()
        if events and self._current is not None:
            self.written_at = time.monotonic()
            self.broadcast = Broadcast(copied(self._current), self._frames(events))
        # A gap ends a replay, whether the log answers or not.
        return self.replaying if any(event is REFRESH_EVENT for event in events) else ()

    def _frames(self, events: list[Event]) -> list[bytes]:
        """Return the events as bytes for each form, b"" for a form that no connection has had. The forms are made here
        and not when they are written, so that an error concerns the feed."""
        frames = [b""] * len(FORMS)
        for form, (encoder, chunked) in enumerate(FORMS):
            if self._forms >> form & 1:
                data = sse.encode_all(events, encoder)
                frames[form] = chunk(data) if chunked else data
        return frames

    def write_slice(self) -> list[tuple[Connection, Exception | None]]:
        """Write one slice of the broadcast. Return the connections that took less, which are not current any more, and
        those that failed, with the error.

        Connections that the broadcast has not reached are current all the same. `exclude` gives them what they lack.
        """
        assert self.broadcast is not None
        short = self.broadcast.write_slice()
        for connection, rest, _ in short:
            self.exclude(connection)
            connection.rest = (rest, *connection.rest)
        if not self.broadcast.left:
            self.broadcast = None
        return [(connection, error) for connection, _, error in short]

    def silent_since(self, connection: Connection) -> float | None:
        """When a connection was written to last. None if it is being written to, or about to be."""
        behind = connection.reader.behind
        if not self.is_current(connection) and (connection.rest or not behind):
            return None
        return connection.since if behind else max(connection.since, self.written_at)

    def finish(self) -> tuple[Connection, ...]:
        """End a round of reading and writing. If the feed has ended, return all connections, each of which has to get
        its `close`. Otherwise drop from the feed what every reader has read, and return nothing."""
        if self.ended:
            return (*self.current, *self.replaying)
        self._drop_read()
        return ()

    def _drop_read(self) -> None:
        """Have the feed drop what all of its readers have read."""
        if self.feed.members == self.current_size:
            self.feed.drop_read(self.reader.position)

    def _send_to_log(self) -> tuple[Connection, ...]:
        """What the current ones need next is gone from the feed."""
        connections = self.current
        for connection in connections:
            self.exclude(connection)
            self._note_replay(connection)
        self.reader = self.feed.reader()
        return connections

    def _note_replay(self, connection: Connection) -> None:
        note = including if connection.reader.behind else excluding
        self._replaying = note(self._replaying, connection)
        if self._replaying is None:
            self._page = _NO_PAGE
