"""A hub that was made, or started, before a fork works on both sides of it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from typing import Any

import psycopg
import pytest

from pgfanout import PostgresHub
from tests.support.child import FORKS, in_child
from tests.support.processes import REPOSITORY
from tests.support.wait import eventually

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0

pytestmark = FORKS


def listener_pids(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgfanout-listener'"
            " AND datname = current_database()"
        )
        return [pid for (pid,) in rows]


def test_a_started_hub_listens_anew_in_the_child_and_goes_on_in_the_parent(
    fresh_database_url: str,
) -> None:
    with PostgresHub(fresh_database_url) as hub:
        mine = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, "before")
        assert mine.get(LONG).json() == "before"
        parents = listener_pids(fresh_database_url)

        def child() -> Any:
            with hub.subscribe("orders", TENANT) as subscription:
                hub.publish("orders", TENANT, "child")
                heard = subscription.get(LONG).json()
            counted = hub.stats().received
            pids = listener_pids(fresh_database_url)
            hub.close()
            return [heard, counted, len(pids)]

        assert in_child(child) == ["child", 1, 2]
        assert mine.get(LONG).json() == "child"
        hub.publish("orders", TENANT, "after")
        assert mine.get(LONG).json() == "after"
        eventually(lambda: listener_pids(fresh_database_url) == parents)
        assert hub.stats().reconnects == 0


def test_a_child_that_forgets_the_hub_leaves_the_parents_sessions_alone(
    fresh_database_url: str,
) -> None:
    with PostgresHub(fresh_database_url) as hub:
        mine = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, 1)
        assert mine.get(LONG).json() == 1

        def child() -> Any:
            hub.close()
            return hub.closed

        assert in_child(child) is True
        hub.publish("orders", TENANT, 2)
        assert mine.get(LONG).json() == 2
        assert hub.stats().reconnects == 0


def test_a_child_holds_no_socket_of_the_parents_sessions(fresh_database_url: str) -> None:
    """Else the server would take a parent that was killed for alive."""
    with PostgresHub(fresh_database_url) as hub:
        hub.start()
        hub.publish("orders", TENANT, 1)

        def sockets() -> list[str]:
            names = []
            for number in os.listdir("/proc/self/fd"):
                try:
                    names.append(os.readlink(f"/proc/self/fd/{number}"))
                except FileNotFoundError:
                    pass
            return sorted(name for name in names if name.startswith("socket"))

        before = set(sockets())
        left = set(in_child(sockets))
    # The listener's, which the watchdog has a duplicate of, and the publisher's.
    assert len(before - left) == 2


@pytest.mark.parametrize("kind", ["memory", "postgres"])
def test_a_fork_in_the_middle_of_publishing_leaves_no_lock_behind(kind: str, fresh_database_url: str) -> None:
    # A process of its own, without a tracer: one that measures coverage has a lock that a fork can leave locked.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.forking", kind, fresh_database_url],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.stdout, done.stderr) == ("heard " * 5 + "still alive\n", "")
