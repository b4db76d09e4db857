"""Running an SQL script on a server, for the command line."""

from __future__ import annotations

import psycopg

from ....errors import PgFanoutError
from ..conninfo import connect, execute, parse, script_transaction
from ..diagnosis import words

__all__ = ["ScriptError", "run_script"]


class ScriptError(PgFanoutError):
    """The server can't be reached or has refused the script. The message is one line without the connection string."""


def run_script(conninfo: str, script: str) -> None:
    """Run a script in its own transaction. Block for as long as it takes, including waits for locks.

    Raise `HubConfigurationError` for an invalid connection string, and `ScriptError`.
    """
    parameters = parse(conninfo)
    try:
        with connect(parameters, "pgfanout sql") as connection, script_transaction(connection):
            execute(connection, script)
    except psycopg.Error as error:
        message = _line(error)
    else:
        return
    raise ScriptError(message)  # raised outside the handler, since the driver's frames hold the password


def _line(error: psycopg.Error) -> str:
    said = [error.diag.message_primary, error.diag.message_detail, error.diag.message_hint]
    return words(error, "; ".join(filter(None, said)))
