"""The log of events as tests see it: what it holds, what it notifies, and what readers with a cursor find in it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql

from pgfanout.topic import is_uuid

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 30.0

Connect = Callable[[], psycopg.Connection]
"""Opens a session."""

Row = tuple[int, str, uuid.UUID | str, str, str]
"""Number, channel, tenant (a UUID if it is one), type, and the payload as it was written."""


def publish(connection: psycopg.Connection, *payloads: object, type: str = "") -> None:
    """One call for each payload, within the connection's transaction."""
    for payload in payloads:
        connection.execute(
            "SELECT pgfanout.publish('orders', %s, %s, %s)", (TENANT, json.dumps(payload, ensure_ascii=False), type)
        )


def publish_many(connection: psycopg.Connection, *payloads: object) -> None:
    """One call for all of them."""
    connection.execute(
        "SELECT pgfanout.publish_many(%s, %s, %s::json[])",
        (
            ["orders"] * len(payloads),
            [TENANT] * len(payloads),
            [json.dumps(payload, ensure_ascii=False) for payload in payloads],
        ),
    )


def rows(connection: psycopg.Connection, after: int = 0) -> list[Row]:
    """Everything after the cursor."""
    found = connection.execute(
        "SELECT number, channel, tenant::text, type, payload::text FROM pgfanout.event WHERE number > %s"
        " ORDER BY number",
        (after,),
    ).fetchall()
    return [(number, channel, uuid.UUID(id) if is_uuid(id) else id, *rest) for number, channel, id, *rest in found]


def numbers(connection: psycopg.Connection) -> list[int]:
    return [row[0] for row in rows(connection)]


def payloads(connection: psycopg.Connection) -> list[Any]:
    return [json.loads(row[4]) for row in rows(connection)]


def pending(connection: psycopg.Connection) -> int:
    """How many publishes wait for a commit. None does when no transaction is open."""
    ((count,),) = connection.execute(
        "SELECT (SELECT count(*) FROM pgfanout.pending) + (SELECT count(*) FROM pgfanout.pending_many)"
    ).fetchall()
    return int(count)


def envelope(row: Row) -> dict[str, Any]:
    """What is to be notified of a row."""
    number, channel, tenant, type, payload = row
    return {
        "channel": channel,
        "tenant_id": str(tenant),
        "payload": json.loads(payload),
        **({"type": type} if type else {}),
        "id": str(number),
    }


def waits_for(connection: psycopg.Connection, waiting: psycopg.Connection, holder: psycopg.Connection) -> bool:
    """Whether one session waits for a lock of another."""
    ((blocking,),) = connection.execute("SELECT pg_blocking_pids(%s)", (waiting.info.backend_pid,)).fetchall()
    return holder.info.backend_pid in blocking


class Ear:
    """A session that listens. `heard` returns the notifications since the last call, all of them."""

    def __init__(self, url: str, postgres_channel: str = "pgfanout_events") -> None:
        self._channel = postgres_channel
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(postgres_channel)))

    def __enter__(self) -> Ear:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def texts(self) -> list[str]:
        last = uuid.uuid4().hex
        self._connection.execute("SELECT pg_notify(%s, %s)", (self._channel, last))
        heard: list[str] = []
        for notification in self._connection.notifies(timeout=LONG):
            if notification.payload == last:
                return heard
            heard.append(notification.payload)
        raise AssertionError(f"the last notification did not come within {LONG} s")

    def heard(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts()]


class Follower(threading.Thread):
    """Reads everything after its cursor, again and again, as a reader of the log does."""

    def __init__(self, url: str) -> None:
        super().__init__(name="follower", daemon=True)
        self._url = url
        self._enough = threading.Event()
        self._read: list[Row] = []
        self.start()

    def finish(self) -> list[Row]:
        """What it has read, once it has seen what is committed now."""
        self._enough.set()
        self.join(LONG)
        assert not self.is_alive()
        return self._read

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = 0
            enough = False
            while not enough:
                enough = self._enough.is_set()
                for row in rows(connection, cursor):
                    self._read.append(row)
                    cursor = row[0]
                time.sleep(0.001)  # leaves the two cores to the writers
