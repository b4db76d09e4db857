"""The listener's patience: how long it waits for what, with the defaults."""

from __future__ import annotations

import inspect
import uuid

import pytest

from pgfanout import PostgresHub
from pgfanout.backends.postgres.watchdog import Watchdog
from tests.support.postgres import MakeServer, PostgresServer

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0


def test_pauses_between_attempts_grow_from_a_tenth_of_a_second_and_stay_short_enough_to_heal_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = PostgresHub("postgresql://127.0.0.1:1/nowhere")
    pauses: list[float] = []

    def record(watchdog: Watchdog, seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) == 20:
            hub.close(0)
        return watchdog.stopped

    monkeypatch.setattr(Watchdog, "wait_stopped", record)
    hub.run()
    assert 0.05 <= pauses[0] <= 0.1
    assert pauses[0] < pauses[2] < pauses[4]
    assert max(pauses) < 2.0
    assert len(set(pauses)) == len(pauses), "without jitter all workers would come back at once"


def test_a_dead_connection_is_found_within_10_seconds_by_default() -> None:
    defaults = {name: each.default for name, each in inspect.signature(PostgresHub).parameters.items()}
    assert defaults["heartbeat"] + defaults["heartbeat_timeout"] <= 10


def test_of_several_hosts_the_one_that_accepts_writes_is_taken(
    postgres: PostgresServer, make_server: MakeServer
) -> None:
    with make_server(settings={"default_transaction_read_only": "on"}) as other:
        url = f"host=127.0.0.1,127.0.0.1 port={other.port},{postgres.port} user=postgres password=x dbname=postgres"
        with PostgresHub(url) as hub:
            subscription = hub.subscribe("orders", TENANT)
            with postgres.connect() as connection:
                hub.publish("orders", TENANT, 1, executor=connection)
            assert subscription.get(LONG).json() == 1
