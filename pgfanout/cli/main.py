"""main: runs one command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..backends.postgres.history.script import ScriptError
from ..errors import HubConfigurationError
from ..settings import Settings
from . import events, sql
from .parser import Parser, add_commands

__all__ = ["main"]

_INTERRUPTED = 130  # as shells report it


def main(arguments: Sequence[str] | None = None, *, settings: Settings | None = None, prog: str = "pgfanout") -> int:
    """Run a command and return the exit status: 0 if it is done, 1 if the server can't be reached or refuses.

    Without `arguments` it takes the process's. With `settings`, the hub is that of an application. `--url` replaces its
    URL. Without, `--url` or the environment says where the database is, and the database whether it has a history.
    Invalid arguments end the process with status 2. An error is one line on standard error, without the connection
    string. `prog` is the command's name in messages.
    """
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    options.settings = settings
    try:
        return int(options.run(options))
    except (ValueError, HubConfigurationError) as error:
        parser.error(str(error))
    except ScriptError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output at the end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, allow_abbrev=False)
    commands = add_commands(parser)
    events.add_to(commands)
    sql.add_to(commands)
    return parser
