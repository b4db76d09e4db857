"""Orders: reading and writing the table. What it writes, the table's trigger tells every open page."""

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

from pgfanout import PostgresHub

from . import database
from .tenants import menu

__all__ = ["BURST", "STATUSES", "Order", "Orders"]

STATUSES: Final = ("new", "preparing", "ready", "delivered")

BURST: Final = 500
"""Changes in one burst."""

_KEPT: Final = 300
"""Orders that a tenant may have; a new one beyond that makes room for itself."""

_BUSY: Final = 12
"""Orders that a burst needs to be worth looking at."""

# The time as JSON has it, and so as the events have it.
_COLUMNS: Final = "id, tenant, title, status, to_json(updated_at) #>> '{}' AS updated_at"

_ALL: Final = f"SELECT {_COLUMNS} FROM board_orders WHERE tenant = %s ORDER BY id"

_CREATE: Final = f"INSERT INTO board_orders (tenant, title) VALUES (%s, %s) RETURNING {_COLUMNS}"

_MOVE: Final = f"UPDATE board_orders SET status = %s WHERE id = %s RETURNING {_COLUMNS}"

# What was delivered is ordered again: the board stays as full as it is.
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

# In the order of the key, so that two bursts wait for each other instead of locking each other out.
_LOCK: Final = "SELECT id FROM board_orders WHERE tenant = %s ORDER BY id FOR UPDATE"

_CUT: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pgfanout-listener'
"""


@dataclass(frozen=True)
class Order:
    """A row; `updated_at` is the time of its last change, as JSON has it."""

    id: int
    tenant: UUID
    title: str
    status: str
    updated_at: str

    def payload(self) -> dict[str, Any]:
        """What the tenant's pages know of it."""
        return {
            "id": self.id,
            "title": self.title,
            "status": self.status,
            "updated_at": self.updated_at,
        }


class Orders:
    """Every method is one transaction.

    The first call in a process prepares the database, so an instance may be made before a server
    forks. All methods block; psycopg's errors pass through.
    """

    def __init__(self, conninfo: str, hub: PostgresHub) -> None:
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

    def prepare(self) -> None:
        """Have the database as the board needs it, the hub's history included: before the hub listens.

        Idempotent, and safe when many processes do it at once.
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
            connection.execute(_MAKE_ROOM, (tenant, _KEPT))
        return order

    def move(self, id: int, status: str) -> Order | None:
        """The order in its new status; None when there is no such order."""
        with self._transaction() as connection:
            return next(iter(self._rows(connection, _MOVE, status, id)), None)

    def burst(self, tenant: UUID) -> int:
        """`BURST` changes in one transaction. Returns their number."""
        with self._transaction() as connection, connection.cursor() as cursor:
            known = [id for (id,) in cursor.execute(_LOCK, (tenant,)).fetchall()]
            missing = max(0, _BUSY - len(known))
            for _ in range(missing):
                [order] = self._rows(connection, _CREATE, tenant, random.choice(menu(tenant)))
                known.append(order.id)
            cursor.executemany(_ADVANCE, [(random.choice(known),) for _ in range(BURST - missing)])
        return BURST

    def cut(self) -> int:
        """End the sessions of every hub that listens on this database. Returns their number."""
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
