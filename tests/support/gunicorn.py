"""A real gunicorn for tests, as a child process with a process group of its own on a loopback port."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from . import processes
from .ports import LOOPBACK, free_port
from .processes import REPOSITORY, session

_START_LIMIT = 60.0
_STOP_LIMIT = 15.0

# The repository comes last on the path, so that an installed pgfanout is preferred to the one that lies there. A worker
# leaves a mark when it has the application: before that a signal to it can be lost.
_MAIN = """
import os, sys
sys.path.remove("")
sys.path.extend(sys.argv.pop(1).split(":"))
marks = sys.argv.pop(1)
sys.argv[0] = "gunicorn"
from gunicorn.app.wsgiapp import run
from gunicorn.workers.base import Worker
load_wsgi = Worker.load_wsgi
def load_and_leave_a_mark(worker):
    load_wsgi(worker)
    open(os.path.join(marks, str(os.getpid())), "w").close()
Worker.load_wsgi = load_and_leave_a_mark
run()
"""


def missing_reason() -> str | None:
    """Why no gunicorn can be started here, or None."""
    return None if importlib.util.find_spec("gunicorn") else "gunicorn is not installed"


class GunicornServer:
    """gunicorn serving `app` ("package.module:app" or "package.module:make()").

    Modules are found in the repository and in `pythonpath`. `config` is a configuration file, relative to the
    repository; without one gunicorn reads none. `settings` are further command line arguments, `host` is the IPv4
    address that it listens at, and `tls` says that they make it speak TLS. The constructor starts nothing; `with`
    starts and stops.
    """

    def __init__(
        self,
        app: str,
        *,
        config: str | Path | None = None,
        threads: int | None = 8,
        workers: int | None = 1,
        worker_class: str | None = "gthread",
        preload: bool = False,
        settings: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        pythonpath: Sequence[str | Path] = (),
        host: str = LOOPBACK,
        port: int | None = None,
        tls: bool = False,
    ) -> None:
        self.app = app
        self.config = config
        self.threads = threads
        self.workers = workers
        self.worker_class = worker_class
        self.preload = preload
        self.settings = tuple(settings)
        self.env = dict(env or {})
        self.pythonpath = tuple(pythonpath)
        self.host = host
        self.port = port or free_port()
        self.tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None

    def __enter__(self) -> GunicornServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The root of the site, without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the master."""
        assert self._process is not None, "gunicorn was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What gunicorn and the application have written so far."""
        path = self._log_path
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def worker_pids(self) -> list[int]:
        """The process ids of the workers that are alive and have loaded the application."""
        try:
            alive = {child.pid for child in psutil.Process(self.pid).children() if processes.runs(child)}
        except psutil.NoSuchProcess:
            return []
        return sorted(alive & {int(mark.name) for mark in self._marks.iterdir()})

    def start(self) -> None:
        """Start gunicorn; returns when every worker has loaded the application and one answers."""
        assert not self.is_running, "gunicorn runs already"
        if self._home is None:
            self._home = session.directory("gunicorn")
            self._marks.mkdir()
        with open(self._log_path, "ab") as log:
            self._process = processes.spawn(self._command(), log=log, env=self._environment(), cwd=self._home)
        self._wait_until_it_answers()

    def signal(self, number: signal.Signals | int) -> None:
        """Send a signal to the master."""
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """Wait until the master has ended and return its exit code."""
        assert self._process is not None, "gunicorn was never started"
        try:
            return processes.reap(self._process, timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"gunicorn still runs after {timeout} s:\n{self._log_end()}") from None

    def stop(self) -> None:
        """End gunicorn and every worker, the hard way when the soft one takes too long. Idempotent."""
        if self._process is None or not session.is_ours:
            return
        if self.is_running:
            self.signal(signal.SIGTERM)
        try:
            processes.reap(self._process, _STOP_LIMIT)
        except subprocess.TimeoutExpired:
            pass
        self._kill_what_is_left()

    def _kill_what_is_left(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            processes.kill_tree(self._process)
        try:
            # Workers whose master was killed are still in its group.
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    @property
    def _log_path(self) -> Path:
        assert self._home is not None, "gunicorn was never started"
        return self._home / "log"

    @property
    def _marks(self) -> Path:
        assert self._home is not None, "gunicorn was never started"
        return self._home / "workers"

    def _log_end(self) -> str:
        return processes.tail(self._log_path)

    def _command(self) -> list[str]:
        path = ":".join(str(Path(entry).resolve()) for entry in (*self.pythonpath, REPOSITORY))
        command = [sys.executable, "-c", _MAIN, path, str(self._marks), "--bind", f"{self.host}:{self.port}"]
        if self.config is not None:
            command += ["--config", str(REPOSITORY / self.config)]
        for option, value in (
            ("--worker-class", self.worker_class),
            ("--workers", self.workers),
            ("--threads", self.threads),
        ):
            if value is not None:
                command += [option, str(value)]
        return [*command, *(["--preload"] if self.preload else []), *self.settings, self.app]

    def _environment(self) -> dict[str, str]:
        own = {
            "GUNICORN_CMD_ARGS": None,
            "XDG_RUNTIME_DIR": str(self._home),  # where newer versions put their control socket
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._home),
        }
        merged = {**os.environ, **own, **self.env}
        return {name: value for name, value in merged.items() if value is not None}

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while not (len(self.worker_pids()) >= (self.workers or 1) and self._answers()):
            assert self._process is not None
            if self._process.poll() is not None:
                self._kill_what_is_left()
                processes.reap(self._process, 0)
                raise AssertionError(f"gunicorn ended at its start:\n{self._log_end()}")
            if time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"gunicorn does not answer after {_START_LIMIT} s:\n{self._log_end()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Ask with a line that is no request: a worker answers 400 without troubling the application."""
        try:
            with socket.create_connection((self.host, self.port), timeout=1.0) as probe:
                if self.tls:
                    return True
                probe.sendall(b"READY?\r\n\r\n")
                return probe.recv(16).startswith(b"HTTP/1.")
        except OSError:
            return False
