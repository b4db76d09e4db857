"""PgFanout: the extension, by Flask's conventions and without holding Flask's contexts."""

from __future__ import annotations

import dataclasses
import datetime
import gc
import json
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import flask
import pytest
from werkzeug.test import TestResponse, create_environ

from pgfanout import HubConfigurationError, InvalidEventError, MemoryHub, NotifyHub, PostgresHub, lifecycle
from pgfanout.backends.postgres.backend import PostgresBackend
from pgfanout.backends.postgres.listener import Timing
from pgfanout.flask import PgFanout
from pgfanout.hub import core_of
from pgfanout.static import page_client
from pgfanout.streams import StreamEndpoint, ThreadedStream

from .support.hubs import replace_listening, replace_send
from .support.sse import EventStreamParser, SentEvent
from .support.wait import eventually

# Private members: a setting that has arrived shows nowhere else.

PATIENCE = 20.0
TENANT, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
URL = "postgresql://nobody:s3cr3t@127.0.0.1:1/nothing"
BROWSER = {"Accept": "text/event-stream"}

DEFAULTS = {
    "PGFANOUT_URL": None,
    "PGFANOUT_DATABASE_URL": None,
    "PGFANOUT_POSTGRES_CHANNEL": "pgfanout_events",
    "PGFANOUT_BUFFER_SIZE": 32,
    "PGFANOUT_BUFFER_BYTES": 262_144,
    "PGFANOUT_PUBLISHER_CONNECTIONS": 4,
    "PGFANOUT_HISTORY": False,
    "PGFANOUT_HISTORY_SCHEMA": "pgfanout",
    "PGFANOUT_HISTORY_MAX_AGE": 86_400.0,
    "PGFANOUT_HISTORY_MAX_ROWS": 1_000_000,
    "PGFANOUT_HISTORY_MAX_PAYLOAD": 1_048_576,
    "PGFANOUT_HISTORY_MAX_REPLAY": 10_000,
    "PGFANOUT_HISTORY_REFILL": True,
    "PGFANOUT_HISTORY_LOG_ONLY": True,
    "PGFANOUT_HISTORY_PRUNE_EVERY": 60.0,
    "PGFANOUT_HEARTBEAT": 5.0,
    "PGFANOUT_HEARTBEAT_TIMEOUT": 5.0,
    "PGFANOUT_MAX_RECONNECT_DELAY": 1.5,
    "PGFANOUT_MAX_STREAMS": 5000,
    "PGFANOUT_MAX_STREAMS_PER_USER": 10,
    "PGFANOUT_THREAD_RESERVE": 2,
    "PGFANOUT_KEEPALIVE": 15.0,
    "PGFANOUT_CLIENT_TIMEOUT": 30.0,
    "PGFANOUT_START_TIMEOUT": 5.0,
    "PGFANOUT_RETRY_AFTER": 5.0,
    "PGFANOUT_DETACH": "auto",
    "PGFANOUT_CLIENT_PATH": "/_pgfanout/pgfanout.js",
}


class NotingHub(MemoryHub):
    """A hub that notes through which executor it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.executors: list[Any] = []
        replace_send(self, self.note)

    def note(self, send: Callable[..., None], texts: Sequence[str], executor: Any) -> None:
        self.executors.append(executor)
        send(texts, executor)


class NeverListeningHub(MemoryHub):
    """A hub whose server doesn't answer."""

    def __init__(self) -> None:
        super().__init__()
        replace_listening(self, lambda listen: False)


class Reader:
    """A browser at a response of the test client."""

    def __init__(self, response: TestResponse) -> None:
        self.response = response
        self.parser = EventStreamParser()
        self._chunks = iter(response.response)

    def read(self) -> list[SentEvent]:
        """The events of the next chunk."""
        chunk = next(self._chunks)
        assert isinstance(chunk, bytes)
        return self.parser.feed(chunk)

    def next_event(self) -> SentEvent:
        while not (events := self.read()):
            pass
        (event,) = events
        return event


@contextmanager
def opened(app: flask.Flask, query: str = "", headers: dict[str, str] | None = None) -> Iterator[Reader]:
    """An open stream, closed at the end as a server does."""
    response = app.test_client().get(f"/events{query}", headers=headers or BROWSER, buffered=False)
    try:
        yield Reader(response)
    finally:
        response.close()


def site(fanout: PgFanout, app: flask.Flask | None = None, **config: Any) -> flask.Flask:
    """An application with a page of events."""
    app = app or flask.Flask(__name__)
    app.config.update(config)
    fanout.init_app(app)

    @app.get("/events")
    def events() -> flask.Response:
        tenant = flask.request.args.get("tenant", str(TENANT))
        return fanout.stream("orders", tenant, flask.request.args.get("user"))

    @app.get("/healthz")
    def healthz() -> flask.Response:
        return fanout.healthz()

    @app.get("/cursor")
    def cursor() -> str:
        return fanout.cursor()

    return app


@pytest.fixture(autouse=True)
def _no_url_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGFANOUT_URL", raising=False)
    monkeypatch.delenv("PGFANOUT_DATABASE_URL", raising=False)


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    hub = MemoryHub()
    with hub:
        hub.start()
        yield hub


@pytest.fixture
def fanout(hub: MemoryHub) -> PgFanout:
    return PgFanout(hub=hub)


@pytest.fixture
def app(fanout: PgFanout) -> flask.Flask:
    return site(fanout)


# Configuration.


def test_every_setting_has_its_documented_default(fanout: PgFanout) -> None:
    app = flask.Flask(__name__)
    fanout.init_app(app)
    assert {key: value for key, value in app.config.items() if key.startswith("PGFANOUT_")} == DEFAULTS


def test_what_the_application_has_set_is_kept(fanout: PgFanout) -> None:
    app = flask.Flask(__name__)
    app.config["PGFANOUT_KEEPALIVE"] = 7.5
    fanout.init_app(app)
    assert app.config["PGFANOUT_KEEPALIVE"] == 7.5


def test_the_settings_reach_hub_caps_and_streams() -> None:
    app = flask.Flask(__name__)
    app.config.update(
        PGFANOUT_URL=URL,
        PGFANOUT_POSTGRES_CHANNEL="other_events",
        PGFANOUT_BUFFER_SIZE=7,
        PGFANOUT_BUFFER_BYTES=8,
        PGFANOUT_HEARTBEAT=1.5,
        PGFANOUT_HEARTBEAT_TIMEOUT=2.5,
        PGFANOUT_MAX_RECONNECT_DELAY=3.5,
        PGFANOUT_MAX_STREAMS=70,
        PGFANOUT_MAX_STREAMS_PER_USER=3,
        PGFANOUT_THREAD_RESERVE=4,
        PGFANOUT_KEEPALIVE=11.0,
        PGFANOUT_CLIENT_TIMEOUT=12.0,
        PGFANOUT_START_TIMEOUT=13.0,
        PGFANOUT_RETRY_AFTER=14.0,
        PGFANOUT_DETACH="never",
    )
    fanout = PgFanout(app)
    hub, limiter, endpoint = fanout.hub, fanout.limiter, app.extensions["pgfanout"]
    assert isinstance(hub, PostgresHub)
    core, backend = core_of(hub), core_of(hub).backend
    assert isinstance(backend, PostgresBackend)
    assert (hub._postgres_channel, core._buffer_size, core._buffer_bytes) == ("other_events", 7, 8)
    assert backend._timing == Timing(heartbeat=1.5, heartbeat_timeout=2.5, max_reconnect_delay=3.5)
    assert (limiter.max_streams, limiter.max_streams_per_user, limiter.thread_reserve) == (70, 3, 4)
    assert (endpoint.keepalive, endpoint.client_timeout) == (11.0, 12.0)
    assert (endpoint.start_timeout, endpoint.retry_after, endpoint.detach) == (13.0, 14.0, "never")


def test_init_app_connects_to_nothing_and_starts_nothing() -> None:
    before = set(threading.enumerate())
    fanout = PgFanout(configured(PGFANOUT_URL=URL))
    new = set(threading.enumerate()) - before
    assert {thread.name for thread in new} <= {"pgfanout-closer"}  # of an application that another test has dropped
    assert not fanout.hub.listening


def configured(**config: Any) -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(config)
    return app


@pytest.mark.parametrize("config", [{}, {"PGFANOUT_URL": ""}, {"PGFANOUT_DATABASE_URL": None}], ids=str)
def test_a_missing_url_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(HubConfigurationError, match="PGFANOUT_URL is not set"):
        PgFanout(configured(**config))


def test_the_url_may_have_the_name_that_it_had_before() -> None:
    app = configured(PGFANOUT_DATABASE_URL=URL)
    assert isinstance(PgFanout(app).hub, PostgresHub)


def test_the_environment_may_have_the_url_and_the_configuration_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGFANOUT_URL", "memory://")
    app = configured()
    assert isinstance(PgFanout(app).hub, MemoryHub)
    assert app.config["PGFANOUT_URL"] is None


def test_an_unreadable_url_is_refused_and_not_shown() -> None:
    with pytest.raises(HubConfigurationError, match="connection string") as caught:
        PgFanout(configured(PGFANOUT_URL="postgresql://u:s3cr3t@host:port:x/?nonsense"))
    assert "s3cr3t" not in repr(caught.value)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"PGFANOUT_POSTGRES_CHANNEL": ""}, InvalidEventError),
        ({"PGFANOUT_BUFFER_SIZE": 0}, ValueError),
        ({"PGFANOUT_BUFFER_BYTES": 0}, ValueError),
        ({"PGFANOUT_HISTORY": True, "PGFANOUT_HISTORY_SCHEMA": "No Schema"}, ValueError),
        ({"PGFANOUT_HISTORY": True, "PGFANOUT_HISTORY_MAX_REPLAY": 0}, ValueError),
        ({"PGFANOUT_HEARTBEAT": 0}, ValueError),
        ({"PGFANOUT_HEARTBEAT_TIMEOUT": -1}, ValueError),
        ({"PGFANOUT_KEEPALIVE": 0}, ValueError),
        ({"PGFANOUT_MAX_STREAMS": -1}, ValueError),
        ({"PGFANOUT_MAX_STREAMS_PER_USER": -1}, ValueError),
        ({"PGFANOUT_THREAD_RESERVE": 0}, ValueError),
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_refused_at_once(config: dict[str, Any], error: type[Exception]) -> None:
    app = configured(PGFANOUT_URL=URL, **config)
    with pytest.raises(error):
        PgFanout(app)
    assert "pgfanout" not in app.extensions


@pytest.mark.parametrize(
    ("key", "text", "number"),
    [
        ("PGFANOUT_MAX_STREAMS", "70", 70),
        ("PGFANOUT_KEEPALIVE", "7.5", 7.5),
        ("PGFANOUT_KEEPALIVE", "7", 7.0),
        ("PGFANOUT_HISTORY", "false", False),
    ],
)
def test_a_number_may_be_given_as_text_as_it_comes_from_the_environment(
    fanout: PgFanout, key: str, text: str, number: float
) -> None:
    app = configured(**{key: text})
    fanout.init_app(app)
    assert app.config[key] == number
    assert type(app.config[key]) is type(number)


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("PGFANOUT_MAX_STREAMS", "many", "a whole number"),
        ("PGFANOUT_MAX_STREAMS", "7.5", "a whole number"),
        ("PGFANOUT_BUFFER_SIZE", None, "a whole number"),
        ("PGFANOUT_MAX_STREAMS", 7.9, "a whole number"),
        ("PGFANOUT_KEEPALIVE", "15s", "a number"),
        ("PGFANOUT_KEEPALIVE", "nan", "a number"),
        ("PGFANOUT_HEARTBEAT", float("inf"), "a number"),
        ("PGFANOUT_HISTORY", "perhaps", "true or false"),
    ],
)
def test_what_is_no_number_is_refused_with_setting_and_value(
    fanout: PgFanout, key: str, value: object, kind: str
) -> None:
    with pytest.raises(HubConfigurationError) as caught:
        fanout.init_app(configured(**{key: value}))
    assert str(caught.value) == f"{key} has to be {kind}, not {value!r}"


def test_a_hub_that_is_brought_needs_no_url(fanout: PgFanout, hub: MemoryHub) -> None:
    fanout.init_app(flask.Flask(__name__))
    assert fanout.hub is hub


def test_settings_that_a_hub_of_ones_own_makes_useless_are_named(
    fanout: PgFanout, caplog: pytest.LogCaptureFixture
) -> None:
    fanout.init_app(configured(PGFANOUT_BUFFER_SIZE=500, PGFANOUT_HISTORY=True, PGFANOUT_KEEPALIVE=7.0))
    (message,) = caplog.messages
    assert "it ignores these settings: PGFANOUT_BUFFER_SIZE, PGFANOUT_HISTORY. Remove them" in message


def test_settings_that_are_the_defaults_are_no_reason_for_a_warning(
    fanout: PgFanout, caplog: pytest.LogCaptureFixture
) -> None:
    app = configured(PGFANOUT_BUFFER_SIZE=32)
    fanout.init_app(app)
    fanout.init_app(app)
    assert caplog.messages == []


# Applications and contexts.


def test_the_extension_is_where_flask_keeps_extensions(app: flask.Flask, hub: MemoryHub) -> None:
    endpoint = app.extensions["pgfanout"]
    assert isinstance(endpoint, StreamEndpoint)
    assert endpoint.hub is hub


def test_an_application_may_be_given_at_once(hub: MemoryHub) -> None:
    app = flask.Flask(__name__)
    assert PgFanout(app, hub=hub).hub is hub
    assert "pgfanout" in app.extensions


def test_the_only_application_is_meant_outside_a_context(app: flask.Flask, fanout: PgFanout, hub: MemoryHub) -> None:
    assert not flask.has_app_context()
    assert fanout.hub is hub


def test_each_application_has_a_hub_and_caps_of_its_own() -> None:
    fanout = PgFanout()
    one, other = configured(PGFANOUT_URL=URL), configured(PGFANOUT_URL=URL, PGFANOUT_MAX_STREAMS=7)
    hubs: list[NotifyHub] = []
    for app in (one, other):
        fanout.init_app(app)
        with app.app_context():
            hubs.append(fanout.hub)
    assert hubs[0] is not hubs[1]
    with one.app_context():
        assert fanout.hub is hubs[0]
        assert fanout.limiter.max_streams == 5000
    with other.app_context():
        assert fanout.limiter.max_streams == 7


def test_several_applications_share_a_hub_that_is_brought_but_no_caps(fanout: PgFanout, hub: MemoryHub) -> None:
    limiters = set()
    for app in (flask.Flask("one"), flask.Flask("other")):
        fanout.init_app(app)
        with app.app_context():
            assert fanout.hub is hub
            limiters.add(fanout.limiter)
    assert len(limiters) == 2


def test_outside_a_context_several_applications_are_too_many(fanout: PgFanout) -> None:
    apps = flask.Flask("one"), flask.Flask("other")  # the extension does not keep them
    for app in apps:
        fanout.init_app(app)
    with pytest.raises(RuntimeError, match=r"2 applications.*app_context"):
        fanout.publish("orders", TENANT, 1)


def test_outside_a_context_no_application_is_too_few() -> None:
    with pytest.raises(RuntimeError, match="0 applications"):
        _ = PgFanout().hub


def test_an_application_without_the_extension_is_told_what_is_missing(app: flask.Flask, fanout: PgFanout) -> None:
    with flask.Flask("other").app_context(), pytest.raises(RuntimeError, match=r"fanout\.init_app\(app\) first"):
        _ = fanout.hub


def test_a_stream_needs_a_request(app: flask.Flask, fanout: PgFanout) -> None:
    with app.app_context(), pytest.raises(RuntimeError, match="request context"):
        fanout.stream("orders", TENANT)


# Publishing.


@dataclasses.dataclass
class Price:
    amount: Decimal


ODD_VALUES = {
    "at": datetime.datetime(2026, 12, 1, tzinfo=datetime.timezone.utc),
    "day": datetime.date(2026, 12, 1),
    "price": Price(Decimal("1.10")),
    "id": TENANT,
}


class OwnProvider(flask.json.provider.JSONProvider):
    """One without a `default`, as those that use a faster library."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return json.dumps(obj, default=lambda value: ["own", str(value)])

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return json.loads(s)


def test_a_name_that_is_no_setting_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = flask.Flask(__name__)
    app.config.update(PGFANOUT_URL="memory://", PGFANOUT_BUFER_SIZE=64, PGFANOUT_CLIENT_PATH="/pgfanout.js")
    PgFanout(app)
    (message,) = caplog.messages
    assert message == "PgFanout ignores what is no setting: PGFANOUT_BUFER_SIZE. docs/settings.md has their names"


def test_a_payload_is_what_jsonify_makes_of_it() -> None:
    app = flask.Flask(__name__)
    app.config["PGFANOUT_URL"] = "memory://"
    fanout = PgFanout(app)
    with fanout.hub as hub, app.test_request_context():
        subscription = hub.subscribe("orders", TENANT)
        for provider in (app.json, OwnProvider(app)):
            app.json = provider
            fanout.publish("orders", TENANT, ODD_VALUES)
            hub.publish("orders", TENANT, ODD_VALUES)
            expected = flask.jsonify(ODD_VALUES).get_json()
            assert [subscription.get(PATIENCE).json() for _ in range(2)] == [expected, expected]
        app.json = flask.json.provider.DefaultJSONProvider(app)
        with pytest.raises(InvalidEventError, match="object is not JSON serializable: convert it, .*app.json"):
            fanout.publish("orders", TENANT, object())


def test_a_hub_that_the_application_brings_converts_as_it_does_elsewhere() -> None:
    with MemoryHub() as hub:
        fanout = PgFanout(flask.Flask(__name__), hub=hub)
        with pytest.raises(InvalidEventError, match="Decimal is not JSON serializable"):
            fanout.publish("orders", TENANT, Decimal(1))


class Executes:
    def execute(self, query: str, params: Any = None) -> None: ...


def test_publishing_uses_the_hub_with_type_and_executor() -> None:
    hub = NotingHub()
    with hub:
        fanout = PgFanout(flask.Flask(__name__), hub=hub)
        subscription = hub.subscribe("orders", TENANT)
        executor, other = Executes(), Executes()
        fanout.publish("orders", TENANT, {"id": 1}, type="order.created", executor=executor)
        fanout.publish_many([("orders", TENANT, 2), ("orders", TENANT, 3, "t")], executor=other)
        events = [subscription.get(PATIENCE) for _ in range(3)]
        assert [(event.json(), event.type) for event in events] == [({"id": 1}, "order.created"), (2, ""), (3, "t")]
        assert hub.executors == [executor, other]


# Streams.


def test_a_page_gets_the_events_of_its_tenant_and_no_others(app: flask.Flask, fanout: PgFanout) -> None:
    with opened(app) as mine, opened(app, f"?tenant={OTHER}") as others:
        assert (mine.read(), others.read()) == ([], [])
        fanout.publish_many([("orders", OTHER, 1, "t"), ("orders", TENANT, 2), ("stock", TENANT, 3)])
        assert (mine.next_event().data, others.next_event().data) == ("2", "1")


def test_the_response_is_an_event_stream_that_nobody_holds_back(app: flask.Flask) -> None:
    with opened(app) as page:
        headers = page.response.headers
        assert page.response.status_code == 200
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-cache, no-transform"
        assert headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in headers


def test_the_first_bytes_come_before_any_event(app: flask.Flask) -> None:
    with opened(app) as page:
        assert page.read() == []
        assert page.parser.comments == [" open"]


def test_a_browser_that_comes_back_is_told_to_refresh_first(app: flask.Flask, fanout: PgFanout) -> None:
    with opened(app, headers={**BROWSER, "Last-Event-ID": "start"}) as page:
        fanout.publish("orders", TENANT, 1)
        assert (page.next_event().type, page.next_event().data) == ("refresh", "1")


def test_a_browser_that_comes_for_the_first_time_is_not_told_to_refresh(app: flask.Flask, fanout: PgFanout) -> None:
    with opened(app) as page:
        fanout.publish("orders", TENANT, 1)
        assert page.next_event().data == "1"


def test_the_hubs_end_ends_the_page(app: flask.Flask, hub: MemoryHub) -> None:
    with opened(app) as page:
        hub.close()
        assert page.next_event().type == "close"
        with pytest.raises(StopIteration):
            page.read()


def test_head_has_the_headers_and_takes_no_place(app: flask.Flask, fanout: PgFanout, hub: MemoryHub) -> None:
    response = app.test_client().head("/events")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert response.data == b""
    assert (fanout.limiter.open, hub.stats().subscriptions) == (0, 0)


@pytest.mark.parametrize("response_class", [flask.Response, type("Response", (flask.Response,), {})])
def test_what_is_to_be_called_at_the_end_of_a_stream_is_called_then_and_once(
    fanout: PgFanout, response_class: type[flask.Response]
) -> None:
    app = flask.Flask(__name__)
    app.response_class = response_class
    fanout.init_app(app)
    called: list[str] = []

    @app.get("/events")
    def events() -> flask.Response:
        response = fanout.stream("orders", TENANT)
        response.call_on_close(lambda: called.append("the view's"))
        return response

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        response.call_on_close(lambda: called.append("the application's"))
        return response

    with opened(app) as page:
        page.read()
        assert called == []
    page.response.close()
    assert called == ["the view's", "the application's"]


def test_what_is_to_be_called_at_the_end_of_a_refusal_is_called(fanout: PgFanout) -> None:
    app = site(fanout, PGFANOUT_MAX_STREAMS=0)
    called: list[int] = []

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        response.call_on_close(lambda: called.append(1))
        return response

    app.test_client().get("/events", headers=BROWSER).close()
    assert called == [1]


def test_the_form_of_the_data_and_a_first_refresh_can_be_chosen(fanout: PgFanout) -> None:
    app = flask.Flask(__name__)
    fanout.init_app(app)

    @app.get("/events")
    def events() -> flask.Response:
        return fanout.stream("orders", TENANT, data="text", refresh_first=True)

    with opened(app) as page:
        fanout.publish("orders", TENANT, "<b>4</b>", type="row")
        assert [(event.type, event.data) for event in (page.next_event(), page.next_event())] == [
            ("refresh", "{}"),
            ("row", "<b>4</b>"),
        ]


def test_an_unknown_form_of_the_data_is_the_views_to_correct(app: flask.Flask, fanout: PgFanout) -> None:
    with app.test_request_context(), pytest.raises(ValueError, match='data is "json" or "text", not \'html\''):
        fanout.stream("orders", TENANT, data="html")


def test_a_page_that_is_closed_leaves_the_hub_and_its_place(app: flask.Flask, fanout: PgFanout, hub: MemoryHub) -> None:
    with opened(app, "?user=ann"):
        assert (fanout.limiter.open, hub.stats().subscriptions) == (1, 1)
    assert (fanout.limiter.open, hub.stats().subscriptions) == (0, 0)


def test_a_response_that_is_closed_before_it_is_sent_leaves_the_hub(
    app: flask.Flask, fanout: PgFanout, hub: MemoryHub
) -> None:
    with app.test_request_context():
        fanout.stream("orders", TENANT).close()
    assert (fanout.limiter.open, hub.stats().subscriptions) == (0, 0)


def test_a_response_that_fails_on_its_way_out_leaves_its_place_to_the_next(fanout: PgFanout, hub: MemoryHub) -> None:
    app = site(fanout, PGFANOUT_MAX_STREAMS=1)
    app.logger.disabled = True  # what is logged keeps the traceback, and that the response
    errors = [LookupError()]

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        if errors:
            raise errors.pop()
        return response

    assert app.test_client().get("/events").status_code == 500
    gc.collect()
    with opened(app, headers={"Accept": "*/*"}) as page:
        assert page.response.status_code == 200
        assert hub.stats().subscriptions == 1


@pytest.mark.parametrize(
    ("tenant", "words"), [("%0A", "without control characters, or None, not '\\n'"), ("", "text of 1 to 63 bytes")]
)
def test_a_wrong_tenant_is_the_applications_to_answer(app: flask.Flask, tenant: str, words: str) -> None:
    @app.errorhandler(InvalidEventError)
    def invalid(error: InvalidEventError) -> tuple[str, int]:
        return str(error), 400

    response = app.test_client().get(f"/events?tenant={tenant}", headers=BROWSER)
    assert (response.status_code, words in response.text) == (400, True)


# Refusals.


def test_an_event_source_that_is_refused_gets_a_time_to_come_back(fanout: PgFanout) -> None:
    app = site(fanout, PGFANOUT_MAX_STREAMS=0, PGFANOUT_RETRY_AFTER=60.0)
    response = app.test_client().get("/events", headers=BROWSER)
    parser = EventStreamParser()
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert parser.feed(response.data) == []
    assert parser.retry is not None
    assert 30_000 <= parser.retry <= 90_000


@pytest.mark.parametrize(
    ("config", "status"), [({"PGFANOUT_MAX_STREAMS": 0}, 503), ({"PGFANOUT_MAX_STREAMS_PER_USER": 0}, 429)], ids=str
)
def test_any_other_client_that_is_refused_gets_a_status_and_a_time(
    fanout: PgFanout, config: dict[str, Any], status: int
) -> None:
    app = site(fanout, PGFANOUT_RETRY_AFTER=60.0, **config)
    response = app.test_client().get("/events?user=ann", headers={"Accept": "application/json"})
    assert response.status_code == status
    assert 30 <= int(response.headers["Retry-After"]) <= 90
    assert "0 streams" in response.text


def test_the_one_too_many_of_a_user_is_refused_and_another_users_is_not(fanout: PgFanout) -> None:
    app = site(fanout, PGFANOUT_MAX_STREAMS_PER_USER=1)
    other_client = {"Accept": "*/*"}
    with opened(app, "?user=ann", other_client) as anns, opened(app, "?user=bob", other_client) as bobs:
        assert (anns.response.status_code, bobs.response.status_code) == (200, 200)
        assert app.test_client().get("/events?user=ann", headers=other_client).status_code == 429
    with opened(app, "?user=ann", other_client) as anns:
        assert anns.response.status_code == 200


def test_a_hub_that_does_not_listen_refuses_for_now() -> None:
    with NeverListeningHub() as hub:
        app = site(PgFanout(hub=hub), PGFANOUT_START_TIMEOUT=0.01)
        response = app.test_client().get("/events", headers={"Accept": "*/*"})
        assert response.status_code == 503
        assert response.text == "live updates are not available at the moment\n"


# A stream holds nothing of its request.


class Thing:
    """Something that lives as long as its request, such as a database session."""


def test_the_contexts_are_torn_down_before_the_stream_is_read(app: flask.Flask, fanout: PgFanout) -> None:
    torn_down: list[str] = []
    things: list[weakref.ref[Thing]] = []

    @app.before_request
    def before() -> None:
        flask.g.thing = Thing()
        things.append(weakref.ref(flask.g.thing))

    @app.teardown_request
    def request_ends(error: BaseException | None) -> None:
        torn_down.append("request")

    @app.teardown_appcontext
    def context_ends(error: BaseException | None) -> None:
        torn_down.append("application")

    iterable = app(create_environ("/events"), lambda status, headers, error=None: print)
    assert isinstance(iterable, ThreadedStream)
    try:
        gc.collect()
        assert torn_down == ["request", "application"]
        assert [thing() for thing in things] == [None]
        assert not flask.has_request_context()
        assert not flask.has_app_context()
        fanout.publish("orders", TENANT, 1)
        next(iterable)
        assert b"data: 1" in next(iterable)
    finally:
        iterable.close()


def test_a_stream_can_be_read_in_another_thread_and_goes_on_after_its_request(
    app: flask.Flask, fanout: PgFanout
) -> None:
    received: list[SentEvent] = []
    with opened(app) as page:
        thread = threading.Thread(target=lambda: received.append(page.next_event()), daemon=True)
        thread.start()
        fanout.publish("orders", TENANT, 1)
        thread.join(PATIENCE)
    assert [event.data for event in received] == ["1"]


# Health.


def health(app: flask.Flask) -> tuple[int, dict[str, Any]]:
    response = app.test_client().get("/healthz")
    assert response.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = json.loads(response.data)
    assert set(body) == {"listening", "since", "reconnects", "streams", "in_threads", "error"}
    return response.status_code, body


def test_a_hub_that_listens_is_healthy(app: flask.Flask, hub: MemoryHub) -> None:
    with opened(app), opened(app):
        status, body = health(app)
    assert status == 200
    assert (body["listening"], body["streams"], body["in_threads"]) == (True, 2, 2)
    assert (body["reconnects"], body["error"]) == (0, "")
    assert body["since"] == hub.stats().since


def test_asking_for_health_starts_the_hub() -> None:
    with MemoryHub() as hub:
        fanout = PgFanout(flask.Flask(__name__), hub=hub)
        assert fanout.healthz(PATIENCE).status_code == 200
        assert hub.listening


def test_a_hub_that_does_not_listen_is_not_healthy_and_says_why() -> None:
    with NeverListeningHub() as hub:
        fanout = PgFanout(flask.Flask(__name__), hub=hub)
        body = json.loads(fanout.healthz(timeout=0.01).data)
    assert (body["listening"], body["error"]) == (False, "not listening after 0.01 s: no answer yet")


def test_asking_for_health_does_not_wait_for_the_hub() -> None:
    """A hub that waited would hold up the probe for ever, since this one never listens."""
    with NeverListeningHub() as hub:
        app = flask.Flask(__name__)
        fanout = PgFanout(app, hub=hub)
        assert fanout.healthz().status_code == 503
        assert not lifecycle._first_wait.locked()


def test_while_another_request_waits_for_the_first_start_none_else_does() -> None:
    with NeverListeningHub() as hub, ThreadPoolExecutor(1) as pool:
        app = site(PgFanout(hub=hub), PGFANOUT_START_TIMEOUT=PATIENCE, PGFANOUT_HISTORY=False)
        first = pool.submit(lambda: app.test_client().get("/events", headers=BROWSER).status_code)
        eventually(lambda: lifecycle._first_wait.locked())
        assert app.test_client().get("/healthz").status_code == 503
        assert app.test_client().get("/events", headers=BROWSER).status_code == 200
        assert app.test_client().get("/cursor").data == b""
        assert not first.done()
        hub.close()
        assert first.result(PATIENCE) == 200


def test_a_hub_that_has_lost_its_server_is_not_healthy_and_says_why() -> None:
    lost = threading.Event()

    def listen_and_lose(listen: Callable[[], bool]) -> None:
        listen()
        core_of(losing).sink.not_listening("the server is gone")
        lost.set()

    with MemoryHub() as losing:
        replace_listening(losing, listen_and_lose)
        app = site(PgFanout(hub=losing))
        losing.start()
        assert lost.wait(PATIENCE)
        status, body = health(app)
    assert (status, body["listening"], body["error"]) == (503, False, "the server is gone")


def test_a_closed_hub_is_not_healthy_and_says_why(app: flask.Flask, hub: MemoryHub) -> None:
    hub.close()
    status, body = health(app)
    assert (status, body["error"]) == (503, "the hub is closed; make a new one")


def test_a_hub_with_the_wrong_password_is_not_healthy_and_shows_no_password() -> None:
    fanout = PgFanout(configured(PGFANOUT_URL=URL))
    with fanout.hub:
        response = fanout.healthz(timeout=0.01)
        assert response.status_code == 503
        assert b"s3cr3t" not in response.data


# All together.


def test_an_application_needs_nothing_but_a_url(database_url: str) -> None:
    fanout = PgFanout()
    channel = f"flask_{uuid.uuid4().hex}"
    app = site(fanout, PGFANOUT_URL=database_url, PGFANOUT_POSTGRES_CHANNEL=channel)
    with fanout.hub, opened(app) as page:
        fanout.publish("orders", TENANT, {"id": 42}, type="order.created")
        event = page.next_event()
        assert (event.type, json.loads(event.data)) == ("order.created", {"id": 42})
        assert event.last_event_id not in ("", "start")


# The page's client.


CLIENT = "/_pgfanout/pgfanout.js"


def client_url(app: flask.Flask, **environ: Any) -> str:
    with app.test_request_context(**environ):
        return flask.render_template_string("{{ pgfanout_client_url() }}")


def test_the_client_is_served_and_may_be_kept_at_the_templates_url(app: flask.Flask) -> None:
    url = client_url(app)
    assert url == f"{CLIENT}?v={page_client().digest}"
    response = app.test_client().get(url)
    assert (response.status_code, response.data) == (200, page_client().source)
    assert response.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_client_without_its_digest_is_revalidated(app: flask.Flask) -> None:
    client = app.test_client()
    response = client.get(CLIENT)
    assert response.headers["Cache-Control"] == "private, no-cache"
    again = client.get(CLIENT, headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == "private, no-cache"
    head = client.head(CLIENT)
    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", response.headers["ETag"])
    assert head.content_length == len(page_client().source)
    assert client.post(CLIENT).status_code == 405


def test_the_client_s_url_has_the_prefix_of_the_application(app: flask.Flask) -> None:
    prefix = {"SCRIPT_NAME": "/shop"}
    assert client_url(app, environ_overrides=prefix) == f"/shop{CLIENT}?v={page_client().digest}"


def test_the_client_can_be_served_elsewhere(hub: MemoryHub) -> None:
    app = flask.Flask(__name__)
    app.config["PGFANOUT_CLIENT_PATH"] = "/assets/live.js"
    PgFanout(app, hub=hub)
    assert app.test_client().get(client_url(app)).data == page_client().source
    assert client_url(app).startswith("/assets/live.js?")
    assert app.test_client().get(CLIENT).status_code == 404


@pytest.mark.parametrize("path", ["", None])
def test_the_client_need_not_be_served(hub: MemoryHub, path: str | None) -> None:
    app = flask.Flask(__name__)
    app.config["PGFANOUT_CLIENT_PATH"] = path
    PgFanout(app, hub=hub)
    assert app.test_client().get(CLIENT).status_code == 404
    with pytest.raises(RuntimeError, match="PGFANOUT_CLIENT_PATH is empty"):
        client_url(app)


@pytest.mark.parametrize("path", ["live.js", True])
def test_a_client_path_that_is_none_is_refused(hub: MemoryHub, path: object) -> None:
    app = flask.Flask(__name__)
    app.config["PGFANOUT_CLIENT_PATH"] = path
    with pytest.raises(HubConfigurationError, match="PGFANOUT_CLIENT_PATH has to be a path that begins with /"):
        PgFanout(app, hub=hub)


def test_each_application_of_a_factory_serves_the_client(hub: MemoryHub) -> None:
    fanout = PgFanout(hub=hub)
    for app in flask.Flask("one"), flask.Flask("other"):
        fanout.init_app(app)
        assert app.test_client().get(client_url(app)).data == page_client().source


def test_two_extensions_of_one_application_serve_one_client(hub: MemoryHub) -> None:
    app = flask.Flask(__name__)
    PgFanout(app, hub=hub)
    PgFanout(app, hub=hub)
    assert app.test_client().get(client_url(app)).data == page_client().source
