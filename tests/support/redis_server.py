"""A real Redis for tests that need a broker, on a loopback port, in memory."""

from __future__ import annotations

import shutil
import socket
from types import TracebackType

from .ports import LOOPBACK, free_port
from .processes import kill_tree, session, spawn
from .wait import eventually


def missing_reason() -> str:
    """Why there can't be a Redis; empty when there can."""
    return "" if shutil.which("redis-server") else "redis-server is not installed"


class RedisServer:
    """`with` starts and ends it."""

    def __init__(self) -> None:
        self._port = free_port()

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self._port}/0"

    def __enter__(self) -> RedisServer:
        folder = session.directory("redis")
        binary = shutil.which("redis-server")
        assert binary is not None
        with open(folder / "log", "wb") as log:
            self._process = spawn(
                [binary, "--bind", LOOPBACK, "--port", str(self._port), "--save", "", "--appendonly", "no"],
                log=log,
                cwd=folder,
            )
        eventually(self._accepts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kill_tree(self._process)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self._port)) == 0
