"""Secrets stay secret: neither payloads nor what a connection string holds is shown, however things fail."""

from __future__ import annotations

import json
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import flask
import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from pgfanout import Event, HubConfigurationError, MemoryHub, PgFanoutError, PostgresHub
from pgfanout.flask import PgFanout
from pgfanout.hub import core_of
from pgfanout.rate_limit import RateLimit
from pgfanout.streams import StreamEndpoint, StreamLimiter
from tests.support.ports import free_port
from tests.support.postgres import SCRAM, PostgresServer
from tests.support.wait import eventually

from .exposure import MARK, Exposure, locals_shown

# Private members: every object that could show a secret is shown.

LONG = 30.0
TENANT = uuid.UUID("7d0e1c4a-1111-4222-8333-abcdefabcdef")
PAYLOAD = f"{MARK}p4yl04d"
RIGHT = f"{MARK}r1ght"
WRONG = f"{MARK}wr0ng"

UNREADABLE = [
    f"postgresql+asyncpg://app:{WRONG}@localhost/shop",
    f"postgresql+psycopg://app:{WRONG}@localhost/shop?pool_size=5",
    f"https://app:{WRONG}@localhost/shop",
    f"app:{WRONG}@localhost/shop",
    f"postgresql://app:a@{WRONG}@localhost/shop",
    f"postgresql://app:%zz{WRONG}@localhost/shop",
    f"postgresql://app:{WRONG}%00@localhost/shop",
    f"postgresql://app:{WRONG}@localhost/shop?nonsense={WRONG}",
    f"host=localhost password=with a blank {WRONG}",
    f"host=localhost password='{WRONG}",
    f"host=localhost {WRONG}=x",
    f"{WRONG}",
]


@pytest.fixture(scope="module")
def guarded(postgres_programs: None) -> Iterator[PostgresServer]:
    """A server that asks for passwords, with a role `app` whose password is a secret to look for."""
    with PostgresServer(hba=SCRAM) as server:
        with server.connect() as connection:
            connection.execute(sql.SQL("CREATE ROLE app LOGIN PASSWORD {}").format(sql.Literal(RIGHT)))
        yield server


@pytest.fixture
def url(guarded: PostgresServer) -> str:
    """How the role `app` connects."""
    return guarded.url(user="app", password=RIGHT)


@pytest.fixture
def hub(url: str) -> Iterator[PostgresHub]:
    with PostgresHub(url) as hub:
        yield hub


def site(url: str) -> tuple[PgFanout, Any]:
    """The extension, and a client of an application that answers as in production."""
    app = flask.Flask(__name__)
    app.config.update(PGFANOUT_URL=url, PGFANOUT_START_TIMEOUT=0.3, PROPAGATE_EXCEPTIONS=False)
    fanout = PgFanout(app)
    app.add_url_rule("/events", view_func=lambda: fanout.stream("orders", TENANT, user_id=PAYLOAD), endpoint="events")
    app.add_url_rule("/healthz", view_func=lambda: fanout.healthz(0.3), endpoint="healthz")
    return fanout, app.test_client()


def attempt(exposure: Exposure, action: Callable[[], object]) -> BaseException:
    """Do what has to fail, and show its error."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        action()
    exposure.error(caught.value)
    return caught.value


def fail_everywhere(exposure: Exposure, url: str) -> None:
    """Everything that a hub which can't connect is asked for, and everything that it answers."""
    fanout, client = site(url)
    with fanout.hub as hub:
        attempt(exposure, lambda: hub.start(0.3))
        attempt(exposure, lambda: hub.publish("orders", TENANT, PAYLOAD))
        attempt(exposure, lambda: hub.subscribe("orders", TENANT, start_timeout=0.3))
        for path in ("/healthz", "/events"):
            for accept in ("text/event-stream", "*/*"):
                # A refusal repeats an id of the form that hubs make, to the client that has sent it, and no other.
                response = client.get(path, headers={"Accept": accept, "Last-Event-ID": f"{PAYLOAD}!"})
                exposure.show(response.text, response.status, str(response.headers))
        exposure.show(hub, hub.stats(), fanout)
    exposure.check()


def test_a_wrong_password_is_not_shown(exposure: Exposure, guarded: PostgresServer) -> None:
    fail_everywhere(exposure, guarded.url(user="app", password=WRONG))
    assert "password authentication failed" in exposure


def test_the_right_password_is_not_shown_when_the_database_is_missing(
    exposure: Exposure, guarded: PostgresServer
) -> None:
    fail_everywhere(exposure, guarded.url("nothing_here", user="app", password=RIGHT))
    assert '"nothing_here" does not exist' in exposure


def test_a_password_is_not_shown_when_the_server_is_unreachable(exposure: Exposure) -> None:
    fail_everywhere(exposure, f"postgresql://app:{WRONG}@127.0.0.1:{free_port()}/shop")
    assert "refused" in exposure


def test_a_password_among_the_parameters_of_a_url_is_not_shown(exposure: Exposure, guarded: PostgresServer) -> None:
    fail_everywhere(exposure, guarded.url(user="app", password=None) + f"?password={WRONG}")
    assert "password authentication failed" in exposure


def test_the_contents_of_a_passfile_are_not_shown(exposure: Exposure, guarded: PostgresServer, tmp_path: Path) -> None:
    passfile = tmp_path / "passfile"
    passfile.write_text(f"*:*:*:*:{WRONG}\n", encoding="utf-8")
    passfile.chmod(0o600)
    fail_everywhere(exposure, guarded.url(user="app", password=None) + f"?passfile={quote(str(passfile), safe='')}")
    assert "password authentication failed" in exposure


def test_the_password_of_a_key_is_not_shown(exposure: Exposure, guarded: PostgresServer) -> None:
    fail_everywhere(exposure, guarded.url(user="app", password=RIGHT) + f"?sslmode=require&sslpassword={WRONG}")
    assert "SSL" in exposure


@pytest.mark.parametrize("conninfo", UNREADABLE)
def test_nothing_of_a_connection_string_that_cannot_be_read_is_shown(exposure: Exposure, conninfo: str) -> None:
    assert isinstance(attempt(exposure, lambda: PostgresHub(conninfo)), HubConfigurationError)
    attempt(exposure, lambda: site(conninfo))
    exposure.check()


def test_no_secret_is_shown_when_the_server_ends_the_sessions(
    exposure: Exposure, guarded: PostgresServer, hub: PostgresHub
) -> None:
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, PAYLOAD)
    assert subscription.get(LONG).json() == PAYLOAD
    with guarded.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
    eventually(lambda: hub.stats().reconnects == 1)
    exposure.show(hub.stats())
    assert "terminating connection" in exposure
    exposure.check()


def test_nothing_of_a_malformed_notification_is_shown(
    exposure: Exposure, guarded: PostgresServer, hub: PostgresHub
) -> None:
    hub.start()
    envelope = {"channel": "orders", "tenant_id": str(TENANT), "payload": 1}
    texts = [PAYLOAD, f'{{"payload":"{PAYLOAD}"', json.dumps({"payload": PAYLOAD, PAYLOAD: PAYLOAD})]
    texts += [json.dumps({**envelope, name: f"{PAYLOAD * 4}\n"}) for name in ("channel", "tenant_id", "type")]
    with guarded.connect() as connection:
        for count, text in enumerate(texts):
            connection.execute("SELECT pg_notify('pgfanout_events', %s)", [text])
            core_of(hub).dispatcher._malformed_lines = RateLimit(0.0)  # so that each of them is logged
            eventually(lambda: hub.stats().undecodable + hub.stats().unroutable > count)  # noqa: B023
    assert hub.stats().unroutable == 2
    assert "a notification was no event" in exposure
    exposure.check()


REFUSED: list[Any] = [
    *(PAYLOAD * 1000, {PAYLOAD}, {"a": PAYLOAD, "b": object()}, [PAYLOAD, float("nan")], f"{PAYLOAD}\0"),
    *(
        PAYLOAD.encode(),
        f'"{PAYLOAD}'.encode(),
        PAYLOAD.encode() + b"\xff",
        {(PAYLOAD,): 1},
        bytearray(PAYLOAD.encode()),
    ),
]


@pytest.mark.parametrize("payload", REFUSED, ids=range(len(REFUSED)))
def test_a_payload_that_postgres_hub_refuses_is_not_shown(exposure: Exposure, payload: Any) -> None:
    with PostgresHub("host=localhost") as hub:
        assert isinstance(attempt(exposure, lambda: hub.publish("orders", TENANT, payload)), PgFanoutError)
    exposure.check()


class Stranger:
    """An executor that fails by itself."""

    def execute(self, query: Any, params: Any = None) -> Any:
        raise RuntimeError("this executor always fails")


def test_a_payload_is_not_shown_when_its_executor_is_broken(exposure: Exposure, hub: PostgresHub, url: str) -> None:
    closed, aborted, ended = (psycopg.connect(url) for _ in range(3))
    closed.close()
    with pytest.raises(psycopg.Error):
        aborted.execute("SELECT 1 / 0")
    with pytest.raises(psycopg.Error):
        ended.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    pool = ConnectionPool(url, open=False)
    executors: list[Any] = [closed, aborted, ended, closed.cursor, pool, Stranger(), object(), 42]
    try:
        for executor in executors:
            attempt(exposure, lambda: hub.publish("orders", TENANT, PAYLOAD, executor=executor))  # noqa: B023
        exposure.show(*executors)
    finally:
        aborted.close()
        ended.close()
    exposure.check()


def test_no_secret_is_shown_when_the_listener_dies_of_something_unexpected(
    exposure: Exposure, hub: PostgresHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = hub.subscribe("orders", TENANT)

    def fail(topic: object, event: object) -> None:
        raise ZeroDivisionError("something unexpected")

    with monkeypatch.context() as patch:
        patch.setattr(core_of(hub).dispatcher, "offer", fail)
        hub.publish("orders", TENANT, PAYLOAD)
        eventually(lambda: "the listener failed" in exposure)
    eventually(lambda: hub.stats().reconnects == 1)
    hub.publish("orders", TENANT, "alive")
    while subscription.get(LONG).payload != b'"alive"':
        pass
    exposure.show(hub.stats())
    exposure.check()


def test_no_object_shows_a_secret(exposure: Exposure, hub: PostgresHub, url: str) -> None:
    fanout, _ = site(url)
    endpoint = StreamEndpoint(hub, StreamLimiter(5))
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, PAYLOAD)
    event = subscription.get(LONG)
    answer = endpoint.answer({"HTTP_LAST_EVENT_ID": PAYLOAD}, "orders", TENANT, PAYLOAD)
    stream: Any = answer.body
    hub.publish("orders", TENANT, PAYLOAD)
    assert [PAYLOAD in next(stream).decode() for _ in range(2)] == [False, True]
    things: list[Any] = [
        hub,
        hub.stats(),
        core_of(hub).backend,
        core_of(hub).sink,
        core_of(hub).lifecycle,
        core_of(hub).dispatcher.registry,
        subscription,
    ]
    things += [event, Event("orders", json.dumps(PAYLOAD).encode()), answer, stream, endpoint, endpoint.limiter, fanout]
    (attempt,) = core_of(hub).lifecycle._running
    listener: Any = attempt.listener
    backend: Any = core_of(hub).backend
    things += [fanout.hub, fanout.limiter, listener, listener._watchdog, backend.publisher, MemoryHub()]
    exposure.show(*things, listener._connection)
    stream.close()
    exposure.check()


def test_an_error_reporter_that_records_local_variables_gets_no_password_from_start(guarded: PostgresServer) -> None:
    with PostgresHub(guarded.url(user="app", password=WRONG)) as hub, pytest.raises(HubConfigurationError) as caught:
        hub.start(LONG)
    assert {name for name, value in locals_shown(caught.value).items() if MARK in value} == set()


def test_an_error_reporter_that_records_local_variables_gets_no_password_from_publish(guarded: PostgresServer) -> None:
    with PostgresHub(guarded.url(user="app", password=WRONG)) as hub, pytest.raises(psycopg.OperationalError) as caught:
        hub.publish("orders", TENANT, 1)
    assert {name for name, value in locals_shown(caught.value).items() if MARK in value} == set()
    # Some walk through a mapping instead of asking for its repr.
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    mappings = [value for frame in frames for value in frame.f_locals.values() if isinstance(value, Mapping)]
    assert not any(MARK in str(each) for mapping in mappings for each in mapping.values())


def test_an_error_reporter_that_records_local_variables_can_show_a_hub_that_was_not_made() -> None:
    with pytest.raises(HubConfigurationError) as caught:
        PostgresHub("unreadable")
    assert locals_shown(caught.value)["__init__: self"].startswith("<PostgresHub")


@pytest.mark.parametrize("password", [f"12/{WRONG}", f"{WRONG}/x", f"1,{WRONG}/x"])
def test_a_url_whose_password_has_a_slash_is_refused_before_parts_of_it_are_shown_as_names(
    exposure: Exposure, password: str
) -> None:
    assert isinstance(
        attempt(exposure, lambda: PostgresHub(f"postgresql://app:{password}@localhost/shop")), PgFanoutError
    )
    exposure.check()
