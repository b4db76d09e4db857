"""Running an SQL script on a server, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg

from ....errors import HubConfigurationError, HubTimeoutError, PgFanoutError
from ..conninfo import connect, execute, parse, script_transaction
from ..diagnosis import words

__all__ = ["ScriptError", "reporting", "run_script"]

_Result = TypeVar("_Result")


class ScriptError(PgFanoutError):
    """The server can't be reached or has refused the script. The message is one line without the connection string."""


def run_script(conninfo: str, script: str) -> None:
    """Run a script in its own transaction. Block for as long as it takes, including waits for locks.

    Raise `HubConfigurationError` for an invalid connection string, and `ScriptError`.
    """
    parameters = parse(conninfo)

    def run() -> None:
        with connect(parameters, "pgfanout sql") as connection, script_transaction(connection):
            execute(connection, script)

    reporting(run)


def reporting(work: Callable[[], _Result]) -> _Result:
    """Return what `work` returns. Raise `ScriptError` for an error of the driver, or of a hub that does not listen."""
    try:
        return work()
    except psycopg.Error as error:
        message = _line(error)
    except (HubConfigurationError, HubTimeoutError) as error:
        message = " ".join(str(error).split())
    raise ScriptError(message)  # raised outside the handler, since the driver's frames hold the password


def _line(error: psycopg.Error) -> str:
    said = [error.diag.message_primary, error.diag.message_detail, error.diag.message_hint]
    return words(error, "; ".join(filter(None, said)))
