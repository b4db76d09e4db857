"""The numbers follow the commits, and notifications arrive in their order."""

from __future__ import annotations

import datetime
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import IsolationLevel, errors

from pgfanout.backends.postgres.history.schema import Schema
from pgfanout.envelope import decode
from tests.support.event_log import (
    TENANT,
    Connect,
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
)

WRITERS = 12


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
