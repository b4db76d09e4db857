"""PostgresHub: a hub whose events PostgreSQL carries."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ...delivery.tail import BUFFER_BYTES
from ...errors import InvalidEventError
from ...executor import Executor
from ...hub import NotifyHub
from ...payload import JsonDefault
from ...topic import check_channel
from .backend import PostgresBackend
from .conninfo import connect, parse, script_transaction
from .history import History
from .history.settings import schema_of
from .listener import Timing
from .session import PULSE_CHANNEL

__all__ = ["PostgresHub"]

_DAY = 86_400.0


class PostgresHub(NotifyHub):
    """A hub on PostgreSQL's NOTIFY, with one LISTEN connection for the process.

    `conninfo` is a connection string or URL of the server itself, or of a pooler in session mode. A publish that names
    no executor goes through `executor`; without both, the hub opens a connection for it, and up to
    `publisher_connections` while many threads publish or one has to wait. `postgres_channel` carries all
    events. Hubs with the same one hear each other.

    With `history` (True, or the settings) the database keeps events in a table, which `install_history` makes. A reader
    that has missed events gets them from there.

    Every `heartbeat` seconds the listener checks that its server answers within `heartbeat_timeout` seconds, and that
    notifications arrive. So it finds a dead or deaf connection within the sum of the two. After a failure it
    reconnects at growing intervals, of at most `max_reconnect_delay` seconds.

    `json_default` converts values in payloads that JSON does not have (dates, decimals), as the `default` of
    `json.dumps`.

    Raise `HubConfigurationError` for a connection string that can't be read, and `InvalidEventError` for an impossible
    channel name.
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
        publisher_connections: int = 4,
        json_default: JsonDefault | None = None,
    ) -> None:
        if not all(0 < seconds <= _DAY for seconds in (heartbeat, heartbeat_timeout, max_reconnect_delay)):
            raise ValueError("heartbeat, heartbeat_timeout and max_reconnect_delay are seconds: above 0, a day at most")
        if publisher_connections < 1:
            raise ValueError(f"publisher_connections has to be at least 1, not {publisher_connections}")
        self._postgres_channel = check_channel(postgres_channel)  # first: the repr shows it
        if postgres_channel == PULSE_CHANNEL:
            raise InvalidEventError("postgres_channel", f"{PULSE_CHANNEL!r} is where hubs let each other hear")
        self._parameters = parse(conninfo)
        self._history = History() if history is True else history or None
        timing = Timing(heartbeat, heartbeat_timeout, max_reconnect_delay)
        of_sessions = (executor, self._history, timing, publisher_connections)
        super().__init__(
            partial(PostgresBackend, self._parameters, postgres_channel, *of_sessions),
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
            json_default=json_default,
        )

    def __repr__(self) -> str:
        # The connection string may hold a password.
        return f"<PostgresHub on {self._postgres_channel!r}>"

    def install_history(self, *, publishers: Iterable[str] = (), readers: Iterable[str] = ()) -> None:
        """Install the history's schema with these settings, or upgrade an existing one to this version.

        An existing log keeps its settings, and functions of this release or a newer one. To change those, run
        `pgfanout sql install`. Idempotent, and safe to be called by many processes at once, whatever the
        database's default isolation is. The `publishers` and `readers` are roles that get the rights to publish, or to
        run a hub. Open a connection, whose role owns the schema. Block until it is done, and raise psycopg's errors.
        """
        schema = schema_of(self._history or History(), self._postgres_channel)
        with connect(self._parameters, "pgfanout-install") as connection, script_transaction(connection):
            schema.install(connection, publishers, readers)
