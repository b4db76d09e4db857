"""The command line: prints or applies the SQL of the history and its triggers."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from .backends.postgres.history.schema import Schema
from .backends.postgres.history.script import ScriptError, run_script
from .backends.postgres.history.trigger import TableTrigger, drop_script
from .errors import HubConfigurationError

__all__ = ["main"]

_URL_VARIABLES: Final = ("PGFANOUT_DATABASE_URL", "DATABASE_URL")

_SECRET: Final = re.compile(r"\S*(://|password\s*=).*", re.DOTALL | re.IGNORECASE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0 if it is done, 1 if the server can't be reached or refuses.

    Without `arguments` it takes the process's. Invalid arguments end the process with status 2. An error is one line on
    standard error, without the connection string.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        script = options.script(options)
        if not options.apply:
            sys.stdout.write(script)
            return 0
        run_script(_database_url(options), script)
    except (ValueError, HubConfigurationError) as error:
        parser.error(str(error))
    except ScriptError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with one line. Anything in it that may be a connection string is left out."""
        line = " ".join(_SECRET.sub("...", message).split())
        self.exit(2, f"{self.prog}: {line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m pgfanout", allow_abbrev=False)
    sql = _commands(_command(_commands(parser), "sql", "print or apply the SQL of the history"))
    _add_install(sql)
    _add_trigger(sql)
    return parser


def _commands(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return parser.add_subparsers(required=True, metavar="COMMAND")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=purpose, description=f"{purpose.capitalize()}.", allow_abbrev=False)


def _add_install(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "install",
        "install the history or update it to this version; without an option its setting stays as it is",
    )
    _add_common(parser, _install)
    parser.add_argument("--postgres-channel", help="the NOTIFY channel that hubs listen on (pgfanout_events)")
    parser.add_argument("--max-age", type=float, metavar="SECONDS", help="how long to keep events (86400)")
    parser.add_argument("--max-rows", type=int, metavar="N", help="how many events to keep (1000000)")
    parser.add_argument("--max-payload", type=int, metavar="BYTES", help="the largest payload of an event (1048576)")
    for option, rights in (("--publisher", "publish"), ("--reader", "listen, replay and prune")):
        purpose = f"a role that may {rights}; may be repeated"
        parser.add_argument(option, action="append", default=[], metavar="ROLE", help=purpose)


def _add_trigger(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "trigger", "publish each change of a table's rows as an event of the history")
    _add_common(parser, _trigger)
    parser.add_argument("table", metavar="TABLE", help="table or schema.table, without quotes")
    parser.add_argument("--tenant", metavar="COLUMN", help="the column with the tenant's uuid")
    parser.add_argument(
        "--key",
        type=_columns,
        default=TableTrigger.key,
        metavar="COLUMN[,COLUMN...]",
        help="the columns that identify a row of a tenant: NOT NULL, with a unique index (the primary key)",
    )
    parser.add_argument("--channel", default=TableTrigger.channel, help="the channel (the table's name)")
    parser.add_argument(
        "--columns",
        type=_columns,
        default=(),
        metavar="COLUMN[,COLUMN...]",
        help="publish an update only if it changes one of these columns (all)",
    )
    parser.add_argument(
        "--payload",
        type=_columns,
        default=(),
        metavar="COLUMN[,COLUMN...]",
        help="the columns whose values are in the event (none)",
    )
    parser.add_argument(
        "--when",
        default=TableTrigger.when,
        metavar="CONDITION",
        help="publish only rows for which this condition holds, in SQL on the columns (all)",
    )
    parser.add_argument("--drop", action="store_true", help="remove the trigger")


def _add_common(parser: argparse.ArgumentParser, script: Callable[[argparse.Namespace], str]) -> None:
    parser.set_defaults(script=script)
    parser.add_argument("--schema", default=Schema.name, help="the history's schema (%(default)s)")
    parser.add_argument("--apply", action="store_true", help="run the SQL instead of printing it")
    parser.add_argument(
        "--database-url",
        metavar="URL",
        help=f"where to run it ({' or '.join(f'${name}' for name in _URL_VARIABLES)}, which other users can't see)",
    )


def _columns(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _install(options: argparse.Namespace) -> str:
    schema = Schema(
        name=options.schema,
        postgres_channel=options.postgres_channel,
        max_age=options.max_age,
        max_rows=options.max_rows,
        max_payload=options.max_payload,
    )
    return schema.script(options.publisher, options.reader)


def _trigger(options: argparse.Namespace) -> str:
    if options.drop:
        return drop_script(options.table, options.schema)
    if options.tenant is None:
        raise ValueError("a trigger needs --tenant")
    return TableTrigger(
        table=options.table,
        tenant=options.tenant,
        key=options.key,
        channel=options.channel,
        columns=options.columns,
        payload=options.payload,
        when=options.when,
        schema=options.schema,
    ).script()


def _database_url(options: argparse.Namespace) -> str:
    for url in (options.database_url, *map(os.environ.get, _URL_VARIABLES)):
        if url:
            return str(url)
    raise ValueError(f"--apply needs --database-url, {' or '.join(_URL_VARIABLES)}")
