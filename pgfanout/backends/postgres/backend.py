"""PostgresBackend: carries a hub's events by NOTIFY, or by way of the history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ... import envelope
from ...backend import Backend, Sink
from ...event import Event
from ...executor import Executor
from ...payload import JsonDefault
from ...topic import Topic
from .conninfo import Parameters
from .history import History
from .history.store import HistoryStore
from .listener import Listener, Timing
from .outage import Outage
from .publisher import Publisher

__all__ = ["PostgresBackend"]


class PostgresBackend(Backend):
    """The sessions of the listener and the publisher, and with history the one that reads it. Each is opened when it is
    needed."""

    def __init__(
        self,
        parameters: Parameters,
        postgres_channel: str,
        executor: Executor | None,
        history: History | None,
        timing: Timing,
        publisher_connections: int = 1,
    ) -> None:
        self._parameters = parameters
        self._postgres_channel = postgres_channel
        self._executor = executor
        self._timing = timing
        self._history = history
        self._outage = Outage()
        schema = "" if history is None else history.schema
        self.publisher = Publisher(parameters, postgres_channel, schema, publisher_connections)
        self._store: HistoryStore | None = None
        if history is not None:
            self._store = HistoryStore(parameters, postgres_channel, history, timing.heartbeat_timeout)

    @property
    def log(self) -> HistoryStore | None:
        """See `Backend`."""
        return self._store

    def new_listener(self, sink: Sink) -> Listener:
        """See `Backend`."""
        table = None if self._store is None else self._store.table
        return Listener(self._parameters, self._postgres_channel, sink, self._timing, self._outage, table=table)

    def compose(self, *event: Any, json_default: JsonDefault | None = None) -> str:
        """See `Backend`."""
        if self._history is None:
            return envelope.compose(*event, json_default=json_default)
        return envelope.compose_logged(self._history.max_payload, *event, json_default=json_default)

    def decompose(self, text: str) -> tuple[Topic, Event]:
        """See `Backend`."""
        return envelope.decompose_logged(text) if self._history else envelope.decode(text)

    def send(self, texts: Sequence[str], executor: Executor | None) -> None:
        """See `Backend`. Blocks for a round trip, raises the executor's errors."""
        self.publisher.send(texts, self._executor if executor is None else executor)
        self.sent(texts)

    def read_cursor(self, executor: Executor) -> str:
        """See `Backend`. Blocks for a round trip, raises the executor's errors."""
        if self._store is None:
            return super().read_cursor(executor)
        return self._store.table(partial(self.publisher.fetch, executor)).cursor()

    def close(self, timeout: float) -> None:
        """See `Backend`."""
        self.publisher.close(timeout)

    def abandon(self) -> None:
        """See `Backend`."""
        self.publisher.abandon()
