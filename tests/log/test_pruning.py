"""What is too old or too much goes, and who has missed it can tell."""

from __future__ import annotations

import datetime
from typing import Any

import psycopg
import pytest

from pgfanout.backends.postgres.schema import Schema

from ..support.event_log import Connect, numbers, payloads, publish, publish_many, rows

pytestmark = pytest.mark.history


def keep(connection: psycopg.Connection, **limits: Any) -> None:
    """Install it again, with other limits of what is kept."""
    Schema(**limits).install(connection, repair=True)
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
    publisher.execute("SET CONSTRAINTS ALL IMMEDIATE")
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
