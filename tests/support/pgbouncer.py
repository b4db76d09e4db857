"""A real PgBouncer between a hub and a server of the tests."""

from __future__ import annotations

import os
import shutil
import socket
from types import TracebackType
from urllib.parse import urlsplit

from .ports import free_port
from .processes import kill_tree, session, spawn
from .wait import eventually


def missing_reason() -> str:
    """Why there can't be a PgBouncer; empty when there can."""
    return "" if _binary() else "pgbouncer is not installed"


def _binary() -> str | None:
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


class PgBouncer:
    """PgBouncer before the database of a URL, in `transaction` or `session` mode, with settings of its own."""

    def __init__(self, url: str, mode: str, *settings: str) -> None:
        self._settings = settings
        self._parts = urlsplit(url)
        self._mode = mode
        self._port = free_port()

    @property
    def url(self) -> str:
        """The same database, through the pooler."""
        netloc = f"{self._parts.username}@127.0.0.1:{self._port}"
        return self._parts._replace(netloc=netloc).geturl()

    def __enter__(self) -> PgBouncer:
        binary = _binary()
        assert binary is not None
        folder = session.directory("pgbouncer")
        folder.chmod(0o755)
        (folder / "users").write_text(f'"{self._parts.username}" ""\n')
        config = folder / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={self._parts.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {folder}/users\npool_mode = {self._mode}\n"
            "ignore_startup_parameters = extra_float_digits\n" + "".join(f"{line}\n" for line in self._settings)
        )
        # It refuses to run as root.
        user = "nobody" if os.geteuid() == 0 else None
        with open(folder / "log", "wb") as log:
            self._process = spawn([binary, "-q", str(config)], log=log, user=user)
        eventually(self._accepts)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kill_tree(self._process)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
