"""Orders: the table, and the changes of it that every open page hears about."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from pgfanout import NotifyHub

from .tenants import TENANTS, menu

__all__ = ["BURST", "CHANNEL", "STATUSES", "Order", "Orders"]

CHANNEL: Final = "orders"
STATUSES: Final = ("new", "preparing", "ready", "delivered")

BURST: Final = 500
"""Changes in one burst."""

_KEPT: Final = 300
"""Orders that a tenant may have; a new one beyond that makes room for itself."""

_BUSY: Final = 12
"""Orders that a burst needs to be worth looking at."""

_SEEDS: Final = ("new", "new", "new", "preparing", "preparing", "ready", "ready", "delivered")

# IF NOT EXISTS does not make CREATE TABLE safe against itself: processes that start at the same
# time take turns.
_TURN: Final = "SELECT pg_advisory_xact_lock(hashtext('board_orders'))"

_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS board_orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        tenant uuid NOT NULL,
        title text NOT NULL,
        status text NOT NULL DEFAULT 'new'
            CHECK (status IN ('new', 'preparing', 'ready', 'delivered')),
        version integer NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE INDEX IF NOT EXISTS board_orders_tenant ON board_orders (tenant);
"""

_SEED: Final = """
    INSERT INTO board_orders (tenant, title, status, created_at, updated_at)
    VALUES (%(tenant)s, %(title)s, %(status)s, now() - %(age)s::interval, now() - %(age)s::interval)
"""

_COLUMNS: Final = """
    id, tenant, title, status, version,
    floor(extract(epoch FROM updated_at) * 1000)::bigint AS at
"""

_ALL: Final = f"SELECT {_COLUMNS} FROM board_orders WHERE tenant = %s ORDER BY id"

_CREATE: Final = f"INSERT INTO board_orders (tenant, title) VALUES (%s, %s) RETURNING {_COLUMNS}"

_MOVE: Final = f"""
    UPDATE board_orders SET status = %s, version = version + 1, updated_at = clock_timestamp()
    WHERE id = %s RETURNING {_COLUMNS}
"""

# What was delivered is ordered again: the board stays as full as it is.
_ADVANCE: Final = f"""
    UPDATE board_orders
    SET status = CASE status WHEN 'new' THEN 'preparing' WHEN 'preparing' THEN 'ready'
                             WHEN 'ready' THEN 'delivered' ELSE 'new' END,
        version = version + 1, updated_at = clock_timestamp()
    WHERE id = %s RETURNING {_COLUMNS}
"""

# The version goes up with the deletion too, so that an event of it is newer than any other.
_MAKE_ROOM: Final = f"""
    DELETE FROM board_orders WHERE id IN (
        SELECT id FROM board_orders WHERE tenant = %s
        ORDER BY status = 'delivered', id DESC OFFSET %s FOR UPDATE SKIP LOCKED
    ) RETURNING {_COLUMNS.replace("version", "version + 1 AS version")}
"""

# In the order of the key, so that two bursts wait for each other instead of locking each other out.
_LOCK: Final = "SELECT id FROM board_orders WHERE tenant = %s ORDER BY id FOR UPDATE"

_CUT: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pgfanout-listener'
"""


@dataclass(frozen=True)
class Order:
    """A row; `version` counts its changes from 1, `at` is the last one's Unix time in ms."""

    id: int
    tenant: UUID
    title: str
    status: str
    version: int
    at: int

    def payload(self) -> dict[str, Any]:
        """What the tenant's pages know of it."""
        return {
            "id": self.id,
            "title": self.title,
            "status": self.status,
            "version": self.version,
            "at": self.at,
        }


_Change = tuple[str, Order]


class Orders:
    """Every method is one transaction: it changes rows and publishes what it changed.

    The pool is opened, and the table made, by the first call in a process, so an instance may be
    made before a server forks. All methods block; psycopg's errors pass through.
    """

    def __init__(self, conninfo: str, hub: NotifyHub) -> None:
        self._hub = hub
        self._pool: ConnectionPool[Connection[Any]] = ConnectionPool(
            conninfo,
            min_size=1,
            max_size=4,
            timeout=5.0,
            kwargs={"application_name": "flask_example"},
            # A connection that a restart of the server killed is replaced, not handed out.
            check=ConnectionPool.check_connection,
            open=False,
        )
        # Held by the first call while it prepares the database, which the others need as well.
        self._preparing = threading.Lock()
        self._prepared = False

    def close(self) -> None:
        """Close the pool; idempotent."""
        self._pool.close()

    def all(self, tenant: UUID) -> list[Order]:
        """A tenant's orders, oldest first."""
        with self._transaction() as connection:
            return self._rows(connection, _ALL, tenant)

    def create(self, tenant: UUID, title: str) -> Order:
        """A new order. The oldest ones go when the tenant has too many, delivered ones first."""
        with self._transaction() as connection:
            [order] = self._rows(connection, _CREATE, tenant, title)
            removed = self._rows(connection, _MAKE_ROOM, tenant, _KEPT)
            changes = [("order.created", order), *(("order.deleted", gone) for gone in removed)]
            self._publish(connection, changes)
        return order

    def move(self, id: int, status: str) -> Order | None:
        """The order in its new status; None when there is no such order."""
        with self._transaction() as connection:
            for order in self._rows(connection, _MOVE, status, id):
                self._publish(connection, [("order.updated", order)])
                return order
        return None

    def burst(self, tenant: UUID) -> int:
        """`BURST` changes, each of them published, in one transaction. Returns their number."""
        with self._transaction() as connection:
            known = [id for (id,) in connection.execute(_LOCK, (tenant,)).fetchall()]
            titles = [random.choice(menu(tenant)) for _ in range(_BUSY - len(known))]
            created = self._batch(connection, _CREATE, [(tenant, title) for title in titles])
            known += [order.id for order in created]
            steps = [(random.choice(known),) for _ in range(BURST - len(created))]
            moved = self._batch(connection, _ADVANCE, steps)
            changes = [("order.created", order) for order in created]
            changes += [("order.updated", order) for order in moved]
            self._publish(connection, changes)
        return len(changes)

    def cut(self) -> int:
        """End the sessions of every hub that listens on this database. Returns their number."""
        with self._transaction() as connection:
            row = connection.execute(_CUT).fetchone()
        return int(row[0]) if row else 0

    @contextmanager
    def _transaction(self) -> Iterator[Connection[Any]]:
        self._pool.open()
        if not self._prepared:
            self._prepare()
        with self._pool.connection() as connection:
            yield connection

    def _prepare(self) -> None:
        with self._preparing, self._pool.connection() as connection:
            if not self._prepared:
                connection.execute(_TURN)
                connection.execute(_TABLE)
                for tenant in TENANTS:
                    if not self._rows(connection, _ALL, tenant.id):
                        _seed(connection, tenant.id)
        self._prepared = True

    def _publish(self, connection: Connection[Any], changes: list[_Change]) -> None:
        """In the connection's transaction: heard of when it commits, never when it doesn't."""
        self._hub.publish_many(
            [(CHANNEL, order.tenant, order.payload(), type) for type, order in changes],
            executor=connection,
        )

    @staticmethod
    def _rows(connection: Connection[Any], query: str, *params: Any) -> list[Order]:
        with connection.cursor(row_factory=class_row(Order)) as cursor:
            return cursor.execute(query, params).fetchall()

    @staticmethod
    def _batch(connection: Connection[Any], query: str, batch: list[tuple[Any, ...]]) -> list[Order]:
        """One statement for each of the parameters, without a round trip for each."""
        orders: list[Order] = []
        if not batch:
            return orders
        with connection.cursor(row_factory=class_row(Order)) as cursor:
            cursor.executemany(query, batch, returning=True)
            more: bool | None = True
            while more:
                orders += cursor.fetchall()
                more = cursor.nextset()
        return orders


def _seed(connection: Connection[Any], tenant: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            _SEED,
            [
                {"tenant": tenant, "title": title, "status": status, "age": f"{5 * age + 2} min"}
                for age, (title, status) in enumerate(zip(menu(tenant), _SEEDS, strict=False))
            ],
        )
