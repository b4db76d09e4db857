"""Why a hub can't listen, and whether waiting helps."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from ...errors import HubConfigurationError

__all__ = [
    "DEAF",
    "NOTHING_ARRIVES",
    "DeafError",
    "advice",
    "check_encoding",
    "is_incurable",
    "no_second_session",
    "words",
]

NOTHING_ARRIVES = (
    "LISTEN succeeded, but a notification that a second session sent did not arrive: there is a"
    " pooler in transaction mode in between. Give the hub the server's own address, or that of a pooler in"
    " session mode."
)

DEAF = (
    "the server answers, but notifications no longer arrive: something in between, such as a pooler, has ended the"
    " session's LISTEN"
)

_STANDBY = "the server is a read-only standby, where LISTEN is impossible: promote it, or connect to the primary"
_READ_ONLY = (
    "the server accepts no writes (a standby, or default_transaction_read_only is on): connect to one that does"
)

# libpq gives no SQLSTATE for a connection that was refused, so its message has to do. If that is not in English, the
# start of the hub ends with a time-out that has the message in it.
_INCURABLE: tuple[tuple[str, str], ...] = (
    (r"password authentication failed|no password supplied", "check the user and the password"),
    (r'role "[^"]*" does not exist', "check the user"),
    (r'database "[^"]*" does not exist', "check the database's name"),
    (r"permission denied for database|not permitted to log in", "grant the role the right"),
    (r"authentication failed for user", "check how the server authenticates this user"),
    (r"no pg_hba\.conf entry", "the server's pg_hba.conf has to allow this user and host"),
    (r"server does not support SSL|certificate verify failed", "check sslmode and certificates"),
    (r"invalid .*value|invalid port number|invalid integer value", "check the connection string"),
)

# Waiting helps for these if the connection string may soon mean another server.
_READ_ONLY_SERVER: tuple[tuple[str, str], ...] = (
    (r"server is in hot standby mode|during recovery", _STANDBY),
    (r"session is read-only|server is read-only", _READ_ONLY),
)


class DeafError(psycopg.OperationalError):
    """A session's server answers, but notifications no longer arrive."""


def no_second_session() -> psycopg.OperationalError:
    """Return the error for a second session that got no answer while the first one did."""
    return psycopg.OperationalError(
        "the server answers this session, but a second one got no answer in time: a pooler without a free connection is"
        " in between. A hub briefly needs two connections each time it begins to listen: make the pool larger"
        " (default_pool_size of PgBouncer)"
    )


def check_encoding(connection: psycopg.Connection[Any]) -> None:
    """Raise `HubConfigurationError` if the database does not know the encoding of its bytes."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding == "SQL_ASCII":
        raise HubConfigurationError(
            "the database's encoding is SQL_ASCII, so it can't promise that a notification is"
            " text: use a database with the encoding UTF8"
        )


def words(error: Exception, notice: str = "") -> str:
    """Return one line that says what happened: the server's notice if there is one, else the driver's message."""
    return " ".join((notice or str(error) or type(error).__name__).split())


def is_incurable(error: Exception, *, several_hosts: bool = False) -> bool:
    """Whether waiting does not help. With several hosts it may, since a standby may be promoted soon."""
    if isinstance(error, HubConfigurationError):
        return True
    known = _INCURABLE if several_hosts else _INCURABLE + _READ_ONLY_SERVER
    return isinstance(error, psycopg.OperationalError) and bool(_remedies(str(error), known))


def advice(words: str) -> str:
    """Return the words, and what to do about them if that is known."""
    return "; ".join([words, *_remedies(words, _INCURABLE + _READ_ONLY_SERVER)])


def _remedies(text: str, known: tuple[tuple[str, str], ...]) -> list[str]:
    return [remedy for pattern, remedy in known if re.search(pattern, text)]
