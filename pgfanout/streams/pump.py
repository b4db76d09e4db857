"""Pump: what the streamer's thread has, and does with it."""

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

from ..delivery.feed import Feed
from ..delivery.log import Page
from ..delivery.reader import Question
from ..event import REFRESH_EVENT, Event
from ..rate_limit import RateLimit
from . import sse
from .audience import Audience
from .client import has_vanished
from .outlet import Outlet
from .wheel import Wheel

__all__ = ["EARLIEST_KEEPALIVE", "Pump"]

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


class Pump:
    """Moves events from feeds to outlets. For one thread, but for `watch` and `abandon`.

    An outlet belongs to the pump from `admit` until `_let_go`, which takes it out of everything here and closes it.
    `_advance` and `_spread` may let outlets go, so neither is done within anything else. What makes one of them
    necessary leaves the outlet in `_due` or the feed in `_unread`, and returns. `_settle` does these, one after the
    other, while nothing else holds an outlet. `_step` is the only way to do something with an outlet: it passes over
    one that was let go.

    An error costs what it concerns: `_step` ends the outlet that had it, `_end_feed` all outlets of the feed that had
    it. What is raised to the streamer's thread is an error of the loop itself.

    Raises `OSError` when there are no descriptors left for it.
    """

    def __init__(self, wake_descriptor: int, news: deque[Feed] | None = None) -> None:
        """`news` are the feeds of which a listener has told, in any thread."""
        self.outlets: dict[int, Outlet] = {}
        self._audiences: dict[Feed, Audience] = {}
        self._due: dict[Outlet, None] = {}
        """Outlets to be advanced; dicts are sets that keep the order."""
        self._unread: dict[Feed, None] = {}
        """Feeds whose news are to be written."""
        self._news: deque[Feed] = deque() if news is None else news
        self._broadcasts: deque[Audience] = deque()
        """Audiences that are being written to, a slice of each in turn."""
        self._wheel: Wheel[Outlet] = Wheel()
        self._answers: deque[tuple[Outlet, Question, Page | None]] = deque()
        self._last_page: tuple[Page | None, int, bytes] = (None, 0, b"")
        self._complaints = RateLimit(_LOG_PAUSE)
        self._wake_descriptor = wake_descriptor
        self._poll = select.epoll()
        self._poll.register(wake_descriptor, select.EPOLLIN)

    def watch(self, outlet: Outlet) -> None:
        """Have what happens to its connection end the wait, from now on; from any thread. Raises `OSError`."""
        self._poll.register(outlet.descriptor, _WATCHED | _READY if outlet.rest else _WATCHED)

    def pause(self) -> float | None:
        """Seconds until a keepalive may be due; None when there is nothing to be kept alive."""
        return self._wheel.wait(time.monotonic())

    def wait(self, pause: float | None) -> list[tuple[int, int]]:
        """Wait so many seconds, or for ever, until something happens; what has happened, by descriptors."""
        return self._poll.poll(0.0 if self._answers else pause)

    def handle(self, events: list[tuple[int, int]]) -> None:
        """Deal with what has happened, right after `wait`: a descriptor that is closed may soon be another outlet's."""
        found = []
        for descriptor, happened in events:
            if descriptor == self._wake_descriptor:
                os.eventfd_read(descriptor)
            elif (outlet := self.outlets.get(descriptor)) is not None:
                found.append((outlet, happened))
        for outlet, happened in found:
            self._step(outlet, self._react, happened)
        for _ in range(min(len(self._answers), _AT_ONCE)):
            outlet, question, page = self._answers.popleft()
            self._step(outlet, self._take_answer, question, page)
        self._settle()

    def admit(self, outlet: Outlet) -> None:
        """Begin with an outlet that is watched already."""
        if outlet.open:
            self.outlets[outlet.descriptor] = outlet
        self._step(outlet, self._begin)
        self._settle()

    def broadcast(self, *feeds: Feed) -> None:
        """Write the news of feeds to everyone who is not behind: of these, and of those of which was told."""
        self._unread.update(dict.fromkeys(feeds))
        self._take_news()
        self._settle()

    def keep_alive(self) -> None:
        """Break the silence of those who have heard nothing for too long."""
        now = time.monotonic()
        for outlet in self._wheel.pop_due(now):
            self._step(outlet, self._break_silence, now)
        self._settle()

    def cut(self, error: Exception | None = None) -> None:
        """End all connections as they are, whatever state everything is in; because of an error, if there is one."""
        outlets = list(self.outlets.values())
        self.outlets.clear()
        self._audiences.clear()
        self._due.clear()
        self._unread.clear()
        self._broadcasts.clear()
        self._wheel = Wheel()
        for outlet in outlets:
            self._close(outlet, None, failed=error is not None)

    def abandon(self) -> None:
        """In a forked child: close the descriptors, and leave the parent's connections as they are."""
        for descriptor in self.outlets:
            os.close(descriptor)
        self._poll.close()

    # Steps, and what they cost when they fail.

    def _settle(self) -> None:
        """Do what is due until nothing is. News come first: an outlet may be due because it waits for them.

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
                outlet = next(iter(self._due))
                del self._due[outlet]
                self._step(outlet, self._advance)
            else:
                self._write_slice(self._broadcasts.popleft())
                if self._broadcasts and self._news and time.monotonic() < deadline:
                    self._take_news()

    def _take_news(self) -> None:
        while self._news:
            self._unread[self._news.popleft()] = None

    def _audience_of(self, outlet: Outlet) -> Audience:
        return self._audiences[outlet.feed]

    def _step(self, outlet: Outlet, do: Callable[..., None], *arguments: Any) -> None:
        """Do something with an outlet, unless it was let go. An error ends its connection, or its feed's."""
        if not outlet.open:
            return
        try:
            do(outlet, *arguments)
        except _FeedError as failure:
            self._end_feed(outlet.feed, failure)
        except OSError as error:  # of its connection, which the client or the network may end at any time
            self._let_go(outlet, error)
        except Exception as error:
            self._complain("a stream failed and is cut", error)
            self._let_go(outlet, error, failed=True)

    def _end_feed(self, feed: Feed, failure: _FeedError) -> None:
        self._complain("a feed failed; its streams are cut", failure.__cause__)
        for outlet in [outlet for outlet in self.outlets.values() if outlet.feed is feed]:
            self._let_go(outlet, None, failed=True)

    def _complain(self, what: str, error: BaseException | None) -> None:
        with suppress(Exception):  # the application's log handlers
            held_back = self._complaints.take()
            if held_back is not None:
                words = "%s, and browsers come back (%d more failures since the last line)"
                logger.error(words, what, held_back, exc_info=error)

    # The steps of one outlet.

    def _begin(self, outlet: Outlet) -> None:
        audience = self._audiences.get(outlet.feed)
        if audience is None:
            audience = self._audiences[outlet.feed] = self._new_audience(outlet.feed)
            self._unread[outlet.feed] = None  # news that came before it found nobody to read them
        audience.join(outlet)
        outlet.waiting = bool(outlet.rest)
        self._schedule(outlet, outlet.since)
        self._due[outlet] = None

    def _new_audience(self, feed: Feed) -> Audience:
        with _of_feed():
            return Audience(feed)

    def _react(self, outlet: Outlet, happened: int) -> None:
        """Deal with what has happened to its connection."""
        if happened & _LEFT:
            self._let_go(outlet, outlet.error())
        elif happened & _SENT and not outlet.drop_input():
            logger.debug("a client sent too much to its stream and is let go")
            self._let_go(outlet, None)
        elif happened & _READY:
            self._due[outlet] = None

    def _break_silence(self, outlet: Outlet, now: float) -> None:
        audience = self._audience_of(outlet)
        last = max(outlet.since, audience.written_at if not outlet.reader.behind else 0.0)
        if not audience.is_current(outlet) and (outlet.rest or not outlet.reader.behind):
            self._schedule(outlet, now)  # it has enough to do
        elif last + EARLIEST_KEEPALIVE * outlet.keepalive - Wheel.TICK > now:
            self._schedule(outlet, last)
        else:
            self._schedule(outlet, now)
            outlet.put_keepalive(0 if outlet.reader.behind else audience.feed.cursor(audience.reader))
            self._due[outlet] = None

    def _schedule(self, outlet: Outlet, since: float) -> None:
        """Look at it again when it has been silent long enough; with jitter, so that many who were
        written to at once don't come up at once."""
        outlet.since = max(outlet.since, since)
        self._wheel.add(outlet, since + outlet.keepalive * random.uniform(EARLIEST_KEEPALIVE, 1.0))

    def _advance(self, outlet: Outlet) -> None:
        """Write what it has not got yet, as far as its socket takes it; it is current then, or behind."""
        audience = self._audience_of(outlet)
        audience.exclude(outlet)
        done = self._catch_up(outlet, audience)
        if outlet.rest:
            self._await_room(outlet)
        elif outlet.ending:
            self._let_go(outlet, None)
        else:
            if outlet.waiting:
                outlet.since, outlet.waiting = time.monotonic(), False
                self._poll.modify(outlet.descriptor, _WATCHED)
            if done:
                audience.include(outlet)

    def _catch_up(self, outlet: Outlet, audience: Audience) -> bool:
        """Whether it has everything that its audience has, and the farewell if that is the end. If not, its socket is
        full, the log is about to answer, or its feed's news come first."""
        if not outlet.write():
            return False
        here = self._put_news(outlet, audience)
        if not (outlet.write() and (here or audience.ended)):
            return False
        if audience.ended and not outlet.ending:
            outlet.put_farewell()
        return outlet.write()

    def _put_news(self, outlet: Outlet, audience: Audience) -> bool:
        """Put what comes next for it, as far as its audience has come. Whether it has come as far, too."""
        feed, reader = outlet.feed, outlet.reader
        with _of_feed():
            events = feed.read(reader, audience.reader.position)
            frames = list(map(sse.encode, events))
        if frames:
            outlet.put(*frames)
        audience.note_replay(outlet)
        if reader.behind:
            if not audience.ended:
                self._ask(outlet)
            return False
        if reader.position > audience.reader.position:  # its feed's news come first
            self._unread[feed] = self._due[outlet] = None
            return False
        return True

    def _await_room(self, outlet: Outlet) -> None:
        if not outlet.waiting:
            outlet.waiting = True
            self._poll.modify(outlet.descriptor, _WATCHED | _READY)

    # What the log is for: outlets whose next events the feed does not have.

    def _ask(self, outlet: Outlet) -> None:
        def wanted(question: Question) -> bool:
            return outlet.open and outlet.reader.asked is question

        outlet.feed.ask(outlet.reader, partial(self._answer, outlet), wanted)

    def _answer(self, outlet: Outlet, question: Question, page: Page | None) -> None:
        """In the log's thread."""
        self._answers.append((outlet, question, page))
        os.eventfd_write(self._wake_descriptor, 1)

    def _take_answer(self, outlet: Outlet, question: Question, page: Page | None) -> None:
        if question is outlet.reader.asked:  # otherwise it came too late
            with _of_feed():
                events = outlet.feed.take(outlet.reader, question, page)
            if events:
                outlet.put(self._framed(page, events))
            self._due[outlet] = None

    def _framed(self, page: Page | None, events: list[Event]) -> bytes:
        """The bytes of what a page has brought. Outlets that come back together get the same page, and share them."""
        if events[0] is REFRESH_EVENT:
            return sse.encode_all(events)
        if self._last_page[0] is not page or self._last_page[1] != len(events):
            self._last_page = page, len(events), sse.encode_all(events)
        return self._last_page[2]

    # The steps of a feed, and the end of an outlet.

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
            for outlet, _ in written.rests:
                self._step(outlet, self._await_room)
            for outlet, error in written.failures:
                self._step(outlet, _fail, error)
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
        for outlet in audience.all_current():
            audience.exclude(outlet)
            audience.note_replay(outlet)
            self._due[outlet] = None
        audience.reader = audience.feed.reader()

    def _let_go(self, outlet: Outlet, error: BaseException | None, *, failed: bool = False) -> None:
        """End a connection, for whatever reason; the last that is done with it. Idempotent."""
        if self.outlets.get(outlet.descriptor) is not outlet:
            return
        del self.outlets[outlet.descriptor]
        self._due.pop(outlet, None)
        self._wheel.discard(outlet)
        audience = self._audiences.get(outlet.feed)
        if audience is not None:
            audience.leave(outlet)
            if not audience.size:
                del self._audiences[outlet.feed]
        self._close(outlet, error, failed=failed)

    def _close(self, outlet: Outlet, error: BaseException | None, *, failed: bool) -> None:
        # A forked child may still have the descriptor, so closing it would not be enough.
        with suppress(OSError):
            self._poll.unregister(outlet.descriptor)
        try:
            if failed:
                outlet.feed.count_failure()
            outlet.close(stalled=has_vanished(error))
        except Exception as another:
            self._complain("the end of a stream failed", another)


@contextmanager
def _of_feed() -> Iterator[None]:
    """What fails in here concerns all who read the feed."""
    try:
        yield
    except Exception as error:
        raise _FeedError from error


def _fail(outlet: Outlet, error: Exception) -> None:
    raise error
