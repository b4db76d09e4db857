"""OwnConnections: what a hub publishes through when nobody brings an executor."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import psycopg

from ...threads import lock_time
from . import conninfo
from .executors import Call
from .lane import Lane, OwnConnection
from .line import Line

__all__ = ["OwnConnections"]

logger = logging.getLogger("pgfanout")


PATIENCE: Final = 0.02
"""Seconds that a publish waits for a connection that is there before it opens another one. Opening one takes longer
than most publishes. Also how long the first thread in the line may miss a lane that has become free."""

LOOK_AGAIN: Final = 0.5
"""Seconds that a thread in the line may miss that it is the first."""

REFUSAL_TIME: Final = 1.0
"""Seconds until another connection is tried after the server has refused one more."""


class _RefusedError(psycopg.OperationalError):
    """The server refuses a connection, and another lane has one: too many connections, probably."""


class OwnConnections:
    """One connection at rest, up to `size` under load. So a publish that waits for a lock holds up no other.

    Each connection has a **lane**. The thread that holds a lane's `turn` publishes there, over its I/O, in which
    `LOCK_TIMEOUT` limits waits for locks. Other threads stand in `_line`. The first one tries the turns of the lanes,
    and never waits for one, so that any lane that becomes free will do. It leaves the line with a lane, and wakes the
    next thread. A thread that leaves a lane releases its turn first, and then wakes the first thread of the line. That
    one sleeps only after it has tried all turns. So either it finds the turn released, or it is woken. It looks again
    after `PATIENCE` in any case, since an exception may come between the two steps. Threads in the line hold nothing.

    A publish takes the first lane that is free and has a connection. After `PATIENCE` it opens a connection in another
    lane. The last publish of a crowd gets the turns of all lanes, and closes all connections but one. `_tidying` lets
    one thread at a time try that. Its owner waits for no other lock.

    A signal handler (Celery's soft time limit) or a gevent time-out may raise an exception between any two instructions
    of a publish. Three rules make up for that. A publish ends with `_leave`, whatever was raised, which leaves the line
    and releases all locks that its thread has: only the owner can release an RLock, and it can ask whether it is the
    owner. If the exception is raised in `_leave`, that is called again. A connection is in `lane.own` only while it is
    idle. What else a lane has opened is closed at the end of its turn.

    A signal handler may publish while its thread publishes. It uses its thread's lane, without waiting, through another
    connection if the lane's is in use. If its thread is in the line, the handler takes any lane that becomes free. If
    its thread has `_tidying`, the handler leaves it that.

    Connections that nobody has closed are closed when this object is garbage-collected, or at the latest when the
    interpreter exits. So a script that publishes and ends leaves no `ResourceWarning`.
    """

    def __init__(self, parameters: conninfo.Parameters, size: int) -> None:
        self._parameters = parameters
        self._lanes = tuple(Lane() for _ in range(size))
        self._line = Line()
        self._tidying = threading.RLock()
        self._closed = False
        self._unreachable_at = float("-inf")
        self._refused_until = float("-inf")
        self._finalizer = weakref.finalize(self, _close_idle, self._lanes)

    def send(self, call: Call) -> None:
        """Execute a call in a transaction of its own. Block until it is committed. Raise psycopg's errors."""
        arrived = time.monotonic()
        lane = next((lane for lane in self._lanes if _is_held(lane.turn)), None)
        if lane is not None:  # in a signal handler
            self._send_through(lane, call)
            return
        ticket = None if self._line.has_this_thread() else threading.Lock()  # None: in a signal handler, too
        leave = partial(self._leave, ticket, [self._tidying] if _is_held(self._tidying) else [])
        try:
            try:
                while not self._send_in_turn(call, arrived, ticket):
                    leave()
            finally:
                leave()
                self._close_surplus(leave)
        except BaseException:
            leave()  # again: it may have been raised in the first one
            raise

    def close(self, timeout: float) -> None:
        """Close the connections. Block up to `timeout` seconds for publishes that are under way.

        A longer one closes its connection when it ends.
        """
        self._closed = True
        deadline = time.monotonic() + timeout
        missed = 0
        for lane in self._lanes:
            if lane.turn.acquire(timeout=lock_time(deadline - time.monotonic())):
                try:
                    lane.close_all()
                finally:
                    lane.turn.release()
            else:
                missed += 1
        if missed:
            logger.warning("a publish did not end within %g s and is left behind: it closes its connection", timeout)

    def abandon(self) -> None:
        """In a forked child, drop the parent's connections without a message to the server."""
        self._finalizer.detach()
        for lane in self._lanes:
            for connection in list(lane.opened):
                conninfo.abandon(connection)

    def _send_in_turn(self, call: Call, arrived: float, ticket: threading.Lock | None) -> bool:
        """Send through a free lane. Return False if the server refuses another connection: one is there."""
        lane = self._enter(arrived, ticket)
        try:
            self._send_through(lane, call)
            return True
        except _RefusedError:
            return False
        finally:
            if self._closed:
                lane.close_all()
            else:
                lane.close_all_but_own()

    def _send_through(self, lane: Lane, call: Call) -> None:
        own = lane.take_out() or self._connect(lane)
        try:
            own.execute(call)
        except psycopg.Error:
            lane.put_back(own)
            raise
        lane.put_back(own)

    def _enter(self, arrived: float, ticket: threading.Lock | None) -> Lane:
        """Return a lane whose turn this thread now has."""
        if ticket is None:
            pause = threading.Lock()
            pause.acquire()
            while (lane := self._free_lane(arrived)) is None:
                pause.acquire(timeout=PATIENCE)
            return lane
        self._line.join(ticket)
        while True:
            is_first = self._line.is_first(ticket)
            if is_first and (lane := self._free_lane(arrived)) is not None:
                self._line.leave(ticket)
                self._line.wake_first()
                return lane
            ticket.acquire(timeout=PATIENCE if is_first else LOOK_AGAIN)

    def _free_lane(self, arrived: float) -> Lane | None:
        if self._unreachable_at > arrived:
            # Another thread has tried while this one waited. This one need not try as well.
            raise psycopg.OperationalError("the server can't be reached, as another publish has found")
        return next((lane for lane in self._lanes_to_try(arrived) if lane.turn.acquire(blocking=False)), None)

    def _lanes_to_try(self, arrived: float) -> Sequence[Lane]:
        now = time.monotonic()
        if now - arrived >= PATIENCE and now >= self._refused_until:
            return sorted(self._lanes, key=lambda lane: lane.own is None)
        if any(lane.opened for lane in self._lanes):
            return [lane for lane in self._lanes if lane.own is not None]
        return self._lanes[:1]

    def _connect(self, lane: Lane) -> OwnConnection:
        try:
            return lane.add(conninfo.connect(self._parameters, "pgfanout-publisher"))
        except psycopg.OperationalError as error:
            if any(each.opened for each in self._lanes if each is not lane):
                self._refused_until = time.monotonic() + REFUSAL_TIME
                raise _RefusedError(str(error)) from None
            self._unreachable_at = time.monotonic()
            raise

    def _close_surplus(self, leave: Callable[[], None]) -> None:
        """Close all connections but one if no publish is under way.

        Of two threads that leave together, one comes second to `_tidying`, and finds all turns free.
        """
        if self._line or sum(lane.own is not None for lane in self._lanes) < 2:
            return
        try:
            self._tidying.acquire()
            if all(lane.turn.acquire(blocking=False) for lane in self._lanes):
                for lane in [lane for lane in self._lanes if lane.own is not None][1:]:
                    lane.close_all()
        finally:
            leave()

    def _leave(self, ticket: threading.Lock | None, kept: Sequence[threading.RLock]) -> None:
        """Release all locks that this thread has, leave the line, and wake the next thread.

        A signal handler leaves alone what the publish has that it interrupts.
        """
        locks = [*(lane.turn for lane in self._lanes), self._tidying]
        for lock in [lock for lock in locks if lock not in kept]:
            while _is_held(lock):
                lock.release()
        if ticket is not None:
            self._line.leave(ticket)
        self._line.wake_first()


def _close_idle(lanes: Sequence[Lane]) -> None:
    """Close the connections, except where another thread has its turn: that may be inside of libpq at this moment.
    Never block."""
    for lane in lanes:
        if lane.turn.acquire(blocking=False):
            try:
                lane.close_all()
            finally:
                lane.turn.release()


def _is_held(lock: threading.RLock) -> bool:
    """Whether this thread holds the lock."""
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # as `threading.Condition` asks
