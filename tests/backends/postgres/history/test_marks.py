"""Events that somebody deletes by hand: the log's mark moves, so that nobody goes on as if nothing were missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.support.event_log import LONG, TENANT, Connect, numbers, payloads, publish, publish_many, waits_for
from tests.support.wait import eventually

from .test_pruning import keep, prune, pruned_to

OTHER = "22222222-2222-4222-8222-222222222222"


def test_a_truncation_moves_the_mark_past_all_that_was(connect: Connect, reader: psycopg.Connection) -> None:
    writer, failing = connect(), connect()
    publish(writer, 1, 2)
    writer.commit()
    publish(failing, "lost")
    failing.execute("SET CONSTRAINTS ALL IMMEDIATE")  # it has drawn a number
    failing.rollback()
    last = numbers(reader)[-1]
    reader.execute("TRUNCATE pgfanout.event")
    assert pruned_to(reader) == last  # so a hub that has read all is at the mark, and tells nobody
    publish(writer, 3)
    writer.commit()
    assert numbers(reader)[0] > pruned_to(reader)
    assert reader.execute("SELECT rows FROM pgfanout.log").fetchall() == [(0,)]
    before = pruned_to(reader)
    reader.execute("BEGIN; TRUNCATE pgfanout.event; ROLLBACK")
    assert (pruned_to(reader), payloads(reader)) == (before, [3])


def test_a_truncation_with_an_older_snapshot_moves_the_mark_past_events_that_it_does_not_see(
    connect: Connect, reader: psycopg.Connection
) -> None:
    writer, truncater = connect(), connect()
    truncater.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    truncater.execute("SELECT 1")
    publish(writer, 1)
    writer.commit()
    last = numbers(reader)[-1]
    truncater.execute("TRUNCATE pgfanout.event")
    truncater.execute("COMMIT")
    assert pruned_to(reader) >= last


def test_a_truncation_of_a_log_without_events_leaves_new_events_after_the_mark(
    writer: psycopg.Connection, reader: psycopg.Connection
) -> None:
    before = pruned_to(reader)
    reader.execute("TRUNCATE pgfanout.event")
    assert pruned_to(reader) >= before
    publish(writer, 1)
    writer.commit()
    assert numbers(reader)[0] > pruned_to(reader)


def test_a_deletion_moves_the_mark_to_the_last_event_that_is_gone(
    writer: psycopg.Connection, reader: psycopg.Connection
) -> None:
    publish_many(writer, *range(6))
    writer.commit()
    log, before = numbers(reader), pruned_to(reader)
    reader.execute("DELETE FROM pgfanout.event WHERE false")
    assert pruned_to(reader) == before
    reader.execute("DELETE FROM pgfanout.event WHERE number IN (%s, %s)", (log[1], log[3]))
    assert pruned_to(reader) == log[3]
    reader.execute("DELETE FROM pgfanout.event WHERE number = %s", (log[0],))
    assert pruned_to(reader) == log[3]
    reader.execute("BEGIN; DELETE FROM pgfanout.event; ROLLBACK")
    assert pruned_to(reader) == log[3]


def test_the_mark_moves_in_a_session_that_fires_no_triggers_and_for_a_role_that_may_only_delete(
    writer: psycopg.Connection, reader: psycopg.Connection
) -> None:
    publish(writer, 1, 2, 3)
    writer.commit()
    log = numbers(reader)
    reader.execute("SET session_replication_role = replica")
    reader.execute("DELETE FROM pgfanout.event WHERE number = %s", (log[0],))
    assert pruned_to(reader) == log[0]
    reader.execute("RESET session_replication_role")
    reader.execute("CREATE ROLE cleaner; GRANT USAGE ON SCHEMA pgfanout TO cleaner")
    reader.execute("GRANT SELECT, DELETE, TRUNCATE ON pgfanout.event TO cleaner")
    try:
        reader.execute("SET ROLE cleaner")
        reader.execute("DELETE FROM pgfanout.event WHERE number = %s", (log[1],))
        reader.execute("RESET ROLE")
        assert pruned_to(reader) == log[1]
        reader.execute("SET ROLE cleaner; TRUNCATE pgfanout.event; RESET ROLE")
        assert pruned_to(reader) >= log[2]
    finally:
        reader.execute("RESET ROLE; DROP OWNED BY cleaner; DROP ROLE cleaner")


def test_events_before_the_mark_are_pruned(writer: psycopg.Connection, reader: psycopg.Connection) -> None:
    """Nobody reads them: a reader that stands before the mark is told to refresh."""
    publish_many(writer, *range(6))
    writer.execute("SELECT pgfanout.publish('orders', %s, '6')", (OTHER,))
    publish(writer, 7)
    writer.commit()
    assert prune(reader, every=600) == 0
    reader.execute("DELETE FROM pgfanout.event WHERE tenant <> %s", (str(TENANT),))
    mark = pruned_to(reader)
    assert [prune(reader, batch=4) for _ in range(3)] == [4, 2, 0]
    assert payloads(reader) == [7]
    assert pruned_to(reader) == mark


def test_pruning_does_not_wait_for_a_deletion_and_publishing_neither(
    connect: Connect, reader: psycopg.Connection
) -> None:
    deleter, pruner, publisher = connect(), connect(), connect()
    keep(publisher, max_rows=1)
    publish_many(publisher, 1, 2, 3)
    publisher.commit()
    deleter.execute("DELETE FROM pgfanout.event WHERE payload::text = '1'")
    publish(publisher, 4)
    publisher.commit()
    assert prune(pruner) is None
    pruner.commit()
    deleter.commit()
    assert prune(pruner) == 2
    pruner.commit()
    assert payloads(reader) == [4]


def test_pruning_and_deletions_wait_for_each_other_in_one_order(connect: Connect, reader: psycopg.Connection) -> None:
    """Or they would end in a deadlock: each at its end needs the mark, and what the other has taken."""
    pruner, deleter = connect(), connect()
    keep(pruner, max_rows=1)
    publish_many(pruner, *range(10))
    pruner.commit()
    reader.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN OLD; END'"
    )
    reader.execute(
        "CREATE TRIGGER wait BEFORE DELETE ON pgfanout.event FOR EACH ROW WHEN (OLD.payload::text = '5')"
        " EXECUTE FUNCTION wait()"
    )
    gate = connect()
    gate.execute("SELECT pg_advisory_xact_lock(7)")
    with ThreadPoolExecutor(2) as threads:
        # It has deleted two rows, and waits before the third and before it moves the mark.
        deleted = threads.submit(deleter.execute, "DELETE FROM pgfanout.event WHERE payload::text IN ('3', '4', '5')")
        eventually(lambda: waits_for(reader, deleter, gate), LONG)
        pruned = threads.submit(prune, pruner)
        eventually(lambda: pruned.done() or waits_for(reader, pruner, gate), LONG)
        gate.rollback()
        assert pruned.result(LONG) in (6, 7)
        pruner.commit()
        deleted.result(LONG)
        deleter.commit()
    assert payloads(reader) == [9]


def test_pruning_and_a_truncation_wait_for_each_other_in_one_order(
    connect: Connect, reader: psycopg.Connection
) -> None:
    pruner, truncater, holder = connect(), connect(), connect()
    keep(pruner, max_rows=1)
    publish_many(pruner, *range(3))
    pruner.commit()
    holder.execute("SELECT FROM pgfanout.event")
    with ThreadPoolExecutor(2) as threads:
        truncated = threads.submit(truncater.execute, "TRUNCATE pgfanout.event")
        eventually(lambda: waits_for(reader, truncater, holder), LONG)
        pruned = threads.submit(prune, pruner)
        eventually(lambda: waits_for(reader, pruner, truncater), LONG)
        holder.rollback()
        truncated.result(LONG)
        truncater.commit()
        assert pruned.result(LONG) == 0
        pruner.commit()
    assert payloads(reader) == []
