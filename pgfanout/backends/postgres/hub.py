"""PostgresHub: a hub whose events PostgreSQL carries."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ...delivery.tail import BUFFER_BYTES
from ...errors import InvalidEventError
from ...hub import NotifyHub
from ...topic import check_channel
from .backend import PostgresBackend
from .conninfo import connect, parse, script_transaction
from .history import History
from .listener import Timing
from .publisher import Executor
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
        self._postgres_channel = check_channel(postgres_channel)  # first: the repr shows it
        if postgres_channel == PULSE_CHANNEL:
            raise InvalidEventError("postgres_channel", f"{PULSE_CHANNEL!r} is where hubs let each other hear")
        self._parameters = parse(conninfo)
        self._history = History() if history is True else history or None
        timing = Timing(heartbeat, heartbeat_timeout, max_reconnect_delay)
        super().__init__(
            partial(PostgresBackend, self._parameters, postgres_channel, executor, self._history, timing),
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
        )

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
