"""`pgfanout sql`: prints or applies the SQL of the history and its triggers, and says what is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from ..backends.postgres.history.schema import Schema
from ..backends.postgres.history.script import run_script
from ..backends.postgres.history.status import describe, prune
from ..backends.postgres.history.trigger import TableTrigger, drop_script
from .parser import Commands, add_command, add_commands, add_schema, add_url, url_for

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Add the command and its own commands to a parser's."""
    sql = add_commands(add_command(commands, "sql", "print or apply the SQL of the history, or say what is installed"))
    _add_install(sql)
    _add_trigger(sql)
    for name, purpose, run in (
        ("status", "say what is installed: the history, its settings, its events and its tables", _status),
        ("prune", "remove the events that are too old or too many", _prune),
    ):
        parser = add_command(sql, name, purpose, run)
        add_schema(parser)
        add_url(parser)
    _add_common(add_command(sql, "uninstall", "drop the history with its events and triggers"), _uninstall)


def _add_install(commands: Commands) -> None:
    parser = add_command(
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


def _add_trigger(commands: Commands) -> None:
    parser = add_command(commands, "trigger", "publish each change of a table's rows as an event of the history")
    _add_common(parser, _trigger)
    parser.add_argument("table", metavar="TABLE", help="table or schema.table, without quotes")
    parser.add_argument("--tenant", metavar="COLUMN", help="the column with the tenant, of any type (none)")
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
    parser.set_defaults(run=_print_or_apply, script=script)
    add_schema(parser)
    parser.add_argument("--apply", action="store_true", help="run the SQL instead of printing it")
    add_url(parser)


def _print_or_apply(options: argparse.Namespace) -> int:
    script = options.script(options)
    if options.apply:
        run_script(url_for(options), script)
    else:
        sys.stdout.write(script)
    return 0


def _schema(options: argparse.Namespace) -> str:
    if options.schema is None:
        return Schema.name if options.settings is None else str(options.settings.values["HISTORY_SCHEMA"])
    return str(options.schema)


def _chosen(options: argparse.Namespace, option: str, setting: str) -> Any:
    """Return an option, or else what the application has set. None: neither, and the log keeps what it has."""
    value = getattr(options, option)
    return options.settings.changed(setting) if value is None and options.settings is not None else value


def _columns(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _install(options: argparse.Namespace) -> str:
    schema = Schema(
        name=_schema(options),
        postgres_channel=_chosen(options, "postgres_channel", "POSTGRES_CHANNEL"),
        max_age=_chosen(options, "max_age", "HISTORY_MAX_AGE"),
        max_rows=_chosen(options, "max_rows", "HISTORY_MAX_ROWS"),
        max_payload=_chosen(options, "max_payload", "HISTORY_MAX_PAYLOAD"),
    )
    return schema.script(options.publisher, options.reader)


def _trigger(options: argparse.Namespace) -> str:
    if options.drop:
        return drop_script(options.table, _schema(options))
    return TableTrigger(
        table=options.table,
        tenant=options.tenant,
        key=options.key,
        channel=options.channel,
        columns=options.columns,
        payload=options.payload,
        when=options.when,
        schema=_schema(options),
    ).script()


def _uninstall(options: argparse.Namespace) -> str:
    return Schema(_schema(options)).drop_script()


def _status(options: argparse.Namespace) -> int:
    sys.stdout.write(describe(url_for(options), _schema(options)))
    return 0


def _prune(options: argparse.Namespace) -> int:
    gone = prune(url_for(options), _schema(options))
    sys.stdout.write(f"{gone} events removed\n")
    return 0
