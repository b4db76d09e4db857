"""A hub behind PgBouncer: refused in transaction mode, at work in session mode."""

from __future__ import annotations

import uuid

import pytest

from pgfanout import HubConfigurationError, PostgresHub

from .support import pgbouncer
from .support.need import need
from .support.pgbouncer import PgBouncer

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
