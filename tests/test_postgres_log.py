"""The log: its numbers follow the commits, and it notifies in their order."""

from __future__ import annotations

import datetime
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, errors

from pgfanout.backends.postgres.schema import Schema
from pgfanout.envelope import NOTIFY_LIMIT, decode

from .support.event_log import (
    LONG,
    TENANT,
    Ear,
    Follower,
    Row,
    envelope,
    numbers,
    payloads,
    pending,
    publish,
    publish_many,
    rows,
    waits_for,
)
from .support.need import need
from .support.postgres import PostgresServer, missing_reason, random_name
from .support.wait import eventually

pytestmark = pytest.mark.history

WRITERS = 12
DIGITS = 16  # of a number, until the year 2286

Connect = Callable[[], psycopg.Connection]


@pytest.fixture(scope="module")
def module_url(postgres: PostgresServer) -> Iterator[str]:
    name = random_name("log")
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def url(module_url: str) -> str:
    """A database with nothing but a new log in it: made in a quarter of the time that a new database takes."""
    with psycopg.connect(module_url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS pgfanout, public CASCADE")
        connection.execute("CREATE SCHEMA public")
        Schema().install(connection)
    return module_url


@pytest.fixture
def reader(url: str) -> Iterator[psycopg.Connection]:
    """A session that looks on, each statement for itself. In the end nothing is pending."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
        assert pending(connection) == 0


@pytest.fixture
def connect(url: str, reader: psycopg.Connection) -> Iterator[Connect]:
    """Opens sessions that write. None waits for ever for another that the test has forgotten."""
    opened: list[psycopg.Connection] = []

    def open() -> psycopg.Connection:
        opened.append(psycopg.connect(url, options=f"-c lock_timeout={LONG}s"))
        return opened[-1]

    yield open
    for connection in opened:
        connection.close()


@pytest.fixture
def writer(connect: Connect) -> psycopg.Connection:
    return connect()


@pytest.fixture
def ear(url: str) -> Iterator[Ear]:
    with Ear(url) as ear:
        yield ear


@pytest.fixture
def follow(url: str) -> Iterator[Callable[[], Follower]]:
    """Starts readers with a cursor."""
    started: list[Follower] = []

    def start() -> Follower:
        started.append(Follower(url))
        return started[-1]

    yield start
    for follower in started:
        follower.finish()


@pytest.fixture
def threads(reader: psycopg.Connection) -> Iterator[ThreadPoolExecutor]:
    """Threads for commits that wait. Those that a failed test has left waiting are ended on the server."""
    with ThreadPoolExecutor(WRITERS) as threads:
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


# Many writers at once


@dataclass
class Transaction:
    """What was published and committed, and the time between whose two ends it was."""

    payloads: list[list[int]]
    asked: float
    done: float


class Writer:
    """One session with transactions of every kind. What it publishes is unique: [writer, 1], [writer, 2], ..."""

    def __init__(self, url: str, name: int, isolation: IsolationLevel) -> None:
        self._url = url
        self._name = name
        self._isolation = isolation
        self._random = random.Random(name)
        self._count = 0
        self.committed: list[Transaction] = []

    def write(self, transactions: int) -> None:
        with psycopg.connect(self._url) as connection:
            connection.isolation_level = self._isolation
            for _ in range(transactions):
                try:
                    self._transaction(connection)
                except errors.SerializationFailure:
                    connection.rollback()

    def _transaction(self, connection: psycopg.Connection) -> None:
        steps = [self._one, self._one, self._several, self._released, self._lost, self._immediate]
        published: list[list[int]] = []
        connection.execute("SELECT")  # so that the blocks of the steps are savepoints
        for step in self._random.choices(steps, weights=[8, 8, 4, 4, 4, 1], k=self._random.randint(1, 4)):
            published += step(connection)
            self._pause()
        if self._random.random() < 0.15:
            connection.rollback()
            return
        asked = time.monotonic()
        connection.commit()
        if published:
            self.committed.append(Transaction(published, asked, time.monotonic()))

    def _one(self, connection: psycopg.Connection) -> list[list[int]]:
        new = self._new(1)
        publish(connection, *new)
        return new

    def _several(self, connection: psycopg.Connection) -> list[list[int]]:
        new = self._new(self._random.randint(0, 5))
        publish_many(connection, *new)
        return new

    def _released(self, connection: psycopg.Connection) -> list[list[int]]:
        with connection.transaction():
            return self._one(connection) + self._several(connection)

    def _lost(self, connection: psycopg.Connection) -> list[list[int]]:
        with connection.transaction(force_rollback=True):
            self._several(connection)
            if self._random.random() < 0.2:
                self._immediate(connection)
        return []

    def _immediate(self, connection: psycopg.Connection) -> list[list[int]]:
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        return self._one(connection)

    def _new(self, count: int) -> list[list[int]]:
        first = self._count + 1
        self._count += count
        return [[self._name, number] for number in range(first, first + count)]

    def _pause(self) -> None:
        time.sleep(0.05 if self._random.random() < 0.1 else self._random.random() * 0.005)


def check_transactions(log: Sequence[Row], committed: Sequence[Transaction]) -> None:
    """Each transaction's events stand together in their order, and no transaction before one that had ended."""
    by_first = {tuple(transaction.payloads[0]): transaction for transaction in committed}
    published = [json.loads(row[4]) for row in log]
    asked = 0.0
    while published:
        transaction = by_first.pop(tuple(published[0]))
        assert published[: len(transaction.payloads)] == transaction.payloads
        del published[: len(transaction.payloads)]
        assert transaction.done > asked
        asked = max(asked, transaction.asked)
    assert not by_first


@pytest.mark.parametrize("publish", [publish, publish_many])
def test_two_serializable_transactions_that_publish_do_not_fail_each_other(
    reader: psycopg.Connection, connect: Connect, publish: Callable[[psycopg.Connection, object], None]
) -> None:
    """As they would if one read all that is pending: a plan that looks cheap once the tables were vacuumed."""
    reader.execute("VACUUM pgfanout.pending, pgfanout.pending_many")
    writers = connect(), connect()
    for writer in writers:
        writer.isolation_level = IsolationLevel.SERIALIZABLE
        publish(writer, 1)
    for writer in writers:
        writer.commit()
    assert payloads(reader) == [1, 1]


@pytest.mark.parametrize("isolation", IsolationLevel)
def test_readers_with_a_cursor_and_listeners_miss_and_repeat_nothing(
    url: str, reader: psycopg.Connection, ear: Ear, follow: Callable[[], Follower], isolation: IsolationLevel
) -> None:
    followers = [follow() for _ in range(3)]
    writers = [Writer(url, name, isolation) for name in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as threads:
        for writing in [threads.submit(writer.write, 40) for writer in writers]:
            writing.result()
    committed = [transaction for writer in writers for transaction in writer.committed]
    assert len(committed) > WRITERS * 15
    log = rows(reader)
    assert [follower.finish() for follower in followers] == [log] * 3
    check_transactions(log, committed)
    assert ear.heard() == [envelope(row) for row in log]


# One after the other


def test_the_number_is_of_the_commit_and_not_of_the_publish(connect: Connect, reader: psycopg.Connection) -> None:
    early, late = connect(), connect()
    publish(early, "published first")
    publish(late, "committed first")
    late.commit()
    seen = numbers(reader)
    early.commit()
    assert payloads(reader) == ["committed first", "published first"]
    assert numbers(reader)[:1] == seen


def test_what_is_rolled_back_is_not_published(writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear) -> None:
    publish(writer, 1)
    publish_many(writer, 2, 3)
    writer.rollback()
    assert rows(reader) == []
    assert ear.heard() == []


def test_events_wait_for_the_commit_where_nobody_sees_them(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear
) -> None:
    publish(writer, 1)
    assert payloads(writer) == []
    assert pending(reader) == 0
    assert ear.heard() == []
    writer.commit()
    assert payloads(reader) == [1]


def test_the_envelope_has_all_that_the_row_has(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear
) -> None:
    payload = '{"a" : 1.50, "b":["naïve \\ud83c\\udf89 \'quoted\' \\\\ 日本"],\n "a": 12345678901234567890}'
    for channel, type in [("orders", ""), ('o"r\\d€rs', "order.created"), ("x" * 63, '"\\é'), (" ", " ")]:
        writer.execute("SELECT pgfanout.publish(%s, %s, %s, %s)", (channel, TENANT, payload, type))
    writer.commit()
    log = rows(reader)
    assert [row[1:] for row in log] == [
        ("orders", TENANT, "", payload),
        ('o"r\\d€rs', TENANT, "order.created", payload),
        ("x" * 63, TENANT, '"\\é', payload),
        (" ", TENANT, " ", payload),
    ]
    texts = ear.texts()
    assert [json.loads(text) for text in texts] == [envelope(row) for row in log]
    for text, (number, channel, tenant, type, _) in zip(texts, log, strict=True):
        topic, event = decode(text)
        assert topic == (channel, str(tenant))
        assert (event.channel, event.payload, event.type, event.id) == (channel, payload.encode(), type, str(number))


def test_two_identical_publishes_are_two_events(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear
) -> None:
    publish(writer, 1, 1)
    publish_many(writer, 1, 1)
    writer.commit()
    assert payloads(reader) == [1, 1, 1, 1]
    assert [heard["payload"] for heard in ear.heard()] == [1, 1, 1, 1]


def test_a_batch_keeps_its_order_even_where_the_server_has_to_sort_on_disk(
    writer: psycopg.Connection, reader: psycopg.Connection
) -> None:
    writer.execute("SET work_mem = '64kB'")
    publish_many(writer, *([n, "x" * 500] for n in range(3500)))
    writer.commit()
    assert [n for n, _ in payloads(reader)] == list(range(3500))


def test_all_that_one_transaction_publishes_is_numbered_without_a_gap(
    writer: psycopg.Connection, reader: psycopg.Connection
) -> None:
    publish_many(writer, *range(2500))
    writer.commit()
    log = numbers(reader)
    assert payloads(reader) == list(range(2500))
    for start in (0, 1000, 2000):  # what waits together is numbered together
        part = log[start : start + 1000]
        assert part == list(range(part[0], part[0] + len(part)))


def test_a_batch_with_a_refused_event_is_refused_whole(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    with pytest.raises(errors.CheckViolation, match="1 to 63 bytes"):
        writer.execute("SELECT pgfanout.publish_many(%s, %s, '{1,2}')", (["orders", ""], [TENANT, TENANT]))
    writer.rollback()
    assert rows(reader) == []


# Sizes


def text_of(size: int, character: str) -> str:
    """A text whose JSON has that many bytes."""
    width = len(character.encode())
    return character * ((size - 2) // width) + "x" * ((size - 2) % width)


@pytest.mark.parametrize("character", ["x", "é", "🎉"])
def test_a_small_payload_is_notified_and_a_large_one_is_not(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear, character: str
) -> None:
    sizes = [7_000, 7_500, NOTIFY_LIMIT, 20_000, 500_000]
    publish(writer, *(text_of(size, character) for size in sizes), type="order.created")
    writer.commit()
    expected = [envelope(row) for row in rows(reader)]
    for size, whole in zip(sizes, expected, strict=True):
        if size >= NOTIFY_LIMIT:
            del whole["payload"], whole["type"]
    assert ear.heard() == expected


@pytest.mark.parametrize("number", [None, 9223372036854770000])
@pytest.mark.parametrize(("channel", "type"), [("orders", ""), ('"' * 63, "\x01\x02" * 30), ("é" * 31, "é" * 30)])
def test_a_payload_of_any_size_is_notified_whole_or_not_at_all(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear, channel: str, type: str, number: int | None
) -> None:
    if number:
        writer.execute("SELECT setval('pgfanout.number', %s)", (number,))
    sizes = range(NOTIFY_LIMIT - 800, NOTIFY_LIMIT + 2, 7)
    for size in sizes:
        writer.execute(
            "SELECT pgfanout.publish(%s, %s, %s, %s)", (channel, TENANT, json.dumps(text_of(size, "x")), type)
        )
    writer.commit()
    texts = ear.texts()
    assert max(len(text.encode()) for text in texts) <= NOTIFY_LIMIT
    heard = [json.loads(text) for text in texts]
    notified = sum("payload" in event for event in heard)
    assert 0 < notified < len(sizes)
    expected = [envelope(row) for row in rows(reader)]
    for whole in expected[notified:]:
        del whole["payload"]
        whole.pop("type", None)
    assert heard == expected


def test_a_large_type_is_left_out_with_the_payload(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear
) -> None:
    publish(writer, 1, type="t" * 20_000)
    writer.commit()
    ((number, _, _, type, _),) = rows(reader)
    assert type == "t" * 20_000
    assert ear.heard() == [{"channel": "orders", "tenant_id": str(TENANT), "id": str(number)}]


def test_a_large_event_keeps_its_place_among_others(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear
) -> None:
    publish(writer, 1, "x" * 10_000, 2)
    publish_many(writer, 3, "x" * 100_000, 4)
    writer.commit()
    heard = ear.heard()
    assert [event.get("payload", "large") for event in heard] == [1, "large", 2, 3, "large", 4]
    assert [int(event["id"]) for event in heard] == numbers(reader)


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
def two_phase_url() -> Iterator[str]:
    """A database of a server that has two-phase commit."""
    reason = missing_reason()
    need(reason is None, str(reason))
    with PostgresServer(settings={"max_prepared_transactions": 2}) as server:
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


# Numbers and the clock


def test_a_number_is_the_time_of_its_commit(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    publish(writer, 1)
    ((before,),) = reader.execute("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchall()
    writer.commit()
    ((after,),) = reader.execute("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchall()
    (number,) = numbers(reader)
    assert before <= number <= after


def test_numbers_go_on_where_the_clock_is_behind_them(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear
) -> None:
    future = int(datetime.datetime(2200, 1, 1, tzinfo=datetime.timezone.utc).timestamp()) * 1_000_000
    reader.execute("SELECT setval('pgfanout.number', %s)", (future,))
    publish(writer, 1)
    writer.commit()
    publish_many(writer, 2, 3, 4)
    writer.commit()
    publish(writer, 5)
    writer.rollback()
    publish(writer, 6)
    writer.commit()
    log = numbers(reader)
    assert payloads(reader) == [1, 2, 3, 4, 6]
    assert log == sorted(set(log)) and log[0] > future
    assert [int(event["id"]) for event in ear.heard()] == log


def test_a_log_that_was_made_anew_goes_on_after_the_numbers_of_the_old_one(
    writer: psycopg.Connection, reader: psycopg.Connection
) -> None:
    publish_many(writer, *range(100))
    writer.commit()
    last = numbers(reader)[-1]
    writer.execute("DROP SCHEMA pgfanout CASCADE")
    Schema().install(writer)
    writer.commit()
    ((pruned_to,),) = reader.execute("SELECT pruned_to FROM pgfanout.log").fetchall()
    assert pruned_to > last
    publish(writer, 1)
    writer.commit()
    assert numbers(reader)[0] > pruned_to


# Pruning


def keep(connection: psycopg.Connection, **limits: Any) -> None:
    """Install it again, with other limits of what is kept."""
    Schema(**limits).install(connection)
    connection.commit()


def pass_time(connection: psycopg.Connection, seconds: int) -> None:
    """Let all that is in the log be older by that."""
    past = seconds * 1_000_000
    connection.execute("UPDATE pgfanout.event SET number = number - %s", (past,))
    connection.execute(
        "UPDATE pgfanout.log SET pruned_to = pruned_to - %s, prune_to = prune_to - %s, planned_at = planned_at - %s",
        (past, past, datetime.timedelta(seconds=seconds)),
    )
    connection.commit()


def prune(connection: psycopg.Connection, batch: int = 1000, every: float = 0) -> int | None:
    ((gone,),) = connection.execute("SELECT pgfanout.prune(%s, %s)", (batch, every)).fetchall()
    return None if gone is None else int(gone)


def pruned_to(connection: psycopg.Connection) -> int:
    ((number,),) = connection.execute("SELECT pruned_to FROM pgfanout.log").fetchall()
    return int(number)


def test_events_go_when_they_are_too_old(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    keep(writer, max_age=3600)
    publish(writer, "old", "old too")
    writer.commit()
    pass_time(writer, 2400)
    publish(writer, "young")
    writer.commit()
    assert prune(reader) == 0
    pass_time(writer, 1300)
    publish(writer, "new")
    writer.commit()
    last_old = numbers(reader)[1]
    assert prune(reader) == 2
    assert payloads(reader) == ["young", "new"]
    assert pruned_to(reader) == last_old


def test_events_go_when_they_are_too_many(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    keep(writer, max_rows=5)
    publish_many(writer, *range(5))
    writer.commit()
    assert prune(reader) == 0
    publish_many(writer, *range(5, 12))
    writer.commit()
    last = numbers(reader)[6]
    assert prune(reader) == 7
    assert payloads(reader) == [7, 8, 9, 10, 11]
    assert pruned_to(reader) == last


def test_events_go_in_batches_from_the_oldest_on(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    keep(writer, max_rows=3)
    publish_many(writer, *range(10))
    writer.commit()
    log = numbers(reader)
    for kept in (log[4:], log[7:], log[7:]):
        gone = len(numbers(reader)) - len(kept)
        assert prune(reader, batch=4) == gone
        assert numbers(reader) == kept
        assert pruned_to(reader) == log[log.index(kept[0]) - 1]


def test_what_may_go_is_found_out_once_in_a_while(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    keep(writer, max_rows=1)
    publish_many(writer, 1, 2, 3)
    writer.commit()
    assert prune(reader, batch=1, every=600) == 1
    publish_many(writer, 4, 5)
    writer.commit()
    assert prune(reader, every=600) == 1  # the rest of what was found out before
    assert prune(reader, every=600) == 0
    assert payloads(reader) == [3, 4, 5]
    pass_time(writer, 301)
    assert prune(reader, every=600) == 2
    assert payloads(reader) == [5]


def test_pruning_knows_how_many_events_there_are(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    keep(writer, max_rows=2)
    publish_many(writer, *range(5))
    writer.commit()
    for left in (3, 2, 2):
        prune(reader, batch=2)
        assert reader.execute("SELECT rows FROM pgfanout.log").fetchall() == [(left,)]


def test_one_session_prunes_at_a_time(connect: Connect, reader: psycopg.Connection) -> None:
    one, other = connect(), connect()
    keep(one, max_rows=1)
    publish_many(one, 1, 2, 3)
    one.commit()
    assert prune(one) == 2
    assert prune(other) is None
    other.commit()
    one.rollback()
    assert payloads(reader) == [1, 2, 3]
    assert prune(other) == 2
    other.commit()
    assert prune(one) == 0


def test_pruning_and_publishing_do_not_wait_for_each_other(connect: Connect, reader: psycopg.Connection) -> None:
    publisher, pruner = connect(), connect()
    keep(publisher, max_rows=1)
    publish(publisher, 1, 2)
    publisher.commit()
    assert prune(pruner) == 1
    publish(publisher, 3)
    publisher.commit()
    publisher.execute(IMMEDIATE)
    publish(publisher, 4)
    pruner.commit()
    assert prune(pruner) == 1
    pruner.commit()
    publisher.commit()
    assert payloads(reader) == [3, 4]


def test_what_is_committed_after_what_was_pruned_has_a_higher_number(
    connect: Connect, reader: psycopg.Connection
) -> None:
    slow, quick = connect(), connect()
    keep(quick, max_rows=1)
    publish(slow, "slow")
    publish_many(quick, 1, 2, 3)
    quick.commit()
    assert prune(reader) == 2
    slow.commit()
    assert payloads(reader) == [3, "slow"]
    assert numbers(reader)[0] > pruned_to(reader)


def test_a_reader_can_tell_whether_it_has_missed_something(
    writer: psycopg.Connection, reader: psycopg.Connection
) -> None:
    keep(writer, max_rows=2)
    start = pruned_to(reader)
    publish_many(writer, *range(5))
    writer.commit()
    log = numbers(reader)
    assert start < log[0]  # who has read nothing has missed nothing
    prune(reader)
    ahead = [cursor >= pruned_to(reader) for cursor in (start, *log)]
    assert ahead == [False, False, False, True, True, True]
    assert [row[0] for row in rows(reader, log[2])] == log[3:]


def test_an_empty_log_tells_what_it_has_lost(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    publish(writer, 1, 2)
    writer.commit()
    last = numbers(reader)[-1]
    pass_time(writer, 2 * 86_400)
    assert prune(reader) == 2
    assert rows(reader) == []
    assert pruned_to(reader) == last - 2 * 86_400 * 1_000_000
    assert prune(reader) == 0
    assert pruned_to(reader) == last - 2 * 86_400 * 1_000_000
