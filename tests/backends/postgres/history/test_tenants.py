"""Tenants of any kind in the history: one rule in Python and SQL, and what is published, read and replayed by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgfanout import REFRESH_EVENT, History, InvalidEventError, PostgresHub, TenantId
from pgfanout.backends.postgres.history.table import LogTable, prepare
from pgfanout.delivery.log import Found
from pgfanout.topic import Topic, as_text, topics
from tests.support.event_log import LONG
from tests.support.tenants import near_misses, tenants

Connection = psycopg.Connection[tuple[Any, ...]]
EXAMPLES = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TENANTS: list[TenantId] = ["acme", 7, None, 'it\'s "größe" \\ %s {} $1', "7D0E1C4A-1111-4222-8333-ABCDEFABCDEF"]


@pytest.fixture
def session(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as session:
        yield session


def text_in_sql(session: Connection, text: str) -> str | None:
    """A tenant's text by the rule in SQL, in which a NULL stands for none."""
    ((found,),) = session.execute("SELECT pgfanout._tenant_text(convert_from(%b, 'UTF8'))", [text.encode()]).fetchall()
    return None if found is None else str(found)


def text_in_python(text: str) -> str | None:
    try:
        return as_text(text)
    except InvalidEventError:
        return None


@given(near_misses())
@example("")
@example("x" * 63)
@example("x" * 64)
@example("ß" * 31)
@example("ß" * 32)
@example("\x7f")
@example("\x80")
@example("\x9f")
@example("\xa0")
@example("7D0E1C4A-1111-4222-8333-ABCDEFABCDEF\n")
@example("7D0E1C4A-1111-4222-8333-ABCDEFABCDEF")
@EXAMPLES
def test_python_and_sql_have_one_rule(session: Connection, text: str) -> None:
    try:
        found = text_in_sql(session, text)
    except (UnicodeEncodeError, psycopg.errors.CharacterNotInRepertoire):  # a surrogate, NUL: no text there
        found = None
    assert text_in_python(text) == found


@given(near_misses())
@EXAMPLES
def test_publish_takes_what_python_takes_and_stores_the_same_text(session: Connection, text: str) -> None:
    expected = text_in_python(text)
    with session.transaction(force_rollback=True):
        try:
            session.execute("SELECT pgfanout.publish('orders', convert_from(%b, 'UTF8'), '1')", [text.encode()])
        except (UnicodeEncodeError, psycopg.errors.CharacterNotInRepertoire, psycopg.errors.CheckViolation):
            stored = []
        else:
            stored = session.execute("SELECT tenant FROM pgfanout.pending").fetchall()
    assert stored == ([] if expected is None else [(expected,)])


@given(st.lists(tenants(), min_size=1, max_size=5))
@EXAMPLES
def test_what_a_hub_publishes_has_the_topic_that_a_hub_follows(session: Connection, several: list[TenantId]) -> None:
    hub = PostgresHub(session.info.dsn, history=True)
    with session.transaction(force_rollback=True):
        for tenant in several:
            hub.publish("orders", tenant, 1, executor=session)
        one_by_one = session.execute("SELECT tenant FROM pgfanout.pending ORDER BY ctid").fetchall()
        hub.publish_many([("orders", tenant, 1) for tenant in several], executor=session)
        ((at_once,),) = session.execute("SELECT tenants FROM pgfanout.pending_many").fetchall() or [([],)]
        if len(several) == 1:
            at_once = [row[0] for row in session.execute("SELECT tenant FROM pgfanout.pending").fetchall()][1:]
    expected = [Topic.of("orders", tenant).tenant for tenant in several]
    assert [tenant for (tenant,) in one_by_one] == expected == at_once


@pytest.fixture
def hub(url: str) -> Iterator[PostgresHub]:
    with PostgresHub(url, history=True, buffer_size=4) as hub:
        hub.start(LONG)
        yield hub


@pytest.mark.parametrize("tenant", TENANTS, ids=ascii)
def test_a_reader_gets_its_tenants_events_live_and_again(hub: PostgresHub, tenant: TenantId) -> None:
    start = hub.cursor()
    with hub.subscribe("orders", tenant) as live:
        hub.publish_many([("orders", each, ascii(each)) for each in TENANTS])
        hub.publish("orders", tenant, "one")
        assert [live.get(LONG).json() for _ in range(2)] == [ascii(tenant), "one"]
    with hub.subscribe("orders", tenant, after=start) as resumed:
        assert [resumed.get(LONG).json() for _ in range(2)] == [ascii(tenant), "one"]


def test_topics_of_several_tenants_are_replayed_and_refilled_in_one_order(hub: PostgresHub) -> None:
    start = hub.cursor()
    wanted: list[TenantId] = ["acme", 7, None]
    slow = hub.subscribe(["orders", "stock"], wanted)
    events = [(channel, tenant) for _ in range(10) for tenant in TENANTS for channel in ("orders", "stock", "x")]
    hub.publish_many([(*topic, number) for number, topic in enumerate(events)])
    expected = [number for number, (channel, tenant) in enumerate(events) if channel != "x" and tenant in wanted]
    with slow, hub.subscribe(["orders", "stock"], wanted, after=start) as resumed:
        for reader in (slow, resumed):
            received = [reader.get(LONG) for _ in expected]
            assert REFRESH_EVENT not in received
            assert [event.json() for event in received] == expected


def test_a_page_of_several_tenants_has_the_first_events_of_all(url: str, session: Connection) -> None:
    prepare(session)
    table = LogTable(History(max_replay=12), "pgfanout_events", lambda query, params: rows(session, query, params))
    for number in range(12):
        session.execute("SELECT pgfanout.publish('orders', %s, %s)", (f"shop {number % 4}", str(number)))
    wanted = topics(["orders", "stock"], ["shop 0", "shop 3", "nobody"])
    start = table.ends().pruned_to
    found = table.page(wanted, start, known=True)
    assert isinstance(found, Found) and not found.more
    assert [event.json() for event in found.page.events] == [0, 3, 4, 7, 8, 11]
    everything = topics("orders", [f"shop {number}" for number in range(4)])
    assert not table.is_too_much(everything, start)
    session.execute("SELECT pgfanout.publish('orders', 'shop 1', '12')")
    assert table.is_too_much(everything, start)
    assert not table.is_too_much(wanted, start)


def rows(session: Connection, query: str, params: Any) -> list[tuple[Any, ...]]:
    return session.execute(query.encode(), params).fetchall()


def test_a_page_of_many_tenants_reads_the_index_for_each(session: Connection) -> None:
    session.execute(
        "SELECT pgfanout.publish_many(array_agg('orders'::text), array_agg(n % 500), array_agg('1'::json))"
        " FROM generate_series(1, 20000) AS n"
    )
    session.execute("ANALYZE pgfanout.event")
    plan: list[str] = []

    def explained(query: str, params: Any) -> list[tuple[Any, ...]]:
        plan.extend(line for (line,) in rows(session, f"EXPLAIN {query}", params))
        return rows(session, query, params)

    table = LogTable(History(), "pgfanout_events", explained)
    prepare(session)
    found = table.page(topics("orders", range(500)), table.ends().pruned_to, known=True)
    assert found is not None and len(found.page.events) == 500
    assert any("event_topic" in line for line in plan) and not any("Seq Scan on event" in line for line in plan)
