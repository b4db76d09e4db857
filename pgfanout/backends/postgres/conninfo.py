"""Connection parameters: the caller's, with what a long-lived session needs added."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.cursor import Cursor
from psycopg.rows import tuple_row

from ...errors import HubConfigurationError

__all__ = ["Parameters", "connect", "execute", "is_read_only", "parse", "same_server", "script_transaction", "settle"]

_DEFAULTS: dict[str, Any] = {
    # Without it a connect to a silent address takes the kernel's two minutes.
    "connect_timeout": 5,
    # Neither of these finds a frozen server process; the heartbeat does.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # LISTEN and NOTIFY are impossible on a standby; of several hosts, the primary is meant.
    "target_session_attrs": "read-write",
}

_SETTINGS = {
    # The watchdog and the heartbeat bound everything.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "standard_conforming_strings": "on",
    "search_path": "pg_catalog, pg_temp",
}

# Those that this version of the server has. Nothing that somebody has put into a schema of the role's path is found.
_SETTLE = """
SELECT pg_catalog.set_config(name, value, false)
FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) AS wanted (name, value)
WHERE pg_catalog.current_setting(name, true) IS NOT NULL
"""

# Where a default comes from. What is left, a file or the command line, is the whole server's.
_READ_ONLY_BY = """
SELECT pg_catalog.pg_is_in_recovery(), source IN ('global', 'database', 'user', 'database user', 'client', 'session')
FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'
"""


class Parameters:
    """Names and values of which nothing is shown, a password being among them.

    No mapping: error reporters record local variables, and walk through one instead of asking
    for its repr.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __repr__(self) -> str:
        return f"<Parameters {sorted(self._values)}>"

    def get(self, name: str) -> str:
        """One value as text, empty when there's none."""
        return str(self._values.get(name, ""))

    def having(self, **others: Any) -> Parameters:
        """These, and others in addition or instead."""
        return Parameters({**self._values, **others})

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """`psycopg.connect` with them."""
        return psycopg.connect(**self._values, **options)


def parse(conninfo: str) -> Parameters:
    """The parameters of a connection string or URL, defaults added where it says nothing.

    Raises `HubConfigurationError`, which does not show the string: it may hold a password.
    """
    try:
        given = conninfo_to_dict(conninfo)
    except (psycopg.ProgrammingError, AttributeError, TypeError):  # the last two: it is no str
        given = None
    if given is None:  # raised outside the handler, whose error shows parts of the string
        raise HubConfigurationError(
            "the connection string has to look like postgresql://user@host/database (without '+' and a driver's name)"
            " or host=... dbname=..."
        )
    if "@" in str(given.get("host", "")):
        raise HubConfigurationError("the host in the connection URL has an '@': write that of a password as %40")
    if "://" in conninfo and "@" in str(given.get("dbname", "")):
        # What precedes the slash was taken for hosts and ports, which errors show.
        raise HubConfigurationError(
            "the database in the connection URL has an '@': write '/' in a password as %2F (a database whose name has"
            " an '@' needs the form host=... dbname=...)"
        )
    return Parameters({**_DEFAULTS, **given, "client_encoding": "UTF8"})


def may_have_several_hosts(parameters: Parameters) -> bool:
    """Whether the session may be with one server now and with another one later: hosts are also named by the
    environment and by a service file. That one name has several addresses is not seen.

    https://www.postgresql.org/docs/current/libpq-envars.html
    """
    if parameters.get("service") or os.environ.get("PGSERVICE"):
        return True
    named = [parameters.get(name) or os.environ.get(f"PG{name.upper()}", "") for name in ("host", "hostaddr")]
    return any("," in each for each in named)


def same_server(parameters: Parameters, connection: psycopg.Connection[Any]) -> Parameters:
    """The parameters for the very server of a connection, of all the hosts that they name."""
    info = connection.info
    there = parameters.having(host=info.host, port=info.port)
    return there.having(hostaddr=info.hostaddr) if info.hostaddr else there


def connect(parameters: Parameters, application_name: str) -> psycopg.Connection[Any]:
    """A new autocommit connection. Blocks for `connect_timeout` a host; raises psycopg's errors.

    A role or a database whose transactions are read-only by default looks like a standby to
    `target_session_attrs=read-write`. Its session is taken; `settle` makes it writable, and so do the transactions that
    `Connection.transaction` begins. A server that is read-only as a whole is left alone: of several hosts it may
    be the one that is being replaced.
    """
    named = parameters.having(application_name=application_name)
    try:
        return _connect(named)
    except psycopg.OperationalError as error:
        if parameters.get("target_session_attrs") != "read-write" or "session is read-only" not in str(error):
            raise
    connection = _connect(named.having(target_session_attrs="primary" if psycopg.pq.version() >= 140000 else "any"))
    try:
        ((in_recovery, by_role),) = execute(connection, _READ_ONLY_BY).fetchall()
        if in_recovery or not by_role:
            words = "is in hot standby mode" if in_recovery else "is read-only (default_transaction_read_only)"
            raise psycopg.OperationalError(f"the server {words}")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(parameters: Parameters) -> psycopg.Connection[Any]:
    try:
        connection = parameters.connect(
            autocommit=True,
            # Nothing here is worth a server-side statement, and poolers may not keep one.
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        # Without the driver's frames, whose local variables hold the password.
        raise error.with_traceback(None) from None
    # Of the transactions that are begun by `Connection.transaction`, whatever the role's defaults are.
    connection.read_only = False
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return connection


def execute(
    connection: psycopg.Connection[Any], statement: str | bytes | sql.Composed, params: Sequence[Any] | None = None
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Execute one statement with %s for parameters. Blocks; raises psycopg's errors.

    By a cursor of psycopg's own with rows that are tuples. The connection's own makers of cursors and rows may be an
    application's, or those of a tracer that adds a comment to each statement and fails at bytes.
    """
    query = statement.encode() if isinstance(statement, str) else statement
    return Cursor(connection, row_factory=tuple_row).execute(query, params)


@contextmanager
def script_transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction that may write, and in which a backslash is a backslash, whatever the role's defaults are."""
    with connection.transaction():
        execute(connection, "SET LOCAL standard_conforming_strings = on")
        yield


def settle(connection: psycopg.Connection[Any]) -> None:
    """Give a session the settings that it needs, whatever its role, database or server has for a default.

    By a statement: poolers refuse `options` in a connection string. Only for a session that nobody else uses, which one
    of a pooler in transaction mode is not.
    """
    execute(connection, _SETTLE, (list(_SETTINGS), list(_SETTINGS.values())))


def is_read_only(connection: psycopg.Connection[Any]) -> bool:
    """Whether its transactions are read-only by default. A server older than PostgreSQL 14 does not say."""
    return connection.info.parameter_status("default_transaction_read_only") == "on"
