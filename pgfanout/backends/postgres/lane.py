"""Lane: room for one of the hub's own connections, for one thread at a time."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from . import conninfo, diagnosis
from .executors import Call

__all__ = ["LOCK_TIMEOUT", "Lane", "OwnConnection"]

LOCK_TIMEOUT: Final = 10
"""Seconds that a publish through the hub's own connection waits for another transaction's lock, also in its COMMIT. A
`lock_timeout` of the role, the database or the server takes precedence."""

# For this transaction only: behind a pooler in transaction mode the session then goes to another client.
_BOUND = (
    "SELECT pg_catalog.set_config('lock_timeout', CASE pg_catalog.current_setting('lock_timeout')"
    f" WHEN '0' THEN '{LOCK_TIMEOUT}s' ELSE pg_catalog.current_setting('lock_timeout') END, true), "
)


class OwnConnection:
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


class Lane:
    """Room for one connection. `turn` guards everything here. Threads without it may look whether there is something,
    and are not surprised if that is no longer true."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self.own: OwnConnection | None = None
        self.opened: set[psycopg.Connection[Any]] = set()  # `own`, and those in use or left behind

    def take_out(self) -> OwnConnection | None:
        """Take the connection out, so that nobody finds it if an exception leaves it in the middle of a statement."""
        own, self.own = self.own, None
        return own if own is not None and own.is_usable() else None

    def add(self, connection: psycopg.Connection[Any]) -> OwnConnection:
        self.opened.add(connection)
        return OwnConnection(connection)

    def put_back(self, own: OwnConnection) -> None:
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
