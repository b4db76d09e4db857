"""A contender's server: a process tree on a loopback port, its CPU time and its memory."""

from __future__ import annotations

import ctypes
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from tests.support import processes
from tests.support.processes import REPOSITORY, session

from .placement import Placement

__all__ = ["Server"]

_START_LIMIT = 60.0
_STOP_LIMIT = 1.0
_KIB = 1024

# A setting of the user's must not make one contender another.
_NOT_INHERITED = ("PGFANOUT_", "GUNICORN_", "UVICORN_", "DATABASE_URL", "REDIS_URL", "WEB_CONCURRENCY")


class Server:
    """Runs `command` with `env` added to the environment, in a process group of its own; `with` starts and ends it.

    It is up when it answers `GET` of `probe`, or accepts a connection where that is None.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        env: Mapping[str, str],
        probe: str | None,
        placement: Placement,
    ) -> None:
        self.command = list(command)
        self.port = port
        self.env = dict(env)
        self.probe = probe
        self.placement = placement
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None

    def __enter__(self) -> Server:
        self._log = session.directory("server") / "log"
        with open(self._log, "wb") as log, self.placement.server():
            self._process = processes.spawn(self.command, log=log, env=self._environment(), cwd=REPOSITORY)
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def tail(self) -> str:
        """The end of what it has written."""
        return processes.tail(self._log, 12) if self._log is not None else ""

    @property
    def _last_line(self) -> str:
        return next((line.strip() for line in reversed(self.tail.splitlines()) if line.strip()), "")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def workers(self) -> list[psutil.Process]:
        """The processes that serve: the master's children, or the only process."""
        main = psutil.Process(self._running().pid)
        return main.children(recursive=True) or [main]

    def cpu(self) -> float:
        """Seconds that the whole tree has used so far, in user and system mode together."""
        return sum(_cpu(process) for process in self._tree())

    def worker_rss(self) -> float:
        """KiB that the processes that serve have in memory."""
        return sum(_rss(process) for process in self.workers()) / _KIB

    def rss(self) -> float:
        """KiB that the whole tree has in memory; what parent and child share counts twice."""
        return sum(_rss(process) for process in self._tree()) / _KIB

    def pause(self) -> None:
        """Stop the processes that serve where they are."""
        for worker in self.workers():
            worker.suspend()

    def go_on(self) -> None:
        """Let them go on."""
        for worker in self.workers():
            worker.resume()

    def stop(self) -> None:
        """End the whole tree: politely, and by force what takes too long. Idempotent."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            family = self._tree()
            process.send_signal(signal.SIGTERM)
            psutil.wait_procs(family, timeout=_STOP_LIMIT)
        if process.poll() is None:
            processes.kill_tree(process)
        try:
            os.killpg(process.pid, signal.SIGKILL)  # a worker whose master has died is still in its group
        except (ProcessLookupError, PermissionError):
            pass
        processes.reap(process, 10)
        self._process = None

    def _tree(self) -> list[psutil.Process]:
        main = psutil.Process(self._running().pid)
        return [main, *main.children(recursive=True)]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the server has ended: {self._last_line}\n{self.tail}")
        return self._process

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        return {**inherited, "PYTHONUNBUFFERED": "1", **self.env}

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while not self._answers():
            self._running()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server is not up after {_START_LIMIT:g} s:\n{self.tail}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1.0)
        try:
            connection.connect()
            if self.probe is None:
                return True
            connection.request("GET", self.probe, headers={"Connection": "close"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _cpu(process: psutil.Process) -> float:
    """By the process's CPU clock: psutil has the same time in steps of 10 ms."""
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(process.pid, ctypes.byref(clock)) != 0:
        return 0.0
    try:
        return time.clock_gettime(clock.value)
    except OSError:  # it has ended just now
        return 0.0


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
