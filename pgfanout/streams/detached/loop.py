"""Loop: what the streamer's thread has, and does with it."""

from __future__ import annotations

import logging
import os
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...delivery.feed import Feed
from ...delivery.log import Page
from ...delivery.reader import Question
from ...rate_limit import RateLimit
from ..client import has_vanished
from .audience import Audience, FeedError
from .connection import Connection
from .mailbox import EARLIEST_KEEPALIVE, Mailbox
from .poller import LEFT, READY, SENT, Poller
from .wheel import Wheel

__all__ = ["Loop"]

logger = logging.getLogger("pgfanout")

_AT_ONCE = 4
"""Answers of the log that are dealt with before news: each may be a lot to write, and news are for everyone else."""

_NEWS_TIME = 0.1
"""Seconds for which news are taken between the slices of broadcasts."""

_LOG_PAUSE = 10.0
"""Seconds between two log lines about failures of one kind."""


class Loop:
    """Moves events from feeds to connections. For one thread, but for `abandon`.

    A connection belongs to the loop from `admit` until `_close`, which takes it out of everything here. `_advance` and
    `_spread` may close connections, so neither is done within anything else. What makes one of them necessary leaves
    the connection in `_due` or the feed in `_unread`, and returns. `_work` does these, one after the other, while
    nothing else holds a connection. `_step` is the only way to do something with a connection: it passes over one that
    was closed.

    An error costs what it concerns: `_step` closes the connection that had it, `_end_feed` all connections of the feed
    that had it. What is raised to the streamer's thread is an error of the loop itself.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        """The mailbox has its descriptor. Raises `OSError` when there is none left for the loop."""
        self.connections: dict[int, Connection] = {}
        self._audiences: dict[Feed, Audience] = {}
        self._due: dict[Connection, None] = {}
        """Connections to be advanced; dicts are sets that keep the order."""
        self._unread: dict[Feed, None] = {}
        """Feeds whose news are to be written."""
        self._broadcasts: deque[Audience] = deque()
        """Audiences that are being written to, a slice of each in turn."""
        self._wheel: Wheel[Connection] = Wheel()
        self._log_lines: defaultdict[str, RateLimit] = defaultdict(lambda: RateLimit(_LOG_PAUSE))
        self._mailbox = mailbox
        self.poller = Poller(mailbox.descriptor)

    def pause(self) -> float | None:
        """Seconds until a keepalive may be due; None when there is nothing to be kept alive."""
        return self._wheel.wait(time.monotonic())

    def handle(self, events: list[tuple[int, int]]) -> None:
        """Deal with what has happened, right after `wait`: a descriptor that is closed may soon be another's."""
        found = []
        for descriptor, happened in events:
            if descriptor == self._mailbox.descriptor:
                os.eventfd_read(descriptor)
            elif (connection := self.connections.get(descriptor)) is not None:
                found.append((connection, happened))
        for connection, happened in found:
            self._step(connection, self._react, happened)
        answers = self._mailbox.answers
        for _ in range(min(len(answers), _AT_ONCE)):
            connection, question, page = answers.popleft()
            self._step(connection, self._take, question, page)
        self._work()

    def admit_arrivals(self, seconds: float) -> None:
        """Admit the connections that have arrived, and stop after so many seconds."""
        deadline = time.monotonic() + seconds
        arrivals = self._mailbox.arrivals
        for _ in range(len(arrivals)):
            self.admit(arrivals.popleft())
            if time.monotonic() > deadline:
                break

    def admit(self, connection: Connection) -> None:
        """Begin with a connection that is watched already."""
        if connection.open:
            self.connections[connection.descriptor] = connection
        self._step(connection, self._begin)
        self._work()

    def broadcast(self, *feeds: Feed) -> None:
        """Write the news of feeds to the connections that are current: of these, and of those in the mailbox."""
        self._unread.update(dict.fromkeys(feeds))
        self._take_news()
        self._work()

    def keep_alive(self) -> None:
        """Break the silence of the connections that have had nothing for too long."""
        now = time.monotonic()
        for connection in self._wheel.pop_due(now):
            self._step(connection, self._break_silence, now)
        self._work()

    def cut(self, error: Exception | None = None) -> None:
        """End all connections as they are, whatever state everything is in; because of an error, if there is one."""
        arrivals = self._mailbox.arrivals
        connections = [*self.connections.values(), *(arrivals.popleft() for _ in range(len(arrivals)))]
        for each in (self.connections, self._audiences, self._due, self._unread, self._broadcasts):
            each.clear()
        self._wheel = Wheel()
        for connection in connections:
            self._end(connection, failed=error is not None)

    def abandon(self) -> None:
        """In a forked child: close the descriptors, and leave the parent's connections as they are."""
        for descriptor in self.connections:
            os.close(descriptor)
        self.poller.close()

    # What is due, and what it costs when it fails.

    def _work(self) -> None:
        """Do what is due until nothing is, in rounds. News come first: a connection may be due because it waits for
        them. A broadcast gets one slice in each round, so that nothing that is due again and again can stop it.

        Between two slices other feeds have their turn, also those whose news have come meanwhile; but not for ever,
        since the sockets wait.
        """
        deadline = time.monotonic() + _NEWS_TIME
        while self._unread or self._due or self._broadcasts:
            unread, self._unread = self._unread, {}
            for feed in unread:
                if (audience := self._audiences.get(feed)) is not None:  # otherwise its first connection will read
                    self._feed_step(audience, self._spread)
            due, self._due = self._due, {}
            for connection in due:
                self._step(connection, self._advance)
            if self._broadcasts:
                self._feed_step(self._broadcasts.popleft(), self._write_slice)
                if self._broadcasts and self._mailbox.feeds and time.monotonic() < deadline:
                    self._take_news()

    def _take_news(self) -> None:
        feeds = self._mailbox.feeds
        while feeds:
            self._unread[feeds.popleft()] = None

    def _step(self, connection: Connection, do: Callable[..., None], *arguments: Any) -> None:
        """Do something with a connection, unless it was closed. An error ends it, or all of its feed."""
        if not connection.open:
            return
        try:
            do(connection, *arguments)
        except FeedError as failure:
            self._end_feed(connection.feed, failure.__cause__)
        except Exception as error:
            self._fail(connection, error)

    def _feed_step(self, audience: Audience, do: Callable[[Audience], None]) -> None:
        """Do something with an audience. An error ends all of it."""
        try:
            do(audience)
        except Exception as error:
            self._end_feed(audience.feed, error)

    def _fail(self, connection: Connection, error: Exception) -> None:
        failed = not isinstance(error, OSError)  # the client or the network may end a connection at any time
        if failed:
            self.log_failure("a stream failed and is cut", error)
        self._close(connection, stalled=has_vanished(error), failed=failed)

    def _end_feed(self, feed: Feed, error: BaseException | None) -> None:
        self.log_failure("a feed failed; its streams are cut", error)
        for connection in [each for each in self.connections.values() if each.feed is feed]:
            self._close(connection, failed=True)

    def log_failure(self, what: str, error: BaseException | None) -> None:
        """Log what has failed and what becomes of it, at a bounded rate. Raises nothing."""
        with suppress(Exception):  # the application's log handlers
            held_back = self._log_lines[what].take()
            if held_back is not None:
                words = "%s, and browsers come back (%d more failures since the last line)"
                logger.error(words, what, held_back, exc_info=error)

    # The steps of a connection.

    def _begin(self, connection: Connection) -> None:
        audience = self._audiences.get(connection.feed)
        if audience is None:
            audience = self._audiences[connection.feed] = Audience(connection.feed)
            self._unread[connection.feed] = None  # it may have ended before, and says so once
        audience.join(connection)
        self._schedule(connection, connection.since)
        self._due[connection] = None

    def _react(self, connection: Connection, happened: int) -> None:
        """Deal with what has happened to its socket."""
        if happened & LEFT:
            self._close(connection, stalled=has_vanished(connection.error()))
        elif happened & SENT and not connection.drop_input():
            logger.debug("a client has sent too much to its stream, which is cut")
            self._close(connection)
        elif happened & READY:
            self._due[connection] = None

    def _break_silence(self, connection: Connection, now: float) -> None:
        audience = self._audiences[connection.feed]
        since = audience.silent_since(connection)
        if since is None:
            self._schedule(connection, now)  # it has enough to do
        elif since + EARLIEST_KEEPALIVE * connection.keepalive - Wheel.TICK > now:
            self._schedule(connection, since)
        else:
            self._schedule(connection, now)
            connection.put_keepalive(0 if connection.reader.behind else audience.feed.cursor(audience.reader))
            self._due[connection] = None

    def _schedule(self, connection: Connection, since: float) -> None:
        """Look at it again when it has been silent long enough. The jitter parts those that were written to at once."""
        connection.since = max(connection.since, since)
        self._wheel.add(connection, since + connection.keepalive * random.uniform(EARLIEST_KEEPALIVE, 1.0))

    def _advance(self, connection: Connection) -> None:
        """Write what it has not got yet, as far as its socket takes it; it is current then, or behind."""
        audience = self._audiences[connection.feed]
        audience.exclude(connection)
        current = audience.catch_up(connection)
        if connection.ending and not connection.rest:
            self._close(connection)
            return
        self.poller.watch_room(connection)
        if current:
            audience.include(connection)
        elif not connection.rest and not audience.ask(connection, self._mailbox.put_answer):
            # A refresh has taken it further than the others: the feed's news come first.
            self._unread[connection.feed] = self._due[connection] = None

    def _take(self, connection: Connection, question: Question, page: Page | None) -> None:
        if question is connection.reader.asked:  # otherwise it came too late
            self._audiences[connection.feed].take(connection, question, page)
            self._due[connection] = None

    # The steps of a feed, and the end of a connection.

    def _spread(self, audience: Audience) -> None:
        if audience.broadcast is None:  # otherwise the news are read when it is done
            self._due.update(dict.fromkeys(audience.read_news()))
            self._go_on(audience)

    def _write_slice(self, audience: Audience) -> None:
        for connection, error in audience.write_slice():
            if error is None:
                self._step(connection, self.poller.watch_room)
            else:
                self._fail(connection, error)
        self._go_on(audience)

    def _go_on(self, audience: Audience) -> None:
        if audience.broadcast is not None:
            self._broadcasts.append(audience)
        elif audience.size:
            self._due.update(dict.fromkeys(audience.finish()))
            if not audience.ended and audience.feed.has_news(audience.reader):
                # They came during the broadcast. The sockets come first: a hot feed must not have all time.
                self._mailbox.feeds.append(audience.feed)

    def _close(self, connection: Connection, *, stalled: bool = False, failed: bool = False) -> None:
        """Take a connection out of everything and end it, for whatever reason. Idempotent."""
        if not connection.open:
            return
        self.connections.pop(connection.descriptor, None)
        self._due.pop(connection, None)
        self._wheel.discard(connection)
        audience = self._audiences.get(connection.feed)
        if audience is not None:
            audience.leave(connection)
            if not audience.size:
                del self._audiences[connection.feed]
        self._end(connection, stalled=stalled, failed=failed)

    def _end(self, connection: Connection, *, stalled: bool = False, failed: bool = False) -> None:
        self.poller.unwatch(connection)
        try:
            if failed:
                connection.feed.count_failure()
            connection.close(stalled=stalled)
        except Exception as error:
            self.log_failure("the end of a stream failed", error)
