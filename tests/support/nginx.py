"""A real nginx in front of a server of the tests."""

from __future__ import annotations

import os
import shutil
import socket
from types import TracebackType

from .ports import free_port
from .processes import reap, session, spawn
from .wait import eventually

_CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""


def missing_reason() -> str:
    """Why there can't be an nginx; empty when there can."""
    return "" if _binary() else "nginx is not installed"


def _binary() -> str | None:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class NginxServer:
    """nginx with a `server` block as its configuration, on a free port of the loopback."""

    def __init__(self, site: str, *, port: int | None = None) -> None:
        self._site = site
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> NginxServer:
        binary = _binary()
        assert binary is not None
        folder = session.directory("nginx")
        self._error_log = folder / "error.log"
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, site=self._site))
        with open(folder / "log", "wb") as log:
            self._process = spawn([binary, "-e", str(self._error_log), "-c", str(config)], log=log)
        eventually(self._accepts)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        reap(self._process, 20)

    @property
    def errors(self) -> str:
        """What it has complained about: a server that it could not reach, for which it answers 502, among it."""
        return self._error_log.read_text(encoding="utf-8", errors="replace")

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
