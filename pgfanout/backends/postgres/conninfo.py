"""Connection parameters: the caller's, with what a long-lived session needs added."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ...errors import HubConfigurationError

__all__ = ["connect", "has_several_hosts", "parse", "same_server"]

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


def parse(conninfo: str) -> dict[str, Any]:
    """The parameters of a connection string or URL, defaults added where it says nothing.

    Raises `HubConfigurationError`, which does not show the string: it may hold a password.
    """
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        given = None
    if given is None:  # raised outside the handler, whose error shows parts of the string
        raise HubConfigurationError(
            "the connection string has to look like postgresql://user@host/database (without '+' and a driver's name)"
            " or host=... dbname=..."
        )
    if "@" in str(given.get("host", "")):
        raise HubConfigurationError("the host in the connection URL has an '@': write that of a password as %40")
    return {**_DEFAULTS, **given, "client_encoding": "UTF8"}


def has_several_hosts(parameters: dict[str, Any]) -> bool:
    """Whether the session may be with one server now and with another one later."""
    return any("," in str(parameters.get(name, "")) for name in ("host", "hostaddr"))


def same_server(parameters: dict[str, Any], connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """The parameters for the very server of a connection, of all the hosts that they name."""
    info = connection.info
    there = {**parameters, "host": info.host, "port": info.port}
    if info.hostaddr:
        there["hostaddr"] = info.hostaddr
    return there


def connect(parameters: dict[str, Any], application_name: str) -> psycopg.Connection[Any]:
    """A new autocommit connection. Blocks for `connect_timeout` a host; raises psycopg's errors."""
    return psycopg.connect(
        **{**parameters, "application_name": application_name},
        autocommit=True,
        # Nothing here is worth a server-side statement, and poolers may not keep one.
        prepare_threshold=None,
    )
