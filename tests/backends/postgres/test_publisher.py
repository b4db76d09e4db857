"""What a publish can go through, and when its events arrive."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from pgfanout import (
    HubClosedError,
    InvalidEventError,
    PayloadTooLargeError,
    PostgresHub,
    Subscription,
)
from tests.support.need import need
from tests.support.processes import REPOSITORY

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0


@pytest.fixture
def hub(fresh_database_url: str) -> Iterator[PostgresHub]:
    with PostgresHub(fresh_database_url) as hub:
        yield hub


@pytest.fixture
def subscription(hub: PostgresHub) -> Subscription:
    return hub.subscribe("orders", TENANT)


@pytest.fixture
def connection(fresh_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(fresh_database_url) as connection:
        yield connection


def nothing_but(hub: PostgresHub, subscription: Subscription, *payloads: Any) -> None:
    """Everything that was sent before has arrived, and it is this."""
    hub.publish("orders", TENANT, "last")
    arrived = []
    while (payload := subscription.get(LONG).json()) != "last":
        arrived.append(payload)
    assert arrived == list(payloads)


def test_a_connection_delivers_at_commit(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    hub.publish("orders", TENANT, 1, executor=connection)
    nothing_but(hub, subscription)
    connection.commit()
    nothing_but(hub, subscription, 1)


def test_a_rollback_delivers_nothing(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    hub.publish("orders", TENANT, 1, executor=connection)
    connection.rollback()
    nothing_but(hub, subscription)


def test_a_savepoint_that_is_rolled_back_takes_its_events_with_it(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    with connection.transaction():
        hub.publish("orders", TENANT, 1, executor=connection)
        with connection.transaction(force_rollback=True) as block:
            hub.publish("orders", TENANT, 2, executor=block)
        hub.publish("orders", TENANT, 3, executor=connection)
    nothing_but(hub, subscription, 1, 3)


def test_a_cursor_is_an_executor(hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection) -> None:
    with connection.cursor() as cursor:
        hub.publish("orders", TENANT, 1, executor=cursor)
    connection.commit()
    nothing_but(hub, subscription, 1)


def test_a_client_side_cursor_is_an_executor(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    with psycopg.ClientCursor(connection) as cursor:
        hub.publish("orders", TENANT, "naïve \\ 'quoted'", executor=cursor)
    connection.commit()
    nothing_but(hub, subscription, "naïve \\ 'quoted'")


def test_a_pool_is_an_executor(hub: PostgresHub, subscription: Subscription, fresh_database_url: str) -> None:
    with ConnectionPool(fresh_database_url, min_size=1, max_size=1, open=True) as pool:
        hub.publish("orders", TENANT, 1, executor=pool)
        hub.publish("orders", TENANT, 2, executor=pool)
    nothing_but(hub, subscription, 1, 2)


def test_a_pipeline_is_no_obstacle(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    with connection.pipeline():
        hub.publish("orders", TENANT, 1, executor=connection)
        hub.publish("orders", TENANT, 2, executor=connection)
    connection.commit()
    nothing_but(hub, subscription, 1, 2)


def test_the_hubs_executor_is_used_when_none_is_named(
    fresh_database_url: str,
    subscription: Subscription,
    hub: PostgresHub,
    connection: psycopg.Connection,
) -> None:
    with PostgresHub(fresh_database_url, connection) as publisher:
        publisher.publish("orders", TENANT, 1)
        nothing_but(hub, subscription)
        connection.commit()
        nothing_but(hub, subscription, 1)


def test_a_client_encoding_without_the_characters_is_no_obstacle(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    connection.execute("SET client_encoding = 'LATIN1'")
    hub.publish("orders", TENANT, "żółć 日本 🎉", executor=connection)
    connection.commit()
    nothing_but(hub, subscription, "żółć 日本 🎉")


def test_two_identical_publishes_of_one_transaction_are_two_events(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    hub.publish("orders", TENANT, 1, executor=connection)
    hub.publish("orders", TENANT, 1, executor=connection)
    connection.commit()
    nothing_but(hub, subscription, 1, 1)


def test_a_batch_keeps_its_order_and_goes_to_its_topics(hub: PostgresHub, subscription: Subscription) -> None:
    other = uuid.uuid4()
    elsewhere = hub.subscribe("orders", other)
    hub.publish_many([("orders", TENANT, 1), ("orders", other, 2), ("orders", TENANT, 3, "order.created")])
    nothing_but(hub, subscription, 1, 3)
    assert elsewhere.get(LONG).json() == 2


def test_a_batch_with_one_bad_event_sends_nothing(hub: PostgresHub, subscription: Subscription) -> None:
    with pytest.raises(InvalidEventError):
        hub.publish_many([("orders", TENANT, 1), ("", TENANT, 2)])
    nothing_but(hub, subscription)


def test_an_empty_batch_sends_nothing(hub: PostgresHub, subscription: Subscription) -> None:
    hub.publish_many([])
    nothing_but(hub, subscription)


def test_the_largest_payload_passes_and_one_byte_more_is_refused(hub: PostgresHub, subscription: Subscription) -> None:
    with pytest.raises(PayloadTooLargeError) as caught:
        hub.publish("orders", TENANT, "é" * 8000)
    assert caught.value.limit == 7999
    spare = caught.value.limit - (caught.value.size - 2 * 8000)
    largest = "é" * (spare // 2) + "e" * (spare % 2)
    hub.publish("orders", TENANT, largest)
    assert subscription.get(LONG).json() == largest
    with pytest.raises(PayloadTooLargeError) as caught:
        hub.publish("orders", TENANT, largest + "e")
    assert caught.value.size == 8000
    nothing_but(hub, subscription)


def test_something_that_can_not_execute_is_refused(hub: PostgresHub) -> None:
    with pytest.raises(TypeError, match="not int"):
        hub.publish("orders", TENANT, 1, executor=42)  # type: ignore[arg-type]


def test_an_asynchronous_connection_is_refused(hub: PostgresHub, fresh_database_url: str) -> None:
    async def attempt() -> None:
        async with await psycopg.AsyncConnection.connect(fresh_database_url) as connection:
            with pytest.raises(TypeError, match="synchronous"):
                hub.publish("orders", TENANT, 1, executor=connection)  # type: ignore[arg-type]

    # In a thread of its own: the browser tests' driver has a loop running in this one.
    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, attempt()).result(LONG)


def test_publishing_needs_no_listener(fresh_database_url: str) -> None:
    with PostgresHub(fresh_database_url) as listener, PostgresHub(fresh_database_url) as publisher:
        subscription = listener.subscribe("orders", TENANT)
        publisher.publish("orders", TENANT, 1)
        assert subscription.get(LONG).json() == 1
        assert not publisher.listening


def test_threads_share_the_hubs_own_connection(hub: PostgresHub, fresh_database_url: str) -> None:
    with PostgresHub(fresh_database_url, buffer_size=200) as reader:
        subscription = reader.subscribe("orders", TENANT)

        def publish(thread: int) -> None:
            for n in range(20):
                hub.publish("orders", TENANT, [thread, n])

        threads = [threading.Thread(target=publish, args=(t,)) for t in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arrived = [subscription.get(LONG).json() for _ in range(160)]
    for number in range(8):
        assert [n for t, n in arrived if t == number] == list(range(20))


def test_the_own_connection_is_one_session_that_is_opened_anew_when_it_was_ended(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    connection.autocommit = True
    hub.publish("orders", TENANT, 1)
    end = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE application_name = 'pgfanout-publisher' AND datname = current_database()"
    )
    assert connection.execute(end).fetchall() == [(True,)]
    hub.publish("orders", TENANT, 2)
    nothing_but(hub, subscription, 1, 2)


def test_a_closed_hub_publishes_nothing(fresh_database_url: str) -> None:
    hub = PostgresHub(fresh_database_url)
    hub.close()
    with pytest.raises(HubClosedError):
        hub.publish("orders", TENANT, 1)


def test_a_connection_without_standard_conforming_strings_is_an_executor(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    connection.execute("SET standard_conforming_strings = off")
    hub.publish("orders", TENANT, "\\ and 'quotes'", executor=connection)
    connection.commit()
    nothing_but(hub, subscription, "\\ and 'quotes'")


def in_a_process(module: str, *arguments: str) -> str:
    """What a module of the tests' support prints; it has no error."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"tests.support.{module}", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_publish_at_once_and_a_time_out_in_one_costs_the_others_nothing(
    library: str, hub: PostgresHub, fresh_database_url: str
) -> None:
    need(importlib.util.find_spec(library), f"{library} is not installed")
    with PostgresHub(fresh_database_url, buffer_size=1000) as reader:
        subscription = reader.subscribe("orders", TENANT)
        assert in_a_process("greenlets", library, fresh_database_url) == "True\n"
        arrived: list[Any] = []
        while not arrived or arrived[-1] != "last":
            arrived.append(subscription.get(LONG).json())
    assert sorted(arrived[:-1]) == list(range(80))


def test_statements_are_executed_past_a_tracer_that_comments_them(fresh_database_url: str) -> None:
    need(importlib.util.find_spec("opentelemetry"), "OpenTelemetry is not installed")
    need(importlib.util.find_spec("opentelemetry.instrumentation"), "OpenTelemetry's instrumentation is not installed")
    heard = "own connection cursor many"
    assert in_a_process("traced", fresh_database_url) == f"{heard}\n{heard} {heard}\n"
