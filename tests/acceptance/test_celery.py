"""Tasks of a real Celery worker that are ended in the middle of a publish cost no later publish anything."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgfanout import PostgresHub
from tests.support import redis_server
from tests.support.need import need
from tests.support.processes import kill_tree, session, spawn
from tests.support.redis_server import RedisServer

TASKS = int(os.environ.get("PGFANOUT_TEST_SOFT_LIMITS", "40"))
REPOSITORY = Path(__file__).parents[2]
TENANT = "11111111-1111-4111-8111-111111111111"
LONG = 60.0


@pytest.fixture
def environment(fresh_database_url: str) -> Iterator[dict[str, str]]:
    """What the application needs, with a broker that runs."""
    need(not redis_server.missing_reason(), redis_server.missing_reason())
    for module in ("celery", "redis"):
        need(importlib.util.find_spec(module), f"{module} is not installed")
    with RedisServer() as redis:
        yield {**os.environ, "DATABASE_URL": fresh_database_url, "BROKER_URL": redis.url, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def worker_log(environment: dict[str, str]) -> Iterator[Path]:
    """The log of a prefork worker of two processes."""
    path = session.directory("celery") / "log"
    app = "tests.acceptance.apps.soft_limits"
    options = ["--pool", "prefork", "--concurrency", "2", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
    with open(path, "wb") as log:
        command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", app, "worker", *options]
        worker = spawn(command, log=log, env=environment, cwd=REPOSITORY)
    yield path
    kill_tree(worker)


def send(environment: dict[str, str], tasks: int) -> None:
    code = (
        "from tests.acceptance.apps.soft_limits import publish_for_too_long as task\n"
        f"for number in range({tasks}):\n"
        "    task.apply_async((number,), soft_time_limit=0.1 + number % 10 * 0.003)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=REPOSITORY, check=True, timeout=100)


@pytest.mark.timeout(120 + TASKS)
def test_a_task_that_its_soft_time_limit_ends_inside_a_publish_costs_no_later_publish(
    fresh_database_url: str, environment: dict[str, str], worker_log: Path
) -> None:
    with PostgresHub(fresh_database_url, buffer_size=1000) as hub:
        reports = hub.subscribe("reports", TENANT)
        send(environment, TASKS)
        arrived: list[Any] = [reports.get(LONG).json() for _ in range(TASKS)]
    assert sorted(arrived) == list(range(TASKS))
    assert "Error" not in worker_log.read_text()
