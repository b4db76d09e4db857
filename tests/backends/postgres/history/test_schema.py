"""The history's schema: how it is installed and upgraded, and who may do what with it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from pgfanout import History, InvalidEventError, PostgresHub
from pgfanout.backends.postgres import conninfo
from pgfanout.backends.postgres.history import schema
from pgfanout.backends.postgres.history.schema import MAX_PAYLOAD, REVISION, VERSION, Schema
from pgfanout.backends.postgres.publisher import Publisher
from tests.support.data_directory import binaries
from tests.support.event_log import (
    LONG,
    TENANT,
    Ear,
    numbers,
    payloads,
    pending,
    publish,
    publish_many,
    rows,
    waits_for,
)
from tests.support.postgres import PostgresServer, random_name
from tests.support.traps import set_traps as set_raising_traps
from tests.support.wait import eventually

# Private members: the SQL of another release takes the place of this one's.

Log = tuple[int, str, float, int]
"""Version, Postgres channel, seconds and number of the events that are kept."""


Enter = Callable[[str], psycopg.Connection]
"""Opens a session of a kind of role."""


@pytest.fixture
def owner(fresh_database_url: str) -> Iterator[psycopg.Connection]:
    """A session of the superuser, each statement for itself."""
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        yield connection


def log(connection: psycopg.Connection, name: str = "pgfanout") -> Log:
    query = "SELECT version, postgres_channel, extract(epoch FROM max_age)::float8, max_rows FROM {}.log"
    (row,) = connection.execute(sql.SQL(query).format(sql.Identifier(name))).fetchall()
    return row


# Installing


def test_the_script_is_one_statement(owner: psycopg.Connection) -> None:
    """A prepared statement can't be two."""
    owner.execute(Schema().script().encode(), prepare=True)
    assert log(owner)[0] == VERSION


def test_the_script_is_done_as_a_whole_or_not_at_all(owner: psycopg.Connection) -> None:
    with pytest.raises(errors.UndefinedObject, match="no_such_role"):
        Schema().install(owner, publishers=["no_such_role"])
    assert owner.execute("SELECT to_regnamespace('pgfanout')").fetchall() == [(None,)]


def test_an_installation_belongs_to_the_transaction(fresh_database_url: str) -> None:
    with psycopg.connect(fresh_database_url) as connection:
        Schema().install(connection)
        publish(connection, 1)
        connection.rollback()
        assert connection.execute("SELECT to_regnamespace('pgfanout')").fetchall() == [(None,)]


@pytest.mark.parametrize("repair", [False, True])
def test_installing_again_changes_nothing(owner: psycopg.Connection, repair: bool) -> None:
    Schema().install(owner)
    publish(owner, 1, 2)
    before = rows(owner), log(owner), catalog(owner)
    Schema().install(owner, repair=repair)
    assert (rows(owner), log(owner), catalog(owner)) == before
    publish(owner, 3)
    assert payloads(owner) == [1, 2, 3]
    assert numbers(owner) == sorted(numbers(owner))


def catalog(connection: psycopg.Connection) -> list[Any]:
    """What there is in the schema, and whose and for whom it is."""
    return connection.execute(
        "SELECT relname, relkind::text, relowner, relacl::text FROM pg_class"
        " WHERE relnamespace = 'pgfanout'::regnamespace"
        " UNION ALL SELECT proname, oid::regprocedure::text, proowner, proacl::text FROM pg_proc"
        " WHERE pronamespace = 'pgfanout'::regnamespace"
        " UNION ALL SELECT tgname, tgrelid::regclass::text, tgfoid, pg_get_triggerdef(oid) FROM pg_trigger"
        " ORDER BY 1, 2"
    ).fetchall()


def test_installing_again_leaves_what_the_user_has_granted(owner: psycopg.Connection) -> None:
    Schema().install(owner)
    owner.execute("GRANT SELECT ON pgfanout.event TO PUBLIC")
    owner.execute("CREATE FUNCTION pgfanout.of_the_users() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    owner.execute("CREATE FUNCTION public.of_the_users() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    before = catalog(owner)
    Schema().install(owner, repair=True)
    assert catalog(owner) == before
    Schema("public").install(owner)
    query = (
        "SELECT bool_and(has_function_privilege('public', oid, 'EXECUTE')) FROM pg_proc WHERE proname = 'of_the_users'"
    )
    assert owner.execute(query).fetchall() == [(True,)]


@pytest.mark.parametrize("before", [False, True])
def test_several_may_install_at_once(fresh_database_url: str, owner: psycopg.Connection, before: bool) -> None:
    together = threading.Barrier(8)
    if before:
        Schema().install(owner)

    def install() -> None:
        with psycopg.connect(fresh_database_url) as connection:
            together.wait(30)
            Schema().install(connection, publishers=["pg_monitor"], readers=["pg_monitor"])

    with ThreadPoolExecutor(8) as threads:
        for installation in [threads.submit(install) for _ in range(8)]:
            installation.result()
    publish(owner, 1)
    assert payloads(owner) == [1]


def test_a_transaction_that_has_published_is_no_obstacle(fresh_database_url: str, owner: psycopg.Connection) -> None:
    Schema().install(owner)
    owner.execute("SET lock_timeout = '20s'")
    with psycopg.connect(fresh_database_url) as writer:
        publish(writer, 1)
        Schema().install(owner, repair=True)
        publish(writer, 2)
        writer.execute("SET CONSTRAINTS ALL IMMEDIATE")
        Schema().install(owner, repair=True)
    assert payloads(owner) == [1, 2]


def test_the_installers_search_path_stays_as_it_was(fresh_database_url: str) -> None:
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute('CREATE SCHEMA "a b"')
        connection.execute('SET search_path = "a b", public')
        Schema().install(connection)
        assert connection.execute("SHOW search_path").fetchall() == [('"a b", public',)]
        connection.commit()
        assert connection.execute("SHOW search_path").fetchall() == [('"a b", public',)]


def test_backslashes_are_no_obstacle(owner: psycopg.Connection) -> None:
    owner.execute("SET standard_conforming_strings = off")
    owner.execute(Schema().script().encode())
    assert owner.execute("SHOW standard_conforming_strings").fetchone() == ("off",)
    owner.execute("SET standard_conforming_strings = on")
    with pytest.raises(psycopg.errors.CheckViolation, match="control characters"):
        owner.execute("SELECT pgfanout.publish(E'a\\u0001b', gen_random_uuid(), '1')")
    owner.execute("SELECT pgfanout.publish('orders', gen_random_uuid(), '1', 'x01f')")


def test_an_empty_search_path_is_no_obstacle(owner: psycopg.Connection) -> None:
    owner.execute("SET search_path = ''")
    for _ in range(2):
        Schema().install(owner, repair=True)
    publish(owner, 1)
    assert payloads(owner) == [1]


ISOLATIONS = ["read committed", "repeatable read", "serializable"]
DEFAULTS = [f"default_transaction_isolation={isolation}" for isolation in ISOLATIONS]
DEFAULTS += ["default_transaction_read_only=on", "default_transaction_deferrable=on"]


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("autocommit", [True, False])
def test_several_may_install_at_once_whatever_a_transaction_is_by_default(
    fresh_database_url: str, owner: psycopg.Connection, default: str, autocommit: bool
) -> None:
    together = threading.Barrier(6)
    options = f"-c {default.replace(' ', chr(92) + ' ')}"

    def install() -> None:
        with psycopg.connect(fresh_database_url, autocommit=autocommit, options=options) as connection:
            together.wait(30)
            Schema().install(connection)

    with ThreadPoolExecutor(6) as threads:
        for installation in [threads.submit(install) for _ in range(6)]:
            installation.result()
    publish(owner, 1)
    assert payloads(owner) == [1]


def older_snapshot(url: str, isolation: str) -> psycopg.Connection:
    """A session in a transaction that has read something already."""
    connection = psycopg.connect(url)
    connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
    connection.execute("SELECT 1 FROM pg_class LIMIT 1")
    return connection


@pytest.mark.parametrize("isolation", ISOLATIONS[1:])
@pytest.mark.parametrize("before", ["nothing", "the same", "the log without its row"])
def test_an_installation_with_an_older_snapshot_is_to_be_tried_again(
    fresh_database_url: str, owner: psycopg.Connection, isolation: str, before: str
) -> None:
    """In a migration's transaction, which the script can't change."""
    if before != "nothing":
        Schema().install(owner)
    if before == "the log without its row":
        owner.execute("DELETE FROM pgfanout.log")
    with older_snapshot(fresh_database_url, isolation) as connection:
        Schema().install(owner, repair=True)
        script = Schema(max_rows=7).script().encode()
        with pytest.raises(errors.SerializationFailure):
            connection.execute(script)
        connection.rollback()
        connection.execute(script)
    assert log(owner)[3] == 7


def test_installing_in_a_transaction_that_has_begun_takes_that_as_it_is(
    fresh_database_url: str, owner: psycopg.Connection
) -> None:
    with older_snapshot(fresh_database_url, "serializable") as connection:
        Schema().install(connection)
    publish(owner, 1)


# Locks that a stranger holds


def hold_locks(stranger: psycopg.Connection) -> None:
    """The advisory locks of the history, but for that of a commit."""
    for purpose in ("install", "prune"):
        stranger.execute(f"SELECT pg_advisory_lock({Schema()._lock(purpose)})".encode())


@pytest.mark.parametrize("repair", [False, True])
def test_a_strangers_locks_hold_up_nothing_where_there_is_a_log(
    owner: psycopg.Connection, enter: Enter, repair: bool
) -> None:
    Schema().install(owner)
    hold_locks(enter("nobody"))
    owner.execute("SET lock_timeout = '20s'")
    Schema(max_rows=1).install(owner, repair=repair, readers=["pg_monitor"])
    owner.execute("UPDATE pgfanout.log SET max_rows = 1")
    publish(owner, 1, 2, 3)
    assert owner.execute("SELECT pgfanout.prune(10, 0)").fetchall() == [(2,)]


@pytest.mark.parametrize("own", [False, True])
def test_a_first_installation_does_not_wait_for_a_stranger_for_ever(
    owner: psycopg.Connection, enter: Enter, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """A `lock_timeout` that the session has is kept."""
    hold_locks(enter("nobody"))
    monkeypatch.setattr(schema, "_PATIENCE", "1h" if own else "100ms")
    owner.execute(f"SET lock_timeout = '{'100ms' if own else 0}'".encode())
    with pytest.raises(errors.LockNotAvailable, match="another session holds the advisory lock of the first install"):
        Schema().install(owner)
    assert owner.execute("SELECT to_regnamespace('pgfanout')").fetchall() == [(None,)]


@pytest.mark.parametrize("timeout", ["0", "7s"])
def test_the_installers_lock_timeout_stays_as_it_was(fresh_database_url: str, timeout: str) -> None:
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute(f"SET lock_timeout = '{timeout}'".encode())
        Schema().install(connection)
        assert connection.execute("SHOW lock_timeout").fetchall() == [(timeout,)]


def test_installations_into_a_log_that_is_there_take_turns_and_a_worker_waits_for_none(
    fresh_database_url: str, owner: psycopg.Connection
) -> None:
    Schema().install(owner)
    owner.execute("SET lock_timeout = '100ms'")
    with psycopg.connect(fresh_database_url) as first:
        Schema().install(first, repair=True)
        Schema().install(owner)
        with pytest.raises(errors.LockNotAvailable):
            Schema().install(owner, repair=True)
        with pytest.raises(errors.LockNotAvailable):
            Schema().install(owner, readers=["pg_monitor"])
    Schema().install(owner, repair=True)


# A log that has lost its row

LOSSES = [
    "TRUNCATE pgfanout.log, pgfanout.event, pgfanout.pending, pgfanout.pending_many",
    "TRUNCATE pgfanout.log",
    "DELETE FROM pgfanout.log",
    "DELETE FROM pgfanout.log; UPDATE pgfanout.event SET number = number + 900000000000000",
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("repair", [False, True])
def test_a_log_that_has_lost_its_row_is_repaired_and_knows_no_old_number(
    owner: psycopg.Connection, loss: str, repair: bool
) -> None:
    Schema(postgres_channel="elsewhere").install(owner)
    publish(owner, 1, 2)
    owner.execute(loss.encode())
    publish(owner, 3)  # is still possible
    owner.execute("SELECT setval('pgfanout.number', last_value + 10000000000000) FROM pgfanout.number")
    query = "SELECT greatest(last_value, (SELECT max(number) FROM pgfanout.event)) FROM pgfanout.number"
    ((last,),) = owner.execute(query).fetchall()
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="has lost its settings") as caught:
        owner.execute("SELECT pgfanout.prune()")
    assert "Install it again" in str(caught.value.diag.message_hint)
    Schema("pgfanout", "the new one", max_rows=7).install(owner, repair=repair)
    assert log(owner) == (VERSION, "the new one", 86_400.0, 7)
    assert payloads(owner) == []
    assert mark(owner) > last
    publish(owner, 4)
    assert payloads(owner) == [4]
    assert numbers(owner)[0] > mark(owner)
    assert owner.execute("SELECT pgfanout.prune(10, 0)").fetchall() == [(0,)]


def mark(connection: psycopg.Connection) -> int:
    """The number up to which nothing is known."""
    ((number,),) = connection.execute("SELECT pruned_to FROM pgfanout.log").fetchall()
    return int(number)


@pytest.mark.parametrize("repair", [False, True])
def test_a_database_made_from_the_schema_alone_is_repaired(
    postgres: PostgresServer, fresh_database_url: str, owner: psycopg.Connection, repair: bool
) -> None:
    Schema(max_rows=5).install(owner)
    publish(owner, 1)
    before = catalog(owner)
    dump = subprocess.run(
        [binaries(postgres.version) / "pg_dump", "--schema-only", "--dbname", fresh_database_url],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    name = random_name("copy")
    with psycopg.connect(postgres.create_database(name), autocommit=True) as copy:
        copy.execute("\n".join(line for line in dump.splitlines() if not line.startswith("\\")).encode())
        Schema().install(copy, repair=repair)
        assert log(copy) == (VERSION, "pgfanout_events", 86_400.0, 1_000_000)
        assert [row[:2] for row in catalog(copy)] == [row[:2] for row in before]
        publish(copy, 2)
        assert payloads(copy) == [2]
    postgres.drop_database(name)


def test_a_repair_waits_for_transactions_that_publish(fresh_database_url: str, owner: psycopg.Connection) -> None:
    Schema().install(owner)
    owner.execute("DELETE FROM pgfanout.log")
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(fresh_database_url, autocommit=True) as installer,
        psycopg.connect(fresh_database_url) as before,
    ):
        publish(before, 1)
        installed = pool.submit(Schema().install, installer)
        eventually(lambda: waits_for(owner, installer, before))
        before.commit()
        installed.result(LONG)
    assert payloads(owner) == []
    publish(owner, 2)
    assert numbers(owner)[0] > mark(owner)


# Releases


@pytest.fixture
def mended(owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A database of this release, with limits of its own, until the next one has mended a function in it. Called, it
    tells whose function is there.
    """
    read = schema._text
    Schema(max_rows=5, postgres_channel="elsewhere").install(owner)

    def whose() -> str:
        query = "SELECT CASE WHEN prosrc LIKE '%/* mended */%' THEN 'next' ELSE 'this' END FROM pg_proc"
        ((found,),) = owner.execute((query + " WHERE proname = 'prune'").encode()).fetchall()
        return str(found)

    with monkeypatch.context() as patch:
        patch.setattr(schema, "REVISION", REVISION + 1)
        patch.setattr(schema, "_text", lambda file: read(file).replace("RETURN gone;", "RETURN gone; /* mended */"))
        Schema(max_rows=9).install(owner)
    return whose


def test_a_newer_release_replaces_the_functions_and_keeps_the_settings(
    owner: psycopg.Connection, mended: Callable[[], str]
) -> None:
    assert mended() == "next"
    assert log(owner) == (VERSION, "elsewhere", 86_400.0, 5)
    assert owner.execute("SELECT revision FROM pgfanout._installed()").fetchall() == [(REVISION + 1,)]


def test_an_older_worker_leaves_newer_functions_and_all_settings_alone(
    owner: psycopg.Connection, mended: Callable[[], str], fresh_database_url: str
) -> None:
    before = catalog(owner)
    hub = PostgresHub(fresh_database_url, history=History(max_rows=3))
    hub.install_history(readers=["no_such_role"])  # nor does it grant rights on what it does not know
    assert mended() == "next"
    assert (log(owner), catalog(owner)) == ((VERSION, "elsewhere", 86_400.0, 5), before)


def test_older_functions_are_refused(owner: psycopg.Connection, mended: Callable[[], str]) -> None:
    with pytest.raises(
        errors.RaiseException, match=f"functions of revision {REVISION + 1}, these are of revision {REVISION}"
    ):
        Schema(max_rows=3).install(owner, repair=True)
    assert mended() == "next"
    assert log(owner)[3] == 5


def test_an_older_worker_leaves_a_newer_version_alone(owner: psycopg.Connection) -> None:
    Schema().install(owner)
    owner.execute("UPDATE pgfanout.log SET version = 99")
    Schema(max_rows=3).install(owner)
    assert log(owner) == (99, "pgfanout_events", 86_400.0, 1_000_000)


def test_a_repair_puts_this_releases_functions_back(owner: psycopg.Connection) -> None:
    Schema(max_rows=5).install(owner)
    for function in ("prune(integer, double precision)", "publish(text, uuid, text, text)"):
        owner.execute(f"DROP FUNCTION pgfanout.{function}".encode())
    Schema().install(owner)
    with pytest.raises(errors.UndefinedFunction):
        owner.execute("SELECT pgfanout.prune()")
    Schema().install(owner, repair=True)
    publish(owner, 1)
    assert owner.execute("SELECT pgfanout.prune()").fetchall() == [(0,)]
    assert log(owner)[3] == 5


def test_a_worker_that_owns_nothing_finds_it_installed(installed: psycopg.Connection, enter: Enter) -> None:
    before = log(installed), catalog(installed)
    for _ in range(2):
        Schema(max_rows=3).install(enter("reader"))
    assert (log(installed), catalog(installed)) == before


# Upgrading

STEP = "ALTER TABLE @schema@.event ADD COLUMN note text NOT NULL DEFAULT 'new';"


@pytest.fixture
def second_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it makes the library's next version of this one."""
    read = schema._text

    def release() -> None:
        monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, "next.sql"))
        monkeypatch.setattr(schema, "VERSION", VERSION + 1)
        monkeypatch.setattr(schema, "_text", lambda file: STEP if file == "next.sql" else read(file))

    return release


def test_an_older_version_is_upgraded_and_keeps_its_events(
    owner: psycopg.Connection, second_version: Callable[[], None]
) -> None:
    Schema().install(owner)
    publish(owner, 1, 2)
    before = rows(owner)
    second_version()
    for _ in range(2):
        Schema().install(owner)
        assert log(owner)[0] == VERSION + 1
    assert rows(owner) == before
    publish(owner, 3)
    assert owner.execute("SELECT payload, note FROM pgfanout.event ORDER BY number").fetchall() == [
        (1, "new"),
        (2, "new"),
        (3, "new"),
    ]


def test_a_new_database_gets_all_steps(owner: psycopg.Connection, second_version: Callable[[], None]) -> None:
    second_version()
    Schema().install(owner)
    assert log(owner)[0] == VERSION + 1
    publish(owner, 1)
    assert owner.execute("SELECT payload, note FROM pgfanout.event").fetchall() == [(1, "new")]


def test_a_newer_version_is_refused(owner: psycopg.Connection) -> None:
    Schema().install(owner)
    before = log(owner)[1:]
    owner.execute("UPDATE pgfanout.log SET version = 99")
    with pytest.raises(errors.RaiseException) as caught:
        Schema(max_rows=5).install(owner, repair=True)
    message = f"the history in the schema pgfanout is of version 99, this is version {VERSION}"
    assert caught.value.diag.message_primary == message
    assert caught.value.diag.message_hint == "Use the newer pgfanout."
    assert log(owner) == (99, *before)


# Settings


def test_two_schemas_live_beside_each_other(fresh_database_url: str, owner: psycopg.Connection) -> None:
    channel = 'an "other" \\ o\'clock $1 @lock@ {x} %'
    one, other = Schema(), Schema("other", channel)
    one.install(owner)
    other.install(owner)
    with Ear(fresh_database_url) as ear, Ear(fresh_database_url, channel) as other_ear:
        publish(owner, 1)
        owner.execute("SELECT other.publish('orders', %s, '2')", (TENANT,))
        assert [event["payload"] for event in ear.heard()] == [1]
        assert [event["payload"] for event in other_ear.heard()] == [2]
    assert payloads(owner) == [1]
    assert owner.execute("SELECT payload FROM other.event").fetchall() == [(2,)]
    assert log(owner, "other")[1] == other.postgres_channel


def test_two_schemas_do_not_wait_for_each_other(fresh_database_url: str, owner: psycopg.Connection) -> None:
    Schema().install(owner)
    Schema("other").install(owner)
    owner.execute("SET lock_timeout = '20s'")
    with psycopg.connect(fresh_database_url) as holder:
        holder.execute("SET CONSTRAINTS ALL IMMEDIATE")
        publish(holder, 1)
        holder.execute("SELECT pgfanout.prune()")
        owner.execute("SELECT other.publish('orders', %s, '2')", (TENANT,))
        assert owner.execute("SELECT other.prune()").fetchall() == [(0,)]


def test_settings_are_applied_by_installing_again(owner: psycopg.Connection) -> None:
    Schema().install(owner)
    assert log(owner) == (VERSION, "pgfanout_events", 86_400.0, 1_000_000)
    Schema(postgres_channel="elsewhere", max_age=0.25, max_rows=7).install(owner, repair=True)
    assert log(owner) == (VERSION, "elsewhere", 0.25, 7)
    Schema(max_age=3_650 * 86_400.0).install(owner, repair=True)
    assert log(owner) == (VERSION, "elsewhere", 3_650 * 86_400.0, 7)  # what is not given stays


def test_a_new_channel_is_notified_of_what_is_published_from_then_on(
    fresh_database_url: str, owner: psycopg.Connection
) -> None:
    Schema().install(owner)
    with psycopg.connect(fresh_database_url) as writer, Ear(fresh_database_url, "elsewhere") as ear:
        publish(writer, 1)
        writer.commit()
        Schema(postgres_channel="elsewhere").install(owner, repair=True)
        publish(writer, 2)
        writer.commit()
        assert [event["payload"] for event in ear.heard()] == [2]


@pytest.mark.parametrize("publish", [publish, publish_many])
def test_a_new_channel_waits_for_those_who_publish_and_they_for_it(
    fresh_database_url: str, owner: psycopg.Connection, publish: Callable[[psycopg.Connection, object], None]
) -> None:
    """Or what is committed after the change could be told on the channel that nobody hears any more."""
    Schema().install(owner)
    with (
        ThreadPoolExecutor(2) as pool,
        psycopg.connect(fresh_database_url, autocommit=True) as after,
        psycopg.connect(fresh_database_url, autocommit=True) as installer,
        Ear(fresh_database_url) as old,
        Ear(fresh_database_url, "elsewhere") as new,
        psycopg.connect(fresh_database_url) as before,
    ):
        publish(after, 0)
        publish(before, 1)
        installed = pool.submit(Schema(postgres_channel="elsewhere").install, installer, repair=True)
        eventually(lambda: waits_for(owner, installer, before))
        published = pool.submit(publish, after, 2)
        eventually(lambda: waits_for(owner, after, installer))
        before.commit()
        installed.result(LONG)
        published.result(LONG)
        assert [event["payload"] for event in old.heard()] == [0, 1]
        assert [event["payload"] for event in new.heard()] == [2]


@pytest.mark.parametrize("publish", [publish, publish_many])
def test_a_payload_has_a_limit_which_may_change(
    owner: psycopg.Connection, publish: Callable[[psycopg.Connection, object], None]
) -> None:
    Schema(max_payload=100).install(owner)
    exact = "é" * 49  # and two quotes
    publish(owner, exact)
    with pytest.raises(errors.CheckViolation, match="a payload has a limited size"):
        publish(owner, exact + "x")
    Schema(max_payload=101).install(owner, repair=True)
    publish(owner, exact + "x")
    Schema(max_payload=10).install(owner, repair=True)
    with pytest.raises(errors.CheckViolation, match="a payload has a limited size"):
        publish(owner, exact)
    assert payloads(owner) == [exact, exact + "x"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Events",
        "1st",
        "a-b",
        "a.b",
        "a b",
        'a"b',
        "a;b",
        "é",
        "x" * 64,
        "a\n",
        "pg_events",
        "$body$",
        "@lock@",
        None,
    ],
)
def test_what_can_not_be_a_schema_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="lower-case letters, digits and underscores"):
        Schema(name)


@pytest.mark.parametrize("name", ["e", "_", "x" * 63, "event", "pgfanout2", "pending"])
def test_what_can_be_a_schema_is_one(owner: psycopg.Connection, name: str) -> None:
    Schema(name).install(owner)
    owner.execute(f"SELECT {name}.publish('orders', %s, '1')".encode(), (TENANT,))
    assert owner.execute(f"SELECT payload FROM {name}.event".encode()).fetchall() == [(1,)]


@pytest.mark.parametrize("channel", ["", "x" * 64, "a\nb"])
def test_what_can_not_be_a_channel_is_refused(channel: str) -> None:
    with pytest.raises(InvalidEventError):
        Schema(postgres_channel=channel)


@pytest.mark.parametrize("name", ["$$", "$body$", "a$functions$b", "$pgfanout$; DROP TABLE orders; --"])
def test_names_that_end_the_quotes_of_the_script_are_refused(name: str) -> None:
    for refused in (
        lambda: Schema(postgres_channel=name),
        lambda: Schema().script(publishers=[name]),
        lambda: Schema().script(readers=[name]),
    ):
        with pytest.raises(ValueError, match=re.escape("$$")):
            refused()


@pytest.mark.parametrize("age", [0.0, -1.0, math.nan, math.inf, 3_650 * 86_400.0 + 1])
def test_an_impossible_age_is_refused(age: float) -> None:
    with pytest.raises(ValueError, match="age"):
        Schema(max_age=age)


@pytest.mark.parametrize("count", [0, -1])
def test_room_for_no_event_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="max_rows"):
        Schema(max_rows=count)


@pytest.mark.parametrize("type", ["close", "refresh", "pgfanout.", "pgfanout.cursor"])
def test_types_that_are_reserved_are_refused(owner: psycopg.Connection, type: str) -> None:
    Schema().install(owner)
    with pytest.raises(errors.CheckViolation, match="reserved"):
        publish(owner, 1, type=type)
    with pytest.raises(errors.CheckViolation, match="reserved"):
        owner.execute("SELECT pgfanout.publish_many('{orders}', %s, '{1}', %s)", ([TENANT], [type]))
    publish(owner, 1, type="pgfanout")
    publish(owner, 2, type="my.pgfanout.type")
    assert payloads(owner) == [1, 2]


def test_a_type_has_a_limited_length(owner: psycopg.Connection) -> None:
    Schema().install(owner)
    for fits in ("t" * 255, "ü" * 127, ""):
        publish(owner, 1, type=fits)
        owner.execute("SELECT pgfanout.publish_many('{orders}', %s, '{1}', %s)", ([TENANT], [fits]))
    for too_long in ("t" * 256, "ü" * 128):
        with pytest.raises(errors.CheckViolation, match="a type has at most 255 bytes"):
            publish(owner, 2, type=too_long)
        with pytest.raises(errors.CheckViolation, match="a type has at most 255 bytes"):
            owner.execute("SELECT pgfanout.publish_many('{orders}', %s, '{1}', %s)", ([TENANT], [too_long]))
    assert payloads(owner) == [1] * 6


@pytest.mark.parametrize("size", [0, -1, 64 * MAX_PAYLOAD + 1])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        Schema(max_payload=size)


# Rights


@pytest.fixture
def roles(fresh_database_url: str) -> Iterator[dict[str, str]]:
    """Names of roles: a publisher, a reader, one without rights, and one that may create schemas."""
    names = {kind: random_name(kind) for kind in ("publisher", "reader", "nobody", "installer")}
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        for name in names.values():
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield names
        for name in names.values():
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def enter(roles: dict[str, str], fresh_database_url: str, postgres: PostgresServer) -> Iterator[Enter]:
    """Opens a session of a role, each statement for itself."""
    opened: list[psycopg.Connection] = []
    database = fresh_database_url.rpartition("/")[2]

    def open(kind: str) -> psycopg.Connection:
        url = postgres.url(database, user=roles[kind], password=None)
        opened.append(psycopg.connect(url, autocommit=True))
        return opened[-1]

    yield open
    for connection in opened:
        connection.close()


@pytest.fixture
def installed(owner: psycopg.Connection, roles: dict[str, str]) -> psycopg.Connection:
    """The owner of a log in which each role has its rights."""
    Schema().install(owner, publishers=[roles["publisher"]], readers=[roles["reader"]])
    return owner


def publish_in_every_way(connection: psycopg.Connection) -> list[Any]:
    """Each call once; what they publish."""
    single = "SELECT pgfanout.publish('orders', %s, {}, 'made')"
    for payload in ("'1'", "'2'::text", "'3'::json", "'4'::jsonb"):
        connection.execute(single.format(payload).encode(), (TENANT,))
    connection.execute("SELECT pgfanout.publish('orders', %s, '5')", (TENANT,))
    connection.execute("SELECT pgfanout.publish_many('{orders,orders}', %s, '{6,7}')", ([TENANT] * 2,))
    connection.execute("SELECT pgfanout.publish_many('{orders}', %s, '{8}', '{made}')", ([TENANT],))
    publisher = Publisher(conninfo.parse(""), "", "pgfanout")
    for tenant, logged in ((TENANT, (9,)), (TENANT, (10, 11)), ("acme", (12,)), ("7", (13, 14))):
        publisher.send([f"orders\n{tenant}\nmade\n{payload}" for payload in logged], connection)
    number = 14
    for tenants in ("'acme'", "'acme'::text", "7", "7::smallint"):
        for kind in ("", "::json", "::jsonb"):
            number += 1
            connection.execute(f"SELECT pgfanout.publish('orders', {tenants}, '{number}'{kind})".encode())
    for tenants in ("'{acme}'", "ARRAY['acme']", "ARRAY[7]", "ARRAY[7]::smallint[]"):
        number += 1
        connection.execute(f"SELECT pgfanout.publish_many('{{orders}}', {tenants}, '{{{number}}}')".encode())
    return list(range(1, number + 1))


TABLES = ("event", "log", "pending", "pending_many", "seen")
READING = [
    *[f"SELECT * FROM pgfanout.{table}" for table in TABLES],
    *[f"COPY pgfanout.{table} TO STDOUT" for table in TABLES],
    "SELECT pgfanout.prune()",
]
PUBLISHING = [
    *[f"SELECT pgfanout.publish('orders', 7, '1'{kind})" for kind in ("", "::json", "::jsonb")],
    *[f"SELECT pgfanout.publish('orders', '{TENANT}'::uuid, '1'{kind})" for kind in ("", "::json", "::jsonb")],
    *[f"SELECT pgfanout.publish_many('{{orders}}', ARRAY[{tenant}], '{{1}}')" for tenant in ("'a'", "7")],
    "SELECT pgfanout._pass_over(1)",
    *[f"SELECT pgfanout.publish('orders', '{TENANT}', '1'{kind})" for kind in ("", "::json", "::jsonb")],
    f"SELECT pgfanout.publish_many('{{orders}}', '{{{TENANT}}}', '{{1}}')",
]
MEDDLING = [
    f"INSERT INTO pgfanout.event VALUES (1, 'orders', '{TENANT}', '', '1')",
    f"INSERT INTO pgfanout.pending VALUES ('orders', '{TENANT}', '', '1')",
    "INSERT INTO pgfanout.pending_many VALUES ('{}', '{}', '{}', '{}')",
    "INSERT INTO pgfanout.log VALUES (false, 1, '', '1 day', 1, 1, 1)",
    "UPDATE pgfanout.event SET channel = 'other'",
    "UPDATE pgfanout.log SET pruned_to = 1",
    "UPDATE pgfanout.pending SET channel = 'other'",
    "UPDATE pgfanout.pending_many SET channels = '{other}'",
    *[f"DELETE FROM pgfanout.{table}" for table in TABLES],
    *[f"TRUNCATE pgfanout.{table}" for table in TABLES],
    *[f"LOCK TABLE pgfanout.{table}" for table in TABLES],
    *[f"ALTER TABLE pgfanout.{table} DISABLE TRIGGER ALL" for table in TABLES],
    *[f"DROP TABLE pgfanout.{table}" for table in TABLES],
    "SELECT setval('pgfanout.number', 1)",
    "SELECT nextval('pgfanout.number')",
    "SELECT last_value FROM pgfanout.number",
    "SELECT setval('pgfanout.oldest', 1)",
    "SELECT nextval('pgfanout.passed_over')",
    "INSERT INTO pgfanout.seen VALUES (now(), 1)",
    "SELECT pgfanout._too_old('1 day')",
    "CREATE TRIGGER own BEFORE TRUNCATE ON own EXECUTE FUNCTION pgfanout._before_truncate()",
    "CREATE TRIGGER own AFTER DELETE ON own REFERENCING OLD TABLE AS gone EXECUTE FUNCTION pgfanout._after_delete()",
    "SELECT pgfanout._before_commit()",
    "SELECT pgfanout._at_commit()",
    "SELECT pgfanout._draw(1)",
    "SELECT pgfanout._before_commit_of_many()",
    "SELECT pgfanout._at_commit_of_many()",
    "CREATE TRIGGER own AFTER DELETE ON own FOR EACH ROW EXECUTE FUNCTION pgfanout._at_commit()",
    "CREATE TRIGGER own AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION pgfanout._before_commit()",
    "CREATE TABLE pgfanout.own (id integer)",
    "ALTER FUNCTION pgfanout._at_commit() RESET search_path",
    'ALTER DOMAIN pgfanout.payload DROP CONSTRAINT "a payload has a limited size"',
]


def allowed(connection: psycopg.Connection, statements: list[str]) -> list[str]:
    """Those that are not refused for want of rights."""
    connection.execute("CREATE TEMPORARY TABLE own (id integer)")
    passed = []
    for statement in statements:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(statement.encode())
        except errors.InsufficientPrivilege:
            continue
        passed.append(statement)
    return passed


def test_a_publisher_publishes_and_does_nothing_else(
    installed: psycopg.Connection, enter: Enter, fresh_database_url: str
) -> None:
    publisher = enter("publisher")
    with Ear(fresh_database_url) as ear:
        with publisher.transaction():
            expected = publish_in_every_way(publisher)
        with publisher.transaction(force_rollback=True):
            publish(publisher, "lost")
        assert [event["payload"] for event in ear.heard()] == expected
    assert payloads(installed) == expected
    assert allowed(publisher, READING + MEDDLING) == []
    assert payloads(installed) == expected


def test_a_publisher_without_a_transaction_of_its_own_publishes_too(
    installed: psycopg.Connection, enter: Enter
) -> None:
    expected = publish_in_every_way(enter("publisher"))
    assert payloads(installed) == expected


def test_the_role_at_the_commit_does_not_matter(
    installed: psycopg.Connection, enter: Enter, roles: dict[str, str], fresh_database_url: str
) -> None:
    """Deferred triggers run as the role that commits, or from PostgreSQL 18 on as the one that has published."""
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(roles["publisher"])))
        publish(connection, 1)
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(roles["nobody"])))
        connection.commit()
        connection.execute("RESET ROLE")
        publish(connection, 2)
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(roles["nobody"])))
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        connection.commit()
    assert payloads(installed) == [1, 2]
    assert pending(installed) == 0


def test_a_reader_listens_reads_and_prunes_and_does_nothing_else(installed: psycopg.Connection, enter: Enter) -> None:
    reader = enter("reader")
    reader.execute("LISTEN pgfanout_events")
    publish(installed, 1)
    (notification,) = reader.notifies(timeout=30, stop_after=1)
    assert json.loads(notification.payload)["payload"] == 1
    assert payloads(reader) == [1]
    assert log(reader)[0] == VERSION
    assert reader.execute("SELECT pgfanout.prune()").fetchall() == [(0,)]
    assert reader.execute("SELECT pgfanout.prune(10, 0)").fetchall() == [(0,)]
    assert reader.execute("SELECT * FROM pgfanout.table_trigger").fetchall() == []
    of_pending = [statement for statement in READING if "pending" in statement or "seen" in statement]
    assert allowed(reader, of_pending + PUBLISHING + MEDDLING) == []
    assert payloads(installed) == [1]


def test_a_reader_prunes_with_the_owners_rights(installed: psycopg.Connection, enter: Enter) -> None:
    Schema(max_rows=1).install(installed, repair=True)
    publish(installed, 1, 2)
    assert enter("reader").execute("SELECT pgfanout.prune(10, 0)").fetchall() == [(1,)]
    assert payloads(installed) == [2]


def test_a_role_without_rights_does_nothing(installed: psycopg.Connection, enter: Enter) -> None:
    publish(installed, 1)
    assert allowed(enter("nobody"), READING + PUBLISHING + MEDDLING) == []
    assert payloads(installed) == [1]


def test_functions_are_for_those_only_who_were_granted_them(installed: psycopg.Connection, enter: Enter) -> None:
    """Not even who may use the schema can call them."""
    installed.execute("GRANT USAGE ON SCHEMA pgfanout TO PUBLIC")
    assert allowed(enter("nobody"), READING + PUBLISHING + MEDDLING) == []
    assert for_all(installed) == [
        "pgfanout._installed()",
        "pgfanout._options(bytea)",
        "pgfanout._tenant_text(text)",
    ]  # they tell nothing of anybody


def for_all(connection: psycopg.Connection) -> list[str]:
    """The log's functions that everybody may call, without regard to the schema."""
    query = (
        "SELECT oid::regprocedure::text FROM pg_proc"
        " WHERE pronamespace = 'pgfanout'::regnamespace AND has_function_privilege('public', oid, 'EXECUTE')"
    )
    return sorted(name for (name,) in connection.execute(query).fetchall())


def test_installing_again_takes_no_rights_away(
    installed: psycopg.Connection, enter: Enter, roles: dict[str, str]
) -> None:
    Schema().install(installed, repair=True)
    assert publish_in_every_way(enter("publisher")) == payloads(enter("reader"))
    Schema().install(installed, publishers=[roles["nobody"], roles["reader"]])
    publish_in_every_way(enter("nobody"))
    publish_in_every_way(enter("reader"))


@pytest.mark.usefixtures("roles")
def test_a_role_may_have_any_name(postgres: PostgresServer, owner: psycopg.Connection) -> None:
    name = random_name('a "role" o\'clock \\ $1 % {x} @lock@; --')
    identifier = sql.Identifier(name)
    owner.execute(sql.SQL("CREATE ROLE {}").format(identifier))
    try:
        Schema().install(owner, publishers=[name], readers=[name])
        owner.execute(sql.SQL("SET ROLE {}").format(identifier))
        publish(owner, 1)
        assert payloads(owner) == [1]
    finally:
        owner.execute("RESET ROLE")
        owner.execute(sql.SQL("DROP OWNED BY {}").format(identifier))
        owner.execute(sql.SQL("DROP ROLE {}").format(identifier))


def test_who_may_create_a_schema_may_install(
    owner: psycopg.Connection, enter: Enter, roles: dict[str, str], fresh_database_url: str
) -> None:
    database = sql.Identifier(fresh_database_url.rpartition("/")[2])
    owner.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, sql.Identifier(roles["installer"])))
    installer = enter("installer")
    for _ in range(2):
        Schema().install(installer, publishers=[roles["publisher"]], readers=[roles["reader"]])
    assert publish_in_every_way(enter("publisher")) == payloads(enter("reader"))
    assert allowed(enter("publisher"), READING + MEDDLING) == []


# A search path with traps in it

TRAPS = [
    ("octet_length(text)", "integer", "pg_catalog.octet_length($1)"),
    ("to_json(text)", "json", "pg_catalog.to_json($1)"),
    ("clock_timestamp()", "timestamptz", "pg_catalog.clock_timestamp()"),
    ("nextval(regclass)", "bigint", "pg_catalog.nextval($1)"),
    ("pg_notify(text, text)", "void", "pg_catalog.pg_notify($1, $2)"),
    ("pg_advisory_xact_lock(bigint)", "void", "pg_catalog.pg_advisory_xact_lock($1)"),
    ("lower(text)", "text", "pg_catalog.lower($1)"),
    ("equal(bigint, bigint)", "boolean", "pg_catalog.int8eq($1, $2)"),
    ("same(tid, tid)", "boolean", "pg_catalog.tideq($1, $2)"),
    ("joined(text, json)", "text", "pg_catalog.textcat($1, $2::pg_catalog.text)"),
    ("less(bigint, integer)", "bigint", "pg_catalog.int84mi($1, $2)"),
    ("times(numeric, integer)", "numeric", "pg_catalog.numeric_mul($1, $2::pg_catalog.numeric)"),
]
OPERATORS = [
    ("=", "bigint", "bigint", "equal"),
    ("=", "tid", "tid", "same"),
    ("||", "text", "json", "joined"),
    ("-", "bigint", "integer", "less"),
    ("*", "numeric", "integer", "times"),
]


def set_traps(connection: psycopg.Connection, place: str) -> None:
    """Functions and operators that note whose rights they are called with, and then do what the real ones do."""
    connection.execute(f"CREATE TABLE {place}.caught (who name)".encode())
    for signature, result, call in TRAPS:
        end = f"PERFORM {call}; RETURN" if result == "void" else f"RETURN {call}"
        connection.execute(
            f"CREATE FUNCTION {place}.{signature} RETURNS {result} LANGUAGE plpgsql"
            f" AS $$ BEGIN INSERT INTO {place}.caught VALUES (current_user); {end}; END $$".encode()
        )
    for operator, left, right, function in OPERATORS:
        connection.execute(
            f"CREATE OPERATOR {place}.{operator} (LEFTARG = {left}, RIGHTARG = {right},"
            f" FUNCTION = {place}.{function})".encode()
        )


def caught(connection: psycopg.Connection, place: str) -> set[str]:
    """With whose rights the traps were called."""
    return {who for (who,) in connection.execute(f"SELECT who FROM {place}.caught".encode()).fetchall()}


@pytest.fixture
def trap(owner: psycopg.Connection, enter: Enter, roles: dict[str, str]) -> Callable[[], set[str]]:
    """Calls everything in a session that is full of traps, and returns with whose rights those were called."""
    Schema().install(owner, publishers=[roles["publisher"]], readers=[roles["publisher"]])
    owner.execute(sql.SQL("CREATE SCHEMA evil AUTHORIZATION {}").format(sql.Identifier(roles["publisher"])))
    attacker = enter("publisher")
    set_traps(attacker, "evil")
    for type in ("uuid", "json", "text"):
        attacker.execute(
            f"CREATE FUNCTION evil.is_{type}(pg_catalog.{type}) RETURNS boolean LANGUAGE plpgsql"
            " AS $$ BEGIN INSERT INTO evil.caught VALUES (current_user); RETURN true; END $$".encode()
        )
        attacker.execute(f"CREATE DOMAIN pg_temp.{type} AS pg_catalog.{type} CHECK (evil.is_{type}(VALUE))".encode())

    def call() -> set[str]:
        attacker.execute("SET search_path = evil, pg_catalog")
        with attacker.transaction():
            publish_in_every_way(attacker)
        attacker.execute("SELECT pgfanout.prune(10, 0)")
        return caught(owner, "evil")

    return call


def test_what_is_in_the_callers_search_path_is_never_called_with_the_owners_rights(
    owner: psycopg.Connection, trap: Callable[[], set[str]], roles: dict[str, str]
) -> None:
    assert trap() <= {roles["publisher"]}
    assert len(payloads(owner)) == 30


@pytest.mark.parametrize(
    "function", ["publish_many(text[], text[], json[], text[])", "prune(integer, double precision)"]
)
def test_the_traps_catch_a_function_without_a_search_path_of_its_own(
    owner: psycopg.Connection, trap: Callable[[], set[str]], function: str
) -> None:
    owner.execute(f"ALTER FUNCTION pgfanout.{function} RESET search_path".encode())
    assert owner.info.user in trap()


WITHOUT_A_PATH = ["_before_commit()", "_at_commit()", "publish(text, text, text, text)"]
QUALIFIED = re.compile(r"OPERATOR\(pg_catalog\.([^)]+)\)|pg_catalog\.(\w+)")


@pytest.mark.parametrize("function", ["_before_commit()", "_at_commit()"])
def test_the_traps_catch_each_name_that_such_a_function_does_not_qualify(
    owner: psycopg.Connection, trap: Callable[[], set[str]], function: str
) -> None:
    ((definition,),) = owner.execute(
        "SELECT pg_get_functiondef(%s::regprocedure)", (f"pgfanout.{function}",)
    ).fetchall()
    qualified = list(QUALIFIED.finditer(definition))
    assert qualified
    for name in qualified:
        bare = name[1] or name[2]
        if bare == "json" and owner.info.server_version >= 170_000:  # a keyword since then
            continue
        owner.execute((definition[: name.start()] + bare + definition[name.end() :]).encode())
        assert owner.info.user in trap(), bare
        owner.execute("TRUNCATE evil.caught")


def test_a_function_with_the_owners_rights_has_a_search_path_or_qualifies_all_names(owner: psycopg.Connection) -> None:
    Schema().install(owner)
    functions = owner.execute(
        "SELECT oid::regprocedure::text, prosrc FROM pg_proc"
        " WHERE pronamespace = 'pgfanout'::regnamespace AND prosecdef"
        " AND coalesce(array_to_string(proconfig, ' '), '') NOT LIKE '%search_path=%'"
    ).fetchall()
    assert {name for name, _ in functions} == {f"pgfanout.{function.replace(', ', ',')}" for function in WITHOUT_A_PATH}
    for _, source in functions:
        bare = QUALIFIED.sub("", source)
        assert set(re.findall(r"(?<![\w.])\w+(?=\()", bare)) <= {"coalesce"}  # which is no function
        assert re.findall(r"::(?!pgfanout\.)\w+", bare) == []
        assert re.findall("[-+*/<>=~!@#%^&|`?]", bare) == []


@pytest.mark.parametrize("function", ["_draw(integer)", "_notification(pgfanout.event)"])
def test_what_such_a_function_calls_was_looked_up_when_it_was_made(owner: psycopg.Connection, function: str) -> None:
    Schema().install(owner)
    ((parsed,),) = owner.execute(
        "SELECT prosqlbody IS NOT NULL FROM pg_proc WHERE oid = %s::regprocedure", (f"pgfanout.{function}",)
    ).fetchall()
    assert parsed


def test_an_installation_calls_nothing_that_others_have_put_into_its_search_path(
    owner: psycopg.Connection, enter: Enter
) -> None:
    owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    set_traps(enter("nobody"), "public")
    Schema().install(owner)
    assert caught(owner, "public") == set()


@pytest.mark.parametrize("path", ["public", "public, pg_catalog"])
def test_an_installation_uses_nothing_that_is_in_the_installers_search_path(
    owner: psycopg.Connection, path: str
) -> None:
    set_raising_traps(owner, "public", Schema().script())
    owner.execute(f"SET search_path = {path}".encode())
    for repair in (False, True):
        Schema().install(owner, repair=repair)
    owner.execute("SET search_path = pg_catalog")
    publish(owner, 1)
    assert payloads(owner) == [1]
