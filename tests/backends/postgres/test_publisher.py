"""What a publish can go through, and when its events arrive."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import queue
import signal
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
from pgfanout.backends.postgres import publisher
from pgfanout.backends.postgres.backend import PostgresBackend
from pgfanout.backends.postgres.publisher import Publisher
from pgfanout.hub import core_of
from tests.support.need import need
from tests.support.processes import REPOSITORY
from tests.support.wait import eventually

# Private members: which thread has its turn, and which connections are open, shows nowhere else.

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0


def publisher_of(hub: PostgresHub) -> Publisher:
    backend = core_of(hub).backend
    assert isinstance(backend, PostgresBackend)
    return backend.publisher


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


def test_closing_does_not_wait_for_a_publish_that_hangs(
    fresh_database_url: str,
    connection: psycopg.Connection,
    freeze: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = PostgresHub(fresh_database_url)
    hub.publish("orders", TENANT, 1)
    ((pid,),) = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgfanout-publisher'"
        " AND datname = current_database()"
    ).fetchall()
    thaw = freeze(pid)
    done: queue.Queue[BaseException | None] = queue.Queue()

    def publish() -> None:
        try:
            hub.publish("orders", TENANT, 2)
        except psycopg.Error as error:
            done.put(error)
        else:
            done.put(None)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    own = publisher_of(hub)
    eventually(lambda: own._owner == thread.ident)
    hub.close(timeout=0.1)
    assert "a publish did not end" in caplog.text
    thaw()
    assert done.get(timeout=LONG) is None
    thread.join(LONG)


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


class InterruptError(Exception):
    """What a signal handler raises, as Celery's does at a soft time limit."""


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what a finaliser swallows
def test_an_exception_raised_anywhere_inside_a_publish_leaves_the_next_one_its_connection(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection
) -> None:
    """At a new place each time: a signal arrives ever so little later."""
    interrupted = 0

    def interrupt(*_: Any) -> None:
        raise InterruptError

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(300):
            delay = 1e-5 + number % 100 * 2e-5
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    hub.publish("noise", TENANT, number)
                    # Again and a little later, where the last one was raised in a finaliser, which swallows it.
                    if not signal.getitimer(signal.ITIMER_REAL)[0]:
                        delay *= 1.1
                        signal.setitimer(signal.ITIMER_REAL, delay)
            except InterruptError:
                interrupted += 1
            hub.publish("orders", TENANT, number)
            assert subscription.get(LONG).json() == number
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted == 300
    assert publisher_of(hub)._turn.acquire(blocking=False)
    publisher_of(hub)._turn.release()
    gc.collect()  # nobody has the connections that were given up
    eventually(lambda: len(publishers(connection)) == 1)


def test_an_exception_between_the_lock_and_its_block_does_not_leave_it_locked(
    hub: PostgresHub, subscription: Subscription
) -> None:
    """As it may be raised on Python 3.14, between `__enter__` and the block."""

    class Lock:
        def __init__(self) -> None:
            self.lock, self.fails = threading.RLock(), True
            self.release = self.lock.release
            self._is_owned = self.lock._is_owned  # type: ignore[attr-defined]

        def __enter__(self) -> None:
            self.lock.acquire()
            if self.fails:
                raise InterruptError

        def __exit__(self, *_: object) -> None:
            self.lock.release()

        def acquire(self, timeout: float) -> bool:
            return self.lock.acquire(timeout=timeout)

    lock: Any = Lock()
    publisher_of(hub)._turn = lock
    with pytest.raises(InterruptError):
        hub.publish("orders", TENANT, 1)
    lock.fails = False
    with ThreadPoolExecutor(1) as other:
        other.submit(hub.publish, "orders", TENANT, 2).result(LONG)
    assert subscription.get(LONG).json() == 2


def test_a_signal_handler_may_publish_while_its_thread_publishes(hub: PostgresHub, subscription: Subscription) -> None:
    handled = 0

    def publish(*_: Any) -> None:
        nonlocal handled
        handled += 1
        hub.publish("orders", TENANT, ["handler", handled])

    previous = signal.signal(signal.SIGALRM, publish)
    try:
        for number in range(50):
            seen = handled
            signal.setitimer(signal.ITIMER_REAL, 1e-5 + number * 2e-5)
            while handled == seen:
                hub.publish("noise", TENANT, number)
            assert subscription.get(LONG).json() == ["handler", handled]
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert len(publisher_of(hub)._opened) == 1


def publishers(connection: psycopg.Connection) -> list[int]:
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgfanout-publisher'"
        " AND datname = current_database()"
    ).fetchall()
    connection.commit()
    return [pid for (pid,) in rows]


def test_a_commit_that_waits_for_another_transaction_ends_in_time_and_says_what_to_look_for(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_BOUND", publisher._BOUND.replace(f"'{publisher.LOCK_TIMEOUT}s'", "'200ms'"))
    with psycopg.connect(fresh_database_url) as other, PostgresHub(fresh_database_url, history=True) as hub:
        hub.install_history()
        subscription = hub.subscribe("orders", TENANT)
        other.execute("LOCK TABLE pgfanout.event IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable, match=r"(?s)lock timeout.*pg_blocking_pids") as caught:
            hub.publish("orders", TENANT, 1)
        assert isinstance(caught.value.__cause__, psycopg.errors.LockNotAvailable)
        other.rollback()
        hub.publish("orders", TENANT, 2)
        assert subscription.get(LONG).json() == 2


def test_the_bound_is_ten_seconds_for_the_transaction_alone_unless_the_role_has_its_own(
    fresh_database_url: str, connection: psycopg.Connection
) -> None:
    assert publisher.LOCK_TIMEOUT == 10
    bound = publisher._BOUND + "current_setting('lock_timeout')"
    assert [row[1] for row in connection.execute(bound.encode())] == ["10s"]
    connection.commit()
    assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
    connection.execute("SET lock_timeout = '2s'")
    assert [row[1] for row in connection.execute(bound.encode())] == ["2s"]


# Scripts and jobs that end.

SCRIPT = """
import atexit, os, sys, threading
from pgfanout import PostgresHub

TENANT = "11111111-1111-4111-8111-111111111111"
hub = PostgresHub(os.environ["DATABASE_URL"], history=bool(os.environ["HISTORY"]))

def report(done):
    hub.publish("progress", TENANT, done)

"""


def run_script(end: str, url: str, *, history: bool = False) -> tuple[int, str, str]:
    """The exit status, output and errors of a script that has the lines `end`. Every warning of it is an error."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", SCRIPT + end]
    env = {**os.environ, "DATABASE_URL": url, "HISTORY": "1" if history else ""}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LONG)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("history", [False, True], ids=["without history", "with history"])
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("report(1)", 0),
        ("report(1); sys.exit(3)", 3),
        ("report(1); del hub", 0),
        ("atexit.register(report, 1)", 0),
        ("report(0); atexit.register(report, 1)", 0),
        ("with hub: report(1)", 0),
        ("thread = threading.Thread(target=report, args=[1]); thread.start()", 0),
    ],
)
def test_a_script_that_publishes_and_ends_starts_no_thread_and_leaves_no_warning(
    fresh_database_url: str, end: str, status: int, history: bool
) -> None:
    with PostgresHub(fresh_database_url, history=history) as hub:
        if history:
            hub.install_history()
        progress = hub.subscribe("progress", TENANT)
        shown = "atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))\n"
        assert run_script(shown + end, fresh_database_url, history=history) == (status, "['MainThread']\n", "")
        while progress.get(LONG).json() != 1:
            pass


def test_a_script_that_ends_during_the_publish_of_another_thread_leaves_no_warning(fresh_database_url: str) -> None:
    """That thread may be inside of libpq, so its connection is not to be closed."""
    end = """
def noise():
    while True:
        report(0)

threading.Thread(target=noise, daemon=True).start()
report(1)
"""
    assert run_script(end, fresh_database_url) == (0, "", "")


def test_a_hub_that_is_dropped_closes_its_session(fresh_database_url: str, connection: psycopg.Connection) -> None:
    dropped = PostgresHub(fresh_database_url)
    dropped.publish("orders", TENANT, 1)
    assert len(publishers(connection)) == 1
    del dropped
    gc.collect()
    eventually(lambda: publishers(connection) == [])
