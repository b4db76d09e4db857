"""Werkzeug's development server for tests, as a child process on a loopback port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from types import TracebackType

from . import processes
from .ports import LOOPBACK, free_port
from .processes import REPOSITORY, session
from .wait import eventually

# As in GunicornServer: the repository comes last on the path.
_MAIN = """
import importlib, sys
sys.path.remove("")
sys.path.append(sys.argv[1])
from werkzeug.serving import run_simple
module, _, name = sys.argv[2].partition(":")
run_simple(sys.argv[3], int(sys.argv[4]), getattr(importlib.import_module(module), name), threaded=True)
"""


class WerkzeugServer:
    """Serves `app` ("package.module:app"), a thread for each request. The constructor starts nothing; `with` does."""

    def __init__(self, app: str, *, env: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._env = dict(env or {})
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WerkzeugServer:
        folder = session.directory("werkzeug")
        command = [sys.executable, "-c", _MAIN, str(REPOSITORY), self._app, LOOPBACK, str(self.port)]
        self._log = folder / "log"
        with open(self._log, "wb") as log:
            self._process = processes.spawn(command, log=log, env={**os.environ, **self._env}, cwd=folder)
        eventually(lambda: urllib.request.urlopen(self.url, timeout=5).read())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        processes.kill_tree(self._process)
        processes.reap(self._process, 20)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """Wait until it has ended."""
        assert self._process is not None
        return processes.reap(self._process, timeout)
