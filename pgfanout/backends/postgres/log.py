"""LogTable: the questions that are put to the log in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.adapt import Buffer, Loader

from ...errors import HubConfigurationError
from ...event import Event
from ...log import Page
from ...topic import Topic
from .schema import REQUIRED

__all__ = ["Ends", "LogTable", "Query", "prepare"]

Query = Callable[[str, Sequence[Any]], "list[tuple[Any, ...]]"]
"""Executes a statement and fetches its rows; raises psycopg's errors."""

_PAGE_ROWS = 500
_PAGE_BYTES = 256 * 1024

_STATE = """
SELECT version, postgres_channel, pruned_to, greatest(pruned_to, (SELECT max(number) FROM {schema}.event)), rows
FROM {schema}.log
"""

# In one statement, and so of one moment. For each channel the index has the events in their order.
_PAGE = """
WITH ends AS (
    SELECT pruned_to, greatest(pruned_to, (SELECT max(number) FROM {schema}.event)) AS last FROM {schema}.log
), found AS (
    SELECT *, count(*) OVER () AS available, sum(size) OVER (ORDER BY number) AS bytes
    FROM (
        SELECT e.* FROM unnest(%s::text[]) AS wanted (channel) CROSS JOIN LATERAL (
            SELECT number, channel, type, size, payload FROM {schema}.event
            WHERE tenant = %s AND channel = wanted.channel AND number > %s ORDER BY number LIMIT %s
        ) AS e
        ORDER BY number LIMIT %s
    ) AS first
)
SELECT ends.pruned_to, ends.last, number, channel, type, payload, available
FROM ends LEFT JOIN found ON bytes - size < %s
ORDER BY number
"""

_MORE_THAN = """
SELECT FROM unnest(%s::text[]) AS wanted (channel) CROSS JOIN LATERAL (
    SELECT FROM {schema}.event
    WHERE tenant = %s AND channel = wanted.channel AND number > %s ORDER BY number LIMIT %s
) AS e
OFFSET %s LIMIT 1
"""

_MISSED = """
SELECT number, channel, tenant::text, type, payload FROM (
    SELECT *, sum(size) OVER (ORDER BY number) AS bytes FROM {schema}.event
    WHERE number > %s AND number <= %s ORDER BY number LIMIT %s
) AS first
WHERE bytes - size < %s ORDER BY number
"""

_MISSED_MORE_THAN = "SELECT FROM {schema}.event WHERE number > %s ORDER BY number OFFSET %s LIMIT 1"

_ONE = "SELECT number, channel, tenant::text, type, payload FROM {schema}.event WHERE number = %s"

_PRUNE = "SELECT {schema}.prune(%s, %s)"


class Ends(NamedTuple):
    """What the log has: everything after `pruned_to`, and nothing after `last`."""

    pruned_to: int
    last: int
    rows: int
    """How many events there are, as of the last time that somebody counted them."""

    def include(self, number: int) -> bool:
        """Whether it is known what came after a number."""
        return self.pruned_to <= number <= self.last


class LogTable:
    """Where it is and how much may be read at once. It holds no connection."""

    def __init__(self, schema: str, postgres_channel: str, max_replay: int) -> None:
        self._schema = schema
        self._postgres_channel = postgres_channel
        self._max_replay = max_replay

    def ends(self, query: Query) -> Ends:
        """What the log has. Raises `HubConfigurationError` unless it is there, and this hub's."""
        try:
            [(version, channel, *ends)] = query(self._sql(_STATE), ())
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            problem = (
                f"the history is not installed in the schema {self._schema}: call hub.install_history(), or run"
                f" {self._install()}, or name the schema where it is"
            )
        except psycopg.errors.InsufficientPrivilege as error:
            problem = (
                f"this role may not read the history ({error.diag.message_primary}): as the history's owner, run"
                f" {self._install('--reader ROLE --publisher ROLE')} with this role's name"
            )
        else:
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

    def page(self, query: Query, topics: Sequence[Topic], after: int) -> Page | None:
        """The first part of what came after a number, of topics of one tenant; None when that is not known,
        or too much."""
        where = [topic.channel for topic in topics], topics[0].tenant, after
        rows = query(self._sql(_PAGE), (*where, _PAGE_ROWS, _PAGE_ROWS, _PAGE_BYTES))
        pruned_to, last, first = rows[0][:3]
        if not pruned_to <= after <= last:
            return None
        if first is None:
            return Page([], last)
        events = [Event.checked(row[3], row[5], row[4], str(row[2])) for row in rows]
        if len(rows) == rows[0][6] < _PAGE_ROWS:
            return Page(events, last)
        if query(self._sql(_MORE_THAN), (*where, self._max_replay + 1, self._max_replay)):
            return None
        return Page(events, rows[-1][2])

    def missed(self, query: Query, after: int, last: int) -> Iterator[list[tuple[Topic, Event]]]:
        """Everything after a number, up to another, in parts."""
        while rows := query(self._sql(_MISSED), (after, last, _PAGE_ROWS, _PAGE_BYTES)):
            yield [_found(row) for row in rows]
            after = rows[-1][0]

    def is_too_much(self, query: Query, after: int) -> bool:
        """Whether there are more events after a number than may be replayed."""
        return bool(query(self._sql(_MISSED_MORE_THAN), (after, self._max_replay)))

    def one(self, query: Query, number: int) -> tuple[Topic, Event] | None:
        """The event of a number, if there is one."""
        rows = query(self._sql(_ONE), (number,))
        return _found(rows[0]) if rows else None

    def prune(self, query: Query, batch: int, every: float) -> int | None:
        """Remove some of the events that may go; how many, or None while another session does."""
        [(gone,)] = query(self._sql(_PRUNE), (batch, every))
        return None if gone is None else int(gone)

    def _install(self, options: str = "") -> str:
        schema = "" if self._schema == "pgfanout" else f"--schema {self._schema}"
        return " ".join(filter(None, ["python -m pgfanout sql install", schema, options, "--apply"]))

    def _sql(self, statement: str) -> str:
        return statement.replace("{schema}", self._schema)


class _JsonBytes(Loader):
    """JSON as it is stored, as an event carries it."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Make a connection ready for the questions."""
    connection.adapters.register_loader("json", _JsonBytes)


def _found(row: tuple[Any, ...]) -> tuple[Topic, Event]:
    number, channel, tenant, type, payload = row
    return Topic(channel, tenant), Event.checked(channel, payload, type, str(number))
