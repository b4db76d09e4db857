"""Table triggers: which changes of which rows are events, and whose rights that needs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgfanout import InvalidEventError
from pgfanout.backends.postgres.history import trigger
from pgfanout.backends.postgres.history.schema import REVISION, Schema
from pgfanout.backends.postgres.history.trigger import TableTrigger, drop_script
from tests.support.postgres import PostgresServer, random_name
from tests.support.traps import set_traps

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
OTHER = uuid.UUID("22222222-2222-4222-8222-222222222222")

Connection = psycopg.Connection[tuple[Any, ...]]
Seen = list[tuple[str, dict[str, Any]]]

ORDERS = """
CREATE TABLE orders (
    id integer PRIMARY KEY, tenant_id uuid, status text, note text, details json
)
"""


@pytest.fixture
def connection(fresh_database_url: str) -> Iterator[Connection]:
    """A session in a database with a history, and a table of orders."""
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        Schema().install(connection)
        connection.execute(ORDERS)
        yield connection


def run(connection: Connection, script: str) -> None:
    psycopg.Cursor(connection).execute(script.encode())


def watch(connection: Connection, table: str = "orders", key: Sequence[str] = ("id",), **options: Any) -> None:
    run(connection, TableTrigger(table, "tenant_id", key, **options).script())


def orders(connection: Connection, *rows: tuple[Any, ...]) -> None:
    """Insert rows: id, status, and the tenant if it's another one."""
    for row in rows:
        given = (*row, TENANT)[:3]
        connection.execute("INSERT INTO orders (id, status, tenant_id) VALUES (%s, %s, %s)", given)


def published(connection: Connection, channel: str = "orders", tenant: uuid.UUID | int | str = TENANT) -> Seen:
    """What the tenant's channel has in the history, which is empty afterwards: types and payloads."""
    rows = connection.execute("SELECT type, payload, channel, tenant FROM pgfanout.event ORDER BY number").fetchall()
    connection.execute("DELETE FROM pgfanout.event")
    return [(row[0], row[1]) for row in rows if row[2:] == (channel, str(tenant))]


def event(operation: str, row: dict[str, Any] | None = None, **key: Any) -> tuple[str, dict[str, Any]]:
    payload: dict[str, Any] = {"operation": operation, "key": key}
    return operation, payload if row is None else {**payload, "row": row}


def rows_of(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def test_each_changed_row_is_an_event(connection: Connection) -> None:
    watch(connection)
    connection.execute("INSERT INTO orders (id, tenant_id) VALUES (2, %(t)s), (1, %(t)s), (3, %(t)s)", {"t": TENANT})
    assert published(connection) == [event("insert", id=1), event("insert", id=2), event("insert", id=3)]
    connection.execute("UPDATE orders SET status = 'paid' WHERE id > 1")
    assert published(connection) == [event("update", id=2), event("update", id=3)]
    connection.execute("DELETE FROM orders WHERE id < 3")
    assert published(connection) == [event("delete", id=1), event("delete", id=2)]


def test_the_payload_is_written_without_blanks(connection: Connection) -> None:
    watch(connection)
    orders(connection, (1, "new"))
    assert rows_of(connection, "SELECT payload::text FROM pgfanout.event") == [
        ('{"operation":"insert","key":{"id":1}}',)
    ]


def test_a_statement_that_changes_no_row_publishes_nothing(connection: Connection) -> None:
    watch(connection)
    connection.execute("UPDATE orders SET status = 'paid'")
    connection.execute("DELETE FROM orders")
    connection.execute("INSERT INTO orders SELECT * FROM orders")
    assert rows_of(connection, "SELECT pg_relation_size('pgfanout.pending_many')") == [(0,)]


def test_events_come_with_the_commit_and_not_after_a_rollback(connection: Connection) -> None:
    watch(connection)
    with connection.transaction(force_rollback=True):
        orders(connection, (1, "new"))
    with connection.transaction():
        orders(connection, (2, "new"))
        assert rows_of(connection, "SELECT * FROM pgfanout.event") == []
    assert published(connection) == [event("insert", id=2)]


def test_the_row_comes_along_where_columns_are_named(connection: Connection) -> None:
    watch(connection, payload=("status", "details"))
    connection.execute("INSERT INTO orders VALUES (1, %s, 'new', 'x', '{\"a\": [1, null]}')", [TENANT])
    connection.execute("UPDATE orders SET status = NULL, details = NULL")
    connection.execute("UPDATE orders SET note = 'y'")
    connection.execute("UPDATE orders SET status = 'paid'")
    connection.execute("DELETE FROM orders")
    assert published(connection) == [
        event("insert", {"status": "new", "details": {"a": [1, None]}}, id=1),
        event("update", {"status": None, "details": None}, id=1),
        event("update", {"status": None, "details": None}, id=1),
        event("update", {"status": "paid", "details": None}, id=1),
        event("delete", {"status": "paid", "details": None}, id=1),
    ]


def test_an_update_that_changes_nothing_publishes_nothing(connection: Connection) -> None:
    watch(connection)
    orders(connection, (1, "new"), (2, "paid"))
    published(connection)
    connection.execute("UPDATE orders SET status = 'paid', details = details")
    assert published(connection) == [event("update", id=1)]
    connection.execute("UPDATE orders SET details = '{}' WHERE id = 1")
    connection.execute("UPDATE orders SET details = '{}' WHERE id = 1")
    assert published(connection) == [event("update", id=1)]


def test_an_update_counts_when_it_changes_a_watched_column(connection: Connection) -> None:
    watch(connection, columns=("status", "details"))
    orders(connection, (1, "new"), (2, "new"))
    published(connection)
    connection.execute("UPDATE orders SET note = 'x'")
    assert published(connection) == []
    connection.execute("UPDATE orders SET note = 'y', status = CASE id WHEN 1 THEN 'paid' ELSE status END")
    assert published(connection) == [event("update", id=1)]
    connection.execute("UPDATE orders SET details = '[1]' WHERE id = 2")
    assert published(connection) == [event("update", id=2)]
    connection.execute("UPDATE orders SET status = NULL, details = NULL")
    connection.execute("UPDATE orders SET note = 'z'")
    assert published(connection) == [event("update", id=1), event("update", id=2)]


def test_watched_columns_hold_back_no_insert_and_no_delete(connection: Connection) -> None:
    watch(connection, columns=("status",))
    connection.execute("INSERT INTO orders VALUES (1, %s)", [TENANT])
    connection.execute("DELETE FROM orders")
    assert published(connection) == [event("insert", id=1), event("delete", id=1)]


def test_a_tenant_that_loses_a_row_learns_it(connection: Connection) -> None:
    watch(connection, columns=("status",), payload=("status", "tenant_id"))
    orders(connection, (1, "new"), (2, "new"))
    published(connection)
    connection.execute("UPDATE orders SET tenant_id = %s, status = 'sold' WHERE id = 1", [OTHER])
    rows = rows_of(connection, "SELECT tenant, type, payload->'row' FROM pgfanout.event ORDER BY number")
    assert rows == [
        (str(TENANT), "delete", {"status": "new", "tenant_id": str(TENANT)}),
        (str(OTHER), "insert", {"status": "sold", "tenant_id": str(OTHER)}),
    ]


def test_a_key_that_changes_is_a_delete_and_an_insert(connection: Connection) -> None:
    watch(connection)
    orders(connection, (1, "new"), (2, "new"), (3, "paid"))
    published(connection)
    connection.execute("UPDATE orders SET id = 9 WHERE id = 2")
    assert published(connection) == [event("delete", id=2), event("insert", id=9)]


def test_keys_that_change_places_are_updates_of_both(connection: Connection) -> None:
    connection.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
    watch(connection, payload=("status",))
    orders(connection, (1, "new"), (2, "paid"))
    published(connection)
    connection.execute("UPDATE orders SET id = 3 - id")
    assert published(connection) == [
        event("update", {"status": "paid"}, id=1),
        event("update", {"status": "new"}, id=2),
    ]


def test_a_row_without_a_tenant_is_nobodys(connection: Connection) -> None:
    watch(connection)
    orders(connection, (1, "new", None))
    connection.execute("UPDATE orders SET status = 'paid'")
    assert published(connection) == []
    connection.execute("UPDATE orders SET tenant_id = %s", [TENANT])
    assert published(connection) == [event("insert", id=1)]
    connection.execute("UPDATE orders SET tenant_id = NULL")
    assert published(connection) == [event("delete", id=1)]
    connection.execute("DELETE FROM orders")
    assert published(connection) == []


def test_rows_count_while_the_condition_holds(connection: Connection) -> None:
    watch(connection, when="status <> 'draft' -- NULL is no yes", payload=("status",))
    orders(connection, (1, "draft"), (2, "open"), (3, None))
    assert published(connection) == [event("insert", {"status": "open"}, id=2)]
    connection.execute("UPDATE orders SET status = 'open' WHERE id <> 2")
    assert published(connection) == [
        event("insert", {"status": "open"}, id=1),
        event("insert", {"status": "open"}, id=3),
    ]
    connection.execute("UPDATE orders SET status = CASE id WHEN 1 THEN 'draft' ELSE 'paid' END")
    assert published(connection) == [
        event("delete", {"status": "open"}, id=1),
        event("update", {"status": "paid"}, id=2),
        event("update", {"status": "paid"}, id=3),
    ]
    connection.execute("UPDATE orders SET note = 'x' WHERE id = 1")
    connection.execute("DELETE FROM orders WHERE id < 3")
    assert published(connection) == [event("delete", {"status": "paid"}, id=2)]


@pytest.mark.parametrize(
    "condition", ["note ~ '$1$' OR note = '$body_0$; $do_0$'", "note <> '@table@'", "note <> E'a\\'b%s'"]
)
def test_a_condition_may_have_any_characters(connection: Connection, condition: str) -> None:
    watch(connection, when=condition)
    connection.execute("INSERT INTO orders VALUES (1, %s, '', '$body_0$; $do_0$')", [TENANT])
    assert published(connection) == [event("insert", id=1)]


def test_functions_of_ones_own_are_qualified_in_a_condition(connection: Connection) -> None:
    connection.execute("CREATE FUNCTION open(text) RETURNS boolean LANGUAGE sql AS $$ SELECT $1 = 'open' $$")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        watch(connection, when="open(status)")
    watch(connection, when="public.open(status)")
    orders(connection, (1, "open"), (2, "paid"))
    assert published(connection) == [event("insert", id=1)]


def test_an_upsert_is_an_insert_or_an_update(connection: Connection) -> None:
    watch(connection)
    orders(connection, (1, "new"), (2, "paid"))
    published(connection)
    connection.execute(
        "INSERT INTO orders (id, tenant_id, status) SELECT i, %s, 'paid' FROM generate_series(1, 3) AS i"
        " ON CONFLICT (id) DO UPDATE SET status = excluded.status",
        [TENANT],
    )
    assert sorted(published(connection)) == [event("insert", id=3), event("update", id=1)]


def test_a_merge_publishes_what_it_does(connection: Connection) -> None:
    watch(connection)
    orders(connection, (1, "new"), (2, "new"))
    published(connection)
    connection.execute(
        "MERGE INTO orders USING generate_series(2, 3) AS i ON i = id"
        " WHEN MATCHED THEN UPDATE SET status = 'paid' WHEN NOT MATCHED THEN INSERT (id, tenant_id) VALUES (i, %s)",
        [TENANT],
    )
    assert sorted(published(connection), key=str) == [event("insert", id=3), event("update", id=2)]


def test_rows_that_are_copied_in_are_events(connection: Connection) -> None:
    watch(connection)
    with connection.cursor() as cursor, cursor.copy("COPY orders (id, tenant_id) FROM STDIN") as copy:
        copy.write_row((2, TENANT))
        copy.write_row((1, TENANT))
    assert published(connection) == [event("insert", id=1), event("insert", id=2)]


def test_rows_that_a_cascade_deletes_are_events(connection: Connection) -> None:
    connection.execute("CREATE TABLE customer (id integer PRIMARY KEY)")
    connection.execute("ALTER TABLE orders ADD customer integer REFERENCES customer ON DELETE CASCADE")
    watch(connection)
    connection.execute("INSERT INTO customer VALUES (7)")
    connection.execute("INSERT INTO orders (id, tenant_id, customer) VALUES (1, %s, 7)", [TENANT])
    connection.execute("DELETE FROM customer")
    assert published(connection) == [event("insert", id=1), event("delete", id=1)]


def test_rows_that_a_cascade_deletes_from_a_partitioned_table_are_events(connection: Connection) -> None:
    connection.execute("CREATE TABLE customer (id integer PRIMARY KEY)")
    connection.execute(
        "CREATE TABLE bills (id integer PRIMARY KEY, tenant_id uuid, customer integer,"
        " FOREIGN KEY (customer) REFERENCES customer ON DELETE CASCADE) PARTITION BY LIST (id)"
    )
    connection.execute("CREATE TABLE bills_1 PARTITION OF bills FOR VALUES IN (1)")
    connection.execute("CREATE TABLE bills_2 PARTITION OF bills FOR VALUES IN (2)")
    watch(connection, "bills", ())
    connection.execute("INSERT INTO customer VALUES (7)")
    connection.execute("INSERT INTO bills VALUES (1, %(t)s, 7), (2, %(t)s, 7)", {"t": TENANT})
    published(connection, "bills")
    connection.execute("DELETE FROM customer")
    assert published(connection, "bills") == [event("delete", id=1), event("delete", id=2)]


def test_a_truncate_is_not_seen(connection: Connection) -> None:
    watch(connection)
    orders(connection, (1, "new"))
    published(connection)
    connection.execute("TRUNCATE orders")
    assert published(connection) == []


@pytest.mark.parametrize("rows", [0, 1, 2500])
def test_all_rows_of_a_statement_are_published_at_once(connection: Connection, rows: int) -> None:
    watch(connection)
    connection.execute(
        "INSERT INTO orders (id, tenant_id) SELECT i, %s FROM generate_series(1, %s) AS i", [TENANT, rows]
    )
    assert published(connection) == [event("insert", id=number) for number in range(1, rows + 1)]
    connection.execute("UPDATE orders SET status = 'paid'")
    assert published(connection) == [event("update", id=number) for number in range(1, rows + 1)]


def test_a_partitioned_table_publishes_what_is_written_through_it(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE logs (id integer, tenant_id uuid, part integer, PRIMARY KEY (id, part)) PARTITION BY LIST (part)"
    )
    connection.execute("CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1)")
    connection.execute("CREATE TABLE logs_2 PARTITION OF logs FOR VALUES IN (2)")
    watch(connection, "logs", ())
    connection.execute("INSERT INTO logs VALUES (1, %(t)s, 1), (2, %(t)s, 2)", {"t": TENANT})
    assert published(connection, "logs") == [event("insert", id=1, part=1), event("insert", id=2, part=2)]
    connection.execute("UPDATE logs SET part = 2 WHERE id = 1")  # into the other partition
    assert published(connection, "logs") == [event("delete", id=1, part=1), event("insert", id=1, part=2)]
    connection.execute("INSERT INTO logs_1 VALUES (3, %s, 1)", [TENANT])
    assert published(connection, "logs") == []
    connection.execute("ALTER TABLE logs DETACH PARTITION logs_2")
    connection.execute("ALTER TABLE logs ATTACH PARTITION logs_2 FOR VALUES IN (2)")
    assert published(connection, "logs") == []
    connection.execute("UPDATE logs SET tenant_id = tenant_id")
    assert published(connection, "logs") == []
    connection.execute("DELETE FROM logs")
    assert published(connection, "logs") == [event("delete", id=n, part=part) for n, part in ((1, 2), (2, 2), (3, 1))]


def test_a_key_of_several_columns(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE lines (ref uuid, line integer, tenant_id uuid, n numeric, PRIMARY KEY (ref, line))"
    )
    watch(connection, "lines", ("ref", "line"), payload=("n",))
    one, two = sorted([uuid.uuid4(), uuid.uuid4()])
    connection.execute(
        "INSERT INTO lines VALUES (%(b)s, 1, %(t)s, 1.50), (%(a)s, 2, %(t)s, 2), (%(a)s, 1, %(t)s, 3)",
        {"a": one, "b": two, "t": TENANT},
    )
    assert published(connection, "lines") == [
        event("insert", {"n": 3}, ref=str(one), line=1),
        event("insert", {"n": 2}, ref=str(one), line=2),
        event("insert", {"n": 1.5}, ref=str(two), line=1),
    ]
    connection.execute("UPDATE lines SET n = 1.5")
    assert published(connection, "lines") == [event("update", {"n": 1.5}, ref=str(one), line=n) for n in (1, 2)] + [
        event("update", {"n": 1.5}, ref=str(two), line=1)  # 1.50 is not the same to see
    ]


AWKWARD = [
    ("Order Items", "Item No"),
    ("o'rder", "i'd"),
    ("Größe\\$1$", "naïve \\ %s"),
    ("select", "k1"),
    ("new_rows", "tenant"),
    ("x" * 63, "e"),
    ("ü" * 31, "columns"),
    ("a.b", "type"),
]


@pytest.mark.parametrize(("table", "column"), AWKWARD)
def test_names_are_taken_as_they_are(connection: Connection, table: str, column: str) -> None:
    connection.execute('CREATE SCHEMA "The Shop"')
    names = {"table": sql.Identifier("The Shop", table), "column": sql.Identifier(column)}
    connection.execute(sql.SQL("CREATE TABLE {table} ({column} integer PRIMARY KEY, tenant_id uuid)").format(**names))
    options: dict[str, Any] = {"columns": (column,), "payload": (column,)}
    trigger = TableTrigger(f"The Shop.{table}", "tenant_id", (column,), **options)
    run(connection, trigger.script())
    run(connection, trigger.script())
    connection.execute(sql.SQL("INSERT INTO {table} VALUES (1, %s)").format(**names), [TENANT])
    connection.execute(sql.SQL("UPDATE {table} SET {column} = 2").format(**names))
    assert published(connection, table) == [
        event("insert", {column: 1}, **{column: 1}),
        event("delete", {column: 1}, **{column: 1}),
        event("insert", {column: 2}, **{column: 2}),
    ]
    run(connection, trigger.drop_script())
    connection.execute(sql.SQL("DELETE FROM {table}").format(**names))
    assert published(connection, table) == []


@pytest.mark.parametrize("column", ["old_rows", "new_rows", "image", "tg_op", "found", "channel", "payload", "event"])
def test_a_columns_name_is_never_taken_for_another_thing(connection: Connection, column: str) -> None:
    connection.execute(sql.SQL("ALTER TABLE orders ADD {} text").format(sql.Identifier(column)))
    watch(connection, columns=(column,), payload=(column,), when=f"{column} IS NOT NULL")
    connection.execute(
        sql.SQL("INSERT INTO orders (id, tenant_id, {}) VALUES (1, %s, 'a')").format(sql.Identifier(column)), [TENANT]
    )
    connection.execute(sql.SQL("UPDATE orders SET {} = 'b'").format(sql.Identifier(column)))
    assert published(connection) == [event("insert", {column: "a"}, id=1), event("update", {column: "b"}, id=1)]


def test_tables_of_the_same_name_in_two_schemas_are_told_apart(connection: Connection) -> None:
    connection.execute("CREATE SCHEMA shop CREATE TABLE orders (id text PRIMARY KEY, tenant_id uuid)")
    watch(connection)
    watch(connection, "shop.orders", channel="shop orders")
    connection.execute("INSERT INTO shop.orders VALUES ('x', %s)", [TENANT])
    orders(connection, (1, "new"))
    rows = rows_of(connection, "SELECT channel, payload->'key'->'id' FROM pgfanout.event ORDER BY number")
    assert rows == [("shop orders", "x"), ("orders", 1)]


def test_a_table_without_a_schema_is_found_as_in_any_statement(connection: Connection) -> None:
    connection.execute("CREATE SCHEMA shop CREATE TABLE orders (id text PRIMARY KEY, tenant_id uuid)")
    connection.execute("SET search_path = shop, public")
    watch(connection)
    assert rows_of(connection, "SHOW search_path") == [("shop, public",)]
    connection.execute("INSERT INTO public.orders VALUES (1, %s)", [TENANT])
    connection.execute("INSERT INTO shop.orders VALUES ('x', %s)", [TENANT])
    assert published(connection) == [event("insert", id="x")]
    run(connection, drop_script("orders"))
    assert rows_of(connection, "SHOW search_path") == [("shop, public",)]
    assert rows_of(connection, "SELECT proname FROM pg_proc WHERE proname LIKE 'pgfanout%'") == []


TENANTS = [
    ("a_tenant", str(TENANT), TENANT),
    ("text", "acme", "acme"),
    ("varchar(9)", 'a "b" \\', 'a "b" \\'),
    ("char(9)", "acme", "acme"),
    ("text", str(TENANT).upper(), TENANT),
    ("integer", "7", "7"),
    ("numeric", "12345678901234567890", "12345678901234567890"),
    ("shop", "north", "north"),
    ('text COLLATE "POSIX"', "größe", "größe"),
]


@pytest.mark.parametrize(("type", "value", "tenant"), TENANTS)
def test_a_tenant_is_a_column_of_any_type(connection: Connection, type: str, value: str, tenant: str) -> None:
    connection.execute(
        "CREATE DOMAIN a_uuid AS uuid; CREATE DOMAIN a_tenant AS a_uuid; CREATE TYPE shop AS ENUM ('north', 'south')"
    )
    connection.execute(f"ALTER TABLE orders DROP tenant_id, ADD tenant_id {type}".encode())
    watch(connection)
    connection.execute("INSERT INTO orders (id, tenant_id) VALUES (1, %s)", [value])
    assert published(connection, tenant=tenant) == [event("insert", id=1)]
    connection.execute("UPDATE orders SET status = 'paid'")
    assert published(connection, tenant=tenant) == [event("update", id=1)]
    connection.execute("DELETE FROM orders")
    assert published(connection, tenant=tenant) == [event("delete", id=1)]
    assert passed_over(connection) == 0


def passed_over(connection: Connection) -> int:
    ((count,),) = rows_of(connection, "SELECT last_value FROM pgfanout.passed_over")
    return int(count)


WITHOUT_A_TENANT = [None, "", "x" * 64, "ü" * 32, "a\nb", "\x7f", "\x85"]


@pytest.fixture
def texts(connection: Connection) -> Connection:
    """The table's tenants are texts."""
    connection.execute("ALTER TABLE orders ALTER tenant_id TYPE text")
    watch(connection)
    return connection


@pytest.mark.parametrize("tenant", WITHOUT_A_TENANT, ids=ascii)
def test_a_row_without_a_valid_tenant_is_passed_over_and_counted(
    texts: Connection, notices: list[str], tenant: str | None
) -> None:
    texts.execute("INSERT INTO orders (id, tenant_id) VALUES (1, %s), (2, 'acme'), (3, %s)", [tenant, tenant])
    assert (published(texts, tenant="acme"), passed_over(texts)) == ([event("insert", id=2)], 2)
    texts.execute("UPDATE orders SET status = 'paid' WHERE id < 3")
    assert (published(texts, tenant="acme"), passed_over(texts)) == ([event("update", id=2)], 3)
    texts.execute("DELETE FROM orders WHERE id > 1")
    assert (published(texts, tenant="acme"), passed_over(texts)) == ([event("delete", id=2)], 4)
    assert rows_of(texts, "SELECT id FROM orders") == [(1,)]
    assert notices == []


@pytest.mark.parametrize("tenant", WITHOUT_A_TENANT, ids=ascii)
def test_a_row_that_loses_or_gets_its_tenant_leaves_or_comes(texts: Connection, tenant: str | None) -> None:
    texts.execute("INSERT INTO orders (id, tenant_id) VALUES (1, 'acme')")
    texts.execute("UPDATE orders SET tenant_id = %s", [tenant])
    assert published(texts, tenant="acme") == [event("insert", id=1), event("delete", id=1)]
    texts.execute("UPDATE orders SET tenant_id = 'acme'")
    assert (published(texts, tenant="acme"), passed_over(texts)) == ([event("insert", id=1)], 1)


def test_rows_that_the_condition_leaves_out_are_not_counted(texts: Connection) -> None:
    watch(texts, when="status = 'new'")
    texts.execute("INSERT INTO orders (id, status) VALUES (1, 'new'), (2, 'old')")
    assert passed_over(texts) == 1


def test_a_renamed_tenant_without_a_value_is_counted_too(texts: Connection) -> None:
    texts.execute("ALTER TABLE orders RENAME tenant_id TO shop")
    texts.execute("INSERT INTO orders (id, shop) VALUES (1, NULL), (2, 'acme')")
    assert (published(texts, tenant="acme"), passed_over(texts)) == ([event("insert", id=2)], 1)


def test_rows_without_a_tenant_are_counted_without_waiting_for_another_writer(
    texts: Connection, fresh_database_url: str
) -> None:
    with psycopg.connect(fresh_database_url) as other:
        other.execute("INSERT INTO orders (id) VALUES (1)")
        texts.execute("SET lock_timeout = '20s'; INSERT INTO orders (id) VALUES (2)")
    assert passed_over(texts) == 2


def test_two_spellings_of_a_uuid_are_one_tenant(texts: Connection) -> None:
    texts.execute("INSERT INTO orders (id, tenant_id) VALUES (1, %s)", ["ABCDEFAB-CDEF-4ABC-8DEF-ABCDEFABCDEF"])
    texts.execute("UPDATE orders SET tenant_id = lower(tenant_id)")
    assert published(texts, tenant="abcdefab-cdef-4abc-8def-abcdefabcdef") == [
        event("insert", id=1),
        event("update", id=1),
    ]


def test_without_a_tenant_column_the_events_are_of_none(connection: Connection) -> None:
    nobody = uuid.UUID(int=0)
    run(connection, TableTrigger("orders", when="status <> 'draft'").script())
    connection.execute("INSERT INTO orders (id, status, tenant_id) VALUES (1, 'new', NULL), (2, 'new', %s)", [TENANT])
    connection.execute("INSERT INTO orders (id, status) VALUES (3, 'draft')")
    assert published(connection, tenant=nobody) == [event("insert", id=1), event("insert", id=2)]
    connection.execute("UPDATE orders SET tenant_id = NULL")
    connection.execute("ALTER TABLE orders DROP tenant_id")
    connection.execute("DELETE FROM orders")
    assert published(connection, tenant=nobody) == [event("update", id=2), event("delete", id=1), event("delete", id=2)]
    assert passed_over(connection) == 0


def test_without_a_tenant_column_the_tenant_none_is_told_that_something_has_changed(
    connection: Connection, notices: list[str]
) -> None:
    run(connection, TableTrigger("orders", when="1 / id > 0").script())
    connection.execute("INSERT INTO orders (id) VALUES (0)")
    assert len(notices) == 1
    assert published(connection, tenant=uuid.UUID(int=0)) == [COARSE]


def test_a_history_of_an_earlier_version_has_to_be_upgraded_first(connection: Connection) -> None:
    connection.execute("DROP FUNCTION pgfanout.publish_many(text[], text[], json[], text[])")
    with pytest.raises(psycopg.errors.UndefinedFunction, match="no history of this version(.|\n)*sql install"):
        watch(connection)


def test_what_the_history_refuses_fails_the_statement(connection: Connection) -> None:
    watch(connection, payload=("note",))
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO orders (id, tenant_id, note) VALUES (1, %s, repeat('x', 1048576))", [TENANT])
    assert rows_of(connection, "SELECT * FROM orders") == []


def test_values_stored_out_of_line_are_compared_by_what_they_are(connection: Connection) -> None:
    connection.execute("ALTER TABLE orders ALTER note SET STORAGE EXTERNAL")
    watch(connection, columns=("note",))
    connection.execute("INSERT INTO orders (id, tenant_id, note) VALUES (1, %s, repeat('x', 100000))", [TENANT])
    published(connection)
    connection.execute("UPDATE orders SET note = repeat('x', 100000)")
    assert published(connection) == []
    connection.execute("UPDATE orders SET note = repeat('x', 99999) || 'y'")
    assert published(connection) == [event("update", id=1)]


def test_a_table_may_change_under_the_trigger(connection: Connection) -> None:
    watch(connection)
    orders(connection, (1, "new"))
    connection.execute("UPDATE orders SET status = 'x'")
    connection.execute("ALTER TABLE orders DROP note, ADD extra text")
    published(connection)
    connection.execute("UPDATE orders SET extra = 'x'")
    assert published(connection) == [event("update", id=1)]
    connection.execute("ALTER TABLE orders RENAME TO purchases")
    connection.execute("DELETE FROM purchases")
    assert published(connection) == [event("delete", id=1)]


def test_a_column_that_was_dropped_or_added_changes_no_row(connection: Connection) -> None:
    watch(connection)
    connection.execute("INSERT INTO orders (id, tenant_id, note) VALUES (1, %s, 'x')", [TENANT])
    published(connection)
    connection.execute("ALTER TABLE orders DROP note, ADD amount integer DEFAULT 5")
    connection.execute("UPDATE orders SET amount = 5")
    assert published(connection) == []
    connection.execute("UPDATE orders SET amount = 6")
    assert published(connection) == [event("update", id=1)]


def test_a_virtual_column_is_no_obstacle_but_can_not_be_named(connection: Connection) -> None:
    if connection.info.server_version < 180000:
        pytest.skip("virtual columns came with PostgreSQL 18")
    connection.execute("ALTER TABLE orders ADD upper text GENERATED ALWAYS AS (upper(status)) VIRTUAL")
    watch(connection)
    orders(connection, (1, "new"))
    connection.execute("UPDATE orders SET status = 'paid'")
    connection.execute("UPDATE orders SET status = 'paid'")
    connection.execute("DELETE FROM orders")
    assert published(connection) == [event(operation, id=1) for operation in ("insert", "update", "delete")]
    options: list[dict[str, Any]] = [{"columns": ("upper",)}, {"payload": ("upper",)}, {"when": "upper = 'A'"}]
    for naming in options:
        with pytest.raises(psycopg.errors.UndefinedColumn):
            watch(connection, **naming)


def test_generated_columns_count(connection: Connection) -> None:
    connection.execute("ALTER TABLE orders ADD upper text GENERATED ALWAYS AS (upper(status)) STORED")
    watch(connection, columns=("upper",), payload=("upper",), when="upper IS NOT NULL")
    orders(connection, (1, "new"))
    connection.execute("UPDATE orders SET status = 'NEW'")
    connection.execute("UPDATE orders SET status = 'paid'")
    assert published(connection) == [event("insert", {"upper": "NEW"}, id=1), event("update", {"upper": "PAID"}, id=1)]


def test_a_script_replaces_what_an_earlier_one_has_made(connection: Connection) -> None:
    watch(connection)
    watch(connection, channel="sales", when="id > 1")
    orders(connection, (1, "new"), (2, "new"))
    rows = rows_of(connection, "SELECT channel, payload->'key'->'id' FROM pgfanout.event")
    assert rows == [("sales", 2)]


def test_two_histories_may_watch_one_table(connection: Connection) -> None:
    Schema("second", "second_events").install(connection)
    watch(connection)
    watch(connection, schema="second")
    orders(connection, (1, "new"))
    assert published(connection) == [event("insert", id=1)]
    assert rows_of(connection, "SELECT count(*) FROM second.event") == [(1,)]
    run(connection, drop_script("orders", "second"))
    connection.execute("DELETE FROM orders")
    assert published(connection) == [event("delete", id=1)]
    assert rows_of(connection, "SELECT count(*) FROM second.event") == [(1,)]


def test_what_is_dropped_is_gone_and_may_be_dropped_again(connection: Connection) -> None:
    watch(connection)
    for _ in range(2):
        run(connection, TableTrigger("orders", "tenant_id", ("id",)).drop_script())
        assert rows_of(connection, "SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass") == []
        assert rows_of(connection, "SELECT proname FROM pg_proc WHERE proname LIKE 'pgfanout%'") == []


def test_the_scripts_of_several_at_once_wait_for_each_other(fresh_database_url: str, connection: Connection) -> None:
    script = TableTrigger("orders", "tenant_id", ("id",)).script()
    with psycopg.connect(fresh_database_url) as first:
        run(first, script)
        connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            run(connection, script)
        first.commit()
    run(connection, script)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"table": "nowhere"}, "nowhere"),
    ({"table": "nowhere.orders"}, "nowhere"),
    ({"tenant": "nobody"}, "nobody"),
    ({"key": ("id", "nothing")}, "nothing"),
    ({"columns": ("nothing",)}, "nothing"),
    ({"payload": ("nothing",)}, "nothing"),
    ({"when": "nothing > 1"}, "nothing"),
    ({"when": "id"}, "boolean"),
    ({"when": "id >"}, "syntax"),
    ({"key": ("status",)}, "may be NULL: status"),
    ({"schema": "elsewhere"}, "elsewhere"),
]


@pytest.mark.parametrize(("options", "words"), BROKEN)
def test_what_can_not_work_is_refused_when_the_trigger_is_made(
    connection: Connection, options: dict[str, Any], words: str
) -> None:
    trigger = TableTrigger(**{"table": "orders", "tenant": "tenant_id", "key": ("id",), **options})
    with pytest.raises(psycopg.Error, match=words):
        run(connection, trigger.script())
    assert rows_of(connection, "SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass") == []
    assert rows_of(connection, "SELECT proname FROM pg_proc WHERE proname LIKE 'pgfanout%'") == []


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"table": ""}, "table needs a name"),
    ({"table": "shop."}, "table needs a name"),
    ({"table": ".orders"}, "table needs a name"),
    ({"table": None}, "table needs a name"),
    ({"table": '"orders"'}, "without quotes"),
    ({"table": "orders\n"}, "control characters"),
    ({"table": "x" * 64}, "63 bytes"),
    ({"tenant": ""}, "column needs a name"),
    ({"tenant": "ü" * 32}, "63 bytes"),
    ({"key": "id"}, "key has to be a sequence"),
    ({"key": None}, "key has to be a sequence"),
    ({"key": ("id", "")}, "column needs a name"),
    ({"key": ("id", "id")}, "key names a column twice"),
    ({"columns": "id"}, "columns has to be a sequence"),
    ({"payload": ("id", 1)}, "column needs a name"),
    ({"when": "a = '\0'"}, "NUL"),
    ({"when": None}, "condition"),
    ({"schema": "Robert'; --"}, "schema"),
]


@pytest.mark.parametrize(("options", "words"), INVALID)
def test_what_makes_no_sense_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TableTrigger(**{"table": "orders", "tenant": "tenant_id", "key": ("id",), **options})


def test_a_channel_keeps_the_rule_of_channels() -> None:
    with pytest.raises(InvalidEventError):
        TableTrigger("orders", "tenant_id", ("id",), channel="x" * 64)
    with pytest.raises(ValueError, match="table"):
        drop_script("")


@pytest.fixture
def owner(postgres: PostgresServer) -> Iterator[str]:
    """A role that may log in. It owns nothing yet."""
    name = random_name("owner")
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    with postgres.connect() as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def shop(connection: Connection, owner: str) -> Iterator[str]:
    """A schema of that role, with a table of orders. It may publish."""
    Schema().install(connection, publishers=[owner])
    role = sql.Identifier(owner)
    connection.execute(sql.SQL("CREATE SCHEMA shop AUTHORIZATION {}").format(role))
    connection.execute(sql.SQL("ALTER TABLE orders OWNER TO {}").format(role))
    connection.execute("ALTER TABLE orders SET SCHEMA shop")
    yield owner
    connection.execute("RESET ROLE")
    connection.execute(sql.SQL("DROP OWNED BY {}").format(role))


def become(connection: Connection, role: str) -> None:
    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


def test_the_tables_owner_makes_it_with_the_rights_of_a_publisher(connection: Connection, shop: str) -> None:
    become(connection, shop)
    watch(connection, "shop.orders")
    watch(connection, "shop.orders")
    connection.execute("INSERT INTO shop.orders VALUES (1, %s)", [TENANT])
    connection.execute("RESET ROLE")
    assert published(connection) == [event("insert", id=1)]


def test_it_belongs_to_the_tables_owner_even_when_a_superuser_makes_it(connection: Connection, shop: str) -> None:
    watch(connection, "shop.orders")
    rows = rows_of(connection, "SELECT proowner::regrole::text, prosecdef FROM pg_proc WHERE proname LIKE 'pgfanout%'")
    assert rows == [(shop, True)]
    become(connection, shop)
    watch(connection, "shop.orders")
    run(connection, drop_script("shop.orders"))


def test_an_owner_who_may_not_publish_is_told_so(connection: Connection, shop: str) -> None:
    connection.execute(sql.SQL("REVOKE USAGE ON SCHEMA pgfanout FROM {}").format(sql.Identifier(shop)))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"{shop}, may not publish"):
        watch(connection, "shop.orders")


def test_who_may_write_the_table_publishes_without_rights_on_the_history(
    connection: Connection, shop: str, postgres: PostgresServer
) -> None:
    watch(connection, "shop.orders")
    writer = random_name("writer")
    role = sql.Identifier(writer)
    connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA shop TO {}").format(role))
        connection.execute(sql.SQL("GRANT INSERT ON shop.orders TO {}").format(role))
        become(connection, writer)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT pgfanout.publish('orders', %s, 'null')", [OTHER])
        connection.execute("INSERT INTO shop.orders VALUES (1, %s)", [TENANT])
        # The function on a table of its own would publish as any tenant.
        connection.execute("CREATE TEMPORARY TABLE forged (id integer, tenant_id uuid)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="function"):
            connection.execute(
                "CREATE TRIGGER forge AFTER INSERT ON forged REFERENCING NEW TABLE AS new_rows"
                " FOR EACH STATEMENT EXECUTE FUNCTION shop.pgfanout_orders()"
            )
        connection.execute("RESET ROLE")
        assert published(connection) == [event("insert", id=1)]
    finally:
        connection.execute("RESET ROLE")
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


def test_operators_on_the_writers_search_path_are_not_used(connection: Connection) -> None:
    watch(connection, when="status = 'open'")
    connection.execute("CREATE SCHEMA trap")
    connection.execute("CREATE FUNCTION trap.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false'")
    connection.execute("CREATE OPERATOR trap.= (FUNCTION = trap.never, LEFTARG = text, RIGHTARG = text)")
    connection.execute("SET search_path = trap, pg_catalog, public")
    orders(connection, (1, "open"))
    assert published(connection) == [event("insert", id=1)]


@pytest.mark.parametrize(
    ("place", "table", "path"),
    [
        ("public", "orders", '"$user", public'),
        ("shop", "shop.orders", '"$user", public'),
        ("shop", "orders", "shop, public"),
        ("shop", "shop.orders", "shop, pg_catalog"),
    ],
)
def test_the_scripts_use_nothing_that_others_have_put_into_a_schema(
    connection: Connection, place: str, table: str, path: str
) -> None:
    """The owner of such a schema would get the rights of the superuser who runs the script."""
    if place == "shop":
        connection.execute("CREATE SCHEMA shop")
        connection.execute("ALTER TABLE orders SET SCHEMA shop")
    options: dict[str, Any] = {"columns": ("note",), "payload": ("status",), "when": "status = 'open'"}
    script = TableTrigger(table, "tenant_id", (), **options).script()
    set_traps(connection, place, script + drop_script(table))
    connection.execute(f"SET search_path = {path}".encode())
    for _ in range(2):
        run(connection, script)
    connection.execute(f"INSERT INTO {table} VALUES (1, '{TENANT}', 'open', 'x')".encode())
    connection.execute("RESET search_path")
    connection.execute("SET search_path = pg_catalog")
    assert published(connection) == [event("insert", {"status": "open"}, id=1)]
    connection.execute(f"SET search_path = {path}".encode())
    run(connection, drop_script(table))
    connection.execute("SET search_path = pg_catalog")
    assert rows_of(connection, "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'pgfanout_%'") == []
    assert rows_of(connection, "SELECT proname FROM pg_proc WHERE proname = 'pgfanout_orders'") == []


@pytest.mark.parametrize(
    "statement", ["SELECT current_setting('search_path')", "SELECT 1::oid = 'pg_class'::regclass", "SELECT 'a'::text"]
)
def test_the_traps_catch_what_is_not_qualified(connection: Connection, statement: str) -> None:
    connection.execute("CREATE SCHEMA trap")
    set_traps(connection, "trap", "current_setting()")
    connection.execute("SET search_path = trap, pg_catalog")
    with pytest.raises(psycopg.errors.RaiseException, match="trapped"):
        connection.execute(statement.encode())


def test_functions_in_the_tables_indexes_do_not_get_the_callers_rights(connection: Connection, shop: str) -> None:
    """PostgreSQL evaluates what is constant in them whenever it plans a query on the table."""
    become(connection, shop)
    connection.execute(
        "CREATE FUNCTION shop.spring(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN RAISE EXCEPTION 'trapped'; END IF;"
        " RETURN 1; END $$"
    )
    connection.execute("CREATE INDEX ON shop.orders ((id + shop.spring(1)))")
    connection.execute("RESET ROLE")
    with pytest.raises(psycopg.errors.RaiseException, match="trapped"):
        connection.execute("EXPLAIN SELECT FROM shop.orders")
    watch(connection, "shop.orders")
    run(connection, drop_script("shop.orders"))


def test_a_function_that_another_role_has_put_in_its_place_is_not_trusted(connection: Connection, shop: str) -> None:
    connection.execute("CREATE FUNCTION shop.pgfanout_orders() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'")
    with pytest.raises(psycopg.errors.RaiseException, match="not this table's"):
        watch(connection, "shop.orders")
    connection.execute("DROP FUNCTION shop.pgfanout_orders()")


def test_the_function_of_a_table_that_was_renamed_is_left_alone(connection: Connection) -> None:
    watch(connection)
    connection.execute("ALTER TABLE orders RENAME TO old_orders")
    connection.execute(ORDERS)
    with pytest.raises(psycopg.errors.RaiseException, match="not this table's"):
        watch(connection)


def test_the_script_is_one_statement_that_shows_what_it_does() -> None:
    script = TableTrigger("shop.Order Items", "tenant_id", ("id",), when="a > 0").script()
    assert script.startswith("-- ") and script.count("\nDO ") == 1
    assert "a > 0" in script and '"shop"."Order Items"' in script
    assert json.dumps(script).count("@") == 0


# The key


def test_the_key_is_the_primary_key(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE lines (line integer, ref text, tenant_id uuid, n integer, PRIMARY KEY (ref, line) INCLUDE (n))"
    )
    watch(connection, "lines", ())
    connection.execute("INSERT INTO lines VALUES (1, 'a', %s)", [TENANT])
    assert published(connection, "lines") == [event("insert", ref="a", line=1)]
    assert list(published_text(connection, "SELECT options->>'key' FROM pgfanout.table_trigger")) == ['["ref", "line"]']


def published_text(connection: Connection, query: str) -> Iterator[str]:
    return (text for (text,) in rows_of(connection, query))


UNIQUE = [
    "CREATE UNIQUE INDEX ON things (a)",
    "CREATE UNIQUE INDEX ON things (a) INCLUDE (b)",
    "CREATE UNIQUE INDEX ON things (tenant_id, a)",
    "CREATE UNIQUE INDEX ON things (a, tenant_id)",
    "ALTER TABLE things ADD UNIQUE (a) DEFERRABLE INITIALLY DEFERRED",
]


@pytest.mark.parametrize("index", UNIQUE)
@pytest.mark.parametrize("key", [("a",), ("c", "a")])
def test_a_unique_index_makes_a_key(connection: Connection, index: str, key: tuple[str, ...]) -> None:
    connection.execute("CREATE TABLE things (a integer NOT NULL, b integer, c integer NOT NULL, tenant_id uuid)")
    connection.execute(index.encode())
    watch(connection, "things", key)
    connection.execute("INSERT INTO things VALUES (1, 2, 3, %s)", [TENANT])
    row: dict[str, Any] = {"a": 1, "c": 3}
    assert published(connection, "things") == [event("insert", **{name: row[name] for name in key})]


NOT_UNIQUE = [
    ("", ("a",), "not unique: no unique index on a"),
    ("CREATE INDEX ON things (a)", ("a",), "not unique"),
    ("CREATE UNIQUE INDEX ON things (a) WHERE a > 0", ("a",), "not unique"),
    ("CREATE UNIQUE INDEX ON things ((a + 1))", ("a",), "not unique"),
    ("CREATE UNIQUE INDEX ON things (a, c)", ("a",), "not unique"),
    ("CREATE UNIQUE INDEX ON things (tenant_id)", ("b",), "may be NULL: b"),
    ("CREATE UNIQUE INDEX ON things (b)", ("b",), "may be NULL: b"),
    ("CREATE UNIQUE INDEX ON things (a, b)", ("a", "b"), "may be NULL: b"),
    ("CREATE UNIQUE INDEX ON things (a)", (), "no primary key"),
]


@pytest.mark.parametrize(("index", "key", "words"), NOT_UNIQUE)
def test_a_key_that_is_not_unique_is_refused(
    connection: Connection, index: str, key: tuple[str, ...], words: str
) -> None:
    connection.execute("CREATE TABLE things (a integer NOT NULL, b integer, c integer NOT NULL, tenant_id uuid)")
    connection.execute(index.encode() or b"SELECT 1")
    with pytest.raises(psycopg.errors.RaiseException, match=words) as caught:
        watch(connection, "things", key)
    assert "--key" in str(caught.value.diag.message_hint)


def test_an_index_that_is_not_valid_makes_no_key(connection: Connection) -> None:
    connection.execute("CREATE TABLE things (a integer NOT NULL, tenant_id uuid)")
    connection.execute("INSERT INTO things VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY ON things (a)")
    with pytest.raises(psycopg.errors.RaiseException, match="not unique"):
        watch(connection, "things", ("a",))


def test_rows_do_not_multiply_when_the_key_has_lost_its_index(connection: Connection) -> None:
    watch(connection, payload=("note",))
    connection.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    connection.execute(
        "INSERT INTO orders (id, tenant_id, note) SELECT 7, %s, g FROM generate_series(1, 50) AS g", [TENANT]
    )
    assert len(published(connection)) == 50
    connection.execute("UPDATE orders SET note = note || 'x'")
    assert published(connection).count(event("update", {"note": "1x"}, id=7)) == 1
    connection.execute("UPDATE orders SET status = 'a'")
    assert len(published(connection)) <= 100
    connection.execute("ALTER TABLE orders ALTER id DROP NOT NULL")
    connection.execute("UPDATE orders SET id = NULL")
    published(connection)
    connection.execute("UPDATE orders SET note = note || 'y'")
    assert len(published(connection)) <= 100
    connection.execute("DELETE FROM orders")
    assert len(published(connection)) == 50


# What happens to the table later

WATCHED: dict[str, Any] = {
    "columns": ("status", "note"),
    "payload": ("note", "details"),
    "when": "flag IS DISTINCT FROM 'x'",
}
NAMED = ["tenant_id", "id", "status", "note", "details", "flag"]


@pytest.fixture
def flagged(connection: Connection) -> Connection:
    """The table has two columns more: `flag`, which the trigger's condition reads, and one that nobody names."""
    connection.execute("ALTER TABLE orders ADD flag text, ADD unnamed text, ADD gone text")
    connection.execute("ALTER TABLE orders DROP gone")
    watch(connection, **WATCHED)
    return connection


def work(connection: Connection, **new: str) -> Seen:
    """Every kind of write, by the names that the columns have now; what it publishes."""
    names = {name: sql.Identifier(new.get(name, name)) for name in NAMED}

    def do(query: str, *params: Any) -> None:
        connection.execute(sql.SQL(query).format(**names), params)

    do(
        "INSERT INTO orders ({id}, {tenant_id}, {note}, {flag}) VALUES (1, %s, 'a', 'x'), (2, %s, 'b', 'y')",
        *[TENANT] * 2,
    )
    do("UPDATE orders SET {flag} = 'z'")
    do("UPDATE orders SET {status} = 'paid'")
    do("UPDATE orders SET {details} = '[1]'")
    do("UPDATE orders SET {id} = 3 WHERE {id} = 2")
    do("DELETE FROM orders")
    return published(connection)


def rename(connection: Connection, old: str, new: str) -> None:
    names = sql.Identifier(old), sql.Identifier(new)
    connection.execute(sql.SQL("ALTER TABLE orders RENAME {} TO {}").format(*names))


def test_a_column_that_was_renamed_is_followed(flagged: Connection, notices: list[str]) -> None:
    expected = work(flagged)
    assert len(expected) == 8
    for name in NAMED:
        rename(flagged, name, f"The {name}")
        assert work(flagged, **{name: f"The {name}"}) == expected
        rename(flagged, f"The {name}", name)
    new = {name: f"{name}2" for name in NAMED}
    for name in NAMED:
        rename(flagged, name, new[name])
    assert work(flagged, **new) == expected
    flagged.execute("ALTER TABLE orders ADD note integer")  # an old name has another column now
    assert work(flagged, **new) == expected
    assert notices == []
    ((renamed,),) = rows_of(flagged, "SELECT renamed FROM pgfanout.table_trigger")
    assert renamed == new


@pytest.fixture
def notices(connection: Connection) -> list[str]:
    """The warnings that come with what the session does."""
    heard: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity == "WARNING":
            heard.append(str(notice.message_primary))

    connection.add_notice_handler(hear)
    return heard


@pytest.mark.parametrize("name", NAMED)
def test_a_column_that_is_named_is_not_dropped_or_retyped_by_the_way(flagged: Connection, name: str) -> None:
    column = sql.Identifier(name)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="pgfanout_columns"):
        flagged.execute(sql.SQL("ALTER TABLE orders DROP {}").format(column))
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="used in a trigger definition"):
        flagged.execute(sql.SQL("ALTER TABLE orders ALTER {} TYPE varchar(99)").format(column))


def test_a_column_that_is_not_named_may_go(flagged: Connection) -> None:
    expected = work(flagged)
    flagged.execute("ALTER TABLE orders ALTER unnamed TYPE varchar(9)")
    flagged.execute("ALTER TABLE orders DROP unnamed")
    assert work(flagged) == expected


COARSE = ("update", {"operation": "update", "key": None})


def write_everything(connection: Connection) -> None:
    connection.execute("INSERT INTO orders (id) VALUES (1), (2)")
    connection.execute("UPDATE orders SET id = id + 10")
    connection.execute("DELETE FROM orders")


@pytest.mark.parametrize("name", ["status", "note", "details", "flag"])
def test_after_a_drop_with_cascade_the_tenant_is_told_that_something_has_changed(
    flagged: Connection, notices: list[str], name: str
) -> None:
    flagged.execute(sql.SQL("ALTER TABLE orders ALTER tenant_id SET DEFAULT {}").format(sql.Literal(TENANT)))
    flagged.execute(sql.SQL("ALTER TABLE orders DROP {} CASCADE").format(sql.Identifier(name)))
    write_everything(flagged)
    assert any("orders: column" in notice and "does not exist" in notice for notice in notices)
    seen = published(flagged)
    assert COARSE in seen
    assert all(found in (COARSE, event("insert", id=1)) or found[0] in ("insert", "delete") for found in seen)
    watch(flagged)
    notices.clear()
    flagged.execute("INSERT INTO orders (id) VALUES (5)")
    assert published(flagged) == [event("insert", id=5)]
    assert notices == []


@pytest.mark.parametrize("name", ["tenant_id", "id"])
def test_writes_go_on_when_the_tenant_or_the_key_is_dropped(flagged: Connection, notices: list[str], name: str) -> None:
    flagged.execute(sql.SQL("ALTER TABLE orders ALTER tenant_id SET DEFAULT {}").format(sql.Literal(TENANT)))
    flagged.execute(sql.SQL("ALTER TABLE orders DROP {} CASCADE").format(sql.Identifier(name)))
    values = "(id, note) VALUES (1, 'a')" if name == "tenant_id" else "(note) VALUES ('a')"
    flagged.execute(f"INSERT INTO orders {values}".encode())
    flagged.execute("UPDATE orders SET note = 'b'")
    flagged.execute("DELETE FROM orders")
    assert len(notices) == 3
    assert published(flagged) == ([COARSE] * 3 if name == "id" else [])


def test_a_condition_that_fails_does_not_fail_the_write(connection: Connection, notices: list[str]) -> None:
    connection.execute("CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql AS $$ SELECT $1 = 'open' $$")
    watch(connection, when="public.is_open(status) AND 1 / id > 0")
    orders(connection, (1, "open"))
    connection.execute("INSERT INTO orders VALUES (0, %s, 'open'), (3, %s, 'open'), (4, NULL, 'open')", [TENANT, OTHER])
    assert len(notices) == 1 and "division by zero" in notices[0]
    seen = rows_of(connection, "SELECT tenant, type, payload->'key' FROM pgfanout.event ORDER BY number")
    assert seen[0] == (str(TENANT), "insert", {"id": 1})
    assert sorted(seen[1:]) == [(str(tenant), "update", None) for tenant in (TENANT, OTHER)]
    published(connection)
    connection.execute("DROP FUNCTION is_open")
    connection.execute("UPDATE orders SET status = 'x' WHERE id = 1")
    assert "is_open" in notices[1]
    assert published(connection) == [COARSE]


@pytest.mark.parametrize("code", ["40001", "55P03"])
def test_what_a_transaction_has_to_be_tried_again_for_is_no_warning(connection: Connection, code: str) -> None:
    connection.execute(
        "CREATE FUNCTION judge(integer) RETURNS boolean LANGUAGE plpgsql AS"
        f" $$ BEGIN IF $1 = 7 THEN RAISE 'no' USING ERRCODE = '{code}'; END IF; RETURN true; END $$".encode()
    )
    watch(connection, when="public.judge(id)")
    with pytest.raises(psycopg.errors.lookup(code)):
        orders(connection, (7, "new"))


def test_the_trigger_goes_with_the_history(connection: Connection, notices: list[str]) -> None:
    watch(connection)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        connection.execute("DROP SCHEMA pgfanout")
    connection.execute("DROP SCHEMA pgfanout CASCADE")
    orders(connection, (1, "new"))
    assert rows_of(connection, "SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass") == []
    Schema().install(connection)
    watch(connection)
    connection.execute("DELETE FROM orders")
    assert published(connection) == [event("delete", id=1)]
    assert notices == []


BROKEN_HISTORIES = [
    "DROP TABLE pgfanout.pending_many CASCADE",
    "DROP TABLE pgfanout.event CASCADE",
    "DROP FUNCTION pgfanout.publish_many(text[], text[], json[], text[])",
    "DROP FUNCTION pgfanout._pass_over",
    "ALTER SCHEMA pgfanout RENAME TO elsewhere",
]


@pytest.mark.parametrize("change", BROKEN_HISTORIES)
def test_writes_go_on_whatever_happens_to_the_history(connection: Connection, change: str) -> None:
    connection.execute(sql.SQL("ALTER TABLE orders ALTER tenant_id SET DEFAULT {}").format(sql.Literal(TENANT)))
    watch(connection)
    connection.execute(change.encode())
    write_everything(connection)
    assert rows_of(connection, "SELECT * FROM orders") == []


def test_an_owner_who_may_not_publish_any_more_writes_on(connection: Connection, shop: str, notices: list[str]) -> None:
    become(connection, shop)
    watch(connection, "shop.orders")
    connection.execute("RESET ROLE")
    function = "pgfanout.publish_many(text[], text[], json[], text[])"
    connection.execute(sql.SQL(f"REVOKE ALL ON FUNCTION {function} FROM {{}}").format(sql.Identifier(shop)))
    connection.execute("INSERT INTO shop.orders VALUES (1, %s)", [TENANT])
    assert len(notices) == 1 and "may not publish" in notices[0]
    connection.execute(sql.SQL("REVOKE ALL ON SCHEMA pgfanout FROM {}").format(sql.Identifier(shop)))
    connection.execute("DELETE FROM shop.orders")
    assert len(notices) == 2
    assert published(connection) == []


def test_a_table_with_a_new_owner_publishes_on(connection: Connection, shop: str) -> None:
    watch(connection, "shop.orders")
    connection.execute("ALTER TABLE shop.orders OWNER TO postgres")
    connection.execute("INSERT INTO shop.orders VALUES (1, %s)", [TENANT])
    assert published(connection) == [event("insert", id=1)]
    connection.execute("ALTER TABLE shop.orders RENAME TO purchases; ALTER TABLE shop.purchases SET SCHEMA public")
    connection.execute("ALTER TABLE purchases RENAME note TO remark; DELETE FROM purchases")
    assert published(connection) == [event("delete", id=1)]
    connection.execute("DROP TABLE purchases")


def test_many_statements_of_a_transaction_cost_no_subtransaction_with_an_id(connection: Connection) -> None:
    """More than 64 of them slow down every snapshot of the server."""
    if connection.info.server_version < 160000:
        pytest.skip("PostgreSQL tells how many there are since 16")
    watch(connection)
    with connection.transaction():
        orders(connection, *[(number, "new") for number in range(20)])
        query = (
            "SELECT count FROM pg_stat_get_backend_idset() AS id, pg_stat_get_backend_subxact(id) AS s (count, over)"
            " WHERE pg_stat_get_backend_pid(id) = pg_backend_pid()"
        )
        assert rows_of(connection, query) == [(0,)]
    assert len(published(connection)) == 20


# What is stored


def test_a_newer_releases_trigger_is_left_alone(
    connection: Connection, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trigger, "REVISION", REVISION + 1)
        watch(connection, channel="newer")
    connection.execute("SET search_path = public, pg_temp")
    watch(connection, channel="older")
    assert notices == ["the trigger of the table public.orders is of a newer pgfanout, and is left alone"]
    assert rows_of(connection, "SHOW search_path") == [("public, pg_temp",)]
    orders(connection, (1, "new"))
    assert published(connection, "newer") == [event("insert", id=1)]
    run(connection, drop_script("orders"))
    watch(connection, channel="older")
    assert rows_of(connection, "SELECT revision FROM pgfanout.table_trigger") == [(REVISION,)]


def test_the_options_are_stored_so_that_the_trigger_can_be_made_again(flagged: Connection) -> None:
    expected = work(flagged)
    ((watched, options),) = rows_of(flagged, "SELECT watched::text, options FROM pgfanout.table_trigger")
    assert watched == "orders"
    run(flagged, drop_script("orders"))
    assert rows_of(flagged, "SELECT * FROM pgfanout.table_trigger") == []
    again = TableTrigger(**options)
    lists = {"columns": ["status", "note"], "payload": ["note", "details"]}
    assert again == TableTrigger("orders", "tenant_id", ["id"], **{**WATCHED, **lists})
    run(flagged, again.script())
    assert work(flagged) == expected


def test_the_options_go_with_the_table(connection: Connection) -> None:
    Schema("second").install(connection)
    watch(connection, when="note <> 'a\\''b$1$é'")
    watch(connection, schema="second")
    query = "SELECT watched::text, options->>'when', revision FROM pgfanout.table_trigger"
    assert rows_of(connection, query) == [("orders", "note <> 'a\\''b$1$é'", REVISION)]
    connection.execute("ALTER TABLE orders RENAME TO purchases")
    assert rows_of(connection, "SELECT watched::text FROM second.table_trigger") == [("purchases",)]
    connection.execute("DROP TABLE purchases")
    for schema in ("pgfanout", "second"):
        assert rows_of(connection, f"SELECT * FROM {schema}.table_trigger") == []


FORGED = [
    "no JSON",
    "1",
    "[]",
    '{"a": "\\u0000"}',
    '{"a": 1e999999}',
    "[" * 100_000,
    '{"revision": "x", "names": 1}',
    "{}",
]
COLUMNS_TRIGGER = (
    "CREATE TRIGGER pgfanout_columns BEFORE UPDATE ON {} FOR EACH ROW {}"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger({})"
)
DEPENDS = "WHEN (NULL::pgfanout.event IS NULL)"


def forge(connection: Connection, table: str, condition: str, argument: str) -> None:
    connection.execute(COLUMNS_TRIGGER.format(table, condition, sql.Literal(argument).as_string(None)).encode())


@pytest.mark.parametrize("argument", FORGED)
def test_what_others_give_a_trigger_of_that_name_does_not_break_the_view(connection: Connection, argument: str) -> None:
    watch(connection)
    connection.execute("CREATE TABLE forged (id integer)")
    forge(connection, "forged", DEPENDS, argument)
    query = "SELECT watched::text, revision FROM pgfanout.table_trigger ORDER BY 1"
    assert rows_of(connection, query) == [("forged", None), ("orders", REVISION)]
    assert len(rows_of(connection, "SELECT * FROM pgfanout.table_trigger")) == 2


@pytest.mark.parametrize("argument", FORGED)
def test_a_forged_trigger_is_replaced(connection: Connection, argument: str) -> None:
    connection.execute("DROP TABLE orders")
    connection.execute(ORDERS)
    forge(connection, "orders", DEPENDS, argument)
    watch(connection)
    assert rows_of(connection, "SELECT revision FROM pgfanout.table_trigger") == [(REVISION,)]


@pytest.mark.parametrize(
    ("kind", "condition"), [("TEMP TABLE", ""), ("TEMP TABLE", DEPENDS), ("TABLE", "")], ids=["temp", "both", "alone"]
)
def test_the_view_has_no_triggers_of_strangers(connection: Connection, kind: str, condition: str) -> None:
    connection.execute(f"CREATE {kind} forged (id integer)".encode())
    forge(connection, "forged", condition, '{"table": "orders", "names": [], "revision": 1}')
    assert rows_of(connection, "SELECT * FROM pgfanout.table_trigger") == []
