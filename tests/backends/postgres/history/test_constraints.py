"""Publishing beside the transaction's own deferred constraints, and with constraints that are set at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg
import pytest
from psycopg import errors

from pgfanout.backends.postgres.history.schema import Schema
from tests.support.event_log import (
    LONG,
    TENANT,
    Connect,
    Ear,
    Follower,
    envelope,
    payloads,
    pending,
    publish,
    publish_many,
    rows,
    waits_for,
)
from tests.support.postgres import MakeServer
from tests.support.wait import eventually


@pytest.fixture
def threads(reader: psycopg.Connection) -> Iterator[ThreadPoolExecutor]:
    """Threads for commits that wait. Those that a failed test has left waiting are ended on the server."""
    with ThreadPoolExecutor(8) as threads:
        yield threads
        reader.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
        )


def commits_later(
    threads: ThreadPoolExecutor, writer: psycopg.Connection, reader: psycopg.Connection, holder: psycopg.Connection
) -> Future[None]:
    """A commit in a thread, once it waits for the holder."""
    commit = threads.submit(writer.commit)
    eventually(lambda: waits_for(reader, writer, holder), LONG)
    return commit


# The transaction's own constraints


@pytest.fixture
def family(reader: psycopg.Connection) -> None:
    """Tables of the user's, with a foreign key that is checked at the commit."""
    reader.execute("CREATE TABLE parent (id integer PRIMARY KEY)")
    reader.execute("CREATE TABLE child (parent integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")


def deferred_trigger(connection: psycopg.Connection, table: str, body: str) -> None:
    """A table of the user's, and what is done at the commit of each row that is inserted into it."""
    connection.execute(f"CREATE TABLE {table} (id integer)")
    connection.execute(
        f"CREATE FUNCTION at_commit_of_{table}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body}; RETURN NULL; END $$"
    )
    connection.execute(
        f"CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED"
        f" FOR EACH ROW EXECUTE FUNCTION at_commit_of_{table}()"
    )


@pytest.mark.usefixtures("family")
def test_a_foreign_key_that_is_fulfilled_at_the_commit_is_no_obstacle(
    writer: psycopg.Connection, reader: psycopg.Connection
) -> None:
    publish(writer, 1)
    writer.execute("INSERT INTO child VALUES (1)")
    publish(writer, 2)
    writer.execute("INSERT INTO parent VALUES (1)")
    writer.commit()
    assert payloads(reader) == [1, 2]


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("first", [True, False])
def test_a_commit_that_fails_publishes_nothing(
    connect: Connect, reader: psycopg.Connection, ear: Ear, first: bool
) -> None:
    failing, other = connect(), connect()
    publish(other, 1)
    other.commit()
    if first:
        publish(failing, "lost")
    failing.execute("INSERT INTO child VALUES (1)")
    publish_many(failing, "lost", "too")
    with pytest.raises(errors.ForeignKeyViolation):
        failing.commit()
    publish(other, 2)
    other.commit()
    publish(failing, 3)
    failing.commit()
    assert payloads(reader) == [1, 2, 3]
    assert ear.heard() == [envelope(row) for row in rows(reader)]


def test_a_commit_that_fails_after_the_numbers_were_drawn_publishes_nothing(
    connect: Connect, reader: psycopg.Connection, ear: Ear
) -> None:
    deferred_trigger(reader, "second", "RAISE EXCEPTION 'no'")
    deferred_trigger(reader, "first", "INSERT INTO second VALUES (1)")
    failing, other = connect(), connect()
    publish(failing, "lost")
    failing.execute("INSERT INTO first VALUES (1)")
    with pytest.raises(errors.RaiseException, match="no"):
        failing.commit()
    publish(other, 1)
    other.commit()
    assert payloads(reader) == [1]
    assert [event["payload"] for event in ear.heard()] == [1]


def test_a_deferred_trigger_of_the_users_may_publish(connect: Connect, reader: psycopg.Connection, ear: Ear) -> None:
    body = f"PERFORM pgfanout.publish('orders', '{TENANT}', NEW.id::text)"
    deferred_trigger(reader, "item", body)
    writer = connect()
    publish(writer, 1)
    writer.execute("INSERT INTO item VALUES (3), (4)")
    publish(writer, 2)
    writer.commit()
    writer.execute("INSERT INTO item VALUES (5)")
    writer.commit()
    assert payloads(reader) == [1, 2, 3, 4, 5]
    assert ear.heard() == [envelope(row) for row in rows(reader)]


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("first", ["publish", "insert"])
def test_a_commit_that_waits_for_another_does_not_hold_it_up(
    connect: Connect, reader: psycopg.Connection, threads: ThreadPoolExecutor, ear: Ear, first: str
) -> None:
    """A child waits for the fate of its parent. Who deletes the parent publishes meanwhile, and must get through."""
    reader.execute("INSERT INTO parent VALUES (1)")
    child, parent = connect(), connect()
    publish(parent, "the parent is gone")
    parent.execute("DELETE FROM parent")
    if first == "publish":
        publish(child, "a child")
    child.execute("INSERT INTO child VALUES (1)")
    publish(child, "another child")
    commit = commits_later(threads, child, reader, parent)
    parent.commit()
    with pytest.raises(errors.ForeignKeyViolation):
        commit.result(LONG)
    assert payloads(reader) == ["the parent is gone"]
    assert ear.heard() == [envelope(row) for row in rows(reader)]


@pytest.mark.usefixtures("family")
def test_a_commit_that_has_waited_for_another_comes_after_it(
    connect: Connect, reader: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    reader.execute("INSERT INTO parent VALUES (1)")
    child, parent, other = connect(), connect(), connect()
    parent.execute("DELETE FROM parent")
    publish(child, "waits")
    child.execute("INSERT INTO child VALUES (1)")
    commit = commits_later(threads, child, reader, parent)
    publish(other, "passes")
    other.commit()
    parent.rollback()
    commit.result(LONG)
    assert payloads(reader) == ["passes", "waits"]


# SET CONSTRAINTS

IMMEDIATE = "SET CONSTRAINTS ALL IMMEDIATE"
DEFERRED = "SET CONSTRAINTS ALL DEFERRED"
SAVEPOINT = "SAVEPOINT s"
ROLLBACK = "ROLLBACK TO s"
RELEASE = "RELEASE s"

SCRIPTS: list[tuple[list[str | int], list[int]]] = [
    ([IMMEDIATE, 1, 2], [1, 2]),
    ([1, IMMEDIATE, 2], [1, 2]),
    ([1, 2, IMMEDIATE], [1, 2]),
    ([1, IMMEDIATE, DEFERRED, 2], [1, 2]),
    ([IMMEDIATE, 1, DEFERRED, 2, IMMEDIATE, 3], [1, 2, 3]),
    ([1, SAVEPOINT, IMMEDIATE, ROLLBACK, 2], [1, 2]),
    ([1, SAVEPOINT, IMMEDIATE, 2, ROLLBACK, 3], [1, 3]),
    ([1, SAVEPOINT, 2, IMMEDIATE, ROLLBACK, IMMEDIATE, 3], [1, 3]),
    ([1, SAVEPOINT, 2, IMMEDIATE, RELEASE, 3], [1, 2, 3]),
    ([IMMEDIATE, 1, SAVEPOINT, 2, DEFERRED, 3, ROLLBACK, 4], [1, 4]),
    ([IMMEDIATE, SAVEPOINT, 1, ROLLBACK], []),
    ([1, "SET CONSTRAINTS pgfanout.before_commit IMMEDIATE", 2], [1, 2]),
    ([1, "SET CONSTRAINTS pgfanout.at_commit IMMEDIATE", 2], [1, 2]),
]


@pytest.mark.parametrize(("script", "expected"), SCRIPTS)
def test_constraints_may_be_set_at_any_time(
    connect: Connect, reader: psycopg.Connection, ear: Ear, script: list[str | int], expected: list[int]
) -> None:
    writer, other = connect(), connect()
    for step in script:
        if isinstance(step, str):
            writer.execute(step.encode())
        else:
            publish(writer, step)
    assert rows(reader) == []
    assert ear.heard() == []
    writer.commit()
    publish(other, "other")
    other.commit()
    log = rows(reader)
    assert payloads(reader) == [*expected, "other"]
    assert ear.heard() == [envelope(row) for row in log]
    assert pending(writer) == 0


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_transaction_that_has_drawn_its_number_early_holds_up_the_others_until_its_end(
    connect: Connect, reader: psycopg.Connection, threads: ThreadPoolExecutor, ear: Ear, end: str
) -> None:
    holder, others = connect(), [connect() for _ in range(4)]
    holder.execute(IMMEDIATE)
    publish(holder, "holder")
    for other in others:
        publish(other, "other")
    commits = [commits_later(threads, other, reader, holder) for other in others[:1]]
    commits += [threads.submit(other.commit) for other in others[1:]]
    publish(holder, "holder")
    assert rows(reader) == []
    getattr(holder, end)()
    for commit in commits:
        commit.result(LONG)
    assert payloads(reader) == (["holder"] * 2 if end == "commit" else []) + ["other"] * 4
    assert ear.heard() == [envelope(row) for row in rows(reader)]


def test_a_savepoint_that_is_rolled_back_lets_the_others_go_on(connect: Connect, reader: psycopg.Connection) -> None:
    writer, other = connect(), connect()
    publish(writer, 2)
    writer.execute(SAVEPOINT)
    writer.execute(IMMEDIATE)
    writer.execute(ROLLBACK)
    publish(other, 1)
    other.commit()
    writer.commit()
    assert payloads(reader) == [1, 2]


@pytest.fixture
def stopped(
    connect: Connect, reader: psycopg.Connection, threads: ThreadPoolExecutor
) -> tuple[psycopg.Connection, psycopg.Connection, Future[None]]:
    """A commit that has drawn its number and waits in a trigger of the user's; who holds it up; and how it ends."""
    deferred_trigger(reader, "second", "PERFORM pg_advisory_xact_lock(1)")
    deferred_trigger(reader, "first", "INSERT INTO second VALUES (1)")
    gate, writer = connect(), connect()
    gate.execute("SELECT pg_advisory_xact_lock(1)")
    publish(writer, "stopped")
    writer.execute("INSERT INTO first VALUES (1)")
    return gate, writer, commits_later(threads, writer, reader, gate)


def test_a_commit_that_is_stopped_after_its_number_was_drawn_loses_no_place(
    stopped: tuple[psycopg.Connection, psycopg.Connection, Future[None]],
    follow: Callable[[], Follower],
    connect: Connect,
    reader: psycopg.Connection,
    threads: ThreadPoolExecutor,
) -> None:
    gate, holder, held = stopped
    follower = follow()
    other = connect()
    publish(other, "other")
    commit = commits_later(threads, other, reader, holder)
    gate.rollback()
    held.result(LONG)
    commit.result(LONG)
    assert payloads(reader) == ["stopped", "other"]
    assert follower.finish() == rows(reader)


def test_a_session_that_is_ended_in_its_commit_holds_nobody_up(
    stopped: tuple[psycopg.Connection, psycopg.Connection, Future[None]],
    connect: Connect,
    reader: psycopg.Connection,
    threads: ThreadPoolExecutor,
    ear: Ear,
) -> None:
    _, holder, held = stopped
    other = connect()
    publish(other, "other")
    commit = commits_later(threads, other, reader, holder)
    reader.execute("SELECT pg_terminate_backend(%s)", (holder.info.backend_pid,))
    commit.result(LONG)
    with pytest.raises(psycopg.OperationalError):
        held.result(LONG)
    assert payloads(reader) == ["other"]
    assert ear.heard() == [envelope(row) for row in rows(reader)]


@pytest.fixture
def two_phase_url(make_server: MakeServer) -> Iterator[str]:
    """A database of a server that has two-phase commit."""
    with make_server(settings={"max_prepared_transactions": 2}) as server:
        yield server.url()


def test_two_phase_commit_is_refused_as_it_is_for_notify(two_phase_url: str) -> None:
    with psycopg.connect(two_phase_url) as connection:
        Schema().install(connection)
        connection.commit()
        connection.execute("NOTIFY pgfanout_events")
        with pytest.raises(errors.FeatureNotSupported) as of_notify:
            connection.execute("PREPARE TRANSACTION 'notify'")
        connection.rollback()
        publish(connection, 1)
        with pytest.raises(errors.FeatureNotSupported) as of_publish:
            connection.execute("PREPARE TRANSACTION 'publish'")
        connection.rollback()
        assert str(of_publish.value) == str(of_notify.value)
        assert (rows(connection), pending(connection)) == ([], 0)
