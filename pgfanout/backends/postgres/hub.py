"""PostgresHub: a hub whose events PostgreSQL carries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ... import envelope
from ...delivery.log import Log
from ...delivery.tail import BUFFER_BYTES
from ...errors import InvalidEventError
from ...hub import NotifyHub
from ...stats import HubStats
from ...topic import check_channel
from .conninfo import connect, parse, script_transaction
from .history import History
from .intake import Intake
from .listener import Listener, Sink
from .log import LogTable, Query
from .outage import Outage
from .publisher import Executor, Publisher
from .replayer import Replayer
from .session import PULSE_CHANNEL

__all__ = ["PostgresHub"]

_DAY = 86_400.0


class PostgresHub(NotifyHub):
    """A hub on PostgreSQL's NOTIFY, with one LISTEN connection for the process.

    `conninfo` is a connection string or URL of the server itself (or of a pooler in session
    mode). `executor` is what publishes go through when they name none; without either, the hub
    opens a connection of its own for them. `postgres_channel` carries all events; hubs that are
    to hear each other have the same one.

    With `history`, True or the settings, events are kept in a table of the database, which
    `install_history` makes: who missed some gets them from there.

    Every `heartbeat` seconds the listener makes sure that its server answers, within
    `heartbeat_timeout` seconds, and that it hears: a connection that is dead or deaf is found in
    the sum of the two. After a failure it tries again at growing intervals, of
    `max_reconnect_delay` seconds at most: the longer, the later it is back after its server.

    Raises `HubConfigurationError` for a connection string that can't be read,
    `InvalidEventError` for an impossible channel name.
    """

    def __init__(
        self,
        conninfo: str,
        executor: Executor | None = None,
        *,
        buffer_size: int = 32,
        buffer_bytes: int = BUFFER_BYTES,
        postgres_channel: str = "pgfanout_events",
        history: bool | History | None = False,
        heartbeat: float = 5.0,
        heartbeat_timeout: float = 5.0,
        max_reconnect_delay: float = 1.5,
    ) -> None:
        if not all(0 < seconds <= _DAY for seconds in (heartbeat, heartbeat_timeout, max_reconnect_delay)):
            raise ValueError("heartbeat, heartbeat_timeout and max_reconnect_delay are seconds: above 0, a day at most")
        self._executor = executor
        self._postgres_channel = check_channel(postgres_channel)  # first: the repr shows it
        if postgres_channel == PULSE_CHANNEL:
            raise InvalidEventError("postgres_channel", f"{PULSE_CHANNEL!r} is where hubs let each other hear")
        self._parameters = parse(conninfo)
        self._history = History() if history is True else history or None
        self._timing = {
            "heartbeat": heartbeat,
            "heartbeat_timeout": heartbeat_timeout,
            "max_reconnect_delay": max_reconnect_delay,
        }
        self._listener: Listener | None = None
        self._publisher: Publisher | None = None
        self._replayer: Replayer | None = None
        self._intake: Intake | None = None
        super().__init__(buffer_size=buffer_size, buffer_bytes=buffer_bytes)

    def __repr__(self) -> str:
        # No connection string: it may hold a password.
        return f"<PostgresHub on {self._postgres_channel!r}>"

    def install_history(self, *, publishers: Iterable[str] = (), readers: Iterable[str] = ()) -> None:
        """Make the schema of the history with these settings, or bring one that is there up to this version.

        Settings of a log that is there stay as they are, and so do functions of this release or a newer one:
        `python -m pgfanout sql install` changes those. Idempotent, and safe to be called by many processes at
        once, whatever the database's default isolation is. The roles named get the rights that publishing
        takes, or running a hub. Opens a connection for it, whose role owns what it makes. Blocks; raises
        psycopg's errors.
        """
        schema = (self._history or History()).on(self._postgres_channel)
        with connect(self._parameters, "pgfanout-install") as connection, script_transaction(connection):
            schema.install(connection, publishers, readers)

    def stats(self) -> HubStats:
        """A snapshot of the hub's state and counters. Never waits."""
        stats, replayer, intake = super().stats(), self._replayer, self._intake
        if replayer is None:
            return stats
        return replace(
            stats,
            log_size=replayer.rows,
            oldest_cursor=replayer.pruned_to,
            replays=replayer.replays,
            replayed_events=replayer.replayed_events,
            fills=0 if intake is None else intake.fills,
            filled_events=0 if intake is None else intake.filled_events,
            pruned=replayer.pruned,
        )

    def _new_listener(self) -> Listener:
        sink = Sink(self._listening_to, self._not_listening, self._receive, self._heartbeat, pause=self._pause)
        self._listener = Listener(self._parameters, self._postgres_channel, sink, outage=self._outage, **self._timing)
        return self._listener

    def _compose(self, *event: Any) -> str:
        if self._history is None:
            return super()._compose(*event)
        return envelope.compose_logged(self._history.max_payload, *event)

    def _send(self, texts: Sequence[str], executor: Any) -> None:
        assert self._publisher is not None
        self._publisher.send(texts, self._executor if executor is None else executor)

    def _close_sender(self, timeout: float) -> None:
        assert self._publisher is not None
        deadline = time.monotonic() + timeout
        if self._replayer is not None:
            self._replayer.close(timeout)
        self._publisher.close(max(0.0, deadline - time.monotonic()))

    def _renew(self) -> None:
        for held in (self._listener, self._publisher, self._replayer):
            if held is not None:
                held.abandon()
        self._listener = self._replayer = self._intake = None
        super()._renew()
        schema = "" if self._history is None else self._history.schema
        self._outage = Outage()
        self._publisher = Publisher(self._parameters, self._postgres_channel, schema)

    # With history.

    def _new_log(self) -> Log | None:
        history = self._history
        if history is None:
            return None
        table = self._table = LogTable(history.schema, self._postgres_channel, history.max_replay)
        self._replayer = Replayer(self._parameters, table, history, self._timing["heartbeat_timeout"])
        self._dispatcher.fills_gaps = history.log_only
        self._intake = Intake(table, self._replayer, self._dispatcher, log_only=history.log_only)
        return self._replayer

    def _read_cursor(self, executor: Any) -> str | None:
        assert self._publisher is not None
        rows = self._publisher.fetch(self._table.cursor_statement, executor)
        if not rows:
            self._table.complain_of_lost_row()
        return str(rows[0][0])

    def _listening_to(self, query: Query) -> bool:
        if self._intake is None or self._replayer is None:
            self._listening()
            return False
        self._replayer.renew()
        complete = self._intake.catch_up(query)
        if self._lifecycle.now_listening() is False:
            self._dispatcher.refresh_early()
        self._replayer.advanced()
        self._replayer.start_pruning()
        return complete

    def _heartbeat(self, queue_usage: float) -> None:
        super()._heartbeat(queue_usage)
        if self._intake is not None:
            self._intake.check()  # whoever installs may give the log another channel, and all would be silence

    def _receive(self, texts: Iterable[str]) -> None:
        if self._intake is None or self._replayer is None:
            super()._receive(texts)
            return
        batch = list(texts)
        self._received += len(batch)
        self._intake.receive(batch)
        self._settle()
        self._replayer.advanced()
