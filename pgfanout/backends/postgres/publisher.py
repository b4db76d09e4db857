"""Publisher: events out, through whatever can execute a statement."""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg.rows import tuple_row

from . import conninfo

__all__ = ["Executor", "Publisher"]

logger = logging.getLogger("pgfanout")


class Executor(Protocol):
    """What a publish can go through: a psycopg connection or cursor.

    A `psycopg_pool.ConnectionPool` (a connection is borrowed) and the block object of
    `conn.transaction()` do as well.
    """

    def execute(self, query: Any, params: Any = None, /) -> Any:
        """Run one statement, with %s for parameters."""


# As bytes, since the text then doesn't pass through the connection's client encoding; a function
# in FROM yields the array in its order.
_NOTIFY = "SELECT pg_notify(%s, convert_from(envelope, 'UTF8')) FROM unnest(%s::bytea[]) AS envelope"
_TEXT = "convert_from(%s::bytea, 'UTF8')"
_TEXTS = "ARRAY(SELECT convert_from(text, 'UTF8') FROM unnest(%s::bytea[]) AS text)"
_LOG_ONE = f"SELECT {{schema}}.publish({_TEXT}, %s::uuid, {_TEXT}, {_TEXT})"
_LOG_MANY = f"SELECT {{schema}}.publish_many({_TEXTS}, %s::uuid[], {_TEXTS}::json[], {_TEXTS})"


class _Call(NamedTuple):
    statement: str
    params: tuple[Any, ...]


class Publisher:
    """Sends through the executor it is given, or through a connection of its own.

    It notifies, or puts what it sends into the log of a schema, which notifies when it is committed.

    That connection is opened by the first publish that needs it. `_turn` lets one thread use it
    at a time, over its I/O by nature; it guards nothing else, and no other lock is taken in it.
    """

    def __init__(self, parameters: conninfo.Parameters, channel: str, schema: str = "") -> None:
        self._parameters = parameters
        self._channel = channel
        self._schema = schema
        self._turn = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._closed = False
        self._unreachable_at = float("-inf")

    def send(self, texts: Sequence[str], executor: Any) -> None:
        """Send each text, in one statement. Blocks for a round trip, raises psycopg's errors."""
        call = self._logged(texts) if self._schema else _Call(_NOTIFY, (self._channel, _encoded(texts)))
        if executor is None:
            self._send_by_own_connection(call)
        else:
            _run(call, executor)

    def fetch(self, statement: str, executor: Any) -> list[Any]:
        """The rows of a statement that is executed in the executor's transaction, if it has one. Blocks for a round
        trip, raises psycopg's errors."""
        rows: list[Any] = []
        _run(_Call(statement, ()), executor, rows.extend)
        return rows

    def close(self, timeout: float) -> None:
        """Close the own connection, if there is one.

        Waits `timeout` seconds at most for a publish that is under way; one that takes longer
        closes the connection when it is done.
        """
        self._closed = True
        if not self._turn.acquire(timeout=timeout):
            logger.warning("a publish did not end within %g s and is left behind", timeout)
            return
        try:
            if self._connection is not None:
                self._connection.close()
        finally:
            self._turn.release()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection without a word to its server."""
        abandon(self._connection)

    def _logged(self, texts: Sequence[str]) -> _Call:
        """What puts them into the log; see `compose_logged`. A single event, the usual case, costs less."""
        channels, tenants, types, payloads = zip(*(text.split("\n", 3) for text in texts), strict=True)
        if len(texts) == 1:
            params = (channels[0].encode(), tenants[0], payloads[0].encode(), types[0].encode())
            return _Call(_LOG_ONE.format(schema=self._schema), params)
        fields = (_encoded(channels), list(tenants), _encoded(payloads), _encoded(types))
        return _Call(_LOG_MANY.format(schema=self._schema), fields)

    def _send_by_own_connection(self, call: _Call) -> None:
        arrived = time.monotonic()
        with self._turn:
            if self._unreachable_at > arrived:
                # Who waited while another found out need not wait for it once more.
                raise psycopg.OperationalError("the server can't be reached, as another thread's publish has found")
            if self._connection is None or _hung_up(self._connection):
                self._connection = self._connect()
            try:
                self._connection.execute(call.statement.encode(), call.params)
            finally:
                if self._closed:  # the hub's close must not leave a session behind
                    self._connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        if self._connection is not None:
            self._connection.close()
        try:
            return conninfo.connect(self._parameters, "pgfanout-publisher")
        except psycopg.OperationalError:
            self._unreachable_at = time.monotonic()
            raise


def abandon(connection: psycopg.Connection[Any] | None) -> None:
    """In a forked child: drop the inherited socket, and never touch the session it belongs to.

    The descriptor's number stays taken, by the null device, since libpq's object still has it.
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
"""Kept, so that nothing finalises them."""


def _encoded(texts: Iterable[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def _nothing(rows: Iterable[Any]) -> None:
    pass


def _run(call: _Call, executor: Any, take: Callable[[Any], object] = _nothing) -> None:
    """Execute through what the application gave; `take` gets the result while its connection is still ours."""
    connection = getattr(executor, "connection", executor)  # a cursor's, a transaction's
    if isinstance(connection, psycopg.Connection):
        # A cursor of our own: the caller's may be in use, on the server's side, or raw.
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        take(cursor.execute(call.statement.encode(), call.params))
    elif hasattr(executor, "execute"):
        take(_execute(executor, call))
    elif callable(connection):  # a pool's
        with connection() as borrowed:
            _run(call, borrowed, take)
    else:
        raise TypeError(
            f"an executor is a psycopg connection, cursor, pool or transaction, not {type(executor).__name__}"
        )


def _execute(executor: Executor, call: _Call) -> Any:
    result = executor.execute(call.statement, call.params)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("an executor has to be synchronous; this one needs to be awaited")
    return result


def _hung_up(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has said something to an idle connection: nearly always good-bye.

    It costs no round trip, and spares the first publish after a restart of the server an error.
    """
    return connection.closed or conninfo.has_unread(connection)
