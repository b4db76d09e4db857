"""What is too old or too much goes, and who has missed it can tell."""

from __future__ import annotations

import datetime
from typing import Any

import psycopg
import pytest

from pgfanout.backends.postgres.history.schema import Schema
from tests.support.event_log import TENANT, Connect, numbers, payloads, publish, publish_many, rows


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


def blocks(connection: psycopg.Connection, batch: int) -> int:
    """How many blocks of tables and indexes a part of the pruning has looked at."""
    query = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT pgfanout.prune(%s, 600)"
    ((((plan,),)),) = connection.execute(query, (batch,), prepare=False).fetchall()
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


def test_pruning_costs_the_same_for_each_part_while_an_old_snapshot_is_held(
    connect: Connect, reader: psycopg.Connection
) -> None:
    """Entries of deleted rows stay in the index as long as somebody may see the rows."""
    writer, old = connect(), connect()
    keep(writer, max_rows=1)
    reader.execute(
        "INSERT INTO pgfanout.event SELECT last_value + g, 'orders', %s, '', 1, '1'"
        " FROM pgfanout.number, generate_series(1, 60000) AS g",
        (TENANT,),
    )
    reader.execute("VACUUM ANALYZE pgfanout.event")
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert len(rows(old)) == 60_000
    assert prune(reader, batch=20, every=600) == 20  # with a plan
    first = blocks(reader, 20)
    while prune(reader, batch=10_000, every=600) == 10_000:
        if len(numbers(reader)) < 10_000:
            break
    assert blocks(reader, 20) < 1.5 * first
    assert len(numbers(reader)) > 1


def test_a_part_that_was_rolled_back_is_done_again(connect: Connect, reader: psycopg.Connection) -> None:
    pruner, writer = connect(), connect()
    keep(writer, max_rows=1)
    publish_many(writer, *range(4))
    writer.commit()
    assert prune(pruner, batch=2, every=600) == 2
    pruner.rollback()
    assert prune(reader, every=600) == 3
    assert payloads(reader) == [3]


# A clock that was wrong

YEAR = 365 * 86_400


def test_a_plan_in_the_future_is_none(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    keep(writer, max_rows=1)
    publish_many(writer, 1, 2, 3)
    writer.execute("UPDATE pgfanout.log SET planned_at = clock_timestamp() + interval '1 year'")
    writer.commit()
    assert prune(reader, every=60) == 2
    assert payloads(reader) == [3]


@pytest.fixture
def ahead(writer: psycopg.Connection) -> psycopg.Connection:
    """A writer of a log that was numbered by a clock a year ahead."""
    writer.execute("SELECT setval('pgfanout.number', last_value + %s) FROM pgfanout.number", (YEAR * 1_000_000,))
    publish(writer, "under the wrong clock")
    writer.commit()
    return writer


def seen(connection: psycopg.Connection) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM pgfanout.seen").fetchall()
    return int(count)


def let_plans_be_older(connection: psycopg.Connection, seconds: float) -> None:
    connection.execute("UPDATE pgfanout.seen SET at = at - %s", (datetime.timedelta(seconds=seconds),))
    connection.commit()


def test_events_that_are_numbered_ahead_of_the_clock_age_from_the_first_plan_on(
    ahead: psycopg.Connection, reader: psycopg.Connection
) -> None:
    keep(ahead, max_age=3600)
    assert prune(reader) == 0
    let_plans_be_older(ahead, 2400)
    publish(ahead, "later")
    ahead.commit()
    assert prune(reader) == 0
    let_plans_be_older(ahead, 1201)
    publish(ahead, "latest")
    ahead.commit()
    assert prune(reader) == 1
    assert payloads(reader) == ["later", "latest"]
    let_plans_be_older(ahead, 2400)
    assert prune(reader) == 1
    assert payloads(reader) == ["latest"]


def test_what_plans_have_seen_is_bounded(ahead: psycopg.Connection, reader: psycopg.Connection) -> None:
    keep(ahead, max_age=3600)
    for _ in range(20):
        assert prune(reader) == 0
    assert seen(reader) == 1
    for _ in range(30):
        let_plans_be_older(ahead, 1000)
        publish(ahead, 1)
        ahead.commit()
        prune(reader)
    assert seen(reader) <= 5


def test_max_rows_holds_whatever_the_clock_says(ahead: psycopg.Connection, reader: psycopg.Connection) -> None:
    keep(ahead, max_rows=2)
    publish_many(ahead, 1, 2, 3)
    ahead.commit()
    assert prune(reader) == 2
    assert payloads(reader) == [2, 3]


def test_a_clock_that_goes_back_and_forth_leaves_nothing_behind(
    ahead: psycopg.Connection, reader: psycopg.Connection
) -> None:
    keep(ahead, max_age=3600)
    prune(reader)
    let_plans_be_older(ahead, -YEAR)  # seen by the wrong clock
    prune(reader)
    let_plans_be_older(ahead, 3601)
    assert prune(reader) == 1
    ahead.execute("SELECT setval('pgfanout.number', last_value - %s) FROM pgfanout.number", (2 * YEAR * 1_000_000,))
    ahead.commit()
    prune(reader)
    assert seen(reader) == 0
