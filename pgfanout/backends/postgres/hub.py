"""PostgresHub: a hub whose events PostgreSQL carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import HubConfigurationError
from ...hub import NotifyHub
from ...topic import check_channel
from .conninfo import parse
from .listener import Listener, Sink
from .publisher import Executor, Publisher

__all__ = ["PostgresHub"]

_DAY = 86_400.0


class PostgresHub(NotifyHub):
    """A hub on PostgreSQL's NOTIFY, with one LISTEN connection for the process.

    `conninfo` is a connection string or URL of the server itself (or of a pooler in session
    mode). `executor` is what publishes go through when they name none; without either, the hub
    opens a connection of its own for them. `postgres_channel` carries all events; hubs that are
    to hear each other have the same one.

    Every `heartbeat` seconds the listener makes sure that its server answers, within
    `heartbeat_timeout` seconds: a connection that died without a word is found in the sum of the
    two. After a failure it tries again at growing intervals, of `max_reconnect_delay` seconds at
    most: the longer, the later it is back after its server.

    Raises `HubConfigurationError` for a connection string that can't be read,
    `InvalidEventError` for an impossible channel name. `history` is not available yet.
    """

    def __init__(
        self,
        conninfo: str,
        executor: Executor | None = None,
        *,
        buffer_size: int = 32,
        postgres_channel: str = "pgfanout_events",
        history: bool = False,
        heartbeat: float = 5.0,
        heartbeat_timeout: float = 5.0,
        max_reconnect_delay: float = 1.5,
    ) -> None:
        if history:
            raise HubConfigurationError("this version has no history")
        if not all(0 < seconds <= _DAY for seconds in (heartbeat, heartbeat_timeout, max_reconnect_delay)):
            raise ValueError("heartbeat, heartbeat_timeout and max_reconnect_delay are seconds: above 0, a day at most")
        self._executor = executor
        self._postgres_channel = check_channel(postgres_channel)  # first: the repr shows it
        self._parameters = parse(conninfo)
        self._timing = {
            "heartbeat": heartbeat,
            "heartbeat_timeout": heartbeat_timeout,
            "max_reconnect_delay": max_reconnect_delay,
        }
        self._listener: Listener | None = None
        self._publisher: Publisher | None = None
        super().__init__(buffer_size=buffer_size)

    def __repr__(self) -> str:
        # No connection string: it may hold a password.
        return f"<PostgresHub on {self._postgres_channel!r}>"

    def _new_listener(self) -> Listener:
        sink = Sink(self._listening, self._not_listening, self._receive, self._heartbeat)
        self._listener = Listener(self._parameters, self._postgres_channel, sink, **self._timing)
        return self._listener

    def _send(self, texts: Sequence[str], executor: Any) -> None:
        assert self._publisher is not None
        self._publisher.send(texts, self._executor if executor is None else executor)

    def _close_sender(self, timeout: float) -> None:
        assert self._publisher is not None
        self._publisher.close(timeout)

    def _renew(self) -> None:
        super()._renew()
        if self._listener is not None:
            self._listener.abandon()
        if self._publisher is not None:
            self._publisher.abandon()
        self._listener = None
        self._publisher = Publisher(self._parameters, self._postgres_channel)
