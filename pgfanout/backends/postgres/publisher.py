"""Publisher: sends events through anything that can execute a statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...topic import is_uuid
from .conninfo import Parameters
from .executors import Call, run
from .own_connections import OwnConnections

__all__ = ["Publisher"]

# As bytes, so that the text doesn't pass through the connection's client encoding. unnest in FROM keeps the order.
_NOTIFY = (
    "SELECT pg_catalog.pg_notify(%s, pg_catalog.convert_from(envelope, 'UTF8'))"
    " FROM pg_catalog.unnest(%s::bytea[]) AS envelope"
)
_TEXT = "pg_catalog.convert_from(%s::bytea, 'UTF8')"
_TEXTS = "ARRAY(SELECT pg_catalog.convert_from(text, 'UTF8') FROM pg_catalog.unnest(%s::bytea[]) AS text)"
_LOG_ONE = f"SELECT {{schema}}.publish({_TEXT}, {_TEXT}, {_TEXT}, {_TEXT})"
_LOG_MANY = f"SELECT {{schema}}.publish_many({_TEXTS}, {_TEXTS}, {_TEXTS}::json[], {_TEXTS})"
# For tenants that are UUIDs. A log of an earlier version has no other functions.
_LOG_ONE_OF_UUID = f"SELECT {{schema}}.publish({_TEXT}, %s::uuid, {_TEXT}, {_TEXT})"
_LOG_MANY_OF_UUIDS = f"SELECT {{schema}}.publish_many({_TEXTS}, %s::uuid[], {_TEXTS}::json[], {_TEXTS})"


class Publisher:
    """Sends events through a given executor, or through the hub's own connections, of which it opens `connections`.

    It notifies, or inserts the events into the log of a schema. The log notifies at the commit.
    """

    def __init__(self, parameters: Parameters, channel: str, schema: str = "", connections: int = 1) -> None:
        self._channel = channel
        self._schema = schema
        self._own = OwnConnections(parameters, connections)

    def send(self, texts: Sequence[str], executor: Any) -> None:
        """Send the texts in one statement. Block for a round trip. Raise psycopg's errors."""
        call = self._logged(texts) if self._schema else Call(_NOTIFY, (self._channel, _encoded(texts)))
        if executor is None:
            self._own.send(call)
        else:
            run(call, executor)

    def fetch(self, executor: Any, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Execute a statement in the executor's transaction, if it has one, and return the rows. Block for a round
        trip. Raise psycopg's errors."""
        rows: list[Any] = []
        run(Call(statement, tuple(params)), executor, rows.extend)
        # psycopg2's RealDictCursor has dictionaries.
        return [tuple(row.values()) if isinstance(row, Mapping) else row for row in rows]

    def close(self, timeout: float) -> None:
        """Close the own connections. Block up to `timeout` seconds for publishes that are under way."""
        self._own.close(timeout)

    def abandon(self) -> None:
        """In a forked child, drop the parent's connections without a message to the server."""
        self._own.abandon()

    def _logged(self, texts: Sequence[str]) -> Call:
        """Return the call that puts texts into the log: see `compose_logged`. For one event there is a cheaper one."""
        channels, tenants, types, payloads = zip(*(text.split("\n", 3) for text in texts), strict=True)
        of_uuids = all(map(is_uuid, tenants))
        ids: Sequence[Any] = list(tenants) if of_uuids else _encoded(tenants)
        if len(texts) == 1:
            params = (channels[0].encode(), ids[0], payloads[0].encode(), types[0].encode())
            return Call((_LOG_ONE_OF_UUID if of_uuids else _LOG_ONE).format(schema=self._schema), params)
        fields = (_encoded(channels), ids, _encoded(payloads), _encoded(types))
        return Call((_LOG_MANY_OF_UUIDS if of_uuids else _LOG_MANY).format(schema=self._schema), fields)


def _encoded(texts: Iterable[str]) -> list[bytes]:
    return [text.encode() for text in texts]
