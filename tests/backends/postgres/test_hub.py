"""PostgresHub against a real server: starting, refusing to start, healing, stopping."""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import psycopg.sql
import pytest

from pgfanout import (
    CLOSE_EVENT,
    REFRESH_EVENT,
    HubConfigurationError,
    HubTimeoutError,
    InvalidEventError,
    PostgresHub,
)
from pgfanout.hub import core_of
from pgfanout.streams import StreamEndpoint
from tests.support.postgres import MakeServer, PostgresServer
from tests.support.wait import eventually

# Private members: the listener's connection is told from others.

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0


@pytest.fixture
def hub(fresh_database_url: str) -> Iterator[PostgresHub]:
    with PostgresHub(fresh_database_url) as hub:
        yield hub


@pytest.fixture
def connection(fresh_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        yield connection


def sessions(connection: psycopg.Connection, name: str) -> list[int]:
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()",
        (name,),
    )
    return [pid for (pid,) in rows]


def nobody_is(connection: psycopg.Connection, name: str) -> bool:
    return not sessions(connection, name)


def end_listener(connection: psycopg.Connection) -> None:
    for pid in sessions(connection, "pgfanout-listener"):
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


def test_making_a_hub_connects_to_nothing() -> None:
    PostgresHub("postgresql://nobody:secret@127.0.0.1:1/nothing")


def test_many_subscriptions_share_one_listening_session(hub: PostgresHub, connection: psycopg.Connection) -> None:
    for _ in range(40):
        hub.subscribe("orders", TENANT)
    assert len(sessions(connection, "pgfanout-listener")) == 1
    assert sessions(connection, "pgfanout-probe") == []


def test_nobody_but_the_listeners_thread_asks_for_the_descriptor_of_its_connection(
    hub: PostgresHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libpq may be freeing what has it at that moment."""
    asked: set[str] = set()
    fileno = psycopg.Connection.fileno

    def watched(connection: psycopg.Connection) -> int:
        if any(connection is vars(attempt.listener)["_connection"] for attempt in core_of(hub).lifecycle._running):
            asked.add(threading.current_thread().name)
        return fileno(connection)

    monkeypatch.setattr(psycopg.Connection, "fileno", watched)
    endpoint = StreamEndpoint(hub)
    for number in range(3):
        endpoint.answer({"REQUEST_METHOD": "GET"}, "orders", TENANT)
        subscription = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, number)
        assert subscription.get(LONG).json() == number
        hub.stats()
        hub.cursor()
    assert asked == {"pgfanout-listener"}


def test_a_lost_session_is_a_gap_and_heals(hub: PostgresHub, connection: psycopg.Connection) -> None:
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, 1)
    assert subscription.get(LONG).json() == 1
    end_listener(connection)
    assert subscription.get(LONG) is REFRESH_EVENT
    hub.publish("orders", TENANT, 2)
    assert subscription.get(LONG).json() == 2
    stats = hub.stats()
    assert (stats.listening, stats.reconnects, stats.gaps) == (True, 1, 1)
    assert "administrator command" in stats.last_error


def test_the_log_says_why_the_session_ended_and_that_it_healed(
    hub: PostgresHub, connection: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = hub.subscribe("orders", TENANT)
    with caplog.at_level(logging.WARNING, "pgfanout"):
        end_listener(connection)
        assert subscription.get(LONG) is REFRESH_EVENT
        # The refresh is told first, then the log has it.
        eventually(lambda: len(caplog.records) == 2)
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "not listening",
        "listening again; every subscription was told to refresh",
    ]
    assert "terminating connection due to administrator command" in caplog.text


def test_a_restarted_server_is_found_again(postgres_of_our_own: PostgresServer) -> None:
    with PostgresHub(postgres_of_our_own.url()) as hub:
        subscription = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, 1)
        assert subscription.get(LONG).json() == 1
        postgres_of_our_own.kill()
        eventually(lambda: not hub.listening)
        postgres_of_our_own.start()
        assert subscription.get(LONG) is REFRESH_EVENT
        # The publisher's idle session died as well, and nobody has to care.
        hub.publish("orders", TENANT, 2)
        assert subscription.get(LONG).json() == 2


def test_a_frozen_server_process_is_found_by_the_heartbeat(
    fresh_database_url: str, connection: psycopg.Connection, freeze: Callable[..., object]
) -> None:
    with PostgresHub(fresh_database_url, heartbeat=0.2, heartbeat_timeout=0.5) as hub:
        subscription = hub.subscribe("orders", TENANT)
        freeze(*sessions(connection, "pgfanout-listener"))
        assert subscription.get(LONG) is REFRESH_EVENT
        hub.publish("orders", TENANT, 1)
        assert subscription.get(LONG).json() == 1


def test_heartbeats_keep_a_quiet_session_and_tell_nobody(
    fresh_database_url: str, connection: psycopg.Connection
) -> None:
    with PostgresHub(fresh_database_url, heartbeat=0.02) as hub:
        subscription = hub.subscribe("orders", TENANT)
        (pid,) = sessions(connection, "pgfanout-listener")
        seen = "SELECT query FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%pulse%%'"
        eventually(lambda: connection.execute(seen, (pid,)).fetchone())
        hub.publish("orders", TENANT, 1)
        assert subscription.get(LONG).json() == 1
        assert sessions(connection, "pgfanout-listener") == [pid]
        assert hub.stats().received == 1


def test_foreign_and_malformed_notifications_are_gaps_and_the_listener_goes_on(
    hub: PostgresHub, connection: psycopg.Connection
) -> None:
    subscription = hub.subscribe("orders", TENANT)
    malformed = ["hello", "[1]", "{}", "[" * 3000, '{"channel": "orders", "payload": 1}']
    for text in malformed:
        connection.execute("SELECT pg_notify('pgfanout_events', %s)", (text,))
        assert subscription.get(LONG) is REFRESH_EVENT
    hub.publish("orders", TENANT, "good")
    assert subscription.get(LONG).json() == "good"
    assert hub.stats().undecodable == len(malformed)


def test_an_envelope_of_another_writer_is_an_event(hub: PostgresHub, connection: psycopg.Connection) -> None:
    subscription = hub.subscribe("orders", TENANT)
    text = f'{{"tenant_id": "{TENANT}", "channel": "orders", "new": [], "payload": {{"a": 1}}}}'
    connection.execute("SELECT pg_notify('pgfanout_events', %s)", (text,))
    event = subscription.get(LONG)
    assert (event.payload, event.type, event.id) == (b'{"a": 1}', "", "")


def test_hubs_with_different_postgres_channels_do_not_hear_each_other(
    fresh_database_url: str,
) -> None:
    odd = 'a "quoted" Channel; --'
    with (
        PostgresHub(fresh_database_url, postgres_channel=odd) as one,
        PostgresHub(fresh_database_url) as other,
    ):
        here, there = one.subscribe("orders", TENANT), other.subscribe("orders", TENANT)
        one.publish("orders", TENANT, "one")
        other.publish("orders", TENANT, "other")
        assert here.get(LONG).json() == "one"
        assert there.get(LONG).json() == "other"


def test_an_impossible_postgres_channel_is_refused(fresh_database_url: str) -> None:
    with pytest.raises(InvalidEventError, match="63"):
        PostgresHub(fresh_database_url, postgres_channel="c" * 64)


def test_closing_ends_subscriptions_sessions_and_threads(hub: PostgresHub, connection: psycopg.Connection) -> None:
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, 1)
    assert subscription.get(LONG).json() == 1
    hub.close()
    assert subscription.get(LONG) is CLOSE_EVENT
    assert not [t for t in threading.enumerate() if t.name.startswith("pgfanout")]
    for name in ("pgfanout-listener", "pgfanout-publisher"):
        eventually(partial(nobody_is, connection, name))


def test_run_listens_in_the_calling_thread_until_close(fresh_database_url: str) -> None:
    hub = PostgresHub(fresh_database_url)
    thread = threading.Thread(target=hub.run)
    thread.start()
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, 1)
    assert subscription.get(LONG).json() == 1
    hub.close()
    thread.join(LONG)
    assert not thread.is_alive()


class TestRefusal:
    """What `start` says when it can't, and that the password is not in it."""

    def refused(self, url: str, kind: type[Exception] = HubConfigurationError) -> str:
        hub = PostgresHub(url)
        with pytest.raises(kind) as caught:
            hub.start(timeout=LONG if kind is HubConfigurationError else 0.5)
        hub.close()
        return str(caught.value)

    def test_no_such_database(self, postgres: PostgresServer) -> None:
        assert 'database "nowhere" does not exist' in self.refused(postgres.url(database="nowhere"))

    def test_no_such_role(self, postgres: PostgresServer) -> None:
        assert 'role "nobody" does not exist' in self.refused(postgres.url(user="nobody"))

    def test_nobody_there(self) -> None:
        url = "postgresql://user:open-sesame@127.0.0.1:1/shop"
        message = self.refused(url, HubTimeoutError)
        assert "Connection refused" in message
        assert "open-sesame" not in message

    def test_wrong_password(self, make_server: MakeServer) -> None:
        hba = ["host all guarded 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"]
        with make_server(hba=hba) as server:
            with server.connect() as connection:
                connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
            message = self.refused(server.url(user="guarded", password="open-sesame"))
        assert "password authentication failed" in message
        assert "open-sesame" not in message

    def test_an_sql_ascii_database(self, postgres: PostgresServer) -> None:
        with postgres.connect() as connection:
            connection.execute(
                "CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        try:
            assert "SQL_ASCII" in self.refused(postgres.url(database="bytes"))
        finally:
            with postgres.connect() as connection:
                connection.execute("DROP DATABASE bytes WITH (FORCE)")

    def test_no_connection_string(self) -> None:
        with pytest.raises(HubConfigurationError) as caught:
            PostgresHub("open-sesame")
        assert "open-sesame" not in str(caught.value)
        assert caught.value.__context__ is None


def test_a_start_that_timed_out_can_be_tried_again(postgres_of_our_own: PostgresServer) -> None:
    postgres_of_our_own.stop("fast")
    with PostgresHub(postgres_of_our_own.url()) as hub:
        with pytest.raises(HubTimeoutError):
            hub.start(timeout=0.2)
        postgres_of_our_own.start()
        hub.start(timeout=LONG)
        assert hub.listening


def test_a_burst_beyond_the_buffer_leaves_a_refresh_and_what_came_after(hub: PostgresHub) -> None:
    subscription = hub.subscribe("orders", TENANT)
    hub.publish_many([("orders", TENANT, n) for n in range(100)])
    eventually(lambda: hub.stats().received == 100)
    first, *rest = subscription.get_all(LONG)
    assert first is REFRESH_EVENT
    assert [event.json() for event in rest] == list(range(100 - len(rest), 100))
    with pytest.raises(queue.Empty):
        subscription.get(0)


@pytest.mark.parametrize("name", ["heartbeat", "heartbeat_timeout", "max_reconnect_delay"])
@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), 1e10])
def test_a_time_that_no_lock_can_wait_for_is_refused_at_once(name: str, seconds: float) -> None:
    times: dict[str, Any] = {name: seconds}
    with pytest.raises(ValueError, match=name):
        PostgresHub("dbname=any", **times)


@pytest.mark.parametrize("conninfo", [None, b"dbname=any", "any"])
def test_what_is_no_connection_string_is_refused_with_the_form_of_one(conninfo: Any) -> None:
    with pytest.raises(HubConfigurationError, match="has to look like"):
        PostgresHub(conninfo)
