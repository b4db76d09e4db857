"""pgfanout.testing: what tests of applications use."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import flask
import pytest
from werkzeug.test import TestResponse

from pgfanout import InvalidEventError, MemoryHub, PostgresHub
from pgfanout.flask import PgFanout
from pgfanout.testing import PublishedEvent, StreamedEvent, capture, read_events

from .support.hubs import replace_send
from .support.wait import eventually

TENANT = uuid.UUID(int=1)
PATIENCE = 20.0


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with MemoryHub() as hub:
        yield hub


@pytest.fixture
def app(hub: MemoryHub) -> flask.Flask:
    app = flask.Flask(__name__)
    fanout = PgFanout(app, hub=hub)
    app.add_url_rule("/events", "events", lambda: fanout.stream("orders", TENANT))
    app.add_url_rule("/page", "page", lambda: ("please log in", 403))
    return app


def opened(app: flask.Flask, **headers: str) -> TestResponse:
    return app.test_client().get("/events", headers=headers)


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "pgfanout-test-reader"]


# What was published.


def test_capture_records_what_is_published_in_its_order_and_nothing_else(hub: MemoryHub) -> None:
    hub.publish("orders", TENANT, "before")
    with capture(hub) as events:
        hub.publish("orders", TENANT, {"id": 42}, type="order.created")
        assert events == [("orders", str(TENANT), {"id": 42}, "order.created")]
        hub.publish_many([("stock", TENANT, b"[1.5, null]"), ("stock", TENANT, "ä")])
    hub.publish("orders", TENANT, "after")
    assert events[1:] == [
        PublishedEvent("stock", str(TENANT), [1.5, None]),
        PublishedEvent("stock", str(TENANT), "ä"),
    ]
    assert not hub.listening


def test_capture_takes_an_extension(hub: MemoryHub, app: flask.Flask) -> None:
    fanout = PgFanout(app, hub=hub)
    with capture(fanout) as events:
        fanout.publish("orders", TENANT, 1)
    assert [event.payload for event in events] == [1]


def test_the_tenant_of_applications_without_tenants_is_none(hub: MemoryHub) -> None:
    with capture(hub) as events:
        hub.publish("orders", uuid.UUID(int=0), 1)
    assert events[0].tenant_id is None


def test_captures_may_be_nested_and_end_in_any_order(hub: MemoryHub) -> None:
    outer, inner = capture(hub), capture(hub)
    all_events, some = outer.__enter__(), inner.__enter__()
    hub.publish("orders", TENANT, 1)
    outer.__exit__(None, None, None)
    hub.publish("orders", TENANT, 2)
    inner.__exit__(None, None, None)
    hub.publish("orders", TENANT, 3)
    assert [event.payload for event in all_events] == [1]
    assert [event.payload for event in some] == [1, 2]


def test_what_is_refused_or_not_sent_is_not_recorded(hub: MemoryHub) -> None:
    def fail(*arguments: object) -> None:
        raise ConnectionResetError

    with capture(hub) as events:
        with pytest.raises(InvalidEventError):
            hub.publish("", TENANT, 1)
        replace_send(hub, fail)
        with pytest.raises(ConnectionResetError):
            hub.publish("orders", TENANT, 1)
    assert events == []


@pytest.mark.parametrize("history", [False, True], ids=["plain", "history"])
def test_capture_records_what_a_postgres_hub_has_sent(fresh_database_url: str, history: bool) -> None:
    with PostgresHub(fresh_database_url, history=history) as hub:
        if history:
            hub.install_history()
        with capture(hub) as events:
            hub.publish_many([("orders", TENANT, {"line": "1\n2"}, "t"), ("stock", TENANT, None)])
    assert events == [("orders", str(TENANT), {"line": "1\n2"}, "t"), ("stock", str(TENANT), None, "")]


# What a stream has sent.


def test_events_are_read_as_a_browser_sees_them_and_the_stream_is_closed(app: flask.Flask, hub: MemoryHub) -> None:
    response = opened(app)
    hub.publish_many([("orders", TENANT, {"id": 42}, "order.created"), ("orders", TENANT, 2), ("orders", TENANT, 3)])
    first, second = read_events(response, 2)
    assert (first.type, first.json(), second.type, second.json()) == ("order.created", {"id": 42}, "message", 2)
    assert first.id and first.id != second.id
    assert hub.stats().subscriptions == 0
    assert readers() == []


def test_a_refresh_and_the_end_count_and_the_librarys_own_events_do_not(app: flask.Flask, hub: MemoryHub) -> None:
    response = opened(app, **{"Last-Event-ID": "unknown"})
    hub.publish("orders", TENANT, 1)
    eventually(lambda: hub.stats().delivered == 1)
    hub.close()
    assert [event.type for event in read_events(response, 9)] == ["refresh", "message", "close"]


def test_too_few_events_end_the_stream_and_are_named(app: flask.Flask, hub: MemoryHub) -> None:
    response = opened(app)
    hub.publish("orders", TENANT, "the only one")
    with pytest.raises(TimeoutError, match=r"1 of 2 events came within 0\.05 s: .*the only one"):
        read_events(response, 2, timeout=0.05)
    assert hub.stats().subscriptions == 0
    eventually(lambda: readers() == [])


def test_what_is_published_while_it_waits_is_read(app: flask.Flask, hub: MemoryHub) -> None:
    response = opened(app)
    later = threading.Timer(0.05, hub.publish, ["orders", TENANT, 1])
    later.start()
    assert [event.data for event in read_events(response, timeout=PATIENCE)] == ["1"]
    later.join()


def test_a_response_that_is_no_stream_is_refused(app: flask.Flask) -> None:
    with pytest.raises(ValueError, match="status 403, Content-Type 'text/html"):
        read_events(app.test_client().get("/page"))


class Response:
    """What read_events needs, with a body of a test."""

    status_code = 200
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}  # noqa: RUF012
    closed = False

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self._chunks = chunks
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._error:
            raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunks_may_end_anywhere(size: int) -> None:
    stream = (
        ": open\nid: a\nevent: pgfanout.cursor\ndata: {}\n\nretry: 5\nid: 7\nevent: t\ndata: ä\ndata:\ndata: : x\n\n"
    )
    sent = stream.encode()
    response = Response(*(sent[i : i + size] for i in range(0, len(sent), size)))
    assert read_events(response, 2) == [StreamedEvent("t", "ä\n\n: x", "7")]
    assert response.closed


def test_an_error_of_the_stream_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        read_events(Response(b": open\n", error=ZeroDivisionError()))
