"""OwnConnections: what a hub publishes through when nobody brings an executor."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from ...threads import lock_time
from . import conninfo, diagnosis
from .executors import Call

__all__ = ["LOCK_TIMEOUT", "OwnConnections"]

logger = logging.getLogger("pgfanout")


LOCK_TIMEOUT: Final = 10
"""Seconds that a publish through the hub's own connection waits for another transaction's lock, also in its COMMIT. A
`lock_timeout` of the role, the database or the server takes precedence."""

# For this transaction only: behind a pooler in transaction mode the session then goes to another client.
_BOUND = (
    "SELECT pg_catalog.set_config('lock_timeout', CASE pg_catalog.current_setting('lock_timeout')"
    f" WHEN '0' THEN '{LOCK_TIMEOUT}s' ELSE pg_catalog.current_setting('lock_timeout') END, true), "
)

PATIENCE: Final = 0.02
"""Seconds that a publish waits for a connection that is there before it opens another one. Opening one takes longer
than most publishes. Also how long a waiting thread may miss a lane that has become free."""

REFUSAL_TIME: Final = 1.0
"""Seconds until another connection is tried after the server has refused one more."""


class _RefusedError(psycopg.OperationalError):
    """The server refuses a connection, and another lane has one: too many connections, probably."""


class _OwnConnection:
    """One of the hub's own connections, for one thread at a time."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._is_read_only = conninfo.is_read_only(connection)
        # A method of ours would be a reference cycle. Without one, an abandoned connection closes at once.
        self._notices: deque[psycopg.errors.Diagnostic] = deque(maxlen=1)
        connection.add_notice_handler(self._notices.append)

    @property
    def is_idle(self) -> bool:
        """Whether no statement and no transaction is under way."""
        return self.connection.pgconn.transaction_status == TransactionStatus.IDLE

    def is_usable(self) -> bool:
        """Whether it is idle and the server has not ended it. Never block.

        This takes no round trip, and spares the first publish after a restart of the server an error. If the server
        sends an error or a warning to an idle connection, it nearly always ends that connection.
        """
        self._notices.clear()
        try:
            self.connection.pgconn.consume_input()
            self.connection.pgconn.notifies()  # makes libpq parse what it has read
        except psycopg.Error:
            return False
        return self.is_idle and not self._notices

    def execute(self, call: Call) -> None:
        """Run a call in a transaction that may write and that does not wait for a lock without end."""
        try:
            if self._is_read_only:
                with self.connection.transaction():
                    call.run(self.connection, _BOUND)
            else:
                call.run(self.connection, _BOUND)
        except psycopg.errors.LockNotAvailable as error:
            raise type(error)(
                f"{diagnosis.words(error)}: the publish waited too long for another transaction, which is committing or"
                " holds a lock. Find it with pg_locks (not granted) and pg_blocking_pids, or by the oldest xact_start"
                " in pg_stat_activity"
            ) from error


class _Lane:
    """Room for one connection. `turn` guards everything here. Threads without it may look whether there is something,
    and are not surprised if that is no longer true."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self.own: _OwnConnection | None = None
        self.opened: set[psycopg.Connection[Any]] = set()  # `own`, and those in use or left behind

    def take_out(self) -> _OwnConnection | None:
        """Take the connection out, so that nobody finds it if an exception leaves it in the middle of a statement."""
        own, self.own = self.own, None
        return own if own is not None and own.is_usable() else None

    def add(self, connection: psycopg.Connection[Any]) -> _OwnConnection:
        self.opened.add(connection)
        return _OwnConnection(connection)

    def put_back(self, own: _OwnConnection) -> None:
        if own.is_idle:
            self.own = own

    def close_all_but_own(self) -> None:
        """End a turn, whatever was raised in it."""
        kept = None if self.own is None else self.own.connection
        for connection in [each for each in self.opened if each is not kept]:
            connection.close()
            self.opened.discard(connection)

    def close_all(self) -> None:
        self.own = None
        self.close_all_but_own()


class OwnConnections:
    """One connection at rest, up to `size` under load. So a publish that waits for a lock holds up no other.

    Each connection has a **lane**. The thread that holds a lane's `turn` publishes there, over its I/O, in which
    `LOCK_TIMEOUT` limits waits for locks. `_gate` orders the threads that come: the one that holds it is the next to
    get a lane. It tries the turns of the lanes, and never waits for one, so that the first lane that becomes free will
    do. Threads that wait for the gate hold nothing. A thread leaves a lane by releasing its turn, and then wakes the
    thread at the gate with `_freed`, a lock that is used as a signal. The thread at the gate sets `_awaited` before it
    tries the turns. So either it finds the turn released, or it is woken. It looks again after `PATIENCE` in any case,
    since an exception may come between the two steps of a thread that leaves.

    A publish takes the first lane that is free and has a connection. After `PATIENCE` it opens a connection in another
    lane. The last publish of a crowd gets the turns of all lanes, and closes all connections but one. `_tidying` lets
    one thread at a time try that. It holds no lock that another one could wait for, and waits for nothing.

    A signal handler (Celery's soft time limit) or a gevent time-out may raise an exception between any two instructions
    of a publish. Three rules make up for that. A publish ends with `_leave`, whatever was raised, which releases all
    locks that its thread has: only the owner can release an RLock, and it can ask whether it is the owner. If the
    exception is raised in `_leave`, that is called again. A connection is in `lane.own` only while it is idle. What
    else a lane has opened is closed at the end of its turn.

    A signal handler may publish while its thread publishes. It uses its thread's lane, without waiting, through another
    connection if the lane's is in use. If its thread is at the gate, the handler goes to the gate as well.

    Connections that nobody has closed are closed when this object is garbage-collected, or at the latest when the
    interpreter exits. So a script that publishes and ends leaves no `ResourceWarning`.
    """

    def __init__(self, parameters: conninfo.Parameters, size: int) -> None:
        self._parameters = parameters
        self._lanes = tuple(_Lane() for _ in range(size))
        self._gate = threading.RLock()
        self._freed = threading.Lock()
        self._tidying = threading.RLock()
        self._awaited = False
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
        is_at_gate = _is_held(self._gate)  # in a signal handler, too
        try:
            try:
                while not self._send_in_turn(call, arrived):
                    self._leave(is_at_gate)
            finally:
                self._leave(is_at_gate)
                self._close_surplus(is_at_gate)
        except BaseException:
            self._leave(is_at_gate)  # again: it may have been raised in the first one
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

    def _send_in_turn(self, call: Call, arrived: float) -> bool:
        """Send through a free lane. Return False if the server refuses another connection: one is there."""
        lane = self._enter(arrived)
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

    def _send_through(self, lane: _Lane, call: Call) -> None:
        own = lane.take_out() or self._connect(lane)
        try:
            own.execute(call)
        except psycopg.Error:
            lane.put_back(own)
            raise
        lane.put_back(own)

    def _enter(self, arrived: float) -> _Lane:
        """Return a lane whose turn this thread now has."""
        with self._gate:
            try:
                while True:
                    self._awaited = True
                    if self._unreachable_at > arrived:
                        # Another thread has tried while this one waited. This one need not try as well.
                        raise psycopg.OperationalError("the server can't be reached, as another publish has found")
                    for lane in self._lanes_to_try(arrived):
                        if lane.turn.acquire(blocking=False):
                            return lane
                    self._freed.acquire(timeout=PATIENCE)
            finally:
                self._awaited = False

    def _lanes_to_try(self, arrived: float) -> Sequence[_Lane]:
        now = time.monotonic()
        if now - arrived >= PATIENCE and now >= self._refused_until:
            return sorted(self._lanes, key=lambda lane: lane.own is None)
        if any(lane.opened for lane in self._lanes):
            return [lane for lane in self._lanes if lane.own is not None]
        return self._lanes[:1]

    def _connect(self, lane: _Lane) -> _OwnConnection:
        try:
            return lane.add(conninfo.connect(self._parameters, "pgfanout-publisher"))
        except psycopg.OperationalError as error:
            if any(each.opened for each in self._lanes if each is not lane):
                self._refused_until = time.monotonic() + REFUSAL_TIME
                raise _RefusedError(str(error)) from None
            self._unreachable_at = time.monotonic()
            raise

    def _close_surplus(self, is_at_gate: bool) -> None:
        """Close all connections but one if no publish is under way.

        Of two threads that leave together, one comes second to `_tidying`, and finds all turns free.
        """
        if self._awaited or sum(lane.own is not None for lane in self._lanes) < 2:
            return
        try:
            self._tidying.acquire()
            if all(lane.turn.acquire(blocking=False) for lane in self._lanes):
                for lane in [lane for lane in self._lanes if lane.own is not None][1:]:
                    lane.close_all()
        finally:
            self._leave(is_at_gate)

    def _leave(self, is_at_gate: bool) -> None:
        """Release all locks that this thread has, but not the gate of the publish that a signal handler interrupts."""
        turns = [lane.turn for lane in self._lanes]
        for lock in [*turns, self._tidying, *([] if is_at_gate else [self._gate])]:
            while _is_held(lock):
                lock.release()
        if self._awaited:
            try:
                self._freed.release()
            except RuntimeError:
                pass  # it has been signalled already


def _close_idle(lanes: Sequence[_Lane]) -> None:
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
