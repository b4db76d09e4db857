"""Parser: the arguments that commands share, and the database that they mean."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import Final, NoReturn, TypeAlias

from ..backends.postgres.history.schema import Schema
from ..settings import url_of

__all__ = ["Commands", "Parser", "add_command", "add_commands", "add_schema", "add_url", "url_for"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_SECRET: Final = re.compile(r"\S*(://|password\s*=).*", re.DOTALL | re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and show no connection string."""

    def error(self, message: str) -> NoReturn:
        """Exit with one line. Anything in it that may be a connection string is left out."""
        line = " ".join(_SECRET.sub("...", message).split())
        self.exit(2, f"{self.prog}: {line}\n")


def add_commands(parser: argparse.ArgumentParser) -> Commands:
    """Let the parser have commands, of which one is needed."""
    return parser.add_subparsers(required=True, metavar="COMMAND")


def add_command(
    commands: Commands, name: str, purpose: str, run: Callable[[argparse.Namespace], int] | None = None
) -> argparse.ArgumentParser:
    """Add a command, and what runs it and returns the exit status."""
    parser = commands.add_parser(name, help=purpose, description=f"{purpose.capitalize()}.", allow_abbrev=False)
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add `--url`, and its older name."""
    parser.add_argument(
        "--url",
        "--database-url",
        metavar="URL",
        help="the database (an application's own, or $PGFANOUT_URL, or $DATABASE_URL, which other users can't see)",
    )


def add_schema(parser: argparse.ArgumentParser) -> None:
    """Add `--schema`. Without it the application's setting holds, or else the default."""
    parser.add_argument("--schema", type=_schema, help=f"the history's schema ({Schema.name})")


def url_for(options: argparse.Namespace) -> str:
    """Return the URL of the database. Raise `ValueError` if there is none, or it is none of a database."""
    settings = options.settings
    url = options.url or (settings.url if settings is not None else url_of({})) or os.environ.get("DATABASE_URL")
    if not url:
        raise ValueError("no database is named: give --url, or set PGFANOUT_URL or DATABASE_URL")
    if url.startswith("memory:"):
        raise ValueError("a memory hub reaches one process alone, and this command is another one")
    return str(url)


def _schema(name: str) -> str:
    return Schema(name).name
