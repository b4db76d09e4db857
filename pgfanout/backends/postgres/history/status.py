"""What is installed in a database, and pruning it by hand, for the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import psycopg

from ..conninfo import connect, execute, parse
from .schema import REVISION, VERSION, check_schema
from .script import ScriptError, reporting

__all__ = ["describe", "is_installed", "prune"]

_Result = TypeVar("_Result")

_TABLES: Final = """
SELECT count(*) FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %s AND relname IN ('log', 'event')
"""

_LOG: Final = """
SELECT installed.version, installed.revision, postgres_channel, max_age::text, max_rows, max_payload
FROM {schema}.log, {schema}._installed() AS installed
"""

_EVENTS: Final = """
SELECT count(*), to_timestamp(min(number) / 1e6)::text, to_timestamp(max(number) / 1e6)::text FROM {schema}.event
"""

_TRIGGERS: Final = "SELECT watched::text, options FROM {schema}.table_trigger ORDER BY 1"

_PASSED_OVER: Final = "SELECT last_value FROM {schema}.passed_over"

_NOT_SHOWN: Final = ("table", "schema")

_COUNTED_FROM: Final = 3
"""The version of the tables that counts the rows which triggers pass over."""

_BATCH: Final = 1000


def is_installed(conninfo: str, schema: str) -> bool:
    """Return whether the database has a history in this schema. Needs no rights in it.

    Block for a connection. Raise `HubConfigurationError` for an invalid connection string, and `ScriptError`.
    """
    return _in_session(conninfo, lambda connection: _has_tables(connection, schema))


def describe(conninfo: str, schema: str) -> str:
    """Return lines about the history: its version, its settings, its events and the tables that publish.

    Block while the events are counted. Raise `HubConfigurationError` for an invalid connection string, and
    `ScriptError`, also if there is no history.
    """

    def described(connection: psycopg.Connection[Any]) -> str:
        _check(connection, schema)
        return "".join(f"{name:<12}{text}\n" for name, text in _lines(connection, schema))

    return _in_session(conninfo, described)


def prune(conninfo: str, schema: str) -> int:
    """Remove the events that are too old or too many, in small transactions. Return how many there were.

    Block for as long as it takes. Raise what `describe` raises, and `ScriptError` if another process is pruning.
    """

    def pruned(connection: psycopg.Connection[Any]) -> int:
        _check(connection, schema)
        gone, batch = 0, _BATCH
        every = 0.0  # the first call makes a new plan of what to remove, and the others follow it
        while batch == _BATCH:
            [(batch,)] = execute(connection, f"SELECT {schema}.prune(%s, %s)", (_BATCH, every)).fetchall()
            if batch is None:
                raise ScriptError(f"another process is pruning the history ({gone} events removed)")
            gone += batch
            every = 3600.0
        return gone

    return _in_session(conninfo, pruned)


def _in_session(conninfo: str, work: Callable[[psycopg.Connection[Any]], _Result]) -> _Result:
    parameters = parse(conninfo)

    def connected() -> _Result:
        with connect(parameters, "pgfanout sql") as connection:
            return work(connection)

    return reporting(connected)


def _check(connection: psycopg.Connection[Any], schema: str) -> None:
    if not _has_tables(connection, check_schema(schema)):
        raise ScriptError(f"there is no history in the schema {schema}: run pgfanout sql install --apply")


def _has_tables(connection: psycopg.Connection[Any], schema: str) -> bool:
    return execute(connection, _TABLES, (schema,)).fetchall() == [(2,)]


def _lines(connection: psycopg.Connection[Any], schema: str) -> Iterator[tuple[str, str]]:
    settings = _rows(connection, schema, _LOG)
    if not settings:
        raise ScriptError(f"the history in the schema {schema} has lost its settings: run pgfanout sql install --apply")
    version, revision, channel, max_age, max_rows, max_payload = settings[0]
    yield "schema", f"{schema}, version {version}.{revision}{_advice((version, revision))}"
    yield "channel", channel
    yield "keeps", f"{max_age}, {max_rows} events, {max_payload} bytes of payload"
    [(count, oldest, newest)] = _rows(connection, schema, _EVENTS)
    yield "events", f"{count}, from {oldest} to {newest}" if count else "0"
    tables = _rows(connection, schema, _TRIGGERS)
    for table, options in tables:
        shown = [f"{name}={value}" for name, value in (options or {}).items() if value and name not in _NOT_SHOWN]
        yield "table", " ".join([table, *shown])
    if tables and version >= _COUNTED_FROM:
        yield "passed over", f"{_rows(connection, schema, _PASSED_OVER)[0][0]} rows of tables, without a valid tenant"


def _advice(there: tuple[int, int]) -> str:
    here = (VERSION, REVISION)
    if here == there:
        return ""
    what = "run pgfanout sql install --apply" if there < here else "update pgfanout"
    return f". This pgfanout has {VERSION}.{REVISION}: {what}"


def _rows(connection: psycopg.Connection[Any], schema: str, statement: str) -> list[tuple[Any, ...]]:
    return execute(connection, statement.replace("{schema}", schema)).fetchall()
