"""`manage.py pgfanout`: the command line, for the project's database."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from ....cli import main
from ....errors import HubConfigurationError
from ....settings import Settings
from ...database import given_settings, hub_url, setting_name, url_of

__all__ = ["Command"]


class Command(BaseCommand):
    """Hands its arguments to the command line of pgfanout, with the project's settings."""

    help = (
        "Listen, publish, and look after the history: the commands of `pgfanout` for the project's database, with the"
        " project's settings. `manage.py pgfanout sql --help` and the like explain each."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_database(parser)
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help="listen, publish, sql, ... and their arguments")

    def handle(self, *, database: str | None, arguments: list[str], **options: Any) -> None:
        given, arguments = _django_options().parse_known_args(arguments, argparse.Namespace(database=database))
        database = given.database
        try:
            url = hub_url() if database is None else url_of(database)
            settings = Settings({**given_settings(), "URL": url}, setting_name)
        except HubConfigurationError as error:
            raise CommandError(str(error)) from error
        if status := main(arguments or ["--help"], settings=settings, prog="manage.py pgfanout"):
            sys.exit(status)


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database", choices=tuple(connections), help='the alias of a database (PGFANOUT["USING"], or "default")'
    )


def _django_options() -> argparse.ArgumentParser:
    """Return a parser for the options that users of `manage.py` write behind a command as well as before it."""
    prog = "manage.py pgfanout"
    usage = f"{prog} [--database ALIAS] COMMAND ..."
    parser = argparse.ArgumentParser(prog=prog, usage=usage, add_help=False, allow_abbrev=False)
    _add_database(parser)
    for name in ("--settings", "--pythonpath"):  # manage.py has read these
        parser.add_argument(name)
    return parser
