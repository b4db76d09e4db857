"""The hub's own connections: one at rest, more under load, and what an exception in the middle of a publish leaves."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pgfanout import PostgresHub, Subscription
from pgfanout.backends.postgres import conninfo, lane, own_connections
from pgfanout.backends.postgres.backend import PostgresBackend
from pgfanout.backends.postgres.lane import Lane
from pgfanout.backends.postgres.own_connections import OwnConnections
from pgfanout.hub import core_of
from tests.support.postgres import PostgresServer, random_name
from tests.support.wait import eventually

# Private members: which lanes are in use, and which connections are open, shows nowhere else.

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0


def own_connections_of(hub: PostgresHub) -> OwnConnections:
    backend = core_of(hub).backend
    assert isinstance(backend, PostgresBackend)
    return backend.publisher._own


def is_busy(lane: Lane) -> bool:
    """Whether another thread has its turn."""
    if not lane.turn.acquire(blocking=False):
        return True
    lane.turn.release()
    return False


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
    eventually(lambda: is_busy(own_connections_of(hub)._lanes[0]))
    hub.close(timeout=0.1)
    assert "a publish did not end" in caplog.text
    thaw()
    assert done.get(timeout=LONG) is None
    thread.join(LONG)


class InterruptError(Exception):
    """What a signal handler raises, as Celery's does at a soft time limit."""


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what a finaliser swallows
@pytest.mark.parametrize("others", [0, 6], ids=["alone", "in_a_crowd"])
def test_an_exception_raised_anywhere_inside_a_publish_leaves_the_next_one_its_connection(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection, others: int
) -> None:
    """At a new place each time: a signal arrives ever so little later."""
    interrupted = 0
    over = threading.Event()

    def make_noise() -> None:
        while not over.is_set():
            hub.publish("noise", TENANT, "noise")

    crowd = [threading.Thread(target=make_noise) for _ in range(others)]
    for thread in crowd:
        thread.start()

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
        over.set()
        for thread in crowd:
            thread.join(LONG)
    assert interrupted == 300
    own = own_connections_of(hub)
    with ThreadPoolExecutor(1) as other:  # to the thread that owns a lock it never looks held
        assert not any(other.submit(is_busy, lane).result(LONG) for lane in own._lanes)
        assert not own._line
        assert other.submit(own._tidying.acquire, False).result(LONG)
    gc.collect()  # nobody has the connections that were given up
    eventually(lambda: len(publishers(connection)) == 1)


@pytest.mark.parametrize("step", ["acquire", "join", "leave"])
def test_an_exception_right_after_a_step_leaves_nothing_locked(
    hub: PostgresHub, subscription: Subscription, step: str
) -> None:
    """Where a signal handler may raise it, and seldom does: a turn is taken, and the line joined or left."""
    own = own_connections_of(hub)
    interrupted = 0

    class Interrupts:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            method = getattr(self.inner, name)
            return method if name != step else lambda *args, **kwargs: self.interrupt(method(*args, **kwargs))

        def interrupt(self, result: Any) -> Any:
            nonlocal interrupted
            interrupted += 1
            if interrupted == 1:
                raise InterruptError
            return result

    place, name = (own._lanes[0], "turn") if step == "acquire" else (own, "_line")
    setattr(place, name, Interrupts(getattr(place, name)))
    with pytest.raises(InterruptError):
        hub.publish("orders", TENANT, 1)
    setattr(place, name, getattr(place, name).inner)
    assert interrupted
    with ThreadPoolExecutor(1) as other:
        other.submit(hub.publish, "orders", TENANT, 2).result(LONG)
    assert not own._line
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
    assert sum(len(lane.opened) for lane in own_connections_of(hub)._lanes) == 1


def test_a_signal_handler_leaves_its_thread_the_locks(
    hub: PostgresHub, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the question whether the thread has the lock and the lock's release."""
    own, is_held, handled = own_connections_of(hub), own_connections._is_held, threading.Event()

    def asked(lock: Any) -> bool:
        held = is_held(lock)
        if lock is own._tidying and held and not handled.is_set():
            handled.set()
            hub.publish("orders", TENANT, "handler")
        return held

    hub.publish("noise", TENANT, 1)
    second = own._lanes[1]
    second.put_back(second.add(conninfo.connect(own._parameters, "pgfanout-publisher")))
    monkeypatch.setattr(own_connections, "_is_held", asked)
    hub.publish("orders", TENANT, 2)
    assert handled.is_set()
    assert [subscription.get(LONG).json() for _ in range(2)] == [2, "handler"]
    with ThreadPoolExecutor(1) as other:
        assert other.submit(own._tidying.acquire, False).result(LONG)


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
    bound = lane._BOUND.replace(f"'{lane.LOCK_TIMEOUT}s'", "'200ms'")
    monkeypatch.setattr(lane, "_BOUND", bound)
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


def test_a_publish_that_waits_holds_up_no_other(
    hub: PostgresHub, subscription: Subscription, connection: psycopg.Connection, freeze: Any
) -> None:
    hub.publish("noise", TENANT, 0)
    [stuck] = publishers(connection)
    thaw = freeze(stuck)
    with ThreadPoolExecutor(9) as pool:
        waiting = pool.submit(hub.publish, "noise", TENANT, 1)
        eventually(lambda: is_busy(own_connections_of(hub)._lanes[0]))
        for number in range(6):
            pool.submit(publish_some, hub, number).result(LONG)
        assert not waiting.done()
        assert len(publishers(connection)) == 2
        thaw()
        waiting.result(LONG)
    assert [subscription.get(LONG).json() for _ in range(30)] == [[n, k] for n in range(6) for k in range(5)]
    eventually(lambda: len(publishers(connection)) == 1)


def publish_some(hub: PostgresHub, number: int) -> None:
    for each in range(5):
        hub.publish("orders", TENANT, [number, each])


def test_a_crowd_opens_no_more_connections_than_it_may_and_leaves_one(
    fresh_database_url: str, connection: psycopg.Connection, freeze: Any
) -> None:
    with (
        PostgresHub(fresh_database_url, publisher_connections=3, buffer_size=1000) as hub,
        ThreadPoolExecutor(15) as pool,
    ):
        own = own_connections_of(hub)
        subscription = hub.subscribe("orders", TENANT)
        stuck = []
        try:
            for lane in own._lanes:  # each publish is stuck in its lane, and the next one opens a connection
                hub.publish("noise", TENANT, 0)
                thaw = freeze(*publishers(connection))
                stuck.append(pool.submit(hub.publish, "noise", TENANT, 1))
                eventually(lambda: is_busy(lane))  # noqa: B023
            crowd = [pool.submit(publish_some, hub, number) for number in range(12)]
            eventually(lambda: len(own._line._tickets) == 12)
            assert len(publishers(connection)) == 3
        finally:
            thaw()
        for future in stuck + crowd:
            future.result(LONG)
        eventually(lambda: len(publishers(connection)) == 1)
        arrived = [subscription.get(LONG).json() for _ in range(60)]
    for number in range(12):
        assert [each for who, each in arrived if who == number] == list(range(5))


def test_a_server_that_refuses_another_connection_makes_publishes_wait_for_one_that_is_there(
    postgres: PostgresServer, fresh_database_url: str, freeze: Any
) -> None:
    role = random_name("role")
    database = fresh_database_url.rpartition("/")[2]
    with postgres.connect(database) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
        with PostgresHub(postgres.url(database, user=role, password=None)) as hub:
            hub.publish("orders", TENANT, 0)
            thaw = freeze(*publishers(owner))
            with ThreadPoolExecutor(2) as pool:
                futures = [pool.submit(hub.publish, "orders", TENANT, number) for number in range(2)]
                eventually(lambda: own_connections_of(hub)._refused_until > 0)
                assert not any(future.done() for future in futures)
                thaw()
                for future in futures:
                    future.result(LONG)
            assert len(publishers(owner)) == 1
        owner.execute(f"DROP ROLE {role}")


def test_threads_that_wait_for_a_server_that_does_not_answer_fail_together() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        url = f"host=127.0.0.1 port={port} connect_timeout=2 sslmode=disable gssencmode=disable"
        with PostgresHub(url, publisher_connections=2) as hub, ThreadPoolExecutor(12) as pool:
            futures = [pool.submit(hub.publish, "orders", TENANT, number) for number in range(12)]
            for future in futures:
                with pytest.raises(psycopg.OperationalError):
                    future.result(LONG)
        deaf.setblocking(False)
        attempts = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.accept()[0].close()
                attempts += 1
        assert attempts == 2


def test_a_hub_has_one_connection_at_least() -> None:
    with pytest.raises(ValueError, match="publisher_connections has to be at least 1, not 0"):
        PostgresHub("", publisher_connections=0)


def test_the_bound_is_ten_seconds_for_the_transaction_alone_unless_the_role_has_its_own(
    fresh_database_url: str, connection: psycopg.Connection
) -> None:
    assert lane.LOCK_TIMEOUT == 10
    bound = lane._BOUND + "current_setting('lock_timeout')"
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


def test_a_forked_child_that_exits_leaves_no_warning(fresh_database_url: str) -> None:
    """It has the parent's connections, that of the listener as well."""
    end = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork amid threads
subscription = hub.subscribe("progress", TENANT)
report("parent")
if os.fork():
    print(subscription.get(20).json(), os.waitstatus_to_exitcode(os.wait()[1]), subscription.get(20).json())
else:
    report("child")
    sys.exit(3)
"""
    assert run_script(end, fresh_database_url) == (0, "parent 3 child\n", "")


def test_a_hub_that_is_dropped_closes_its_session(fresh_database_url: str, connection: psycopg.Connection) -> None:
    dropped = PostgresHub(fresh_database_url)
    dropped.publish("orders", TENANT, 1)
    assert len(publishers(connection)) == 1
    del dropped
    gc.collect()
    eventually(lambda: publishers(connection) == [])
