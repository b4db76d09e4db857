"""LogTable: the questions that are put to the log in the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader

from ....delivery.log import Ends, Found, News, Page
from ....errors import HubConfigurationError
from ....event import Event, checked_event
from ....topic import Topic
from .schema import REQUIRED
from .settings import History

__all__ = ["LogTable", "Query", "prepare"]

Query = Callable[[str, Sequence[Any]], "list[tuple[Any, ...]]"]
"""Executes a statement and fetches its rows; raises psycopg's errors."""

_PAGE_ROWS = 500
_PAGE_BYTES = 256 * 1024
_NEWS_ROWS = 250
_LARGE = 8_000
"""Bytes of a payload from which on it is read only where somebody follows its topic."""
_LARGEST = 2**63 - 1

_STATE = """
SELECT version, postgres_channel, pruned_to, greatest(pruned_to, (SELECT max(number) FROM {schema}.event)), rows
FROM {schema}.log
"""

# The topics come as JSON objects that become rows of the log. So a tenant has the type of the column: text, or uuid in
# a log of an earlier version. That holds for a statement that was prepared before an upgrade, too.
_WANTED = "json_populate_recordset(NULL::{schema}.event, %s::json) AS wanted"

# In one statement, and so of one moment. For each topic the index has the events in their order.
_PAGE = """
WITH ends AS (
    SELECT
        pruned_to, greatest(pruned_to, (SELECT max(number) FROM {schema}.event)) AS last,
        pruned_to = %s OR EXISTS (SELECT FROM {schema}.event WHERE number = %s) AS known
    FROM {schema}.log
), found AS (
    SELECT *, count(*) OVER () AS available, sum(size) OVER (ORDER BY number) AS bytes
    FROM (
        SELECT e.* FROM {wanted} CROSS JOIN LATERAL (
            SELECT number, channel, type, size, payload FROM {schema}.event
            WHERE tenant = wanted.tenant AND channel = wanted.channel AND number > %s ORDER BY number LIMIT %s
        ) AS e
        ORDER BY number LIMIT %s
    ) AS first
)
SELECT ends.pruned_to, ends.last, ends.known, number, channel, type, payload, available
FROM ends LEFT JOIN found ON bytes - size < %s
ORDER BY number
"""

_MORE_THAN = """
SELECT FROM {wanted} CROSS JOIN LATERAL (
    SELECT FROM {schema}.event
    WHERE tenant = wanted.tenant AND channel = wanted.channel AND number > %s ORDER BY number LIMIT %s
) AS e
OFFSET %s LIMIT 1
"""

# What is large is left out, so that the rows bound the bytes as well.
_NEWS = """
SELECT log.pruned_to, number, channel, tenant::text, type, payload
FROM {schema}.log LEFT JOIN (
    SELECT number, channel, tenant, type, CASE WHEN size <= %s THEN payload END AS payload
    FROM {schema}.event WHERE number > %s AND number <= %s ORDER BY number LIMIT %s
) AS part ON true
ORDER BY number
"""

_ONE = "SELECT number, channel, tenant::text, type, payload FROM {schema}.event WHERE number = %s"

_AMONG = "SELECT number FROM {schema}.event WHERE number = ANY(%s::bigint[])"

# A deletion by hand may leave events below the mark.
_KNOWN = """
SELECT FROM {schema}.log
WHERE pruned_to = %s OR pruned_to < %s AND EXISTS (SELECT FROM {schema}.event WHERE number = %s)
"""

_CURSOR = """
SELECT greatest(pruned_to, (SELECT max(number) FROM {schema}.event)) AS cursor FROM {schema}.log
"""

_PRUNE = "SELECT {schema}.prune(%s, %s)"


class LogTable:
    """The log as one session reads it; see `LogSession`. It executes everything by `query`.

    A number is known if the log has an event with that number, or begins after it: `pruned_to`.
    """

    def __init__(self, history: History, postgres_channel: str, query: Query) -> None:
        self._history = history
        self._postgres_channel = postgres_channel
        self._query = query

    def ends(self) -> Ends:
        """What the log has. Raises `HubConfigurationError` unless it is there, and this hub's."""
        try:
            rows = self._rows_of_log(_STATE, ())
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            problem = (
                f"the history is not installed in the schema {self._history.schema}: call hub.install_history(), or run"
                f" {self._install()}, or name the schema where it is"
            )
        except psycopg.errors.InsufficientPrivilege as error:
            problem = (
                f"this role may not read the history ({error.diag.message_primary}): as the history's owner, run"
                f" {self._install('--reader ROLE --publisher ROLE')} with this role's name"
            )
        else:
            [(version, channel, *ends)] = rows
            if version < REQUIRED:
                problem = f"the history is of version {version}, {REQUIRED} is needed: run {self._install()}"
            elif channel != self._postgres_channel:
                problem = (
                    f"the history notifies {channel!r}, and this hub listens on {self._postgres_channel!r}: give it"
                    f" the former, or run {self._install(f'--postgres-channel {self._postgres_channel}')}"
                )
            else:
                return Ends(*ends)
        raise HubConfigurationError(problem)

    def page(self, topics: Sequence[Topic], after: int, *, known: bool) -> Found | None:
        """The first part of what came after a number, of topics that may be of several tenants.

        None when that is not known: part of it was pruned, or the number is not `known` and the log does not know it.
        """
        if not 0 <= after <= _LARGEST:
            return None
        rows = self._rows_of_log(_PAGE, (after, after, _json(topics), after, _PAGE_ROWS, _PAGE_ROWS, _PAGE_BYTES))
        pruned_to, last, vouched, first = rows[0][:4]
        if not (pruned_to <= after <= last and (known or vouched)):
            return None
        if first is None:
            return Found(Page([], last), False)
        events = [checked_event(row[4], row[6], row[5], str(row[3])) for row in rows]
        if len(rows) == rows[0][7] < _PAGE_ROWS:
            return Found(Page(events, last), False)
        return Found(Page(events, rows[-1][3]), True)

    def is_too_much(self, topics: Sequence[Topic], after: int) -> bool:
        """Whether there are more events after a number than may be replayed. It looks at that many at most."""
        limit = self._history.max_replay
        return bool(self._rows(_MORE_THAN, (_json(topics), after, limit + 1, limit)))

    def knows(self, number: int) -> bool:
        """Whether the log knows a number."""
        return bool(self._rows(_KNOWN, (number, number, number)))

    def among(self, numbers: Sequence[int]) -> set[int]:
        """Those of some numbers that events of the log have."""
        return {number for (number,) in self._rows(_AMONG, (list(numbers),))}

    def news(self, after: int, last: int = _LARGEST) -> News:
        """What came after a number, up to another, of all topics: the first part of it."""
        rows = self._rows_of_log(_NEWS, (_LARGE, after, last, _NEWS_ROWS))
        events = [(row[1], *_found(row[1:])) for row in rows if row[1] is not None]
        return News(rows[0][0], events, len(events) == _NEWS_ROWS)

    def one(self, number: int) -> Event | None:
        """The event of a number, if there is one."""
        rows = self._rows(_ONE, (number,))
        return _found(rows[0])[1] if rows else None

    def cursor(self) -> str:
        """The number that the log ends with, as the session's transaction sees it."""
        return str(self._rows_of_log(_CURSOR)[0][0])

    def prune(self, batch: int) -> int | None:
        """Remove some of the events that may go; how many, or None while another session does."""
        [(gone,)] = self._rows(_PRUNE, (batch, self._history.prune_every))
        return None if gone is None else int(gone)

    def _install(self, options: str = "") -> str:
        schema = "" if self._history.schema == "pgfanout" else f"--schema {self._history.schema}"
        return " ".join(filter(None, ["pgfanout sql install", schema, options, "--apply"]))

    def _rows(self, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        statement = statement.replace("{wanted}", _WANTED).replace("{schema}", self._history.schema)
        return self._query(statement, params)

    def _rows_of_log(self, statement: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query that has one for the log's own row, at least."""
        if rows := self._rows(statement, params):
            return rows
        raise HubConfigurationError(
            f"the table {self._history.schema}.log has lost its row, as after a dump without data or a TRUNCATE of all"
            f" tables: run {self._install()}, or call hub.install_history()"
        )


class _JsonBytes(Loader):
    """JSON as it is stored, as an event carries it."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Make a connection ready for the questions."""
    connection.adapters.register_loader("json", _JsonBytes)


def _json(topics: Sequence[Topic]) -> str:
    return json.dumps([topic._asdict() for topic in topics], ensure_ascii=False)


def _found(row: tuple[Any, ...]) -> tuple[Topic, Event | None]:
    number, channel, tenant, type, payload = row
    event = None if payload is None else checked_event(channel, payload, type, str(number))
    return Topic(channel, tenant), event
