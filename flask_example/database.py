"""The board's table, and the triggers that publish its changes."""

from __future__ import annotations

from typing import Any, Final

from psycopg import Connection

from pgfanout.backends.postgres.history.trigger import TableTrigger

from .tenants import TENANTS, menu

__all__ = ["CHANNEL", "prepare"]

CHANNEL: Final = "orders"

_SEEDS: Final = ("new", "new", "new", "preparing", "preparing", "ready", "ready", "delivered")

# CREATE TABLE IF NOT EXISTS can fail if two processes run it at once. So processes that start together take turns.
_TURN: Final = "SELECT pg_advisory_xact_lock(hashtext('board_orders'))"

_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS board_orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        tenant text NOT NULL,
        title text NOT NULL,
        status text NOT NULL DEFAULT 'new'
            CHECK (status IN ('new', 'preparing', 'ready', 'delivered')),
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE INDEX IF NOT EXISTS board_orders_tenant ON board_orders (tenant);
"""

# Sets updated_at for every client that updates a row, such as psql.
_UPDATED_AT: Final = """
    CREATE OR REPLACE FUNCTION board_orders_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.updated_at := clock_timestamp();
        RETURN NEW;
    END
    $$;
    CREATE OR REPLACE TRIGGER updated_at BEFORE UPDATE ON board_orders
        FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION board_orders_updated_at();
"""

# Every change of a row publishes an event. It has all that a page shows of an order, so the page loads nothing.
_EVENTS: Final = TableTrigger(
    table="board_orders",
    tenant="tenant",
    key=("id",),
    channel=CHANNEL,
    payload=("id", "title", "status", "updated_at"),
)

_SEED: Final = """
    INSERT INTO board_orders (tenant, title, status, created_at, updated_at)
    VALUES (%(tenant)s, %(title)s, %(status)s, now() - %(age)s::interval, now() - %(age)s::interval)
"""


def prepare(connection: Connection[Any]) -> None:
    """Create the table and its triggers, and some orders for each shop that has none, in one transaction.

    The history has to be installed. Idempotent. Processes that start at the same time take turns.
    """
    for statement in (_TURN, _TABLE, _UPDATED_AT, _EVENTS.script()):
        connection.execute(statement)
    for tenant in TENANTS:
        if connection.execute("SELECT 1 FROM board_orders WHERE tenant = %s LIMIT 1", (tenant.id,)).fetchone() is None:
            _seed(connection, tenant.id)


def _seed(connection: Connection[Any], tenant: str) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            _SEED,
            [
                {"tenant": tenant, "title": title, "status": status, "age": f"{5 * age + 2} min"}
                for age, (title, status) in enumerate(zip(menu(tenant), _SEEDS, strict=False))
            ],
        )
