"""Streamer: the one thread that writes all detached streams of a process."""

from __future__ import annotations

import logging
import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from ..feed import Feed
from . import sse
from .client import has_vanished
from .outlet import Audience, Outlet
from .wheel import Wheel

__all__ = ["Streamer", "streamer"]

logger = logging.getLogger("pgfanout")

_EARLIEST = 0.9  # of the silence that a keepalive ends: how early it may come

# Only where there is epoll is anything detached; elsewhere this module has to be importable.
_LEFT = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)
_READY = getattr(select, "EPOLLOUT", 0)
_WATCHED = getattr(select, "EPOLLRDHUP", 0)


class Streamer:
    """Takes connections over and writes their streams, until they end.

    Its thread starts with the first stream and ends with the last. What the thread works on is
    its own (`_Loop`); others leave word in one of the deques, whose operations are atomic, and
    wake it. `_lock` guards `_thread`: so none is adopted by a thread that is about to end.

    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: _Loop | None = None
        self._wake_descriptor = -1
        self._arrivals: deque[Outlet] = deque()
        self._news: deque[Feed] = deque()
        self._errands: deque[Callable[[], object]] = deque()

    @property
    def open(self) -> int:
        """How many streams it has."""
        loop = self._loop
        return len(self._arrivals) + (len(loop.outlets) if loop is not None else 0)

    def prepare(self) -> None:
        """Have the descriptors that it needs itself. Raises `OSError` when there are none left."""
        with self._lock:
            if self._loop is None:
                # Never closed: others may be about to write to it, and its number must not become
                # that of a connection.
                self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._loop = _Loop(self._wake_descriptor)

    def adopt(self, outlet: Outlet) -> None:
        """Take an outlet over; `prepare` was called before. Never waits."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="pgfanout-streamer", daemon=True)
                thread.start()
                self._thread = thread
            self._arrivals.append(outlet)
        self._wake()

    def news(self, feed: Feed) -> None:
        """There is something to read in a feed. Never waits: the listener's thread calls it."""
        self._news.append(feed)
        self._wake()

    def settle(self, timeout: float) -> None:
        """Wait, `timeout` seconds at most, until whoever has left by now has been let go."""
        done = threading.Event()
        if self._do(done.set):
            done.wait(timeout)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait, `timeout` seconds at most, until all streams have ended; whether they have."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return not self.open

    def cut(self, timeout: float) -> None:
        """End all connections as they are, within `timeout` seconds: their clients don't take a proper end."""
        loop = self._loop
        if loop is not None and self._do(loop.cut):
            self.wait_until_empty(timeout)

    def abandon(self) -> None:
        """In a forked child, where its thread does not exist: let go of the parent's connections."""
        if self._loop is not None:
            self._loop.abandon()
            os.close(self._wake_descriptor)
        for outlet in self._arrivals:
            os.close(outlet.descriptor)
        self.__init__()  # type: ignore[misc]

    def _do(self, errand: Callable[[], object]) -> bool:
        """Have the thread do something; False when it does not run."""
        with self._lock:
            if self._thread is None:
                return False
            self._errands.append(errand)
        self._wake()
        return True

    def _wake(self) -> None:
        if self._wake_descriptor >= 0:
            os.eventfd_write(self._wake_descriptor, 1)

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        while not self._is_over(loop):
            try:
                self._turn(loop)
            except Exception:
                # Nobody knows what was written and what not: those who come back are told to refresh.
                logger.exception("the streamer failed; its streams are cut, and browsers come back")
                loop.cut()

    def _turn(self, loop: _Loop) -> None:
        # Taken before the sockets are looked at: an errand sees what had happened when it was given.
        errands = [self._errands.popleft() for _ in range(len(self._errands))]
        loop.wait(busy=bool(errands))
        for _ in range(len(self._arrivals)):
            loop.admit(self._arrivals.popleft())
        for _ in range(len(self._news)):
            loop.broadcast(self._news.popleft())
        loop.keep_alive()
        for errand in errands:
            errand()

    def _is_over(self, loop: _Loop) -> bool:
        if loop.outlets:
            return False
        with self._lock:
            if self._arrivals or self._errands:
                return False
            self._thread = None
            return True


class _Loop:
    """What the streamer's thread has, and does with it."""

    def __init__(self, wake_descriptor: int) -> None:
        self.outlets: dict[int, Outlet] = {}
        self._audiences: dict[Feed, Audience] = {}
        self._wheel: Wheel[Outlet] = Wheel()
        self._wake_descriptor = wake_descriptor
        self._poll = select.epoll()
        self._poll.register(wake_descriptor, select.EPOLLIN)

    def wait(self, *, busy: bool) -> None:
        """Wait until something happens to a socket, a keepalive is due or somebody wakes the thread,
        or not at all when it is busy; deal with the sockets."""
        for descriptor, events in self._poll.poll(0 if busy else self._wheel.wait(time.monotonic())):
            outlet = self.outlets.get(descriptor)
            if outlet is not None:
                if events & _LEFT:
                    self._let_go(outlet, outlet.error())
                else:
                    self._advance(outlet)
            elif descriptor == self._wake_descriptor:
                os.eventfd_read(descriptor)

    def admit(self, outlet: Outlet) -> None:
        """Begin with an outlet."""
        self._poll.register(outlet.descriptor, _WATCHED)
        self.outlets[outlet.descriptor] = outlet
        audience = self._audiences.get(outlet.feed)
        first = audience is None
        if audience is None:
            audience = self._audiences[outlet.feed] = Audience(outlet.feed, outlet.position)
        audience.size += 1
        self._schedule(outlet, time.monotonic())
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
        events, audience.position = feed.read(audience.position, readers=audience.current_size)
        if events:
            audience.written_at = time.monotonic()
            behind, failed = audience.write(sse.encode_all(events))
            for outlet in behind:
                self._await_room(outlet)
            for outlet, error in failed:
                self._let_go(outlet, error)
        if audience.ended:
            for outlet in audience.all_current():
                self._advance(outlet)
        elif feed.members == audience.current_size:
            feed.forget(audience.position)

    def keep_alive(self) -> None:
        """Break the silence of those who have heard nothing for too long."""
        now = time.monotonic()
        for outlet in self._wheel.pop_due(now):
            audience = self._audiences[outlet.feed]
            if not audience.is_current(outlet):
                self._schedule(outlet, now)  # it has enough to do
                continue
            last = max(outlet.since, audience.written_at)
            if last + _EARLIEST * outlet.keepalive - Wheel.TICK > now:
                self._schedule(outlet, last)
                continue
            self._schedule(outlet, now)
            outlet.put(sse.KEEPALIVE)
            self._advance(outlet)

    def cut(self) -> None:
        """End all connections as they are."""
        for outlet in list(self.outlets.values()):
            self._let_go(outlet, None)

    def abandon(self) -> None:
        """In a forked child: close the descriptors, and leave the parent's connections as they are."""
        for descriptor in self.outlets:
            os.close(descriptor)
        self._poll.close()

    def _schedule(self, outlet: Outlet, since: float) -> None:
        """Look at it again when it has been silent long enough; with jitter, so that many who were
        written to at once don't come up at once."""
        outlet.since = max(outlet.since, since)
        self._wheel.add(outlet, since + outlet.keepalive * random.uniform(_EARLIEST, 1.0))

    def _advance(self, outlet: Outlet) -> None:
        """Write what it has not got yet, as far as its socket takes it; it is current then, or behind."""
        audience = self._audiences[outlet.feed]
        audience.exclude(outlet)
        try:
            done = self._catch_up(outlet, audience)
        except OSError as error:
            self._let_go(outlet, error)
            return
        if not done:
            self._await_room(outlet)
        elif outlet.ending:
            self._let_go(outlet, None)
        else:
            if outlet.waiting:
                outlet.waiting = False
                self._poll.modify(outlet.descriptor, _WATCHED)
            audience.include(outlet)

    def _catch_up(self, outlet: Outlet, audience: Audience) -> bool:
        """Whether it has everything up to the audience's position, and the farewell if that is the end."""
        if not outlet.write():
            return False
        events, outlet.position = outlet.feed.read(outlet.position, audience.position)
        if events:
            outlet.put(sse.encode_all(events))
            if not outlet.write():
                return False
        if audience.ended and not outlet.ending:
            outlet.put_farewell()
        return outlet.write()

    def _await_room(self, outlet: Outlet) -> None:
        if not outlet.waiting:
            outlet.waiting = True
            self._poll.modify(outlet.descriptor, _WATCHED | _READY)

    def _let_go(self, outlet: Outlet, error: OSError | None) -> None:
        """End a connection, for whatever reason."""
        audience = self._audiences[outlet.feed]
        audience.exclude(outlet)
        audience.size -= 1
        if not audience.size:
            del self._audiences[outlet.feed]
        del self.outlets[outlet.descriptor]
        self._wheel.discard(outlet)
        self._poll.unregister(outlet.descriptor)
        outlet.close(stalled=has_vanished(error))


streamer = Streamer()
"""The process's own. Making it starts nothing."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=streamer.abandon)
