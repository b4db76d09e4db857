"""HistoryStore: the sessions that read the history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg

from ....delivery.log import UnreadableLogError
from ....errors import HubConfigurationError
from .. import conninfo
from ..watchdog import Watchdog
from .settings import History
from .table import LogTable, Query, prepare

__all__ = ["HistoryStore"]


class HistoryStore:
    """See `LogStore`. One session is open at a time; the watchdog cuts it when an answer takes longer than `timeout`
    seconds."""

    def __init__(
        self, parameters: conninfo.Parameters, postgres_channel: str, history: History, timeout: float
    ) -> None:
        self.errors: tuple[type[Exception], ...] = (psycopg.Error, HubConfigurationError)
        self.refill = history.refill
        self.complete = history.log_only
        self.max_replay = history.max_replay
        self.prune_every = history.prune_every
        self._parameters = parameters
        self._postgres_channel = postgres_channel
        self._history = history
        self._timeout = timeout
        self._watchdog = Watchdog()
        self._connection: psycopg.Connection[Any] | None = None

    def table(self, query: Query) -> LogTable:
        """The log as another session reads it."""
        return LogTable(self._history, self._postgres_channel, query)

    @contextmanager
    def open(self) -> Iterator[LogTable]:
        """See `LogStore.open`."""
        connection = self._connection = conninfo.connect(self._parameters, "pgfanout-history")
        try:
            connection.prepare_threshold = 2
            prepare(connection)
            with self._watchdog.watch(connection.fileno()):
                with self._watchdog.limit(self._timeout):
                    conninfo.settle(connection)
                yield self.table(partial(self._query, connection))
        finally:
            connection.close()

    def stop(self) -> None:
        """See `LogStore.stop`."""
        self._watchdog.stop()

    def abandon(self) -> None:
        """See `LogStore.abandon`."""
        conninfo.abandon(self._connection)
        self._watchdog.abandon()

    def _query(
        self, connection: psycopg.Connection[Any], statement: str, params: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        try:
            with self._watchdog.limit(self._timeout):
                return conninfo.execute(connection, statement, params).fetchall()
        # There is no such table, or no right to read it. Or the log is of a version whose tenants are UUIDs.
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            raise UnreadableLogError(*error.args) from error
