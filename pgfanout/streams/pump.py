"""Pump: what the streamer's thread has, and does with it."""

from __future__ import annotations

import os
import random
import select
import time
from collections import deque
from contextlib import suppress
from functools import partial

from ..event import REFRESH_EVENT
from ..feed import Feed, OverrunError
from ..log import PATIENCE, Page
from . import sse
from .client import has_vanished
from .outlet import Audience, Outlet, chunk
from .wheel import Wheel

__all__ = ["EARLIEST_KEEPALIVE", "Pump"]

_AT_ONCE = 4
"""Answers of the log that are dealt with before news: each may be a lot to write, and news are for everyone else."""

EARLIEST_KEEPALIVE = 0.9
"""Of the silence that a keepalive ends, the part after which it may come."""

# Where there is no epoll nothing is detached, but the module has to be importable.
_LEFT = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)
_READY = getattr(select, "EPOLLOUT", 0)
_WATCHED = getattr(select, "EPOLLRDHUP", 0)


class Pump:
    """Moves events from feeds to outlets. For one thread, but for `watch` and `abandon`.

    Raises `OSError` when there are no descriptors left for it.
    """

    def __init__(self, wake_descriptor: int) -> None:
        self.outlets: dict[int, Outlet] = {}
        self._audiences: dict[Feed, Audience] = {}
        self._wheel: Wheel[Outlet] = Wheel()
        self._answers: deque[tuple[Outlet, object, Page | None]] = deque()
        self._last_page: tuple[Page | None, bool, bytes] = (None, False, b"")
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
        """Deal with what has happened."""
        for descriptor, happened in events:
            outlet = self.outlets.get(descriptor)
            if outlet is not None:
                if happened & _LEFT:
                    self._let_go(outlet, outlet.error())
                else:
                    self._advance(outlet)
            elif descriptor == self._wake_descriptor:
                os.eventfd_read(descriptor)
        self._take_answers()

    def admit(self, outlet: Outlet) -> None:
        """Begin with an outlet that is watched already."""
        self.outlets[outlet.descriptor] = outlet
        audience = self._audiences.get(outlet.feed)
        first = audience is None
        if audience is None:
            number = outlet.feed.offered  # asked first: all of it is before the position
            audience = self._audiences[outlet.feed] = Audience(outlet.feed, outlet.feed.end_position, number)
        audience.size += 1
        if outlet.replaying:
            audience.replaying.add(outlet)
        outlet.waiting = bool(outlet.rest)
        self._schedule(outlet, outlet.since)
        if audience.position < outlet.position:
            self.broadcast(outlet.feed)
        self._advance(outlet)
        if first:  # news that came before it found nobody to read them
            self.broadcast(outlet.feed)

    def broadcast(self, feed: Feed) -> None:
        """Write a feed's news to everyone who is not behind."""
        audience = self._audiences.get(feed)
        if audience is None:
            return  # its first reader has not arrived yet, and will read
        audience.ended = feed.ended  # asked first: what comes after the end is not taken
        number = feed.offered  # asked first, too: all of it is in what is read
        try:
            events, audience.position = feed.read(audience.position, readers=audience.current_size)
        except OverrunError:
            self._send_to_log(audience)
            return
        audience.pass_on_to(number, events)
        if events:
            audience.written_at = time.monotonic()
            behind, failed = audience.write(sse.encode_all(events))
            for outlet in behind:
                self._await_room(outlet)
            for outlet, error in failed:
                self._let_go(outlet, error)
        if audience.ended:
            for outlet in (*audience.all_current(), *audience.replaying):
                self._advance(outlet)
        elif feed.members == audience.current_size:
            feed.forget(audience.position)

    def keep_alive(self) -> None:
        """Break the silence of those who have heard nothing for too long."""
        now = time.monotonic()
        for outlet in self._wheel.pop_due(now):
            audience = self._audiences[outlet.feed]
            last = max(outlet.since, audience.written_at if not outlet.replaying else 0.0)
            if not audience.is_current(outlet) and (outlet.rest or not outlet.replaying):
                self._schedule(outlet, now)  # it has enough to do
            elif last + EARLIEST_KEEPALIVE * outlet.keepalive - Wheel.TICK > now:
                self._schedule(outlet, last)
            else:
                self._schedule(outlet, now)
                outlet.put_keepalive(0 if outlet.replaying else audience.cursor)
                self._advance(outlet)

    def cut(self) -> None:
        """End all connections as they are, whatever state everything is in."""
        outlets = list(self.outlets.values())
        self.outlets.clear()
        self._audiences.clear()
        self._wheel = Wheel()
        for outlet in outlets:
            self._close(outlet, None)

    def abandon(self) -> None:
        """In a forked child: close the descriptors, and leave the parent's connections as they are."""
        for descriptor in self.outlets:
            os.close(descriptor)
        self._poll.close()

    def _schedule(self, outlet: Outlet, since: float) -> None:
        """Look at it again when it has been silent long enough; with jitter, so that many who were
        written to at once don't come up at once."""
        outlet.since = max(outlet.since, since)
        self._wheel.add(outlet, since + outlet.keepalive * random.uniform(EARLIEST_KEEPALIVE, 1.0))

    def _advance(self, outlet: Outlet) -> None:
        """Write what it has not got yet, as far as its socket takes it; it is current then, or behind."""
        audience = self._audiences[outlet.feed]
        audience.exclude(outlet)
        try:
            done = self._catch_up(outlet, audience)
        except OSError as error:
            self._let_go(outlet, error)
            return
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
        """Whether it has everything up to the audience's position, and the farewell if that is the end. If
        not, its socket is full, or the log is about to answer."""
        if not outlet.write():
            return False
        here = not outlet.replaying or self._join(outlet, audience)
        here = here and self._put_news(outlet, audience)
        if not (outlet.write() and (here or audience.ended)):
            return False
        if audience.ended and not outlet.ending:
            outlet.put_farewell()
        return outlet.write()

    def _put_news(self, outlet: Outlet, audience: Audience) -> bool:
        """Put what the feed has; False when that is gone and the log is asked."""
        try:
            events, outlet.position = outlet.feed.read(outlet.position, audience.position)
        except OverrunError:
            outlet.fall_behind()
            audience.replaying.add(outlet)
            self._ask(outlet, audience)
            return False
        outlet.number = audience.number
        if events:
            outlet.put(sse.encode_all(events))
        return True

    # What the log is for: outlets whose next events the feed does not have.

    def _join(self, outlet: Outlet, audience: Audience) -> bool:
        """Go on with the feed if that has everything from here on; False when the log is asked instead."""
        position, since = outlet.feed.join(outlet.number, outlet.position, outlet.passed, known=outlet.known)
        if since > outlet.position:
            outlet.position = since
            outlet.feed.tell_refresh()
            outlet.put(sse.encode(REFRESH_EVENT))
        if position is None:
            self._ask(outlet, audience)
            return False
        self._end_replay(outlet, audience, position)
        # The log may have told it more than had been offered when the audience came to its position.
        audience.number = max(audience.number, outlet.number)
        return True

    def _end_replay(self, outlet: Outlet, audience: Audience, position: int) -> None:
        outlet.replaying, outlet.position, outlet.question, outlet.fruitless = False, position, None, 0
        audience.replaying.discard(outlet)
        if audience.position < position:
            self.broadcast(outlet.feed)

    def _ask(self, outlet: Outlet, audience: Audience) -> None:
        if outlet.question or audience.ended:
            return
        question = outlet.question = object()
        outlet.feed.ask(
            outlet.number,
            partial(self._answer, outlet, question),
            known=outlet.known,
            again=outlet.asks,
            wanted=lambda: outlet.question is question,
        )
        outlet.asks += 1

    def _answer(self, outlet: Outlet, question: object, page: Page | None) -> None:
        """In the log's thread."""
        self._answers.append((outlet, question, page))
        os.eventfd_write(self._wake_descriptor, 1)

    def _take_answers(self) -> None:
        for _ in range(min(len(self._answers), _AT_ONCE)):
            outlet, question, page = self._answers.popleft()
            if self.outlets.get(outlet.descriptor) is outlet and outlet.question is question:
                self._take_answer(outlet, page)

    def _take_answer(self, outlet: Outlet, page: Page | None) -> None:
        audience = self._audiences[outlet.feed]
        outlet.question = None
        outlet.fruitless = 0 if page is not None and page.until > outlet.number else outlet.fruitless + 1
        if page is None or outlet.fruitless >= PATIENCE:
            outlet.feed.tell_refresh()
            outlet.put(sse.encode(REFRESH_EVENT))
            self._end_replay(outlet, audience, audience.position)
        else:
            outlet.number, outlet.known = page.until, True
            if page.events:
                outlet.put_framed(self._framed(page, outlet.chunked))
        self._advance(outlet)

    def _framed(self, page: Page, chunked: bool) -> bytes:
        """The bytes of a page; those who come back together get the same, and share it."""
        if self._last_page[0] is not page or self._last_page[1] is not chunked:
            data = sse.encode_all(page.events)
            self._last_page = page, chunked, chunk(data) if chunked else data
        return self._last_page[2]

    def _send_to_log(self, audience: Audience) -> None:
        """What the current ones need next is gone from the feed."""
        outlets = audience.all_current()
        for outlet in outlets:
            audience.exclude(outlet)
            outlet.fall_behind()
            audience.replaying.add(outlet)
        # What was dropped or skipped a moment ago may not count as offered yet.
        audience.number = max(audience.feed.offered, audience.feed.gone)
        audience.position = audience.feed.end_position
        for outlet in outlets:
            self._advance(outlet)

    def _await_room(self, outlet: Outlet) -> None:
        if not outlet.waiting:
            outlet.waiting = True
            self._poll.modify(outlet.descriptor, _WATCHED | _READY)

    def _let_go(self, outlet: Outlet, error: OSError | None) -> None:
        """End a connection, for whatever reason."""
        audience = self._audiences[outlet.feed]
        audience.exclude(outlet)
        audience.replaying.discard(outlet)
        audience.size -= 1
        if not audience.size:
            del self._audiences[outlet.feed]
        del self.outlets[outlet.descriptor]
        self._wheel.discard(outlet)
        self._close(outlet, error)

    def _close(self, outlet: Outlet, error: OSError | None) -> None:
        # A forked child may still have the descriptor, so closing it would not be enough.
        with suppress(OSError):
            self._poll.unregister(outlet.descriptor)
        outlet.close(stalled=has_vanished(error))
