"""Publisher: sends events through anything that can execute a statement."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from ...threads import lock_time
from . import conninfo, diagnosis
from .executors import Call, run

__all__ = ["LOCK_TIMEOUT", "Publisher"]

logger = logging.getLogger("pgfanout")


LOCK_TIMEOUT: Final = 10
"""Seconds that a publish through the hub's own connection waits for another transaction's lock, also in its COMMIT. A
`lock_timeout` of the role, the database or the server takes precedence."""

# For this transaction only: behind a pooler in transaction mode the session then goes to another client.
_BOUND = (
    "SELECT pg_catalog.set_config('lock_timeout', CASE pg_catalog.current_setting('lock_timeout')"
    f" WHEN '0' THEN '{LOCK_TIMEOUT}s' ELSE pg_catalog.current_setting('lock_timeout') END, true), "
)

# As bytes, so that the text doesn't pass through the connection's client encoding. unnest in FROM keeps the order.
_NOTIFY = (
    "SELECT pg_catalog.pg_notify(%s, pg_catalog.convert_from(envelope, 'UTF8'))"
    " FROM pg_catalog.unnest(%s::bytea[]) AS envelope"
)
_TEXT = "pg_catalog.convert_from(%s::bytea, 'UTF8')"
_TEXTS = "ARRAY(SELECT pg_catalog.convert_from(text, 'UTF8') FROM pg_catalog.unnest(%s::bytea[]) AS text)"
_LOG_ONE = f"SELECT {{schema}}.publish({_TEXT}, %s::uuid, {_TEXT}, {_TEXT})"
_LOG_MANY = f"SELECT {{schema}}.publish_many({_TEXTS}, %s::uuid[], {_TEXTS}::json[], {_TEXTS})"


class _OwnConnection:
    """The hub's own connection, for one thread at a time."""

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


class Publisher:
    """Sends events through a given executor, or through its own connection.

    It notifies, or inserts the events into the log of a schema. The log notifies at the commit.

    The first publish that needs the own connection opens it. `_turn` lets one thread at a time use it, and is held over
    its I/O, in which `LOCK_TIMEOUT` limits waits for locks. It guards `_own`, `_opened` and `_owner`. No other lock is
    taken in it.

    A signal handler (Celery's soft time limit) or a gevent time-out may raise an exception between any two instructions
    of a publish. So a publish takes the connection out of `_own`, and puts it back when it is idle again. If an
    exception leaves the connection in the middle of a statement, other publishes don't find it, and it is closed at the
    end of the turn. A `with` block releases `_turn`. If the exception comes before that block has begun,
    `_release_if_held` does. The thread that holds `_turn` can take it again: a signal handler that publishes gets
    another connection.

    A publisher that nobody has closed closes its connections when it is garbage-collected, or at the latest when the
    interpreter exits. So a script that publishes and ends leaves no `ResourceWarning`.
    """

    def __init__(self, parameters: conninfo.Parameters, channel: str, schema: str = "") -> None:
        self._parameters = parameters
        self._channel = channel
        self._schema = schema
        self._turn = threading.RLock()
        self._owner = 0  # the thread that has its turn
        self._own: _OwnConnection | None = None
        self._opened: set[psycopg.Connection[Any]] = set()  # `_own`, and those in use or left behind
        self._closed = False
        self._unreachable_at = float("-inf")
        self._finalizer = weakref.finalize(self, _close_idle, self._turn, self._opened)

    def send(self, texts: Sequence[str], executor: Any) -> None:
        """Send the texts in one statement. Block for a round trip. Raise psycopg's errors."""
        call = self._logged(texts) if self._schema else Call(_NOTIFY, (self._channel, _encoded(texts)))
        if executor is None:
            self._send_by_own_connection(call)
        else:
            run(call, executor)

    def fetch(self, executor: Any, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Execute a statement in the executor's transaction, if it has one, and return the rows. Block for a round
        trip. Raise psycopg's errors."""
        rows: list[Any] = []
        run(Call(statement, tuple(params)), executor, rows.extend)
        return rows

    def close(self, timeout: float) -> None:
        """Close the own connection, if there is one.

        Block up to `timeout` seconds for a publish that is under way. A longer one closes the connection when it ends.
        """
        self._closed = True
        if not self._turn.acquire(timeout=lock_time(timeout)):
            logger.warning("a publish did not end within %g s and is left behind: it closes its connection", timeout)
            return
        try:
            self._close_what_is_left()
        finally:
            self._turn.release()

    def abandon(self) -> None:
        """In a forked child, drop the parent's connections without a message to the server."""
        self._finalizer.detach()
        for connection in list(self._opened):
            abandon(connection)

    def _logged(self, texts: Sequence[str]) -> Call:
        """Return the call that puts texts into the log: see `compose_logged`. For one event there is a cheaper one."""
        channels, tenants, types, payloads = zip(*(text.split("\n", 3) for text in texts), strict=True)
        if len(texts) == 1:
            params = (channels[0].encode(), tenants[0], payloads[0].encode(), types[0].encode())
            return Call(_LOG_ONE.format(schema=self._schema), params)
        fields = (_encoded(channels), list(tenants), _encoded(payloads), _encoded(types))
        return Call(_LOG_MANY.format(schema=self._schema), fields)

    def _send_by_own_connection(self, call: Call) -> None:
        arrived = time.monotonic()
        is_nested = self._turn._is_owned()  # type: ignore[attr-defined]  # as `threading.Condition` asks
        try:
            with self._turn:
                outer, self._owner = self._owner, threading.get_ident()
                try:
                    self._send_in_turn(call, arrived)
                finally:
                    self._owner = outer
                    if not is_nested:
                        self._close_what_is_left()
        except BaseException:
            if not is_nested:
                self._release_if_held()
            raise

    def _release_if_held(self) -> None:
        try:
            self._turn.release()
        except RuntimeError:
            pass  # this thread has released it already, as usual

    def _send_in_turn(self, call: Call, arrived: float) -> None:
        own = self._take_out(arrived)
        try:
            own.execute(call)
        except psycopg.Error:
            self._put_back(own)
            raise
        self._put_back(own)

    def _take_out(self, arrived: float) -> _OwnConnection:
        if self._unreachable_at > arrived:
            # This thread waited while another one found that out. It need not wait for another attempt.
            raise psycopg.OperationalError("the server can't be reached, as another thread's publish has found")
        own, self._own = self._own, None
        return own if own is not None and own.is_usable() else self._connect()

    def _put_back(self, own: _OwnConnection) -> None:
        if own.is_idle:
            self._own = own

    def _close_what_is_left(self) -> None:
        """End a turn, whatever was raised: keep `_own` unless the hub is closed, and close all other connections."""
        kept = None if self._own is None or self._closed else self._own.connection
        for connection in [each for each in self._opened if each is not kept]:
            connection.close()
            self._opened.discard(connection)

    def _connect(self) -> _OwnConnection:
        try:
            connection = conninfo.connect(self._parameters, "pgfanout-publisher")
        except psycopg.OperationalError:
            self._unreachable_at = time.monotonic()
            raise
        self._opened.add(connection)
        return _OwnConnection(connection)


def _close_idle(turn: threading.RLock, opened: set[psycopg.Connection[Any]]) -> None:
    """Close a publisher's connections, unless another thread has its turn: that may be inside of libpq at this moment.
    Never block."""
    if turn.acquire(blocking=False):
        try:
            while opened:
                opened.pop().close()
        finally:
            turn.release()


def abandon(connection: psycopg.Connection[Any] | None) -> None:
    """In a forked child, drop the inherited socket without touching the parent's session.

    The null device takes over the descriptor's number, since libpq's object still refers to it.
    """
    if connection is None or connection.closed:
        return
    _abandoned.append(connection)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, connection.fileno(), inheritable=False)
    finally:
        os.close(null)


_abandoned: list[psycopg.Connection[Any]] = []
"""References that keep these connections from being finalised."""


def _encoded(texts: Iterable[str]) -> list[bytes]:
    return [text.encode() for text in texts]
