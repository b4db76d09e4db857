"""The jobs of docs/jobs.md in the workers of real libraries."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from pgfanout import REFRESH_EVENT, PostgresHub, Subscription
from tests.support import redis_server
from tests.support.need import need
from tests.support.processes import REPOSITORY, kill_tree, session, spawn
from tests.support.redis_server import RedisServer

from .apps.names import block

DOCUMENT = "docs/jobs.md"
TENANT = 1
JOBS = [f"job {number}" for number in range(4)]
STEPS = 3
LONG = 60.0


class Library(NamedTuple):
    """A library of jobs: how its worker is started, and a program that gives it the jobs of the command line."""

    module: str
    worker: Sequence[str]
    enqueue: str


CELERY = ["-m", "celery", "-A", "tasks_celery", "worker", "--concurrency", "2", "--loglevel", "WARNING"]
CELERY += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
CELERY_JOBS = "for job in sys.argv[1:]: export.delay(job, 3)"
HUEY = ["-m", "huey.bin.huey_consumer", "tasks_huey.huey", "--workers", "2", "--quiet"]
HUEY_JOBS = "for job in sys.argv[1:]: export(job, 3)"
RQ = ["-m", "rq.cli", "worker", "--url", "{broker}", "--quiet"]
RQ_QUEUE = "import os, redis, rq; queue = rq.Queue(connection=redis.Redis.from_url(os.environ['BROKER_URL']))\n"
RQ_JOBS = RQ_QUEUE + "for job in sys.argv[1:]: queue.enqueue(export, job, 3)"
DRAMATIQ = ["-m", "dramatiq", "tasks_dramatiq", "--processes", "2", "--threads", "2"]
DRAMATIQ_JOBS = "for job in sys.argv[1:]: export.send(job, 3)"

LIBRARIES = {
    "celery prefork": Library("celery", [*CELERY, "--pool", "prefork"], CELERY_JOBS),
    "celery threads": Library("celery", [*CELERY, "--pool", "threads"], CELERY_JOBS),
    "rq": Library("rq", RQ, RQ_JOBS),
    "huey threads": Library("huey", HUEY, HUEY_JOBS),
    "huey processes": Library("huey", [*HUEY, "--worker-type", "process"], HUEY_JOBS),
    "dramatiq": Library("dramatiq", DRAMATIQ, DRAMATIQ_JOBS),
    "apscheduler": Library("apscheduler", ["tasks_apscheduler.py", *JOBS], ""),
}


@pytest.fixture(scope="module")
def broker() -> Iterator[RedisServer]:
    need(not redis_server.missing_reason(), redis_server.missing_reason())
    with RedisServer() as redis:
        yield redis


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the document."""
    for name in ("progress", "script", *(f"tasks_{name}" for name in TASKS)):
        (tmp_path / f"{name}.py").write_text(block(DOCUMENT, f"# {name}.py\n"))
    return tmp_path


TASKS = ("celery", "rq", "huey", "dramatiq", "apscheduler", "asyncio")


@pytest.fixture
def environment(fresh_database_url: str, folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder), *(part for part in sys.path if part), str(REPOSITORY)])
    return {**os.environ, "PGFANOUT_URL": fresh_database_url, "PYTHONPATH": path}


@pytest.fixture
def progress(fresh_database_url: str) -> Iterator[Subscription]:
    with PostgresHub(fresh_database_url, buffer_size=1000) as hub:
        yield hub.subscribe("progress", TENANT)


def reported(progress: Subscription, jobs: Sequence[str] = JOBS) -> dict[str, list[int]]:
    """The steps that each job has reported, when the last one of each has come."""
    steps: dict[str, list[int]] = defaultdict(list)
    while any(STEPS not in steps[job] for job in jobs):
        event = progress.get(LONG)
        assert event is not REFRESH_EVENT
        assert event.type == "progress"
        content = event.json()
        assert content["of"] == STEPS
        steps[content["job"]].append(content["done"])
    return steps


def sessions(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'pgfanout%' ORDER BY 1"
        ).fetchall()
    return [name for (name,) in rows]


Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[[Sequence[str]], None]


@pytest.fixture
def run(environment: dict[str, str], folder: Path) -> Run:
    """Runs a program of Python with arguments, and returns what has become of it."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=LONG)

    return run


@pytest.fixture
def start(environment: dict[str, str], folder: Path, broker: RedisServer) -> Iterator[Start]:
    """Starts a worker. At the end of the test it is killed, and its log shows no failure."""
    environment["BROKER_URL"] = broker.url
    log = session.directory("jobs") / "log"
    with ExitStack() as stack:

        def start(arguments: Sequence[str]) -> None:
            command = [sys.executable, *(part.format(broker=broker.url) for part in arguments)]
            with open(log, "wb") as output:
                stack.callback(kill_tree, spawn(command, log=output, env=environment, cwd=folder))

        yield start
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_worker_reports_progress_and_starts_no_listener(
    name: str, start: Start, run: Run, progress: Subscription, fresh_database_url: str
) -> None:
    library = LIBRARIES[name]
    need(importlib.util.find_spec(library.module), f"{library.module} is not installed")
    if library.enqueue:
        enqueue = f"import sys; from tasks_{library.module} import export\n{library.enqueue}"
        assert run("-c", enqueue, *JOBS).returncode == 0
    start(library.worker)
    steps = reported(progress)
    assert sorted(steps) == JOBS
    for each in steps.values():
        assert each == sorted(each)
        assert (each[0], each[-1]) == (1, STEPS)
    assert sessions(fresh_database_url).count("pgfanout-listener") == 1, "that of the test"


LIMITED_DRAMATIQ = """
import os
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import TimeLimit, TimeLimitExceeded
from progress import TENANT, hub, report

dramatiq.set_broker(RedisBroker(url=os.environ["BROKER_URL"], middleware=[TimeLimit(interval=20)]))

@dramatiq.actor(time_limit=100)
def limited(job):
    try:
        while True:
            hub.publish_many([("noise", TENANT, "x" * 500)] * 50)
    except TimeLimitExceeded:
        report(job, 3, 3)
"""
LIMITED_RQ = """
from rq.timeouts import JobTimeoutException
from progress import TENANT, hub, report

def limited(job):
    try:
        while True:
            hub.publish_many([("noise", TENANT, "x" * 500)] * 50)
    except JobTimeoutException:
        report(job, 3, 3)
"""
LIMITED_WORKER = ["-m", "dramatiq", "limited", "--processes", "1", "--threads", "2"]
LIMITED = {
    "dramatiq": (LIMITED_DRAMATIQ, LIMITED_WORKER, "for job in sys.argv[1:]: limited.send(job)"),
    "rq": (LIMITED_RQ, RQ, RQ_QUEUE + "for job in sys.argv[1:3]: queue.enqueue(limited, job, job_timeout=1)"),
}


@pytest.mark.parametrize("name", LIMITED)
def test_a_time_limit_that_ends_a_publish_costs_no_later_report(
    name: str, start: Start, run: Run, folder: Path, progress: Subscription
) -> None:
    need(importlib.util.find_spec(name), f"{name} is not installed")
    module, worker, enqueue = LIMITED[name]
    (folder / "limited.py").write_text(module)
    assert run("-c", f"import sys; from limited import limited\n{enqueue}", *JOBS).returncode == 0
    start(worker)
    reports = reported(progress, JOBS[:2])
    assert reports[JOBS[0]] == reports[JOBS[1]] == [STEPS]


def test_coroutines_report_progress(run: Run, progress: Subscription) -> None:
    done = run("-W", "error", "-X", "dev", "tasks_asyncio.py", *JOBS)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(each == [1, 2, STEPS] for each in reported(progress).values())


def test_a_script_reports_progress_and_leaves_no_warning(run: Run, progress: Subscription) -> None:
    done = run("-W", "error", "-X", "dev", "script.py", JOBS[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert reported(progress, JOBS[:1])[JOBS[0]] == [1, STEPS]


def test_progress_through_the_transaction_of_the_job_comes_at_its_end(
    progress: Subscription, fresh_database_url: str
) -> None:
    with PostgresHub(fresh_database_url) as hub, psycopg.connect(fresh_database_url) as connection:
        hub.publish("progress", TENANT, "in the transaction", executor=connection)
        hub.publish("progress", TENANT, "at once")
        assert progress.get(LONG).json() == "at once"
        connection.commit()
        assert progress.get(LONG).json() == "in the transaction"


def test_a_job_goes_on_while_the_database_is_away(run: Run, environment: dict[str, str]) -> None:
    environment["PGFANOUT_URL"] = "postgresql://127.0.0.1:1/nothing"
    done = run("-W", "error", "-X", "dev", "script.py", JOBS[0])
    assert (done.returncode, done.stderr) == (0, "")
