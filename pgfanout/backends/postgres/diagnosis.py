"""Why a hub can't listen, and whether waiting would cure it."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from ...errors import HubConfigurationError

__all__ = ["NOTHING_ARRIVES", "advice", "check_encoding", "is_incurable", "words"]

NOTHING_ARRIVES = (
    "LISTEN succeeded, but a notification that a second session sent did not arrive: there is a"
    " pooler in transaction mode in between. Give the hub the server's own address, or a pooler in"
    " session mode."
)

_STANDBY = "the server is a standby or read-only, where LISTEN is impossible: connect to the primary"

# libpq gives no SQLSTATE for a connection that was refused, so its words have to do. In another
# language than English a refused start ends by its time-out, with the same words in it.
_INCURABLE: tuple[tuple[str, str], ...] = (
    (r"password authentication failed|no password supplied", "check the user and the password"),
    (r'role "[^"]*" does not exist', "check the user"),
    (r'database "[^"]*" does not exist', "check the database's name"),
    (r"permission denied for database|not permitted to log in", "grant the role the right"),
    (r"authentication failed for user", "check how the server authenticates this user"),
    (r"no pg_hba\.conf entry", "the server's pg_hba.conf has to allow this user and host"),
    (r"server does not support SSL|certificate verify failed", "check sslmode and certificates"),
    (r"invalid .*value|invalid port number|invalid integer value", "check the connection string"),
    (r"session is read-only|server is in hot standby mode", _STANDBY),
)


def check_encoding(connection: psycopg.Connection[Any]) -> None:
    """Refuse a database whose server doesn't know what its bytes mean."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding == "SQL_ASCII":
        raise HubConfigurationError(
            "the database's encoding is SQL_ASCII, so it can't promise that a notification is"
            " text: use a database with the encoding UTF8"
        )


def words(error: Exception, notice: str) -> str:
    """One line that says what happened: the server's notice before the driver's message."""
    return " ".join((notice or str(error) or type(error).__name__).split())


def is_incurable(error: Exception, *, several_hosts: bool = False) -> bool:
    """Whether waiting won't cure it. Of several hosts, a standby may be about to be promoted."""
    if isinstance(error, (HubConfigurationError, psycopg.errors.ReadOnlySqlTransaction)):
        return True
    remedies = _remedies(str(error)) if isinstance(error, psycopg.OperationalError) else []
    return any(not (several_hosts and remedy is _STANDBY) for remedy in remedies)


def advice(error: Exception, words: str) -> str:
    """The message of the `HubConfigurationError`: what happened and what to do."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return f"{words}: {_STANDBY}"
    return "; ".join([words, *_remedies(words)])


def _remedies(text: str) -> list[str]:
    return [remedy for pattern, remedy in _INCURABLE if re.search(pattern, text)]
