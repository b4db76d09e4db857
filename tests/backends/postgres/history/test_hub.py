"""A hub with history: what was missed is replayed, in order, once, and to its tenant alone."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pgfanout import (
    CLOSE_EVENT,
    REFRESH_EVENT,
    Event,
    History,
    HubConfigurationError,
    PayloadTooLargeError,
    PostgresHub,
    Subscription,
)
from pgfanout.backends.postgres.history.schema import Schema
from pgfanout.backends.postgres.history.table import LogTable
from pgfanout.delivery.intake import LogIntake
from pgfanout.flask import PgFanout
from pgfanout.hub import core_of
from tests.support.child import FORKS, in_child
from tests.support.postgres import MakeServer, PostgresServer, random_name
from tests.support.replication import REPLICATED, Standby
from tests.support.wait import eventually

# Private members: one hub's session is made slow, and settings that have arrived show nowhere else.

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
OTHER = uuid.UUID("22222222-2222-4222-8222-222222222222")
PATIENCE = 20.0

MakeHub = Callable[..., PostgresHub]


@pytest.fixture
def url(fresh_database_url: str) -> str:
    """A database with the history in it."""
    PostgresHub(fresh_database_url).install_history()
    return fresh_database_url


@pytest.fixture
def make_hub(url: str) -> Iterator[MakeHub]:
    """Makes hubs, and closes them in the end."""
    hubs: list[PostgresHub] = []

    def make(**options: Any) -> PostgresHub:
        hubs.append(PostgresHub(url, **{"history": True, **options}))
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.close()


@pytest.fixture
def hub(make_hub: MakeHub) -> PostgresHub:
    return make_hub()


def publish(hub: PostgresHub, *payloads: Any, tenant: uuid.UUID = TENANT, channel: str = "orders") -> None:
    hub.publish_many([(channel, tenant, payload) for payload in payloads])


def take(subscription: Subscription, count: int) -> list[Event]:
    return [subscription.get(timeout=PATIENCE) for _ in range(count)]


def payloads(events: list[Event]) -> list[Any]:
    return [event.json() for event in events]


def numbers(events: list[Event]) -> list[int]:
    return [int(event.id) for event in events]


def cut(url: str, name: str = "pgfanout-listener") -> int:
    """End the sessions of a name; how many there were."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = %s",
            [name],
        ).fetchall()
    return len(rows)


def test_an_event_has_its_number_as_its_id(hub: PostgresHub) -> None:
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1, 2)
        events = take(subscription, 2)
    assert payloads(events) == [1, 2]
    assert 0 < numbers(events)[0] < numbers(events)[1]


@pytest.mark.parametrize("size", [1, 20_000])
def test_the_bytes_of_a_payload_are_kept_live_and_in_a_replay(hub: PostgresHub, size: int) -> None:
    cursor = hub.cursor()
    sent = [around.join((b"\t\n ", b" \r\n")) for around in (b'{"a" : 1.0, "a":2}', b'"' + b"x" * size + b'"', b"-0")]
    with hub.subscribe("orders", TENANT) as live:
        publish(hub, *sent)
        publish(hub, sent[1])
        assert [event.payload for event in take(live, 4)] == [*sent, sent[1]]
    with hub.subscribe("orders", TENANT, after=cursor) as late:
        assert [event.payload for event in take(late, 4)] == [*sent, sent[1]]


@pytest.mark.parametrize("type", ["close", "refresh", "pgfanout.cursor"])
def test_the_librarys_own_types_are_refused_by_the_database_too(url: str, hub: PostgresHub, type: str) -> None:
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.CheckViolation, match="reserved"):
        connection.execute("SELECT pgfanout.publish('orders', %s, '1', %s)", [TENANT, type])


def test_what_came_after_a_number_is_replayed_and_then_it_goes_on(hub: PostgresHub) -> None:
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1, 2, 3)
        first = take(subscription, 3)[0]
    with hub.subscribe("orders", TENANT, after=first.id) as subscription:
        assert payloads(take(subscription, 2)) == [2, 3]
        publish(hub, 4)
        assert payloads(take(subscription, 1)) == [4]
    assert hub.stats().replays == 1
    assert hub.stats().replayed_events == 2


def test_a_cursor_is_where_the_history_ends(hub: PostgresHub) -> None:
    cursor = hub.cursor()
    publish(hub, 1)
    with hub.subscribe("orders", TENANT, after=cursor) as subscription:
        assert payloads(take(subscription, 1)) == [1]


def test_a_subscriptions_cursor_is_text_with_which_another_one_goes_on(hub: PostgresHub) -> None:
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1, 2)
        [first] = take(subscription, 1)
        assert subscription.cursor == first.id
        with hub.subscribe("orders", TENANT, after=subscription.cursor) as another:
            assert payloads(take(another, 1)) == [2]


def test_a_replay_is_of_the_topics_alone(hub: PostgresHub) -> None:
    cursor = hub.cursor()
    publish(hub, "theirs", tenant=OTHER)
    publish(hub, "stock", channel="stock")
    publish(hub, "ours")
    publish(hub, "bills", channel="bills")
    with hub.subscribe(["orders", "bills"], TENANT, after=cursor) as subscription:
        assert payloads(take(subscription, 2)) == ["ours", "bills"]


def test_more_than_a_page_is_replayed_in_order_while_others_publish(make_hub: MakeHub) -> None:
    hub = make_hub(buffer_size=4)
    cursor = hub.cursor()
    for part in range(6):
        publish(hub, *range(part * 250, part * 250 + 250))

    def write() -> None:
        for number in range(1500, 1800):
            publish(hub, number)

    writer = threading.Thread(target=write)
    writer.start()
    with hub.subscribe("orders", TENANT, after=cursor) as subscription:
        events = take(subscription, 1800)
    writer.join()
    assert payloads(events) == list(range(1800))


def have_all(url: str, hub: PostgresHub) -> None:
    """What was published before is behind who follows from now on."""
    with psycopg.connect(url) as connection:
        [(last,)] = connection.execute("SELECT max(number) FROM pgfanout.event").fetchall()
    eventually(lambda: int(hub.cursor() or 0) >= last)


@pytest.mark.parametrize("after", ["1", "9000000000000000"])
def test_a_cursor_that_is_too_old_or_not_yet_there_is_a_refresh(url: str, hub: PostgresHub, after: str) -> None:
    publish(hub, 1)
    have_all(url, hub)
    with hub.subscribe("orders", TENANT, after=after) as subscription:
        assert take(subscription, 1) == [REFRESH_EVENT]
        publish(hub, 2)
        assert payloads(take(subscription, 1)) == [2]


def test_too_much_to_be_replayed_is_a_refresh(url: str, make_hub: MakeHub) -> None:
    hub = make_hub(history=History(max_replay=600))
    cursor = hub.cursor()
    publish(hub, *range(601))
    have_all(url, hub)
    with hub.subscribe("orders", TENANT, after=cursor) as subscription:
        assert take(subscription, 1) == [REFRESH_EVENT]
        publish(hub, "next")
        assert payloads(take(subscription, 1)) == ["next"]


def test_as_much_as_may_be_replayed_is(make_hub: MakeHub) -> None:
    hub = make_hub(history=History(max_replay=600))
    cursor = hub.cursor()
    publish(hub, *range(600))
    with hub.subscribe("orders", TENANT, after=cursor) as subscription:
        assert payloads(take(subscription, 600)) == list(range(600))


def test_a_reader_that_is_too_slow_gets_everything_from_the_log(make_hub: MakeHub) -> None:
    hub = make_hub(buffer_size=2)
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, *range(100))
        eventually(lambda: hub.stats().received >= 100)
        publish(hub, *range(100, 110))
        assert payloads(take(subscription, 110)) == list(range(110))
    assert hub.stats().refreshes == 0


def test_a_reader_that_is_too_slow_is_told_to_refresh_where_refilling_is_not_wanted(make_hub: MakeHub) -> None:
    hub = make_hub(buffer_size=2, history=History(refill=False))
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, *range(100))
        eventually(lambda: hub.stats().delivered >= 100)
        assert REFRESH_EVENT in take(subscription, 2)
    assert hub.stats().refreshes > 0


def test_what_is_missed_while_the_listener_is_away_is_filled(url: str, make_hub: MakeHub) -> None:
    hub, other = make_hub(buffer_size=8), make_hub()
    with hub.subscribe("orders", TENANT) as subscription:
        for round in range(3):
            assert cut(url) > 0
            publish(other, *range(round * 20, round * 20 + 20))
            assert payloads(take(subscription, 20)) == list(range(round * 20, round * 20 + 20))
            eventually(lambda: hub.listening)
    stats = hub.stats()
    assert (stats.gaps, stats.refreshes) == (0, 0)
    assert stats.fills == stats.reconnects >= 3


def test_what_the_log_can_not_fill_is_a_refresh(url: str, make_hub: MakeHub) -> None:
    hub, other = make_hub(history=History(max_replay=5)), make_hub()
    with hub.subscribe("orders", TENANT) as subscription:
        publish(other, *range(6), channel="elsewhere")
        eventually(lambda: hub.stats().received >= 6)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE pgfanout.log SET pruned_to = pruned_to + 1000000000")
        assert cut(url) > 0
        assert take(subscription, 1) == [REFRESH_EVENT]


@pytest.mark.parametrize("size", [9_000, 1_048_576 - 2])
def test_a_large_payload_arrives_in_its_place(hub: PostgresHub, size: int) -> None:
    large = "x" * size
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1, large, 3)
        assert payloads(take(subscription, 3)) == [1, large, 3]
    assert hub.stats().undecodable == 0


def test_what_came_before_an_event_that_is_fetched_does_not_wait_for_it(
    hub: PostgresHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, fetch = threading.Event(), LogTable.one
    with hub.subscribe("orders", TENANT) as subscription:
        monkeypatch.setattr(LogTable, "one", lambda *given: fetched.wait(PATIENCE) and fetch(*given))
        with ThreadPoolExecutor(1) as executor:
            got = executor.submit(take, subscription, 1)
            publish(hub, 1, "x" * 9_000)
            assert payloads(got.result(PATIENCE / 2)) == [1]
        fetched.set()
        assert payloads(take(subscription, 1)) == ["x" * 9_000]


def test_who_comes_back_while_an_event_is_fetched_waits_for_it(
    hub: PostgresHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, fetched, fetch = "x" * 9_000, threading.Event(), LogTable.one
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1)
        [event] = take(subscription, 1)
        monkeypatch.setattr(LogTable, "one", lambda *given: fetched.wait(PATIENCE) and fetch(*given))
        publish(hub, large)
        with hub.subscribe("orders", TENANT, after=event.id) as late:
            with pytest.raises(queue.Empty):
                late.get(timeout=0.5)
            fetched.set()
            assert payloads(take(late, 1)) == payloads(take(subscription, 1)) == [large]
    assert hub.stats().replayed_events <= 1


def test_a_payload_has_a_limit(hub: PostgresHub) -> None:
    with pytest.raises(PayloadTooLargeError) as caught:
        publish(hub, "x" * 1_048_576)
    assert (caught.value.size, caught.value.limit) == (1_048_578, 1_048_576)


def test_a_publish_that_is_rolled_back_is_in_no_replay(url: str, hub: PostgresHub) -> None:
    cursor = hub.cursor()
    with psycopg.connect(url) as connection:
        hub.publish("orders", TENANT, "never", executor=connection)
        connection.rollback()
        hub.publish("orders", TENANT, "ever", executor=connection)
    with hub.subscribe("orders", TENANT, after=cursor) as subscription:
        assert payloads(take(subscription, 1)) == ["ever"]


def test_what_any_language_publishes_is_an_event(url: str, hub: PostgresHub) -> None:
    with hub.subscribe("orders", TENANT) as subscription, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pgfanout.publish('orders', %s, '{\"id\": 42}', 'order.created')", [TENANT])
        [event] = take(subscription, 1)
    assert (event.channel, event.json(), event.type) == ("orders", {"id": 42}, "order.created")


def notify(url: str, text: str) -> None:
    """As any role that can connect may."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_notify('pgfanout_events', %s)", [text])


def forged(id: int | str, payload: str = "forged") -> str:
    return f'{{"channel":"orders","tenant_id":"{TENANT}","payload":"{payload}","id":"{id}"}}'


@pytest.mark.parametrize("ahead", [-1, 3_000_000, 10**15])
def test_an_invented_number_is_no_event_and_hides_none(url: str, hub: PostgresHub, ahead: int) -> None:
    with hub.subscribe("orders", TENANT) as subscription, hub.subscribe("stock", TENANT) as other:
        publish(hub, 1)
        [event] = take(subscription, 1)
        notify(url, forged(int(event.id) + ahead))
        assert take(subscription, 1) == [REFRESH_EVENT]
        publish(hub, 2, 3)
        publish(hub, 4, channel="stock")
        assert payloads(take(subscription, 2)) == [2, 3]
        assert payloads(take(other, 1)) == [4]
    with hub.subscribe("orders", TENANT, after=str(int(event.id) + ahead)) as subscription:
        assert take(subscription, 1) == [REFRESH_EVENT]
    with hub.subscribe("orders", TENANT, after=event.id) as subscription:
        assert payloads(take(subscription, 2)) == [2, 3]
    assert (hub.stats().unlogged, hub.stats().undecodable) == (1, 0)


@pytest.mark.parametrize("after", ["", "0", "-1", "7", "x", "1e9", "7-1", "9" * 18, "9" * 40, str(2**63)])
def test_what_is_no_cursor_of_the_log_is_a_refresh_at_once(hub: PostgresHub, after: str) -> None:
    publish(hub, 1)
    with hub.subscribe("orders", TENANT, after=after) as subscription:
        assert take(subscription, 1) == [REFRESH_EVENT]
        publish(hub, 2)
        assert payloads(take(subscription, 1)) == [2]


def test_after_a_deletion_in_the_middle_of_the_log_only_the_numbers_from_there_on_are_known(
    url: str, hub: PostgresHub
) -> None:
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1, 2, 3)
        first, second, _ = take(subscription, 3)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM pgfanout.event WHERE number = %s", [int(second.id)])
    with hub.subscribe("orders", TENANT, after=first.id) as subscription:
        assert take(subscription, 1) == [REFRESH_EVENT]
    with hub.subscribe("orders", TENANT, after=second.id) as subscription:
        assert payloads(take(subscription, 1)) == [3]


def test_a_number_that_was_lost_from_the_middle_of_the_log_is_not_known(url: str, hub: PostgresHub) -> None:
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1, 2, 3)
        _, second, _ = take(subscription, 3)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE pgfanout.event DISABLE TRIGGER USER")  # nobody sees it, as in a restored backup
        connection.execute("DELETE FROM pgfanout.event WHERE number = %s", [int(second.id)])
    with hub.subscribe("orders", TENANT, after=second.id) as subscription:
        assert take(subscription, 1) == [REFRESH_EVENT]


def test_an_emptied_log_knows_no_number_of_before(url: str, hub: PostgresHub) -> None:
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1, 2)
        first, _ = take(subscription, 2)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("TRUNCATE pgfanout.event")
        publish(hub, 3)
        eventually(lambda: REFRESH_EVENT in (event := take(subscription, 1)) or payloads(event) == [3])
    with hub.subscribe("orders", TENANT, after=first.id) as subscription:
        assert take(subscription, 1) == [REFRESH_EVENT]


def test_a_hub_that_comes_back_to_a_log_without_its_position_tells_everyone(url: str, hub: PostgresHub) -> None:
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, 1, 2)
        _, last = take(subscription, 2)
        with psycopg.connect(url, autocommit=True) as connection:
            # As after a fail-over that lost the last commit, and one that was made since.
            connection.execute("UPDATE pgfanout.event SET number = number + 7 WHERE number = %s", [int(last.id)])
        assert cut(url) > 0
        assert take(subscription, 1) == [REFRESH_EVENT]
        publish(hub, 3)
        assert payloads(take(subscription, 1)) == [3]


@pytest.fixture
def pair(make_server: MakeServer) -> Iterator[tuple[PostgresServer, Standby]]:
    """A primary with the history, and a standby that has it and has stopped."""
    with make_server(hba=REPLICATED) as primary:
        PostgresHub(primary.url()).install_history()
        standby = Standby(primary)
        with standby:
            standby.wait_caught_up()
            standby.stop()
            yield primary, standby


def test_a_fail_over_that_lost_commits_is_told_to_all_who_have_seen_them(pair: tuple[PostgresServer, Standby]) -> None:
    primary, standby = pair
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    both = primary.url().replace(f"127.0.0.1:{primary.port}", hosts)
    with PostgresHub(both, history=True) as hub:
        cursor = hub.cursor()
        with hub.subscribe("orders", TENANT) as open_page:
            publish(hub, 1, 2)
            events = take(open_page, 2)
            primary.kill()
            standby.start()
            standby.promote()
            with standby.connect() as connection:  # before the hub is back
                connection.execute("SELECT pgfanout.publish('orders', %s, '3')", [TENANT])
            assert take(open_page, 1) == [REFRESH_EVENT]
            publish(hub, 4)
            after = payloads(take(open_page, 1))
            assert after in ([4], [3])  # the hub may have been back before the other event
            assert after == [4] or payloads(take(open_page, 1)) == [4]
        for seen in events:
            with hub.subscribe("orders", TENANT, after=seen.id) as returning:
                assert take(returning, 1) == [REFRESH_EVENT]
        with hub.subscribe("orders", TENANT, after=cursor) as returning:  # it has seen nothing that was lost
            assert payloads(take(returning, 2)) == [3, 4]


def test_a_number_of_another_worker_that_is_ahead_waits_until_this_one_is_there(
    url: str, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, other = make_hub(), make_hub()
    hub.start()
    go_on, news = threading.Event(), LogTable.news
    intake = core_of(hub).intake
    assert isinstance(intake, LogIntake)
    slow = intake._session

    def wait_and_read(table: LogTable, *given: Any) -> Any:
        assert table is not slow or go_on.wait(PATIENCE)
        return news(table, *given)

    monkeypatch.setattr(LogTable, "news", wait_and_read)
    with other.subscribe("orders", TENANT) as subscription:
        publish(other, 1, 2, 3)
        _, second, _ = take(subscription, 3)
    with hub.subscribe("orders", TENANT, after=second.id) as ahead:
        with pytest.raises(queue.Empty):
            ahead.get(timeout=0.5)
        go_on.set()
        assert payloads(take(ahead, 1)) == [3]


def test_one_tenants_import_in_an_outage_costs_another_tenant_no_event_and_no_refresh(
    url: str, make_hub: MakeHub
) -> None:
    hub, other = make_hub(history=History(max_replay=50), heartbeat=60.0), make_hub()
    with hub.subscribe("orders", TENANT) as ours, hub.subscribe("orders", OTHER) as theirs:
        publish(hub, "before")
        assert payloads(take(ours, 1)) == ["before"]
        with psycopg.connect(url) as connection:
            other.publish_many([("orders", TENANT, 1)], executor=connection)
            other.publish_many([("orders", OTHER, number) for number in range(1000)], executor=connection)
            other.publish_many([("orders", TENANT, 2)], executor=connection)
            assert cut(url) > 0
            connection.commit()
        assert payloads(take(ours, 2)) == [1, 2]
        publish(other, 3)
        assert payloads(take(ours, 1)) == [3]
        publish(other, "theirs", tenant=OTHER)
        got = [theirs.get(timeout=PATIENCE)]
        while got[-1] is REFRESH_EVENT or got[-1].json() != "theirs":
            got.append(theirs.get(timeout=PATIENCE))
    assert hub.stats().gaps == 0


def test_a_log_that_has_lost_its_row_is_repaired_by_an_installation_and_says_so(url: str, make_hub: MakeHub) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE pgfanout.log, pgfanout.event")
    hub = make_hub()
    with pytest.raises(HubConfigurationError, match=r"lost its row.* sql install --apply"):
        hub.start()
    with psycopg.connect(url) as connection, pytest.raises(HubConfigurationError, match="lost its row"):
        hub.cursor(executor=connection)


# Beside publishers past the log.


@pytest.fixture
def open_hub(make_hub: MakeHub) -> PostgresHub:
    return make_hub(history=History(log_only=False))


def test_an_event_past_the_log_is_delivered_if_wanted_and_what_was_missed_of_such_is_told(
    url: str, open_hub: PostgresHub
) -> None:
    with open_hub.subscribe("orders", TENANT) as subscription:
        publish(open_hub, 1)
        notify(url, forged("somebody's", "past"))
        publish(open_hub, 2)
        events = take(subscription, 3)
        assert payloads(events) == [1, "past", 2]
        assert cut(url) > 0
        assert take(subscription, 1) == [REFRESH_EVENT]
    for after in (events[0].id, events[2].id, open_hub.cursor()):
        with open_hub.subscribe("orders", TENANT, after=after) as subscription:
            assert take(subscription, 1) == [REFRESH_EVENT]


def test_an_invented_number_is_delivered_without_it_where_others_are_heard(url: str, open_hub: PostgresHub) -> None:
    with open_hub.subscribe("orders", TENANT) as subscription:
        notify(url, forged(9_000_000_000_000_000))
        [event] = take(subscription, 1)
        assert (event.json(), event.id) == ("forged", "")
        publish(open_hub, 1)
        assert payloads(take(subscription, 1)) == [1]


def test_a_slow_reader_is_refilled_all_the_same(make_hub: MakeHub) -> None:
    hub = make_hub(buffer_size=2, history=History(log_only=False))
    with hub.subscribe("orders", TENANT) as subscription:
        publish(hub, *range(100))
        eventually(lambda: hub.stats().received >= 100)
        assert payloads(take(subscription, 100)) == list(range(100))


# The cursor of a page's own transaction.


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_cursor_is_of_the_snapshot_that_the_page_has(url: str, hub: PostgresHub, isolation: str) -> None:
    hub.start()
    with psycopg.connect(url) as page:
        page.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
        page.execute("SELECT 1")
        publish(hub, "after the snapshot")
        have_all(url, hub)
        cursor = hub.cursor(executor=page)
    assert cursor != hub.cursor()
    with hub.subscribe("orders", TENANT, after=cursor) as subscription:
        assert payloads(take(subscription, 1)) == ["after the snapshot"]


def test_a_cursor_is_read_through_whatever_publishes_without_a_listener(url: str, hub: PostgresHub) -> None:
    publish(hub, 1)
    with psycopg.connect(url) as connection, connection.cursor(row_factory=dict_row) as own:
        expected = str(connection.execute("SELECT max(number) FROM pgfanout.event").fetchall()[0][0])
        with connection.transaction() as block:
            assert [hub.cursor(executor=way) for way in (connection, own, block)] == [expected] * 3
    with ConnectionPool(url, min_size=1, max_size=1) as pool:
        assert hub.cursor(executor=pool) == hub.cursor(executor=pool) == expected
    assert not hub.listening


def test_without_history_there_is_no_cursor(fresh_database_url: str) -> None:
    with PostgresHub(fresh_database_url) as hub, psycopg.connect(fresh_database_url) as connection:
        assert hub.cursor() is None
        assert hub.cursor(executor=connection) is None


def test_without_the_schema_the_hub_says_what_to_do(fresh_database_url: str) -> None:
    with (
        PostgresHub(fresh_database_url, history=True) as hub,
        pytest.raises(HubConfigurationError, match="install_history"),
    ):
        hub.start()


def test_the_history_notifies_the_channel_that_it_was_installed_with(make_hub: MakeHub) -> None:
    hub = make_hub(postgres_channel="elsewhere")
    with pytest.raises(HubConfigurationError, match="elsewhere"):
        hub.start()


def test_a_closed_hub_ends_a_replay(make_hub: MakeHub) -> None:
    hub = make_hub(buffer_size=4)
    cursor = hub.cursor()
    publish(hub, *range(1000))
    subscription = hub.subscribe("orders", TENANT, after=cursor)
    assert payloads(take(subscription, 1)) == [0]
    hub.close()
    assert subscription.get_all(timeout=PATIENCE)[-1] is CLOSE_EVENT


@FORKS
def test_a_replay_works_on_both_sides_of_a_fork(hub: PostgresHub) -> None:
    cursor = hub.cursor()
    publish(hub, 1, 2)

    def replay() -> list[Any]:
        with hub.subscribe("orders", TENANT, after=cursor) as subscription:
            return payloads(take(subscription, 2))

    assert replay() == [1, 2]

    def child() -> Any:
        replayed = replay()
        hub.close()
        return replayed

    assert in_child(child) == [1, 2]
    assert replay() == [1, 2]
    assert hub.stats().reconnects == 0


def test_the_extension_uses_the_settings_and_gives_templates_a_cursor(url: str) -> None:
    app = flask.Flask(__name__)
    app.config.update(PGFANOUT_URL=url, PGFANOUT_HISTORY="yes", PGFANOUT_HISTORY_MAX_REPLAY="7")
    app.config["PGFANOUT_HISTORY_LOG_ONLY"] = "no"
    fanout = PgFanout(app)
    with fanout.hub as hub, app.test_request_context():
        assert isinstance(hub, PostgresHub)
        assert hub._history == History(max_replay=7, log_only=False)
        publish(hub, 1)
        with hub.subscribe("orders", TENANT):
            rendered = flask.render_template_string("{{ pgfanout_cursor() }}")
        assert rendered == str(hub.cursor())


def test_a_page_gets_no_cursor_where_there_is_none(fresh_database_url: str) -> None:
    app = flask.Flask(__name__)
    app.config["PGFANOUT_URL"] = fresh_database_url
    fanout = PgFanout(app)
    with fanout.hub, app.test_request_context():
        assert flask.render_template_string("[{{ pgfanout_cursor() }}]") == "[]"


def test_a_page_is_rendered_while_the_database_is_away(postgres_of_our_own: PostgresServer) -> None:
    app = flask.Flask(__name__)
    app.config.update(PGFANOUT_URL=postgres_of_our_own.url(), PGFANOUT_HISTORY=True, PGFANOUT_START_TIMEOUT=0.2)
    postgres_of_our_own.stop()
    fanout = PgFanout(app)
    with fanout.hub, app.test_request_context():
        assert flask.render_template_string("[{{ pgfanout_cursor() }}]") == "[]"


def test_the_history_prunes_itself(url: str, make_hub: MakeHub) -> None:
    hub = make_hub(history=History(max_rows=100, prune_every=0.05))
    with psycopg.connect(url) as connection:
        Schema(max_rows=100).install(connection, repair=True)
    publish(hub, *range(2000))
    hub.start()
    eventually(lambda: hub.stats().log_size == 100 and hub.stats().pruned == 1900)
    stats = hub.stats()
    assert int(stats.oldest_cursor) > 0
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pgfanout.event").fetchall() == [(100,)]


def test_many_processes_have_two_sessions_each(url: str, make_hub: MakeHub) -> None:
    hub = make_hub()
    cursor = hub.cursor()
    publish(hub, *range(100))
    subscriptions = [hub.subscribe("orders", TENANT, after=cursor) for _ in range(50)]
    for subscription in subscriptions:
        assert payloads(take(subscription, 100)) == list(range(100))
    assert cut(url, "pgfanout-history") == 1
    with hub.subscribe("orders", TENANT, after=cursor) as subscription:  # with a new session
        assert payloads(take(subscription, 100)) == list(range(100))


def test_a_hub_whose_log_notifies_another_channel_does_not_seem_healthy(url: str, make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=0.1)
    with hub.subscribe("orders", TENANT) as subscription:
        with psycopg.connect(url) as connection:
            Schema(postgres_channel="elsewhere").install(connection, repair=True)
        eventually(lambda: not hub.listening)
        assert "--postgres-channel pgfanout_events" in hub.stats().last_error
        publish(hub, "meanwhile")
        with psycopg.connect(url) as connection:
            Schema(postgres_channel="pgfanout_events").install(connection, repair=True)
        assert payloads(take(subscription, 1)) == ["meanwhile"]
        eventually(lambda: hub.listening)


def test_a_role_that_may_not_read_the_log_is_told_what_to_run(postgres: PostgresServer, url: str) -> None:
    role = random_name("stranger")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            stranger = url.replace("postgres:", f"{role}:", 1).replace("//postgres@", f"//{role}@", 1)
            with PostgresHub(stranger, history=True) as hub, pytest.raises(HubConfigurationError) as caught:
                hub.start()
        finally:
            connection.execute(f"DROP ROLE {role}".encode())
    assert "sql install --reader ROLE --publisher ROLE --apply" in str(caught.value)
