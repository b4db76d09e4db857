"""Orders: reads and writes the table. The table's trigger publishes each change to the open pages."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from pgfanout import PostgresHub

from . import database
from .tenants import menu

__all__ = ["BURST", "STATUSES", "Order", "Orders"]

STATUSES: Final = ("new", "preparing", "ready", "delivered")

BURST: Final = 500
"""Changes in one burst."""

_KEPT: Final = 300
"""The most orders of a tenant. Beyond that, a new order removes an old one."""

_BUSY: Final = 12
"""A burst adds orders up to this number, so that there is something to see."""

# The time in the format of JSON, as in the events.
_COLUMNS: Final = "id, tenant, title, status, to_json(updated_at) #>> '{}' AS updated_at"

_ALL: Final = f"SELECT {_COLUMNS} FROM board_orders WHERE tenant = %s ORDER BY id"

_CREATE: Final = f"INSERT INTO board_orders (tenant, title) VALUES (%s, %s) RETURNING {_COLUMNS}"

_MOVE: Final = f"UPDATE board_orders SET status = %s WHERE id = %s RETURNING {_COLUMNS}"

# A delivered order becomes a new one, so the board stays as full as it is.
_ADVANCE: Final = """
    UPDATE board_orders
    SET status = CASE status WHEN 'new' THEN 'preparing' WHEN 'preparing' THEN 'ready'
                             WHEN 'ready' THEN 'delivered' ELSE 'new' END
    WHERE id = %s
"""

_MAKE_ROOM: Final = """
    DELETE FROM board_orders WHERE id IN (
        SELECT id FROM board_orders WHERE tenant = %s
        ORDER BY status = 'delivered', id DESC OFFSET %s FOR UPDATE SKIP LOCKED
    )
"""

# In the order of the key, so that two bursts wait for each other instead of deadlocking.
_LOCK: Final = "SELECT id FROM board_orders WHERE tenant = %s ORDER BY id FOR UPDATE"

_CUT: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pgfanout-listener'
"""


@dataclass(frozen=True)
class Order:
    """A row of the table. `updated_at` is the time of its last change, in the format of JSON."""

    id: int
    tenant: str
    title: str
    status: str
    updated_at: str

    def payload(self) -> dict[str, Any]:
        """Return what the tenant's pages get."""
        return {
            "id": self.id,
            "title": self.title,
            "status": self.status,
            "updated_at": self.updated_at,
        }


class Orders:
    """The orders of all tenants. Each method is one transaction, blocks, and raises psycopg's errors.

    The first call in a process prepares the database, so you can create an instance before a server forks.
    """

    def __init__(self, conninfo: str, hub: PostgresHub) -> None:
        self._hub = hub
        self._pool: ConnectionPool[Connection[Any]] = ConnectionPool(
            conninfo,
            min_size=1,
            max_size=4,
            timeout=5.0,
            kwargs={"application_name": "flask_example"},
            # Replaces a connection that a restart of the server has ended.
            check=ConnectionPool.check_connection,
            open=False,
        )
        # The first call holds it while it prepares the database. Others need the database, too, so they wait.
        self._preparing = threading.Lock()
        self._prepared = False

    def prepare(self) -> None:
        """Install the hub's history and prepare the database. Call it before the hub listens.

        Idempotent. Several processes may call it at once.
        """
        if self._prepared:
            return
        self._pool.open()
        with self._preparing, self._pool.connection() as connection:
            if not self._prepared:
                self._hub.install_history()
                database.prepare(connection)
        self._prepared = True

    def close(self) -> None:
        """Close the pool. Idempotent."""
        self._pool.close()

    def all(self, tenant: str) -> list[Order]:
        """Return a tenant's orders, oldest first."""
        with self._transaction() as connection:
            return self._rows(connection, _ALL, tenant)

    def create(self, tenant: str, title: str) -> Order:
        """Create an order and return it. If the tenant has too many, remove the oldest, delivered ones first."""
        with self._transaction() as connection:
            [order] = self._rows(connection, _CREATE, tenant, title)
            connection.execute(_MAKE_ROOM, (tenant, _KEPT))
        return order

    def move(self, id: int, status: str) -> Order | None:
        """Set an order's status and return the order, or None if it does not exist."""
        with self._transaction() as connection:
            return next(iter(self._rows(connection, _MOVE, status, id)), None)

    def burst(self, tenant: str) -> int:
        """Make `BURST` changes in one transaction. Return their number."""
        with self._transaction() as connection, connection.cursor() as cursor:
            known = [id for (id,) in cursor.execute(_LOCK, (tenant,)).fetchall()]
            missing = max(0, _BUSY - len(known))
            for _ in range(missing):
                [order] = self._rows(connection, _CREATE, tenant, random.choice(menu(tenant)))
                known.append(order.id)
            cursor.executemany(_ADVANCE, [(random.choice(known),) for _ in range(BURST - missing)])
        return BURST

    def cut(self) -> int:
        """End the sessions of all hubs that listen on this database. Return their number."""
        with self._transaction() as connection:
            row = connection.execute(_CUT).fetchone()
        return int(row[0]) if row else 0

    @contextmanager
    def _transaction(self) -> Iterator[Connection[Any]]:
        self.prepare()
        with self._pool.connection() as connection:
            yield connection

    @staticmethod
    def _rows(connection: Connection[Any], query: str, *params: Any) -> list[Order]:
        with connection.cursor(row_factory=class_row(Order)) as cursor:
            return cursor.execute(query, params).fetchall()
