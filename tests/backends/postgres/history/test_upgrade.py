"""A database of an earlier release: it is upgraded with what is in it, and works with this release before that, too."""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from pgfanout import PostgresHub
from pgfanout.backends.postgres.history import History, schema
from pgfanout.backends.postgres.history.schema import REVISION, VERSION, Schema
from pgfanout.backends.postgres.history.table import LogTable
from tests.support.data_directory import binaries
from tests.support.event_log import LONG, numbers, payloads, publish, rows
from tests.support.postgres import PostgresServer, random_name
from tests.support.wait import eventually

from .make_dump import CHANNEL, HUB, MAX_AGE, MAX_ROWS, OWNER, ROLES, TENANT, TRIGGERS, WEB

DUMPS = {version: Path(__file__).with_name(f"version_{version}.sql") for version in (1, 2)}

Connection = psycopg.Connection[tuple[Any, ...]]


def restore(url: str, dump: str) -> None:
    """Run a plain dump, without what is psql's own."""
    lines = [line for line in dump.splitlines() if not line.startswith("\\")]
    with psycopg.connect(url) as connection:
        psycopg.ClientCursor(connection).execute("\n".join(lines).encode())


@pytest.fixture(params=DUMPS)
def old(request: pytest.FixtureRequest, fresh_database_url: str) -> Iterator[Connection]:
    """A session of the superuser in the database of an earlier release."""
    restore(fresh_database_url, DUMPS[request.param].read_text(encoding="utf-8"))
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        yield connection
        connection.execute("RESET ROLE")
        connection.execute(f"DROP OWNED BY {OWNER}, {WEB}, {HUB} CASCADE".encode())
        connection.execute(f"DROP ROLE {OWNER}, {WEB}, {HUB}".encode())


def by_script(connection: Connection) -> None:
    psycopg.ClientCursor(connection).execute(Schema().script().encode())


def by_a_worker(connection: Connection) -> None:
    """Whose settings are others."""
    Schema(postgres_channel="pgfanout_events", max_age=1.0, max_rows=1).install(connection)


Upgrade = Callable[[Connection], None]
WAYS: list[Upgrade] = [by_script, by_a_worker]


def settings(connection: Connection) -> tuple[Any, ...]:
    query = (
        "SELECT version, postgres_channel, extract(epoch FROM max_age)::float8, max_rows, pruned_to FROM pgfanout.log"
    )
    (row,) = connection.execute(query.encode()).fetchall()
    return row


@pytest.mark.parametrize("upgrade", WAYS)
def test_events_numbers_and_settings_survive(old: Connection, upgrade: Upgrade) -> None:
    before, (version, *rest) = rows(old), settings(old)
    assert len(before) == {1: 11, 2: 9}[version] and rest[:3] == [CHANNEL, MAX_AGE, MAX_ROWS]
    for _ in range(2):
        upgrade(old)
        assert rows(old) == before
        assert settings(old) == (VERSION, *rest)
    publish(old, "new")
    assert numbers(old) == sorted(numbers(old))
    assert payloads(old)[-1] == "new"


DEFINITIONS = """
SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid), proacl::text FROM pg_proc AS p
WHERE pronamespace = 'pgfanout'::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass::text, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger
WHERE tgrelid::regclass::text LIKE 'pgfanout.%'
UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid), convalidated::text FROM pg_constraint
WHERE connamespace = 'pgfanout'::regnamespace AND contype <> 'n'  -- whose names a dump does not keep
UNION ALL SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid::regclass::text LIKE 'pgfanout.%' AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'view', oid::regclass::text, pg_get_viewdef(oid), relacl::text FROM pg_class
WHERE relkind = 'v' AND relnamespace = 'pgfanout'::regnamespace
ORDER BY 1, 2, 3, 4
"""


@pytest.mark.parametrize("upgrade", WAYS)
def test_what_was_upgraded_is_the_same_as_what_is_new(
    old: Connection, upgrade: Upgrade, postgres: PostgresServer
) -> None:
    upgrade(old)
    name = random_name("new")
    with psycopg.connect(postgres.create_database(name), autocommit=True) as new:
        Schema(postgres_channel=CHANNEL).install(new, publishers=[OWNER, WEB], readers=[HUB])
        expected = set(new.execute(DEFINITIONS).fetchall())
        new.execute(f"DROP OWNED BY {OWNER}, {WEB}, {HUB}".encode())
    postgres.drop_database(name)
    Schema().install(old, publishers=[OWNER, WEB], readers=[HUB])
    assert set(old.execute(DEFINITIONS).fetchall()) == expected


@pytest.mark.parametrize("upgraded", [False, True])
def test_a_hub_of_this_release_replays_and_listens(old: Connection, fresh_database_url: str, upgraded: bool) -> None:
    """Also before the upgrade, so that workers may be replaced first."""
    first, *after = rows(old)
    if upgraded:
        by_script(old)
    with PostgresHub(fresh_database_url, history=True, postgres_channel=CHANNEL) as hub:
        hub.start(LONG)
        with hub.subscribe(["orders", "stock"], TENANT, after=str(first[0])) as subscription:
            hub.publish("orders", TENANT, "new")
            expected = [row[4] for row in after if row[1] in ("orders", "stock")] + ['"new"']
            assert [next_payload(subscription) for _ in expected] == expected


def next_payload(subscription: Any) -> str:
    try:
        event = subscription.get(timeout=LONG)
    except queue.Empty:
        return "nothing"
    return event.type if event.type == "refresh" else str(event.payload.decode())


def test_a_worker_of_the_earlier_release_works_with_the_upgraded_database(old: Connection) -> None:
    """By the statements that it has."""
    by_script(old)
    state = (
        "SELECT version, postgres_channel, pruned_to,"
        " greatest(pruned_to, (SELECT max(number) FROM pgfanout.event)), rows FROM pgfanout.log"
    )
    for role in (WEB, HUB):
        old.execute(f"SET ROLE {role}".encode())
        if role == WEB:
            old.execute("SELECT pgfanout.publish('orders', %s::uuid, '1', '')", [TENANT])
            old.execute("SELECT pgfanout.publish_many('{a}', %s::uuid[], '{2}'::json[], '{b}')", [[TENANT]])
        else:
            ((version, *_),) = old.execute(state).fetchall()
            assert version >= 1
            assert old.execute("SELECT pgfanout.prune(1000, 60.0)").fetchall() == [(0,)]
            # Prepared before the upgrade or not: the tenant's type is unknown to the client.
            topic = "SELECT number FROM pgfanout.event WHERE tenant = %s AND channel = 'orders' AND number > %s"
            assert old.execute(topic, [str(TENANT), 0]).fetchall()
        old.execute("RESET ROLE")
    assert payloads(old)[-2:] == [1, 2]


def test_publishers_and_readers_keep_their_rights_and_get_those_on_what_is_new(old: Connection) -> None:
    by_script(old)
    old.execute(f"SET ROLE {WEB}".encode())
    for tenant in ("'acme'", "7", f"'{TENANT}'::uuid"):
        for payload in ("'1'", "'1'::json", "'1'::jsonb"):
            old.execute(f"SELECT pgfanout.publish('orders', {tenant}, {payload})".encode())
    for tenants in ("'{acme}'", "ARRAY['acme']", "ARRAY[7]", f"'{{{TENANT}}}'::uuid[]"):
        old.execute(f"SELECT pgfanout.publish_many('{{orders}}', {tenants}, '{{1}}')".encode())
    old.execute(f"SET ROLE {HUB}".encode())
    assert old.execute("SELECT last_value FROM pgfanout.passed_over").fetchall() == [(0,)]
    with pytest.raises(errors.InsufficientPrivilege):
        old.execute("SELECT pgfanout.publish('orders', 'acme', '1')")


def test_triggers_of_the_earlier_release_publish_on_and_can_be_made_again(old: Connection) -> None:
    version = settings(old)[0]
    by_script(old)
    assert write_the_tables(old) == ["delete", "delete", "insert", "insert"]
    assert old.execute("SELECT count(*) FROM pgfanout.table_trigger").fetchall() == [({1: 0, 2: 2}[version],)]
    *good, bad = TRIGGERS
    for trigger in good:
        psycopg.Cursor(old).execute(trigger.script().encode())
    with pytest.raises(errors.RaiseException, match="the key of the table shop.tags"):
        psycopg.Cursor(old).execute(bad.script().encode())
    assert write_the_tables(old) == ["delete", "delete", "insert", "insert"]
    watched = old.execute("SELECT watched::text, revision FROM pgfanout.table_trigger ORDER BY 1").fetchall()
    assert watched == [('shop."Order Items"', REVISION), ("shop.orders", REVISION)]


def write_the_tables(connection: Connection) -> list[str]:
    """The types of what that publishes."""
    before = len(rows(connection))
    connection.execute(f"SET ROLE {OWNER}".encode())
    connection.execute("INSERT INTO shop.orders VALUES (3, %s, 'new'), (4, %s, 'draft')", [TENANT] * 2)
    connection.execute("DELETE FROM shop.orders WHERE id > 2")
    connection.execute('INSERT INTO shop."Order Items" VALUES (%s, 2, %s)', [TENANT] * 2)
    connection.execute('DELETE FROM shop."Order Items" WHERE line = 2')
    connection.execute("RESET ROLE")
    return sorted(row[3] for row in rows(connection)[before:])


def test_an_upgrade_does_not_stop_readers_and_publishers_while_it_waits_for_another(
    old: Connection, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pg_dump is one, for hours."""
    monkeypatch.setattr(schema, "_ATTEMPTS", 2)
    before = settings(old)
    with (
        psycopg.connect(fresh_database_url) as dumping,
        psycopg.connect(fresh_database_url) as upgrading,
        ThreadPoolExecutor() as pool,
    ):
        dumping.execute("LOCK TABLE pgfanout.log, pgfanout.event, pgfanout.pending IN ACCESS SHARE MODE")
        upgrade = pool.submit(by_script, upgrading)
        old.execute("SET deadlock_timeout = '20s'; SET lock_timeout = '20s'")
        while not upgrade.done():
            old.execute("SELECT pgfanout.publish('orders', %s::uuid, '1')", [TENANT])
            table = LogTable(History(), CHANNEL, lambda query, params: old.execute(query.encode(), params).fetchall())
            assert table.ends()
        with pytest.raises(errors.LockNotAvailable, match="in use all the time, so it can't be upgraded"):
            upgrade.result()
    assert settings(old)[:4] == before[:4]
    by_script(old)
    assert settings(old)[0] == VERSION


def test_an_upgrade_goes_on_when_the_other_has_ended(old: Connection, fresh_database_url: str) -> None:
    with psycopg.connect(fresh_database_url) as publishing, ThreadPoolExecutor() as pool:
        publishing.execute("SELECT pgfanout.publish('orders', %s::uuid, '\"before\"')", [TENANT])
        upgrade = pool.submit(by_script, old)
        wait_until_blocked_by(publishing, fresh_database_url)
        many = "SELECT pgfanout.publish_many('{orders}', %s::uuid[], ARRAY['\"while\"'::json])"
        publishing.execute(many.encode(), [[TENANT]])
        publishing.commit()
        upgrade.result(LONG)
    assert payloads(old)[-2:] == ["before", "while"]
    assert settings(old)[0] == VERSION


def wait_until_blocked_by(connection: Connection, url: str) -> None:
    """Wait until another session waits for a lock of this one's."""
    query = "SELECT FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    with psycopg.connect(url, autocommit=True) as looking:
        eventually(lambda: looking.execute(query, [connection.info.backend_pid]).fetchall(), LONG)


def test_an_upgrade_that_somebody_else_has_made_meanwhile_is_to_be_tried_again(
    old: Connection, fresh_database_url: str
) -> None:
    with psycopg.connect(fresh_database_url) as late:
        late.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        late.execute("SELECT FROM pgfanout.log")
        by_script(old)
        with pytest.raises(errors.SerializationFailure):
            by_script(late)
        late.rollback()
        by_script(late)
    assert settings(old)[0] == VERSION


def test_a_dump_of_this_release_is_restored_with_its_triggers(
    old: Connection, fresh_database_url: str, postgres: PostgresServer
) -> None:
    by_script(old)
    old.execute("ALTER TABLE shop.orders ADD gone text")
    old.execute("ALTER TABLE shop.orders DROP gone, ADD later text")  # numbers of columns change with a dump
    for trigger in TRIGGERS[:2]:
        psycopg.Cursor(old).execute(trigger.script().encode())
    old.execute("ALTER TABLE shop.orders RENAME tenant TO shop")
    command = [str(binaries(postgres.version) / "pg_dump"), "--inserts", "--dbname", fresh_database_url]
    dump = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    name = random_name("restored")
    url = postgres.create_database(name)
    restore(url, dump)
    with psycopg.connect(url, autocommit=True) as new:
        assert rows(new) == rows(old)
        assert settings(new) == settings(old)
        assert write_the_tables(new) == ["delete", "delete", "insert", "insert"]
        stored = "SELECT watched::text, options, renamed FROM pgfanout.table_trigger ORDER BY 1"
        assert new.execute(stored).fetchall() == old.execute(stored).fetchall()
        new.execute(f"DROP OWNED BY {OWNER}, {WEB}, {HUB} CASCADE".encode())
    postgres.drop_database(name)


def test_the_roles_of_the_dump_are_those_that_it_names() -> None:
    assert all(dump.read_text(encoding="utf-8").startswith(ROLES) for dump in DUMPS.values())
