"""Servers that have the data of another one: a standby that follows it, and a copy that takes its place."""

from __future__ import annotations

from pathlib import Path

from .data_directory import backup_home, copy_of, exchange
from .ports import free_port
from .postgres import TRUST, PostgresServer
from .wait import eventually

REPLICATED = (*TRUST, "host replication all 127.0.0.1/32 trust")
"""The lines of pg_hba.conf that a server needs to be followed."""


class Standby(PostgresServer):
    """A copy of a running server that follows it, read-only, until it is promoted."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(version=primary.version, hba=primary.hba)
        self._primary = primary

    def wait_caught_up(self, timeout: float = 20.0) -> None:
        """Wait until everything that the primary has committed so far is here."""
        with self._primary.connect() as there, self.connect() as here:
            ((written,),) = there.execute("SELECT pg_current_wal_flush_lsn()::text")
            replayed = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            eventually(lambda: here.execute(replayed, (written,)).fetchone() == (True,), timeout)

    def promote(self) -> None:
        """Make it a primary; returns when it accepts writes."""
        with self.connect() as connection:
            connection.execute("SELECT pg_promote(true, 60)")

    def _new_home(self) -> Path:
        return backup_home(self.version, self._primary.url())


class Copy(PostgresServer):
    """A stopped server's data as they were when this was made. `take_over` puts them in the server's place, and what
    the server has committed since is lost to it: this one has that from then on."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(version=server.version, settings=server.settings, hba=server.hba)
        self._server = server
        self._home = copy_of(server.data_directory.parent)
        self.port = free_port()

    def take_over(self, *, promoted: bool = False) -> None:
        """Start the server, which was stopped, with the copied data; `promoted` as a standby that becomes a primary,
        whose log has a timeline of its own from then on."""
        assert not (self.is_running or self._server.is_running)
        exchange(self._server.data_directory.parent, self.data_directory.parent)
        if promoted:
            (self._server.data_directory / "standby.signal").touch()
        self._server.start()
        if promoted:
            with self._server.connect() as connection:
                connection.execute("SELECT pg_promote(true, 60)")
