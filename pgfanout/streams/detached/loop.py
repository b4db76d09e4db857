"""Loop: what the streamer's thread has, and does with it."""

from __future__ import annotations

import logging
import os
import random
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from ...delivery.feed import Feed
from ...delivery.log import Page
from ...delivery.reader import Question
from ...event import REFRESH_EVENT, Event
from ...rate_limit import RateLimit
from .. import sse
from ..client import has_vanished
from .audience import Audience
from .connection import Connection
from .wheel import Wheel

__all__ = ["EARLIEST_KEEPALIVE", "Loop"]

logger = logging.getLogger("pgfanout")

_AT_ONCE = 4
"""Answers of the log that are dealt with before news: each may be a lot to write, and news are for everyone else."""

_NEWS_TIME = 0.1
"""Seconds for which news are taken between the slices of broadcasts."""

EARLIEST_KEEPALIVE = 0.9
"""Of the silence that a keepalive ends, the part after which it may come."""

_LOG_PAUSE = 10.0
"""Seconds between two log lines about failures."""

# Where there is no epoll nothing is detached, but the module has to be importable.
_LEFT = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)
_READY = getattr(select, "EPOLLOUT", 0)
_SENT = getattr(select, "EPOLLIN", 0)
_WATCHED = getattr(select, "EPOLLRDHUP", 0) | _SENT


class _FeedError(Exception):
    """An error, the cause of this one, that concerns all who read a feed."""


class Loop:
    """Moves events from feeds to connections. For one thread, but for `watch` and `abandon`.

    A connection belongs to the loop from `admit` until `_let_go`, which takes it out of everything here and closes it.
    `_advance` and `_spread` may let connections go, so neither is done within anything else. What makes one of them
    necessary leaves the connection in `_due` or the feed in `_unread`, and returns. `_settle` does these, one after the
    other, while nothing else holds a connection. `_step` is the only way to do something with a connection: it passes
    over one that was let go.

    An error costs what it concerns: `_step` ends the connection that had it, `_end_feed` all connections of the feed
    that had it. What is raised to the streamer's thread is an error of the loop itself.

    Raises `OSError` when there are no descriptors left for it.
    """

    def __init__(self, wake_descriptor: int, news: deque[Feed] | None = None) -> None:
        """`news` are the feeds of which a listener has told, in any thread."""
        self.connections: dict[int, Connection] = {}
        self._audiences: dict[Feed, Audience] = {}
        self._due: dict[Connection, None] = {}
        """Connections to be advanced; dicts are sets that keep the order."""
        self._unread: dict[Feed, None] = {}
        """Feeds whose news are to be written."""
        self._news: deque[Feed] = deque() if news is None else news
        self._broadcasts: deque[Audience] = deque()
        """Audiences that are being written to, a slice of each in turn."""
        self._wheel: Wheel[Connection] = Wheel()
        self._answers: deque[tuple[Connection, Question, Page | None]] = deque()
        self._last_page: tuple[Page | None, int, bytes] = (None, 0, b"")
        self._complaints = RateLimit(_LOG_PAUSE)
        self._wake_descriptor = wake_descriptor
        self._poll = select.epoll()
        self._poll.register(wake_descriptor, select.EPOLLIN)

    def watch(self, connection: Connection) -> None:
        """Have what happens to its connection end the wait, from now on; from any thread. Raises `OSError`."""
        self._poll.register(connection.descriptor, _WATCHED | _READY if connection.rest else _WATCHED)

    def pause(self) -> float | None:
        """Seconds until a keepalive may be due; None when there is nothing to be kept alive."""
        return self._wheel.wait(time.monotonic())

    def wait(self, pause: float | None) -> list[tuple[int, int]]:
        """Wait so many seconds, or for ever, until something happens; what has happened, by descriptors."""
        return self._poll.poll(0.0 if self._answers else pause)

    def handle(self, events: list[tuple[int, int]]) -> None:
        """Deal with what has happened, right after `wait`: a descriptor that is closed may soon be another's."""
        found = []
        for descriptor, happened in events:
            if descriptor == self._wake_descriptor:
                os.eventfd_read(descriptor)
            elif (connection := self.connections.get(descriptor)) is not None:
                found.append((connection, happened))
        for connection, happened in found:
            self._step(connection, self._react, happened)
        for _ in range(min(len(self._answers), _AT_ONCE)):
            connection, question, page = self._answers.popleft()
            self._step(connection, self._take_answer, question, page)
        self._settle()

    def admit(self, connection: Connection) -> None:
        """Begin with a connection that is watched already."""
        if connection.open:
            self.connections[connection.descriptor] = connection
        self._step(connection, self._begin)
        self._settle()

    def broadcast(self, *feeds: Feed) -> None:
        """Write the news of feeds to everyone who is not behind: of these, and of those of which was told."""
        self._unread.update(dict.fromkeys(feeds))
        self._take_news()
        self._settle()

    def keep_alive(self) -> None:
        """Break the silence of those who have heard nothing for too long."""
        now = time.monotonic()
        for connection in self._wheel.pop_due(now):
            self._step(connection, self._break_silence, now)
        self._settle()

    def cut(self, error: Exception | None = None) -> None:
        """End all connections as they are, whatever state everything is in; because of an error, if there is one."""
        connections = list(self.connections.values())
        self.connections.clear()
        self._audiences.clear()
        self._due.clear()
        self._unread.clear()
        self._broadcasts.clear()
        self._wheel = Wheel()
        for connection in connections:
            self._close(connection, None, failed=error is not None)

    def abandon(self) -> None:
        """In a forked child: close the descriptors, and leave the parent's connections as they are."""
        for descriptor in self.connections:
            os.close(descriptor)
        self._poll.close()

    # Steps, and what they cost when they fail.

    def _settle(self) -> None:
        """Do what is due until nothing is. News come first: a connection may be due because it waits for them.

        Between two slices of a broadcast other feeds have their turn, also those whose news have come meanwhile; but
        not for ever, since the sockets wait.
        """
        deadline = time.monotonic() + _NEWS_TIME
        while self._unread or self._due or self._broadcasts:
            if self._unread:
                feed = next(iter(self._unread))
                del self._unread[feed]
                self._spread(feed)
            elif self._due:
                connection = next(iter(self._due))
                del self._due[connection]
                self._step(connection, self._advance)
            else:
                self._write_slice(self._broadcasts.popleft())
                if self._broadcasts and self._news and time.monotonic() < deadline:
                    self._take_news()

    def _take_news(self) -> None:
        while self._news:
            self._unread[self._news.popleft()] = None

    def _audience_of(self, connection: Connection) -> Audience:
        return self._audiences[connection.feed]

    def _step(self, connection: Connection, do: Callable[..., None], *arguments: Any) -> None:
        """Do something with a connection, unless it was let go. An error ends its connection, or its feed's."""
        if not connection.open:
            return
        try:
            do(connection, *arguments)
        except _FeedError as failure:
            self._end_feed(connection.feed, failure)
        except OSError as error:  # of its connection, which the client or the network may end at any time
            self._let_go(connection, error)
        except Exception as error:
            self._complain("a stream failed and is cut", error)
            self._let_go(connection, error, failed=True)

    def _end_feed(self, feed: Feed, failure: _FeedError) -> None:
        self._complain("a feed failed; its streams are cut", failure.__cause__)
        for connection in [connection for connection in self.connections.values() if connection.feed is feed]:
            self._let_go(connection, None, failed=True)

    def _complain(self, what: str, error: BaseException | None) -> None:
        with suppress(Exception):  # the application's log handlers
            held_back = self._complaints.take()
            if held_back is not None:
                words = "%s, and browsers come back (%d more failures since the last line)"
                logger.error(words, what, held_back, exc_info=error)

    # The steps of one connection.

    def _begin(self, connection: Connection) -> None:
        audience = self._audiences.get(connection.feed)
        if audience is None:
            audience = self._audiences[connection.feed] = self._new_audience(connection.feed)
            self._unread[connection.feed] = None  # news that came before it found nobody to read them
        audience.join(connection)
        connection.waiting = bool(connection.rest)
        self._schedule(connection, connection.since)
        self._due[connection] = None

    def _new_audience(self, feed: Feed) -> Audience:
        with _of_feed():
            return Audience(feed)

    def _react(self, connection: Connection, happened: int) -> None:
        """Deal with what has happened to its connection."""
        if happened & _LEFT:
            self._let_go(connection, connection.error())
        elif happened & _SENT and not connection.drop_input():
            logger.debug("a client sent too much to its stream and is let go")
            self._let_go(connection, None)
        elif happened & _READY:
            self._due[connection] = None

    def _break_silence(self, connection: Connection, now: float) -> None:
        audience = self._audience_of(connection)
        last = max(connection.since, audience.written_at if not connection.reader.behind else 0.0)
        if not audience.is_current(connection) and (connection.rest or not connection.reader.behind):
            self._schedule(connection, now)  # it has enough to do
        elif last + EARLIEST_KEEPALIVE * connection.keepalive - Wheel.TICK > now:
            self._schedule(connection, last)
        else:
            self._schedule(connection, now)
            connection.put_keepalive(0 if connection.reader.behind else audience.feed.cursor(audience.reader))
            self._due[connection] = None

    def _schedule(self, connection: Connection, since: float) -> None:
        """Look at it again when it has been silent long enough; with jitter, so that many who were
        written to at once don't come up at once."""
        connection.since = max(connection.since, since)
        self._wheel.add(connection, since + connection.keepalive * random.uniform(EARLIEST_KEEPALIVE, 1.0))

    def _advance(self, connection: Connection) -> None:
        """Write what it has not got yet, as far as its socket takes it; it is current then, or behind."""
        audience = self._audience_of(connection)
        audience.exclude(connection)
        done = self._catch_up(connection, audience)
        if connection.rest:
            self._await_room(connection)
        elif connection.ending:
            self._let_go(connection, None)
        else:
            if connection.waiting:
                connection.since, connection.waiting = time.monotonic(), False
                self._poll.modify(connection.descriptor, _WATCHED)
            if done:
                audience.include(connection)

    def _catch_up(self, connection: Connection, audience: Audience) -> bool:
        """Whether it has everything that its audience has, and the farewell if that is the end. If not, its socket is
        full, the log is about to answer, or its feed's news come first."""
        if not connection.write():
            return False
        here = self._put_news(connection, audience)
        if not (connection.write() and (here or audience.ended)):
            return False
        if audience.ended and not connection.ending:
            connection.put_farewell()
        return connection.write()

    def _put_news(self, connection: Connection, audience: Audience) -> bool:
        """Put what comes next for it, as far as its audience has come. Whether it has come as far, too."""
        feed, reader = connection.feed, connection.reader
        with _of_feed():
            events = feed.read(reader, audience.reader.position)
            frames = list(map(sse.encode, events))
        if frames:
            connection.put(*frames)
        audience.note_replay(connection)
        if reader.behind:
            if not audience.ended:
                self._ask(connection)
            return False
        if reader.position > audience.reader.position:  # its feed's news come first
            self._unread[feed] = self._due[connection] = None
            return False
        return True

    def _await_room(self, connection: Connection) -> None:
        if not connection.waiting:
            connection.waiting = True
            self._poll.modify(connection.descriptor, _WATCHED | _READY)

    # What the log is for: connections whose next events the feed does not have.

    def _ask(self, connection: Connection) -> None:
        def wanted(question: Question) -> bool:
            return connection.open and connection.reader.asked is question

        connection.feed.ask(connection.reader, partial(self._answer, connection), wanted)

    def _answer(self, connection: Connection, question: Question, page: Page | None) -> None:
        """In the log's thread."""
        self._answers.append((connection, question, page))
        os.eventfd_write(self._wake_descriptor, 1)

    def _take_answer(self, connection: Connection, question: Question, page: Page | None) -> None:
        if question is connection.reader.asked:  # otherwise it came too late
            with _of_feed():
                events = connection.feed.take(connection.reader, question, page)
            if events:
                connection.put(self._framed(page, events))
            self._due[connection] = None

    def _framed(self, page: Page | None, events: list[Event]) -> bytes:
        """The bytes of what a page has brought. Connections that come back together share a page's."""
        if events[0] is REFRESH_EVENT:
            return sse.encode_all(events)
        if self._last_page[0] is not page or self._last_page[1] != len(events):
            self._last_page = page, len(events), sse.encode_all(events)
        return self._last_page[2]

    # The steps of a feed, and the end of a connection.

    def _spread(self, feed: Feed) -> None:
        audience = self._audiences.get(feed)
        if audience is None:
            return  # its first reader has not arrived yet, and will read
        if audience.broadcast is not None:
            audience.has_news = True
            return
        try:
            with _of_feed():
                self._write_news(audience)
        except _FeedError as failure:
            self._end_feed(feed, failure)

    def _write_news(self, audience: Audience) -> None:
        feed = audience.feed
        audience.ended = feed.ended  # asked first: what comes after the end is not taken
        events = feed.read(audience.reader, readers=audience.current_size)
        if audience.reader.behind:
            self._send_to_log(audience)
            return
        if any(event is REFRESH_EVENT for event in events):
            self._due.update(audience.replaying)  # a gap ends a replay, whether the log answers or not
        if events and audience.current_size:
            audience.written_at = time.monotonic()
            audience.start(sse.encode_all(events))
            self._broadcasts.append(audience)
        else:
            self._end_broadcast(audience)

    def _write_slice(self, audience: Audience) -> None:
        if audience.broadcast is not None:
            written = audience.write_slice()
            for connection, _ in written.rests:
                self._step(connection, self._await_room)
            for connection, error in written.failures:
                self._step(connection, _fail, error)
        if audience.broadcast is not None:
            self._broadcasts.append(audience)
        elif audience.size:
            try:
                with _of_feed():
                    self._end_broadcast(audience)
            except _FeedError as failure:
                self._end_feed(audience.feed, failure)

    def _end_broadcast(self, audience: Audience) -> None:
        """Everyone who is current has what was read, or takes it along."""
        if audience.ended:
            self._due.update(dict.fromkeys((*audience.all_current(), *audience.replaying)))
        elif audience.feed.members == audience.current_size:
            audience.feed.drop_read(audience.reader.position)
        if audience.has_news:
            audience.has_news = False
            self._news.append(audience.feed)

    def _send_to_log(self, audience: Audience) -> None:
        """What the current ones need next is gone from the feed."""
        for connection in audience.all_current():
            audience.exclude(connection)
            audience.note_replay(connection)
            self._due[connection] = None
        audience.reader = audience.feed.reader()

    def _let_go(self, connection: Connection, error: BaseException | None, *, failed: bool = False) -> None:
        """End a connection, for whatever reason; the last that is done with it. Idempotent."""
        if self.connections.get(connection.descriptor) is not connection:
            return
        del self.connections[connection.descriptor]
        self._due.pop(connection, None)
        self._wheel.discard(connection)
        audience = self._audiences.get(connection.feed)
        if audience is not None:
            audience.leave(connection)
            if not audience.size:
                del self._audiences[connection.feed]
        self._close(connection, error, failed=failed)

    def _close(self, connection: Connection, error: BaseException | None, *, failed: bool) -> None:
        # A forked child may still have the descriptor, so closing it would not be enough.
        with suppress(OSError):
            self._poll.unregister(connection.descriptor)
        try:
            if failed:
                connection.feed.count_failure()
            connection.close(stalled=has_vanished(error))
        except Exception as another:
            self._complain("the end of a stream failed", another)


@contextmanager
def _of_feed() -> Iterator[None]:
    """What fails in here concerns all who read the feed."""
    try:
        yield
    except Exception as error:
        raise _FeedError from error


def _fail(connection: Connection, error: Exception) -> None:
    raise error
