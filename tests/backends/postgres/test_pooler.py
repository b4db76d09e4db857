"""A hub behind PgBouncer: refused in transaction mode, at work in session mode."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from pgfanout import HubConfigurationError, HubTimeoutError, PostgresHub
from tests.support import pgbouncer
from tests.support.need import need
from tests.support.pgbouncer import PgBouncer

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0


@pytest.fixture(autouse=True)
def _pgbouncer() -> None:
    need(not pgbouncer.missing_reason(), pgbouncer.missing_reason())


def test_transaction_mode_is_refused_with_the_reason(fresh_database_url: str) -> None:
    with PgBouncer(fresh_database_url, "transaction") as pooler:
        hub = PostgresHub(pooler.url)
        with pytest.raises(HubConfigurationError, match="pooler in transaction mode"):
            hub.start(timeout=LONG)
        hub.close()


def test_session_mode_delivers(fresh_database_url: str) -> None:
    with (
        PgBouncer(fresh_database_url, "session") as pooler,
        PostgresHub(pooler.url) as hub,
    ):
        subscription = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, 1)
        assert subscription.get(LONG).json() == 1


def test_a_pool_of_one_connection_is_named_for_what_it_is(
    fresh_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        PgBouncer(fresh_database_url, "session", "default_pool_size = 1") as pooler,
        PostgresHub(pooler.url, heartbeat_timeout=1.0) as hub,
    ):
        with pytest.raises(HubTimeoutError, match=r"a second one got no answer.*make the pool larger"):
            hub.start(timeout=4.0)
        assert hub.stats().dead_connections == 0
    assert "make the pool larger" in caplog.text


def test_a_publish_leaves_no_setting_to_the_next_user_of_a_pooled_session(fresh_database_url: str) -> None:
    with (
        PgBouncer(fresh_database_url, "transaction", "default_pool_size = 1") as pooler,
        PostgresHub(pooler.url) as publisher,
        psycopg.connect(pooler.url, autocommit=True, prepare_threshold=None) as neighbour,
    ):
        query = "SELECT pg_backend_pid(), current_setting('lock_timeout'), current_setting('search_path')"
        before = neighbour.execute(query).fetchone()
        publisher.publish("orders", TENANT, 1)
        assert neighbour.execute(query).fetchone() == before


def test_a_hub_may_publish_through_transaction_mode(fresh_database_url: str) -> None:
    with (
        PgBouncer(fresh_database_url, "transaction") as pooler,
        PostgresHub(fresh_database_url) as listener,
        PostgresHub(pooler.url) as publisher,
    ):
        subscription = listener.subscribe("orders", TENANT)
        for number in range(20):
            publisher.publish("orders", TENANT, number)
            assert subscription.get(LONG).json() == number
