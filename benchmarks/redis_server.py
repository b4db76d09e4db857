"""A Redis server of our own on a loopback port, without persistence."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from types import TracebackType

from tests.support import processes
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import session

__all__ = ["RedisServer", "missing_reason"]

_START_LIMIT = 20.0


def missing_reason() -> str | None:
    """Why no Redis can be started here, or None."""
    return None if shutil.which("redis-server") else "there is no redis-server on the PATH"


class RedisServer:
    """`with` starts and ends it."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}"

    def __enter__(self) -> RedisServer:
        home = session.directory("redis")
        command = ["redis-server", "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(home)]
        command += ["--save", "", "--appendonly", "no", "--maxclients", "20000", "--tcp-backlog", "2048"]
        with open(home / "log", "wb") as log:
            self._process = processes.spawn(command, log=log)
        deadline = time.monotonic() + _START_LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"Redis did not start:\n{processes.tail(home / 'log')}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it. Idempotent."""
        if self._process is not None:
            processes.kill_tree(self._process)
            self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1.0).close()
        except OSError:
            return False
        return True
