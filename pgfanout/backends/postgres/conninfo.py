"""Connection parameters: the caller's, with what a long-lived session needs added."""

from __future__ import annotations

import select
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ...errors import HubConfigurationError

__all__ = ["Parameters", "connect", "has_several_hosts", "has_unread", "parse", "same_server"]

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


def has_several_hosts(parameters: Parameters) -> bool:
    """Whether the session may be with one server now and with another one later."""
    return any("," in parameters.get(name) for name in ("host", "hostaddr"))


def same_server(parameters: Parameters, connection: psycopg.Connection[Any]) -> Parameters:
    """The parameters for the very server of a connection, of all the hosts that they name."""
    info = connection.info
    there = parameters.having(host=info.host, port=info.port)
    return there.having(hostaddr=info.hostaddr) if info.hostaddr else there


def connect(parameters: Parameters, application_name: str) -> psycopg.Connection[Any]:
    """A new autocommit connection. Blocks for `connect_timeout` a host; raises psycopg's errors."""
    try:
        return parameters.having(application_name=application_name).connect(
            autocommit=True,
            # Nothing here is worth a server-side statement, and poolers may not keep one.
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        # Without the driver's frames, whose local variables hold the password.
        raise error.with_traceback(None) from None


def has_unread(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has sent something that was not read yet. Raises `OperationalError` when it is closed."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
