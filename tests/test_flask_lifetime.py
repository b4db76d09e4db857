"""PgFanout: an application's hub ends with `close`, or with the application."""

from __future__ import annotations

import gc
import threading
import uuid
import weakref
from collections.abc import Iterator

import flask
import psycopg
import pytest

from pgfanout import HubClosedError, MemoryHub, NotifyHub
from pgfanout.flask import PgFanout
from pgfanout.hub import core_of

from .support.postgres import PostgresServer, random_name
from .support.wait import eventually

# Private members: a lock that the thread holds in which the garbage collector runs.

TENANT = uuid.UUID(int=1)
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"


def create_app(fanout: PgFanout, url: str = "memory://") -> flask.Flask:
    """An application as a factory makes it, with the extension in a module."""
    app = flask.Flask(__name__)
    app.config["PGFANOUT_URL"] = url
    fanout.init_app(app)
    app.add_url_rule("/events", "events", lambda: fanout.stream("orders", TENANT))
    return app


def opened(app: flask.Flask) -> Iterator[bytes]:
    """An open stream, whose first bytes have come."""
    chunks: Iterator[bytes] = iter(app.test_client().get("/events").response)  # type: ignore[arg-type]
    assert next(chunks).startswith(b": open")
    return chunks


def hub_of(app: flask.Flask) -> NotifyHub:
    hub: NotifyHub = app.extensions["pgfanout"].hub
    return hub


class NewThreads:
    """The threads that were not there at the beginning of the test."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def __call__(self) -> list[str]:
        return [thread.name for thread in set(threading.enumerate()) - self._before]


@pytest.fixture
def new_threads() -> NewThreads:
    return NewThreads()


def test_close_ends_the_streams_and_stops_the_threads(new_threads: NewThreads) -> None:
    fanout = PgFanout()
    app = create_app(fanout)
    stream = opened(app)
    fanout.close()
    assert b"event: close" in b"".join(stream)
    assert new_threads() == []
    with pytest.raises(HubClosedError):
        fanout.publish("orders", TENANT, 1)
    fanout.close()


def test_close_in_a_context_closes_that_application_alone_and_elsewhere_all() -> None:
    fanout = PgFanout()
    one, other = create_app(fanout), create_app(fanout)
    with one.app_context():
        fanout.close()
    assert (hub_of(one).closed, hub_of(other).closed) == (True, False)
    fanout.close()
    assert hub_of(other).closed


def test_close_closes_a_hub_that_was_brought() -> None:
    with MemoryHub() as hub:
        fanout = PgFanout(flask.Flask(__name__), hub=hub)
        fanout.close()
        assert hub.closed


def test_close_without_applications_does_nothing_and_without_the_extension_says_so() -> None:
    PgFanout().close()
    with flask.Flask("other").app_context(), pytest.raises(RuntimeError, match=r"fanout\.init_app\(app\) first"):
        PgFanout().close()


def test_one_application_may_bring_a_hub_where_others_have_their_own() -> None:
    with MemoryHub() as hub:
        fanout = PgFanout()
        app = flask.Flask(__name__)
        fanout.init_app(app, hub=hub)
        assert hub_of(app) is hub
        assert hub_of(create_app(fanout)) is not hub


def test_an_application_that_is_dropped_closes_its_hub(new_threads: NewThreads) -> None:
    fanout = PgFanout()
    app = create_app(fanout)
    hub, gone = hub_of(app), weakref.ref(app)
    stream = opened(app)
    del app
    gc.collect()
    assert gone() is None
    eventually(lambda: hub.closed and new_threads() == [])  # the collector waits for a second at most
    assert b"event: close" in b"".join(stream)
    with pytest.raises(RuntimeError, match="0 applications"):
        _ = fanout.hub


def test_a_hub_that_was_brought_outlives_the_application() -> None:
    with MemoryHub() as hub:
        fanout = PgFanout(hub=hub)
        create_app(fanout)
        gc.collect()
        assert not hub.closed


def test_an_application_given_at_once_lives_as_long_as_the_extension() -> None:
    app = flask.Flask(__name__)
    app.config["PGFANOUT_URL"] = "memory://"
    fanout = PgFanout(app)
    gone = weakref.ref(app)
    del app
    gc.collect()
    hub = fanout.hub
    hub.start()
    del fanout
    gc.collect()
    assert gone() is None
    eventually(lambda: hub.closed)


def test_init_app_twice_is_one_application() -> None:
    fanout = PgFanout()
    app = create_app(fanout)
    fanout.init_app(app)
    assert fanout.hub is hub_of(app)
    fanout.close()


def test_a_thread_may_hold_a_lock_of_the_hub_when_the_application_is_freed(
    new_threads: NewThreads,
) -> None:
    fanout = PgFanout()
    app = create_app(fanout)
    hub = hub_of(app)
    hub.start()
    core = core_of(hub)
    with core.dispatcher.registry._lock:
        del app
        gc.collect()
        assert hub.listening
    eventually(lambda: not new_threads())


def test_a_thread_may_hold_the_lock_of_threading_when_the_application_is_freed(new_threads: NewThreads) -> None:
    fanout = PgFanout()
    app = create_app(fanout)
    hub_of(app).start()
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        del app
        gc.collect()
    eventually(lambda: not new_threads())


def test_an_application_that_was_closed_is_freed_without_waiting_for_its_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    fanout = PgFanout()
    app = create_app(fanout)
    hub, gone = hub_of(app), weakref.ref(app)
    fanout.close()
    calls: list[str] = []
    monkeypatch.setattr(hub, "close", lambda: calls.append("close"))
    del app
    gc.collect()
    assert gone() is None
    assert calls == []


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "dropped"])
def test_fifty_applications_leave_no_thread_no_session_and_a_database_that_can_be_dropped(
    postgres: PostgresServer, new_threads: NewThreads, closes: bool
) -> None:
    name = random_name()
    url = postgres.create_database(name)
    fanout = PgFanout()
    for _ in range(50):
        app = create_app(fanout, url)
        stream = opened(app)
        with app.app_context():
            fanout.publish("orders", TENANT, 1)
            if closes:
                fanout.close()
    del app, stream
    gc.collect()
    eventually(lambda: new_threads() == [])
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        eventually(lambda: connection.execute(SESSIONS, [name]).fetchone() == (0,))
        connection.execute(f'DROP DATABASE "{name}"'.encode())
