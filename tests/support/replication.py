"""A standby that follows a server of the tests by streaming replication."""

from __future__ import annotations

from pathlib import Path

from .data_directory import backup_home
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
