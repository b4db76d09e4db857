"""Connection parameters: the caller's, with defaults for a long-lived session."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.cursor import Cursor
from psycopg.pq.abc import PGconn
from psycopg.rows import tuple_row

from ...errors import HubConfigurationError
from . import url

__all__ = [
    "Parameters",
    "abandon",
    "connect",
    "execute",
    "is_read_only",
    "parse",
    "same_server",
    "script_transaction",
    "settle",
]

_DEFAULTS: dict[str, Any] = {
    # Otherwise a connect to an address that does not answer takes the kernel's two minutes.
    "connect_timeout": 5,
    # None of these detects a frozen server process. The heartbeat does.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # LISTEN and NOTIFY are impossible on a standby. Of several hosts this selects the primary.
    "target_session_attrs": "read-write",
}

_SETTINGS = {
    # No time-outs of the server: the watchdog and the heartbeat limit everything.
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

# Sets those that this server version has. Qualified names, so that objects in the role's search path are not used.
_SETTLE = """
SELECT pg_catalog.set_config(name, value, false)
FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) AS wanted (name, value)
WHERE pg_catalog.current_setting(name, true) IS NOT NULL
"""

# Whether the default was set for the role, the database or the session. Other sources hold for the whole server.
_READ_ONLY_BY = """
SELECT pg_catalog.pg_is_in_recovery(), source IN ('global', 'database', 'user', 'database user', 'client', 'session')
FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'
"""


class Parameters:
    """Connection parameters. Their values are never shown, since one of them is a password.

    This is not a mapping: error reporters record local variables, and they show the items of a mapping, not its repr.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __repr__(self) -> str:
        return f"<Parameters {sorted(self._values)}>"

    def get(self, name: str) -> str:
        """Return one value as text, or an empty text if there is none."""
        return str(self._values.get(name, ""))

    def having(self, **others: Any) -> Parameters:
        """Return these parameters with some added or replaced."""
        return Parameters({**self._values, **others})

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """Call `psycopg.connect` with these parameters."""
        return psycopg.connect(**self._values, **options)


def parse(conninfo: str) -> Parameters:
    """Return the parameters of a connection string or URL, with our defaults for those it does not set.

    A URL may be SQLAlchemy's (`postgresql+psycopg://`). Raise `HubConfigurationError`, which does not show the string:
    it may contain a password.
    """
    conninfo = url.for_libpq(conninfo)
    try:
        given = conninfo_to_dict(conninfo)
    except (psycopg.ProgrammingError, AttributeError, TypeError):  # the last two: it is no str
        given = None
    if given is None:  # raised outside the handler, whose error shows parts of the string
        raise HubConfigurationError(url.advice(conninfo))
    if "@" in str(given.get("host", "")):
        raise HubConfigurationError("the host in the connection URL has an '@': write '@' in a password as %40")
    if "://" in conninfo and "@" in str(given.get("dbname", "")):
        # libpq took the part before the slash for hosts and ports, which its errors show.
        raise HubConfigurationError(
            "the database in the connection URL has an '@': write '/' in a password as %2F. If the database's name has"
            " an '@', use the form host=... dbname=..."
        )
    return Parameters({**_DEFAULTS, **given, "client_encoding": "UTF8"})


def may_have_several_hosts(parameters: Parameters) -> bool:
    """Whether later sessions may be with another server. The environment and a service file may also name hosts. A
    single name with several addresses is not detected.

    https://www.postgresql.org/docs/current/libpq-envars.html
    """
    if parameters.get("service") or os.environ.get("PGSERVICE"):
        return True
    named = [parameters.get(name) or os.environ.get(f"PG{name.upper()}", "") for name in ("host", "hostaddr")]
    return any("," in each for each in named)


def same_server(parameters: Parameters, connection: psycopg.Connection[Any]) -> Parameters:
    """Return parameters for exactly the server that a connection has reached, of all the hosts that they name."""
    info = connection.info
    there = parameters.having(host=info.host, port=info.port)
    return there.having(hostaddr=info.hostaddr) if info.hostaddr else there


def connect(parameters: Parameters, application_name: str) -> psycopg.Connection[Any]:
    """Return a new autocommit connection. Block for up to `connect_timeout` per host. Raise psycopg's errors.

    A role or a database whose transactions are read-only by default looks like a standby to
    `target_session_attrs=read-write`. This accepts its session: `settle` makes it writable, and so do the transactions
    that `Connection.transaction` begins. A server that is read-only as a whole is refused: of several hosts it may be
    the one that is being replaced.
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
            # No server-side prepared statements: they save little here, and poolers may not keep them.
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        # Without the driver's frames: their local variables hold the password.
        raise error.with_traceback(None) from None
    # For the transactions that `Connection.transaction` begins, whatever the role's defaults are.
    connection.read_only = False
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return connection


def execute(
    connection: psycopg.Connection[Any], statement: str | bytes | sql.Composed, params: Sequence[Any] | None = None
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Execute one statement with %s for parameters. Return the cursor. Block. Raise psycopg's errors.

    Use psycopg's own cursor class, with tuples for rows. The connection's factories for cursors and rows may be the
    application's, or those of a tracer that adds a comment to each statement and fails for bytes.
    """
    query = statement.encode() if isinstance(statement, str) else statement
    return Cursor(connection, row_factory=tuple_row).execute(query, params)


@contextmanager
def script_transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Run the block in a writable transaction where a backslash is a backslash, whatever the role's defaults are."""
    with connection.transaction():
        execute(connection, "SET LOCAL standard_conforming_strings = on")
        yield


def settle(connection: psycopg.Connection[Any]) -> None:
    """Set what a session needs, whatever the defaults of its role, database or server are. Block.

    This takes a statement, since poolers refuse `options` in a connection string. Use it only for a session that nobody
    else uses. A pooler in transaction mode shares its sessions.
    """
    execute(connection, _SETTLE, (list(_SETTINGS), list(_SETTINGS.values())))


def is_read_only(connection: psycopg.Connection[Any]) -> bool:
    """Whether its transactions are read-only by default. Always False before PostgreSQL 14, which does not say."""
    return connection.info.parameter_status("default_transaction_read_only") == "on"


def abandon(connection: psycopg.Connection[Any] | None) -> None:
    """In a forked child, drop the inherited socket without touching the parent's session.

    The null device takes over the descriptor's number, since libpq's object still refers to it. That object is taken
    out of the connection, which would warn at the child's exit that nobody has closed it.
    """
    if connection is None or connection.closed:
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, connection.fileno(), inheritable=False)
    finally:
        os.close(null)
    _abandoned.append(connection.pgconn)
    del connection.pgconn


_abandoned: list[PGconn] = []
"""References that keep libpq's objects from being finalised: the parent may have been inside of libpq at the fork."""
