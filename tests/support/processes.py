"""Processes and files of a test session: everything that is started is known, and nothing outlives the session.

A small guard process holds the list of what runs. It is told by a pipe and acts when the pipe closes, so that the
servers of a test run that was itself killed go too, whichever thread started them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from .wait import eventually

REPOSITORY = Path(__file__).resolve().parents[2]

# Every process of the session inherits it, so those whose parent has died are found as well.
SESSION_VARIABLE = "PGFANOUT_TEST_SESSION"

# SIGINT comes first: PostgreSQL gives its shared memory back.
_GUARD = """
import shutil, signal, sys
import psutil
def send(process, number):
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass
running = {}
for line in sys.stdin:
    verb, pid = line[0], int(line[1:])
    if verb == "-":
        running.pop(pid, None)
    elif psutil.pid_exists(pid):
        running[pid] = psutil.Process(pid)
victims = set(running.values())
for process in running.values():
    try:
        victims.update(process.children(recursive=True))
    except psutil.NoSuchProcess:
        pass
    send(process, signal.SIGINT)
for victim in psutil.wait_procs(victims, timeout=3)[1]:
    send(victim, signal.SIGKILL)
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""

_MEMORY = Path("/dev/shm")
_ROOM = 2 << 30  # bytes: several servers of 50 MiB at once, each with some databases of 10


class Session:
    """The scratch directory and the guard of one test run; `session` is the only instance."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()  # guards the three below
        self._token: str | None = None
        self._scratch: Path | None = None
        self._guard: subprocess.Popen[str] | None = None
        self.starts_programs = True
        """False during a test that is marked `unit`."""

    @property
    def is_ours(self) -> bool:
        """False in a child that a test has forked: its parent's servers are not its to stop."""
        return os.getpid() == self._owner

    def begin(self, *, in_memory: bool = False) -> None:
        """Make the scratch directory, in memory if there is room, and start the guard, unless that was done."""
        with self._lock:
            if self._guard is not None:
                return
            self._token = uuid.uuid4().hex
            os.environ[SESSION_VARIABLE] = self._token
            parent = _MEMORY if in_memory and _has_room(_MEMORY) else None
            self._scratch = Path(tempfile.mkdtemp(prefix="pgfanout-tests-", dir=parent)).resolve()
            self._scratch.chmod(0o755)  # as root, PostgreSQL runs as another user
            self._guard = subprocess.Popen(
                [sys.executable, "-c", _GUARD, str(self._scratch)],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def directory(self, prefix: str) -> Path:
        """A new directory that is removed with the session at the latest."""
        self.begin()
        assert self._scratch is not None
        directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self._scratch))
        directory.chmod(0o755)
        return directory

    def watch(self, pid: int) -> None:
        """The process, and its children, end with this session."""
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        """The process has been waited for: its number may be another's now."""
        self._tell(f"-{pid}\n")

    def _tell(self, message: str) -> None:
        self.begin()
        with self._lock:
            guard = self._guard
            assert guard is not None and guard.stdin is not None
            guard.stdin.write(message)
            guard.stdin.flush()

    def leftovers(self) -> list[str]:
        """A line for each process, other than the guard, that this session started and that still runs."""
        with self._lock:
            known = {os.getpid()} | ({self._guard.pid} if self._guard else set())
            token, scratch = self._token, self._scratch
        children = {child.pid for child in psutil.Process().children(recursive=True)}
        return [
            _describe(process)
            for process in psutil.process_iter()
            if process.pid not in known
            and (process.pid in children or _belongs(process, token, scratch))
            and runs(process)
        ]

    def finish(self) -> None:
        """End the guard, which removes the scratch directory; `begin` starts anew."""
        if not self.is_ours:
            return
        with self._lock:
            guard, self._guard = self._guard, None
            scratch, self._scratch = self._scratch, None
        if guard is None or guard.stdin is None:
            return
        guard.stdin.close()
        guard.wait(60)
        os.environ.pop(SESSION_VARIABLE, None)
        assert scratch is not None and not scratch.exists(), f"{scratch} could not be removed"


session = Session()


def spawn(
    arguments: Sequence[str],
    *,
    log: IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own (Ctrl-C on the terminal is ours alone) and watch over it."""
    assert session.starts_programs, f"a unit test starts {arguments[0]}: tests/conftest.py has the markers and fixtures"
    session.begin()
    identity = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=cwd,
        start_new_session=True,
        **identity,
    )
    session.watch(process.pid)
    return process


def reap(process: subprocess.Popen[bytes], timeout: float) -> int:
    """Wait for a process that `spawn` started; raises subprocess.TimeoutExpired."""
    code = process.wait(timeout)
    session.forget(process.pid)
    return code


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and everything below it, and wait until all of them are gone."""
    if process.poll() is None:
        parent = psutil.Process(process.pid)
        parent.suspend()  # no new children while they are counted
        family = [*parent.children(recursive=True), parent]
        for member in family:
            _kill(member)
        eventually(lambda: not any(runs(member) for member in family), timeout=10.0)
    reap(process, 10)


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def tail(path: Path, lines: int = 40) -> str:
    """The end of a log, for a failure's message."""
    return "\n".join(_lines(path))[-200 * lines :] if path.exists() else "(no log)"


def _lines(path: Path) -> Iterator[str]:
    yield from path.read_text(encoding="utf-8", errors="replace").splitlines()


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _has_room(directory: Path) -> bool:
    return os.access(directory, os.W_OK) and shutil.disk_usage(directory).free >= _ROOM


def _belongs(process: psutil.Process, token: str | None, scratch: Path | None) -> bool:
    """Whether it carries the session's mark, or works in its directory (PostgreSQL overwrites its environment)."""
    try:
        if token and process.environ().get(SESSION_VARIABLE) == token:
            return True
        return scratch is not None and Path(process.cwd()).is_relative_to(scratch)
    except (psutil.Error, OSError):
        return False


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline()) or process.name()}"
    except psutil.Error:
        return str(process.pid)
