"""Make a dump of a database with a history, as the pgfanout that is imported makes it: events, watched tables, roles.

    cd tests/backends/postgres/history
    PYTHONPATH=<a checkout of that release> python make_dump.py > version_2.sql

It uses PostgreSQL 16 and plain SQL, so that servers from 15 on can restore it. The tests take what is in it from here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psycopg

sys.path.append(str(Path(__file__).parents[4]))  # last: pgfanout itself comes from the other checkout

from pgfanout.backends.postgres.history.schema import Schema
from pgfanout.backends.postgres.history.trigger import TableTrigger
from tests.support.data_directory import binaries
from tests.support.postgres import PostgresServer

TENANT = "11111111-1111-4111-8111-111111111111"
OWNER, WEB, HUB = "pgfanout_upgrade_owner", "pgfanout_upgrade_web", "pgfanout_upgrade_hub"
"""Roles: of the tables and a publisher; a publisher; a reader."""
CHANNEL = "shop_events"
MAX_AGE, MAX_ROWS = 3_000.0 * 86_400, 5_000

ROLES = "\n".join(f"CREATE ROLE {role} LOGIN;" for role in (OWNER, WEB, HUB))

TABLES = f"""
CREATE SCHEMA shop AUTHORIZATION {OWNER};
SET ROLE {OWNER};
CREATE TABLE shop.orders (id integer PRIMARY KEY, tenant uuid, status text, total numeric, note text);
CREATE TABLE shop."Order Items" (ref uuid, line integer, tenant uuid, PRIMARY KEY (ref, line));
CREATE TABLE shop.tags (name text, tenant text);
RESET ROLE;
"""

TRIGGERS = (
    TableTrigger("shop.orders", "tenant", ("id",), "", ("status", "total"), ("id", "status"), "status <> 'draft'"),
    TableTrigger("shop.Order Items", "tenant", ("ref", "line"), channel="items"),
    TableTrigger("shop.tags", "tenant", ("name",)),  # the key is not unique: only the first release took it
)

EVENTS = f"""
SELECT pgfanout.publish('orders', '{TENANT}', '{{"pruned": 1}}');
UPDATE pgfanout.log SET max_rows = 1, planned_at = 'epoch';
SELECT pgfanout.publish('orders', '{TENANT}', '{{"pruned": 2}}');
SELECT pgfanout.publish('orders', '{TENANT}', '0', 'first');
SELECT pgfanout.prune(10, 0);
UPDATE pgfanout.log SET max_rows = {MAX_ROWS};
SELECT pgfanout.publish('orders', '{TENANT}', '"a ''quoted'' \\"text\\" é"', 'order.created');
SELECT pgfanout.publish_many('{{orders,stock}}', '{{{TENANT},{TENANT}}}', '{{2,3}}', '{{a,b}}');
SELECT pgfanout.publish('orders', '{TENANT}', to_json(repeat('x', 9000)));
INSERT INTO shop.orders VALUES (1, '{TENANT}', 'new', 9.5), (2, '{TENANT}', 'draft', 1);
UPDATE shop.orders SET status = 'paid';
INSERT INTO shop."Order Items" VALUES ('{TENANT}', 1, '{TENANT}');
INSERT INTO shop.tags VALUES ('a', '{TENANT}'), ('b', '{TENANT}');
"""


def main() -> None:
    with PostgresServer(version=16) as server, server.connect() as connection:
        connection.execute(ROLES.encode())
        schema = Schema(postgres_channel=CHANNEL, max_age=MAX_AGE, max_rows=MAX_ROWS)
        schema.install(connection, publishers=[OWNER, WEB], readers=[HUB])
        connection.execute(TABLES.encode())
        for trigger in TRIGGERS:
            with suppress(psycopg.errors.RaiseException, psycopg.errors.DatatypeMismatch):
                psycopg.Cursor(connection).execute(trigger.script().encode())
        for statement in filter(str.strip, EVENTS.split(";\n")):
            connection.execute(statement.encode())
        command = [str(binaries(16) / "pg_dump"), "--inserts", "--dbname", server.url()]
        dump = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    lines = [line for line in dump.splitlines() if not re.match(r"\\|--|\s*$", line)]  # psql's own, and comments
    sys.stdout.write("\n".join([ROLES, *lines]) + "\n")


if __name__ == "__main__":
    main()
