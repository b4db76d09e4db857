"""StreamEndpoint: which answer a request gets."""

from __future__ import annotations

import errno
import gc
import json
import logging
import queue
import resource
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgfanout import MemoryHub, StreamLimiter
from pgfanout import lifecycle as lifecycle_module
from pgfanout.delivery.feed import Feed
from pgfanout.delivery.reader import Reader
from pgfanout.errors import HubConfigurationError, InvalidEventError
from pgfanout.hub import core_of
from pgfanout.streams import Answer, StreamEndpoint, ThreadedStream, sse
from pgfanout.streams import limiter as limiter_module
from pgfanout.streams.detached.stream import CHANGED_BODY, NO_DESCRIPTORS, DetachedStream
from pgfanout.streams.detached.streamer import streamer
from pgfanout.streams.endings import Endings
from pgfanout.streams.endpoint import check_detach

from ..support.detached import Client, tcp_pair
from ..support.hubs import replace_listening
from ..support.logs import ManualLog
from ..support.sse import EventStreamParser, parse
from ..support.wait import eventually

# Private members: that a thread waits, and that no count is left, shows nowhere else.

PATIENCE = 20.0
TENANT = uuid.UUID(int=1)
BROWSER = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/event-stream"}
OTHER_CLIENT = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "*/*"}


class NeverListeningHub(MemoryHub):
    """A hub whose server doesn't answer."""

    def __init__(self) -> None:
        super().__init__()
        replace_listening(self, lambda listen: False)


class MisconfiguredHub(MemoryHub):
    """A hub whose password is wrong."""

    def __init__(self) -> None:
        super().__init__()
        replace_listening(self, self.fail)

    def fail(self, listen: Callable[[], bool]) -> None:
        raise HubConfigurationError("wrong password")


class LateHub(MemoryHub):
    """A hub whose server answers when it is told to."""

    def __init__(self) -> None:
        self.may_listen = threading.Event()
        super().__init__()
        replace_listening(self, self.listen_late)

    def listen_late(self, listen: Callable[[], bool]) -> bool:
        core_of(self).sink.not_listening("connection refused")
        assert self.may_listen.wait(PATIENCE)
        return listen()

    def close(self, timeout: float = 5.0) -> None:
        self.may_listen.set()
        super().close(timeout)


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    hub = MemoryHub()
    with hub:
        yield hub


@pytest.fixture
def endpoint(hub: MemoryHub) -> StreamEndpoint:
    return StreamEndpoint(hub, StreamLimiter(2, 1))


def close(answer: Answer) -> None:
    """What a WSGI server does at the end."""
    if hasattr(answer.body, "close"):
        answer.body.close()


def body(answer: Answer) -> ThreadedStream:
    assert isinstance(answer.body, ThreadedStream)
    return answer.body


def test_a_stream_is_answered_with_the_headers_of_an_event_stream(endpoint: StreamEndpoint) -> None:
    answer = endpoint.answer(BROWSER, "orders", TENANT)
    assert (answer.status, answer.headers) == ("200 OK", list(sse.HEADERS))
    close(answer)


def test_a_stream_carries_what_is_published_from_the_answer_on(endpoint: StreamEndpoint) -> None:
    answer = endpoint.answer(BROWSER, ["orders", "stock"], str(TENANT))
    endpoint.hub.publish("stock", TENANT, 1, type="moved")
    stream = body(answer)
    assert parse(next(stream)) == []
    (event,) = parse(next(stream))
    assert (event.type, event.data) == ("moved", "1")
    close(answer)


def test_any_client_gets_a_stream_whatever_it_accepts(endpoint: StreamEndpoint) -> None:
    for environ in (OTHER_CLIENT, {}):
        answer = endpoint.answer(environ, "orders", TENANT)
        assert answer.status == "200 OK"
        close(answer)


@pytest.mark.parametrize(("last", "types"), [("", []), ("start", ["refresh"]), ("41", ["refresh"])])
def test_a_browser_that_comes_back_is_told_to_refresh_first(
    endpoint: StreamEndpoint, last: str, types: list[str]
) -> None:
    answer = endpoint.answer({**BROWSER, "HTTP_LAST_EVENT_ID": last}, "orders", TENANT)
    assert [event.type for event in parse(next(body(answer)))] == types
    close(answer)


@pytest.mark.parametrize("last", ["", "start", "41"])
def test_a_stream_can_begin_with_a_refresh_in_any_case(endpoint: StreamEndpoint, last: str) -> None:
    answer = endpoint.answer({**BROWSER, "HTTP_LAST_EVENT_ID": last}, "orders", TENANT, refresh_first=True)
    endpoint.hub.publish("orders", TENANT, 1)
    assert [event.type for event in parse(next(body(answer)))] == ["refresh"]
    assert [event.data for event in parse(next(body(answer)))] == ["1"]
    close(answer)


@pytest.mark.parametrize(("data", "expected"), [("json", ['"<b>"', "1"]), ("text", ["<b>", "1"])])
def test_the_form_of_the_data_can_be_chosen(endpoint: StreamEndpoint, data: str, expected: list[str]) -> None:
    answer = endpoint.answer(BROWSER, "orders", TENANT, data=data)
    next(body(answer))
    endpoint.hub.publish_many([("orders", TENANT, "<b>"), ("orders", TENANT, 1)])
    assert [event.data for event in parse(next(body(answer)))] == expected
    close(answer)


@pytest.mark.parametrize("data", ["html", "", "TEXT", None, True, b"text", ["text"]])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_unknown_form_of_the_data_is_refused_at_once(endpoint: StreamEndpoint, data: Any, method: str) -> None:
    with pytest.raises(ValueError, match='data is "json" or "text", not '):
        endpoint.answer({**BROWSER, "REQUEST_METHOD": method}, "orders", TENANT, data=data)
    assert endpoint.limiter.open == 0


def test_the_end_of_the_response_leaves_the_hub_and_the_place(endpoint: StreamEndpoint) -> None:
    answer = endpoint.answer(BROWSER, "orders", TENANT, "ann")
    assert (endpoint.hub.stats().subscriptions, endpoint.limiter.open) == (1, 1)
    close(answer)
    close(answer)
    assert (endpoint.hub.stats().subscriptions, endpoint.limiter.open) == (0, 0)
    close(endpoint.answer(BROWSER, "orders", TENANT, "ann"))


def test_head_is_answered_with_the_headers_alone_and_takes_nothing(endpoint: StreamEndpoint) -> None:
    answer = endpoint.answer({"REQUEST_METHOD": "HEAD"}, "orders", TENANT)
    assert (answer.status, answer.headers, list(answer.body)) == ("200 OK", list(sse.HEADERS), [])
    assert (endpoint.limiter.open, endpoint.hub.listening) == (0, False)


def test_the_settings_reach_the_stream(hub: MemoryHub) -> None:
    endpoint = StreamEndpoint(hub, keepalive=0.001)
    answer = endpoint.answer(BROWSER, "orders", TENANT)
    next(body(answer))
    assert next(body(answer)) == sse.KEEPALIVE
    close(answer)


def test_a_limiter_of_its_own_has_the_usual_limits(hub: MemoryHub) -> None:
    limiter = StreamEndpoint(hub).limiter
    assert (limiter.max_streams, limiter.max_streams_per_user) == (5000, 10)


def test_the_defaults_can_be_read(hub: MemoryHub) -> None:
    endpoint = StreamEndpoint(hub)
    assert (endpoint.keepalive, endpoint.client_timeout) == (15.0, 30.0)
    assert (endpoint.start_timeout, endpoint.retry_after) == (5.0, 5.0)


@pytest.mark.parametrize("keepalive", [0, -1.0, float("nan"), float("inf")])
def test_a_keepalive_of_no_time_is_refused_at_once(hub: MemoryHub, keepalive: float) -> None:
    with pytest.raises(ValueError, match="keepalive is a number of seconds"):
        StreamEndpoint(hub, keepalive=keepalive)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
def test_a_silent_client_is_given_up_after_the_configured_time(hub: MemoryHub) -> None:
    endpoint = StreamEndpoint(hub, client_timeout=12.5)
    with socket.socket() as server:
        answer = endpoint.answer({**BROWSER, "gunicorn.socket": server}, "orders", TENANT)
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_500
        close(answer)


# Refusals.


def refused(endpoint: StreamEndpoint, environ: dict[str, Any], user: str | None = None) -> Answer:
    """The answer, after a look at what a server would have to clean up: nothing."""
    before = endpoint.hub.stats().subscriptions
    answer = endpoint.answer(environ, "orders", TENANT, user)
    assert not isinstance(answer.body, ThreadedStream)
    assert endpoint.hub.stats().subscriptions == before
    return answer


def retry_times(hub: MemoryHub, retry_after: float) -> list[int]:
    endpoint = StreamEndpoint(hub, StreamLimiter(0), retry_after=retry_after)
    answers = [refused(endpoint, BROWSER) for _ in range(50)]
    retries = []
    for answer in answers:
        parser = EventStreamParser()
        assert [event for chunk in answer.body for event in parser.feed(chunk)] == []
        assert (answer.status, answer.headers) == ("200 OK", list(sse.HEADERS))
        assert parser.retry is not None
        retries.append(parser.retry)
    return retries


@pytest.mark.parametrize(
    ("environ", "id"),
    [
        ({}, ""),
        ({"HTTP_LAST_EVENT_ID": "41"}, "41"),
        ({"QUERY_STRING": "last_event_id=41"}, "41"),
        ({"HTTP_LAST_EVENT_ID": "\r\nevent: forged"}, "start"),
    ],
)
def test_an_event_source_that_is_refused_keeps_the_id_that_it_came_with(
    hub: MemoryHub, environ: dict[str, str], id: str
) -> None:
    parser = EventStreamParser()
    for chunk in refused(StreamEndpoint(hub, StreamLimiter(0)), {**BROWSER, **environ}).body:
        parser.feed(chunk)
    assert (parser.last_event_id, parser.blocks) == (id, 1)


def test_an_event_source_that_is_refused_is_asked_to_come_back_at_another_time(hub: MemoryHub) -> None:
    retries = retry_times(hub, 5.0)
    assert 2500 <= min(retries) <= max(retries) <= 7500
    assert len(set(retries)) > 10


def test_when_a_refused_client_comes_back_can_be_chosen(hub: MemoryHub) -> None:
    assert min(retry_times(hub, 60.0)) >= 30_000


@pytest.mark.parametrize(("user", "status"), [(None, "503 Service Unavailable"), ("ann", "429 Too Many Requests")])
def test_any_other_client_that_is_refused_gets_a_status_and_a_time(
    hub: MemoryHub, user: str | None, status: str
) -> None:
    endpoint = StreamEndpoint(hub, StreamLimiter(0) if user is None else StreamLimiter(5, 0))
    answer = refused(endpoint, OTHER_CLIENT, user)
    headers = dict(answer.headers)
    assert answer.status == status
    assert headers["Content-Type"].startswith("text/plain")
    assert 3 <= int(headers["Retry-After"]) <= 8
    assert b"this " + (b"process" if user is None else b"user") in b"".join(answer.body)


def test_a_full_process_refuses_and_accepts_again_when_a_stream_has_ended(endpoint: StreamEndpoint) -> None:
    answers = [endpoint.answer(OTHER_CLIENT, "orders", TENANT) for _ in range(2)]
    assert refused(endpoint, OTHER_CLIENT).status.startswith("503")
    close(answers[0])
    answers.append(endpoint.answer(OTHER_CLIENT, "orders", TENANT))
    assert answers[-1].status == "200 OK"
    for answer in answers:
        close(answer)


def test_a_stream_of_several_tenants_has_the_events_of_all_of_these(endpoint: StreamEndpoint) -> None:
    answer = endpoint.answer(BROWSER, ["orders", "stock"], ["acme", 7, TENANT])
    stream = iter(body(answer))
    next(stream)
    for tenant in ("acme", "7", "other", None, TENANT):
        events = [(channel, tenant, f"{channel} {tenant}") for channel in ("stock", "orders", "x")]
        endpoint.hub.publish_many(events)
    expected = [f"{channel} {tenant}" for tenant in ("acme", "7", TENANT) for channel in ("stock", "orders")]
    parser = EventStreamParser()
    received: list[str] = []
    while len(received) < len(expected):
        received += [json.loads(event.data) for event in parser.feed(next(stream))]
    assert received == expected
    close(answer)


@pytest.mark.parametrize(("first", "again"), [(7, "7"), (TENANT, str(TENANT).upper()), ("ann", "ann")])
def test_a_user_is_one_whatever_the_type_of_its_id(endpoint: StreamEndpoint, first: Any, again: Any) -> None:
    answer = endpoint.answer(BROWSER, "orders", TENANT, first)
    refused_for(endpoint, again)
    close(answer)


@pytest.mark.parametrize("user", ["", "x" * 64, "a\n", 7.5, True, ("org", 7), object(), []], ids=repr)
def test_a_user_id_that_breaks_the_rule_is_the_callers_to_answer(endpoint: StreamEndpoint, user: Any) -> None:
    with pytest.raises(InvalidEventError, match="invalid user: it has to be a UUID, an int, text"):
        endpoint.answer(BROWSER, "orders", TENANT, user)
    assert endpoint.limiter.open == 0


def test_a_full_user_is_refused_and_another_is_not(endpoint: StreamEndpoint) -> None:
    anns = endpoint.answer(OTHER_CLIENT, "orders", TENANT, "ann")
    assert refused(endpoint, OTHER_CLIENT, "ann").status.startswith("429")
    bobs = endpoint.answer(OTHER_CLIENT, "orders", TENANT, "bob")
    assert bobs.status == "200 OK"
    close(anns)
    close(bobs)


def test_a_refusal_is_logged_with_its_reason(hub: MemoryHub, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pgfanout"):
        refused(StreamEndpoint(hub, StreamLimiter(0)), BROWSER)
    assert caplog.messages == ["a stream was refused: this process has reached its limit of 0 streams"]


@pytest.mark.parametrize(("environ", "status"), [(BROWSER, "200 OK"), (OTHER_CLIENT, "503 Service Unavailable")])
def test_a_hub_that_does_not_listen_refuses_and_gives_the_place_back(environ: dict[str, Any], status: str) -> None:
    with NeverListeningHub() as hub:
        endpoint = StreamEndpoint(hub, StreamLimiter(1), start_timeout=0.01)
        assert refused(endpoint, environ).status == status
        assert endpoint.limiter.open == 0


def test_why_the_hub_does_not_listen_is_told_to_the_operator_and_to_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with NeverListeningHub() as hub:
        answer = refused(StreamEndpoint(hub, start_timeout=0.01), OTHER_CLIENT)
    assert list(answer.body) == [b"live updates are not available at the moment\n"]
    assert "the hub is not listening yet: no answer yet" in caplog.text


@pytest.mark.parametrize(("environ", "status"), [(BROWSER, "200 OK"), (OTHER_CLIENT, "503 Service Unavailable")])
def test_a_hub_that_is_closing_sends_its_clients_to_the_next_one(
    endpoint: StreamEndpoint, environ: dict[str, Any], status: str
) -> None:
    endpoint.hub.close()
    assert refused(endpoint, environ).status == status
    assert endpoint.limiter.open == 0


@pytest.mark.parametrize(
    ("channels", "tenant"), [("", TENANT), ([], TENANT), ("orders", ""), ("orders", []), ("orders", [TENANT, 7.5])]
)
def test_a_wrong_channel_or_tenant_is_the_callers_to_answer(
    endpoint: StreamEndpoint, channels: Any, tenant: Any
) -> None:
    with pytest.raises(InvalidEventError):
        endpoint.answer(BROWSER, channels, tenant)
    assert endpoint.limiter.open == 0


@pytest.mark.parametrize(("environ", "status"), [(BROWSER, "200 OK"), (OTHER_CLIENT, "503 Service Unavailable")])
def test_a_hub_that_is_misconfigured_refuses_and_tells_the_operator(
    environ: dict[str, Any], status: str, caplog: pytest.LogCaptureFixture
) -> None:
    with MisconfiguredHub() as hub:
        endpoint = StreamEndpoint(hub)
        assert refused(endpoint, environ).status == status
        assert endpoint.limiter.open == 0
    lines = [record for record in caplog.records if "wrong password" in record.getMessage()]
    assert lines
    assert {record.levelname for record in lines} <= {"ERROR", "WARNING"}
    assert "ERROR" in {record.levelname for record in lines}


def test_a_client_that_comes_before_the_hub_listens_is_asked_to_come_back_soon() -> None:
    with LateHub() as hub:
        endpoint = StreamEndpoint(hub, retry_after=60.0)
        times = [retry_of(refused(endpoint, BROWSER)) for _ in range(20)]
    assert all(1000 <= milliseconds <= 2000 for milliseconds in times)


def test_a_short_time_to_come_back_stays_short() -> None:
    with LateHub() as hub:
        assert retry_of(refused(StreamEndpoint(hub, retry_after=0.1), BROWSER)) <= 100


def retry_of(answer: Answer) -> int:
    (line,) = [line for line in b"".join(answer.body).split(b"\n") if line.startswith(b"retry: ")]
    return int(line[len(b"retry: ") :])


def test_one_stream_waits_for_the_first_start_and_no_other_does() -> None:
    with LateHub() as hub, ThreadPoolExecutor(1) as pool:
        # Its server says nothing, so there is no failure that ends the wait.
        core_of(hub).sink.not_listening = lambda error, dead=False: None  # type: ignore[method-assign]
        endpoint = StreamEndpoint(hub, start_timeout=PATIENCE)
        first = pool.submit(endpoint.answer, BROWSER, "orders", TENANT)
        eventually(lambda: lifecycle_module._first_wait.locked())
        for _ in range(3):
            refused(endpoint, BROWSER)  # at once, or the test would fail by the first one's time
        assert not first.done()
        hub.may_listen.set()
        answer = first.result(PATIENCE)
        assert parse(next(body(answer))) == []
        close(answer)


def test_once_the_first_attempt_has_failed_no_stream_waits() -> None:
    with LateHub() as hub:
        endpoint = StreamEndpoint(hub, start_timeout=PATIENCE)
        refused(endpoint, BROWSER)
        refused(endpoint, BROWSER)
        assert not hub.has_listened


def test_refusals_of_a_kind_are_logged_at_a_bounded_rate(hub: MemoryHub, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = StreamEndpoint(hub, StreamLimiter(2, 0))
    for _ in range(50):
        refused_for(endpoint, "ann")
    endpoint.limiter.max_streams = 0
    refused(endpoint, BROWSER)
    assert caplog.messages == [
        "a stream was refused: this user has reached the limit of 0 streams",
        "a stream was refused: this process has reached its limit of 0 streams",
    ]


def refused_for(endpoint: StreamEndpoint, user: str) -> None:
    assert not isinstance(endpoint.answer(BROWSER, "orders", TENANT, user).body, ThreadedStream)


# Places that nobody uses any more.


def test_the_place_of_a_client_that_has_left_is_free_for_the_next(endpoint: StreamEndpoint) -> None:
    server, client = socket.socketpair()
    with server, client:
        left = endpoint.answer({**BROWSER, "gunicorn.socket": server}, "orders", TENANT)
        stays = endpoint.answer(BROWSER, "orders", TENANT)
        client.close()
        new = endpoint.answer(OTHER_CLIENT, "orders", TENANT)
        assert new.status == "200 OK"
        assert (endpoint.limiter.open, endpoint.hub.stats().subscriptions) == (2, 2)
        for answer in (left, stays, new):
            close(answer)


def test_the_place_of_a_response_that_was_dropped_is_free_for_the_next(hub: MemoryHub) -> None:
    endpoint = StreamEndpoint(hub, StreamLimiter(1))
    endpoint.answer(BROWSER, "orders", TENANT)
    gc.collect()
    answer = endpoint.answer(OTHER_CLIENT, "orders", TENANT)
    assert answer.status == "200 OK"
    assert hub.stats().subscriptions == 1
    close(answer)


# Detached streams.

CONFIGURED = "it is configured so"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a connection: the server's, and the client's."""
    server, client = tcp_pair()
    with server, client:
        yield server, client
    assert streamer.wait_until_empty(PATIENCE)


@pytest.fixture
def server(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    return ends[0]


@pytest.fixture
def client(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    return ends[1]


def request(server: socket.socket, **changes: object) -> dict[str, Any]:
    return {**BROWSER, "SERVER_PROTOCOL": "HTTP/1.1", "gunicorn.socket": server, **changes}


def serve(answer: Answer, server: socket.socket) -> None:
    """What a WSGI server does with an answer that detaches."""
    for item in answer.body:
        server.sendall(HEAD + item)
    close(answer)
    server.close()


@pytest.mark.parametrize(("mode", "name"), [("auto", "auto"), (True, "auto"), ("never", "never"), (False, "never")])
def test_detaching_is_automatic_or_never(hub: MemoryHub, mode: str | bool, name: str) -> None:
    assert check_detach(mode) == name
    assert StreamEndpoint(hub, detach=mode).detach == name


@pytest.mark.parametrize("mode", ["", "always", "AUTO", "True", None, 0, 1, 2, b"auto", ["auto"]], ids=repr)
def test_any_other_way_of_detaching_is_refused(hub: MemoryHub, mode: Any) -> None:
    for refuse in (lambda: check_detach(mode), lambda: StreamEndpoint(hub, detach=mode)):
        with pytest.raises(ValueError, match='detach is "auto" or "never"'):
            refuse()


def test_a_wrong_way_of_detaching_is_refused_before_anything_is_taken(
    endpoint: StreamEndpoint, server: socket.socket
) -> None:
    with pytest.raises(ValueError, match="detach"):
        endpoint.answer(request(server), "orders", TENANT, detach="sometimes")
    assert (endpoint.limiter.open, endpoint.hub.stats().subscriptions) == (0, 0)


def test_streams_detach_unless_told_otherwise(hub: MemoryHub) -> None:
    assert StreamEndpoint(hub).detach == "auto"


def test_where_it_is_safe_a_stream_leaves_its_thread(
    endpoint: StreamEndpoint, server: socket.socket, client: socket.socket
) -> None:
    answer = endpoint.answer(request(server), "orders", TENANT, "ann")
    assert isinstance(answer.body, DetachedStream)
    assert (answer.status, answer.headers) == ("200 OK", list(sse.HEADERS))
    assert (endpoint.limiter.open, endpoint.limiter.in_threads) == (1, 0)
    serve(answer, server)
    stats = endpoint.hub.stats()
    assert (stats.subscriptions, stats.detached, stats.kept_in_thread) == (1, 1, {})
    endpoint.hub.publish("orders", TENANT, 1)
    received = Client(client, chunked=False, skip=len(HEAD))
    assert [event.data for event in received.events(1)] == ["1"]
    client.close()
    eventually(lambda: endpoint.limiter.open == 0)
    assert (endpoint.hub.stats().detached, endpoint.hub.stats().subscriptions) == (0, 0)
    assert not endpoint.limiter._open_by_user


def test_a_request_that_is_given_up_leaves_nothing(server: socket.socket) -> None:
    """As an application's alarm may do."""

    def alarm(*args: Any) -> Any:
        raise TimeoutError("alarm")

    with MemoryHub() as hub:
        core_of(hub).follow = alarm  # type: ignore[method-assign,assignment]
        endpoint = StreamEndpoint(hub)
        with pytest.raises(TimeoutError, match="alarm"):
            endpoint.answer(request(server), "orders", TENANT)
        assert endpoint.limiter.open == 0
        assert (hub.stats().detached, hub.stats().subscriptions) == (0, 0)


@pytest.mark.parametrize("last", ["", "start", "17"])
def test_a_stream_that_comes_before_the_hub_listens_is_detached_and_begins_with_a_refresh(
    server: socket.socket, client: socket.socket, last: str
) -> None:
    with LateHub() as hub:
        endpoint = StreamEndpoint(hub)
        serve(endpoint.answer(request(server, HTTP_LAST_EVENT_ID=last), "orders", TENANT), server)
        received = Client(client, chunked=False, skip=len(HEAD))
        assert (endpoint.limiter.open, endpoint.limiter.in_threads) == (1, 0)
        hub.may_listen.set()
        hub.start(PATIENCE)
        eventually(lambda: not core_of(hub).dispatcher.registry.all()[0].early)  # type: ignore[attr-defined]
        hub.publish("orders", TENANT, 1)
        assert [(event.type, event.data) for event in received.events(2)] == [("refresh", "{}"), ("message", "1")]
        client.close()


def test_a_stream_that_comes_after_the_hub_has_listened_begins_without_a_refresh(
    server: socket.socket, client: socket.socket
) -> None:
    with LateHub() as hub:
        hub.may_listen.set()
        endpoint = StreamEndpoint(hub)
        hub.start(PATIENCE)
        serve(endpoint.answer(request(server), "orders", TENANT), server)
        hub.publish("orders", TENANT, 1)
        received = Client(client, chunked=False, skip=len(HEAD))
        assert [event.data for event in received.events(1)] == ["1"]
        client.close()


def test_a_stream_that_has_to_stay_before_the_hub_listens_is_told_to_come_back(server: socket.socket) -> None:
    with LateHub() as hub:
        endpoint = StreamEndpoint(hub)
        answer = endpoint.answer(request(server), "orders", TENANT)
        assert isinstance(answer.body, DetachedStream)
        items = list(answer.body)  # nothing of it is written
        assert b"retry: " in items[-1]
        close(answer)
        assert (endpoint.limiter.open, hub.stats().subscriptions) == (0, 0)


def test_an_early_client_gets_no_number_before_its_refresh(server: socket.socket) -> None:
    """The position may be set a moment before those who came early are told."""

    with LateHub() as hub:
        core, log = core_of(hub), ManualLog()
        core.log = log  # type: ignore[assignment]
        follow = core.follow

        def follow_and_advance(*given: Any) -> tuple[Feed, Reader]:
            found = follow(*given)
            log.begun = log.offered = 50
            return found

        core.follow = follow_and_advance  # type: ignore[method-assign,assignment]
        answer = StreamEndpoint(hub).answer(request(server, HTTP_LAST_EVENT_ID="5"), "orders", TENANT)
        assert isinstance(answer.body, DetachedStream)
        assert b"id: start\n" in next(answer.body)
        close(answer)


# What the application wants to be called at the end.


def endings_of(answer: Answer) -> Endings:
    assert answer.endings is not None
    return answer.endings


def test_the_end_of_a_stream_in_a_thread_is_told_once(endpoint: StreamEndpoint) -> None:
    answer = endpoint.answer(BROWSER, "orders", TENANT)
    told: list[str] = []
    endings_of(answer).append(lambda: told.append(threading.current_thread().name))
    assert not told
    close(answer)
    close(answer)
    assert told == [threading.current_thread().name]


def test_the_end_of_a_detached_stream_is_told_when_its_client_leaves_and_not_when_it_is_detached(
    endpoint: StreamEndpoint, server: socket.socket, client: socket.socket
) -> None:
    answer = endpoint.answer(request(server), "orders", TENANT)
    told: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    endings_of(answer).append(lambda: told.put((threading.current_thread().name, endpoint.limiter.open)))
    serve(answer, server)
    endpoint.hub.publish("orders", TENANT, 1)
    Client(client, chunked=False, skip=len(HEAD)).events(1)
    assert told.empty()
    client.close()
    assert told.get(timeout=PATIENCE) == ("pgfanout-endings", 0)


def test_the_end_of_a_stream_that_has_to_stay_is_told_at_its_end(
    endpoint: StreamEndpoint, server: socket.socket
) -> None:
    answer = endpoint.answer(request(server), "orders", TENANT)
    told: list[int] = []
    endings_of(answer).append(lambda: told.append(1))
    next(answer.body)  # type: ignore[call-overload]
    keep_thread(endpoint, answer.body)  # type: ignore[arg-type]
    assert not told
    close(answer)
    assert told == [1]


def test_a_function_that_fails_at_the_end_is_logged_and_the_next_is_called(
    endpoint: StreamEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    answer = endpoint.answer(BROWSER, "orders", TENANT)
    told: list[int] = []
    endings_of(answer).append(lambda: 1 // 0)
    endings_of(answer).append(lambda: told.append(1))
    close(answer)
    assert told == [1]
    assert "a call_on_close function of a stream failed" in caplog.text


def test_an_answer_that_is_no_stream_has_no_end_to_be_told(hub: MemoryHub) -> None:
    assert refused(StreamEndpoint(hub, StreamLimiter(0)), BROWSER).endings is None


@pytest.mark.parametrize(("last", "types"), [("", []), ("start", ["refresh"])])
def test_a_browser_that_comes_back_to_a_detached_stream_is_told_to_refresh_first(
    endpoint: StreamEndpoint, server: socket.socket, client: socket.socket, last: str, types: list[str]
) -> None:
    serve(endpoint.answer(request(server, HTTP_LAST_EVENT_ID=last), "orders", TENANT), server)
    endpoint.hub.close()
    received = Client(client, chunked=False, skip=len(HEAD))
    assert [event.type for event in received.to_end()] == [*types, "close"]


@pytest.mark.parametrize("last", ["", "start"])
def test_a_detached_stream_can_begin_with_a_refresh_in_any_case(
    endpoint: StreamEndpoint, server: socket.socket, client: socket.socket, last: str
) -> None:
    environ = request(server, HTTP_LAST_EVENT_ID=last)
    serve(endpoint.answer(environ, "orders", TENANT, refresh_first=True), server)
    endpoint.hub.publish("orders", TENANT, 1)
    received = Client(client, chunked=False, skip=len(HEAD))
    assert [(event.type, event.data) for event in received.events(2)] == [("refresh", "{}"), ("message", "1")]


def test_a_stream_that_begins_with_a_refresh_replays_nothing_and_has_the_number_of_now(
    hub: MemoryHub, server: socket.socket
) -> None:
    """The refresh stands for everything up to that number."""
    core, log = core_of(hub), ManualLog()
    hub.start(PATIENCE)
    core.log = log  # type: ignore[assignment]
    log.begun = log.offered = 50
    answer = StreamEndpoint(hub).answer(request(server, HTTP_LAST_EVENT_ID="5"), "orders", TENANT, refresh_first=True)
    assert isinstance(answer.body, DetachedStream)
    assert next(answer.body) == b": open\nid: 50\nevent: refresh\ndata: {}\n\n"
    close(answer)


def test_a_detached_stream_has_its_data_as_text(
    endpoint: StreamEndpoint, server: socket.socket, client: socket.socket
) -> None:
    serve(endpoint.answer(request(server), "orders", TENANT, data="text"), server)
    endpoint.hub.publish_many([("orders", TENANT, "<b>\n1</b>", "row"), ("orders", TENANT, 2)])
    received = Client(client, chunked=False, skip=len(HEAD))
    assert [(event.type, event.data) for event in received.events(2)] == [("row", "<b>\n1</b>"), ("message", "2")]


def test_a_stream_that_was_to_be_detached_and_stays_has_its_data_as_text(
    endpoint: StreamEndpoint, server: socket.socket
) -> None:
    answer = endpoint.answer(request(server), "orders", TENANT, data="text", refresh_first=True)
    stream = answer.body
    assert isinstance(stream, DetachedStream)
    assert [event.type for event in parse(next(stream))] == ["refresh"]
    assert next(stream) == sse.KEEPALIVE
    endpoint.hub.publish("orders", TENANT, "<b>")
    assert [event.data for event in parse(next(stream))] == ["<b>"]
    close(answer)


def test_several_channels_reach_a_detached_stream(
    endpoint: StreamEndpoint, server: socket.socket, client: socket.socket
) -> None:
    serve(endpoint.answer(request(server), ["stock", "orders"], str(TENANT)), server)
    endpoint.hub.publish_many([("orders", TENANT, 1), ("stock", TENANT, 2), ("orders", uuid.UUID(int=2), 3)])
    endpoint.hub.publish("orders", TENANT, 4)
    received = Client(client, chunked=False, skip=len(HEAD))
    assert [event.data for event in received.events(3)] == ["1", "2", "4"]


def test_the_keepalive_reaches_a_detached_stream(hub: MemoryHub, server: socket.socket, client: socket.socket) -> None:
    serve(StreamEndpoint(hub, keepalive=0.05).answer(request(server), "orders", TENANT), server)
    received = Client(client, chunked=False, skip=len(HEAD))
    eventually(lambda: received.read(0.1) == [] and received.parser.comments[-1:] == [" keepalive"])


def test_the_clients_socket_is_prepared_before_it_leaves(
    hub: MemoryHub, server: socket.socket, client: socket.socket
) -> None:
    answer = StreamEndpoint(hub, client_timeout=12.5).answer(request(server), "orders", TENANT)
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_500
    close(answer)


@pytest.mark.parametrize(
    ("configured", "asked", "detached"),
    [
        ("auto", None, True),
        ("never", None, False),
        ("auto", "never", False),
        ("auto", False, False),
        ("never", "auto", True),
        (False, True, True),
    ],
)
def test_one_answer_may_differ_from_what_is_configured(
    hub: MemoryHub, server: socket.socket, configured: Any, asked: Any, detached: bool
) -> None:
    endpoint = StreamEndpoint(hub, detach=configured)
    answer = endpoint.answer(request(server), "orders", TENANT, detach=asked)
    assert isinstance(answer.body, DetachedStream if detached else ThreadedStream)
    assert endpoint.limiter.in_threads == (not detached)
    assert hub.stats().kept_in_thread == ({} if detached else {CONFIGURED: 1})
    close(answer)


def test_why_streams_kept_their_threads_is_counted(hub: MemoryHub, server: socket.socket) -> None:
    endpoint = StreamEndpoint(hub)
    answers = [
        endpoint.answer(BROWSER, "orders", TENANT),
        endpoint.answer(BROWSER, "orders", TENANT),
        endpoint.answer(request(server, SERVER_PROTOCOL="HTTP/2.0"), "orders", TENANT),
        endpoint.answer(request(server), "orders", TENANT, detach="never"),
    ]
    expected = {"the server gives no socket": 2, "the request is not HTTP/1": 1, CONFIGURED: 1}
    assert hub.stats().kept_in_thread == expected
    assert (endpoint.limiter.open, endpoint.limiter.in_threads) == (4, 4)
    before = hub.stats()
    for answer in answers:
        close(answer)
    close(endpoint.answer(BROWSER, "orders", TENANT))
    assert before.kept_in_thread == expected  # a snapshot
    assert hub.stats().kept_in_thread == {**expected, "the server gives no socket": 3}
    assert (hub.stats().subscriptions, hub.stats().detached) == (0, 0)


def test_a_refused_stream_is_none_that_kept_its_thread(hub: MemoryHub) -> None:
    refused(StreamEndpoint(hub, StreamLimiter(0)), BROWSER)
    assert hub.stats().kept_in_thread == {}


def test_head_takes_no_connection_over(endpoint: StreamEndpoint, server: socket.socket) -> None:
    answer = endpoint.answer(request(server, REQUEST_METHOD="HEAD"), "orders", TENANT)
    assert list(answer.body) == []
    assert endpoint.limiter.open == 0


def test_a_stream_that_finds_later_that_it_has_to_stay_counts_as_one_in_a_thread(
    endpoint: StreamEndpoint, server: socket.socket
) -> None:
    answer = endpoint.answer(request(server), "orders", TENANT, "ann")
    assert isinstance(answer.body, DetachedStream)
    next(answer.body)  # and nothing of it is written
    assert (endpoint.limiter.open, endpoint.limiter.in_threads) == (1, 0)
    keep_thread(endpoint, answer.body)
    assert (endpoint.limiter.open, endpoint.limiter.in_threads) == (1, 1)
    stats = endpoint.hub.stats()
    assert (stats.kept_in_thread, stats.subscriptions, stats.detached) == ({CHANGED_BODY: 1}, 1, 0)
    close(answer)
    close(answer)
    assert (endpoint.limiter.open, endpoint.limiter.in_threads, endpoint.hub.stats().subscriptions) == (0, 0, 0)


def keep_thread(endpoint: StreamEndpoint, stream: DetachedStream) -> None:
    """Ask for the next items: a keepalive, since nothing has come yet, and an event."""
    assert next(stream) == sse.KEEPALIVE
    assert (endpoint.hub.stats().subscriptions, endpoint.hub.stats().detached) == (1, 0)
    endpoint.hub.publish("orders", TENANT, "first")
    assert [event.data for event in parse(next(stream))] == ['"first"']


def test_a_stream_that_has_to_stay_when_no_thread_is_left_is_told_to_come_back(
    hub: MemoryHub, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter_module, "_server_threads", 2)
    endpoint = StreamEndpoint(hub)
    in_thread = endpoint.answer(BROWSER, "orders", TENANT)
    answer = endpoint.answer(request(server), "orders", TENANT)
    assert isinstance(answer.body, DetachedStream)
    items = list(answer.body)  # nothing of it is written
    assert [event.type for event in parse(b"".join(items))] == ["close"]
    assert b"retry: " in items[-1]
    close(answer)
    assert (endpoint.limiter.open, endpoint.limiter.in_threads) == (1, 1)
    assert hub.stats().kept_in_thread == {"the server gives no socket": 1}
    close(in_thread)


def test_a_stream_that_has_to_stay_takes_the_thread_of_a_client_that_has_left(
    hub: MemoryHub, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter_module, "_server_threads", 2)
    endpoint = StreamEndpoint(hub)
    other, client = socket.socketpair()
    with other:
        left = endpoint.answer({**BROWSER, "gunicorn.socket": other}, "orders", TENANT, detach="never")
        client.close()
        answer = endpoint.answer(request(server), "orders", TENANT)
        assert isinstance(answer.body, DetachedStream)
        next(answer.body)  # and nothing of it is written
        assert next(answer.body) == sse.KEEPALIVE
        assert (endpoint.limiter.open, endpoint.limiter.in_threads) == (1, 1)
        close(answer)
        close(left)


def test_a_stream_without_descriptors_stays_and_is_counted(
    endpoint: StreamEndpoint, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socketpair", refuse)
    answer = endpoint.answer(request(server), "orders", TENANT)
    assert isinstance(answer.body, DetachedStream)
    assert next(answer.body) == sse.opening()
    assert endpoint.hub.stats().kept_in_thread == {NO_DESCRIPTORS: 1}
    assert endpoint.limiter.in_threads == 1
    close(answer)
    assert endpoint.limiter.in_threads == 0


def test_streams_that_detach_have_more_places_than_there_are_threads(
    hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter_module, "_server_threads", 2)
    endpoint = StreamEndpoint(hub, StreamLimiter(6))
    pairs = [tcp_pair() for _ in range(5)]
    for server, _ in pairs:
        serve(endpoint.answer(request(server), "orders", TENANT), server)
    in_thread = endpoint.answer(BROWSER, "orders", TENANT)
    assert (endpoint.limiter.open, endpoint.limiter.in_threads) == (6, 1)
    assert hub.stats().detached == 5
    close(in_thread)
    for _, client in pairs:
        client.close()
    eventually(lambda: endpoint.limiter.open == 0)


def test_the_place_of_a_detached_client_that_has_left_is_free_for_the_next(hub: MemoryHub) -> None:
    endpoint = StreamEndpoint(hub, StreamLimiter(1))
    for _ in range(20):
        server, client = socket.socketpair()  # what one end does the other sees at once
        answer = endpoint.answer(request(server), "orders", TENANT)
        assert isinstance(answer.body, DetachedStream), "the place of the one before was not free"
        serve(answer, server)
        client.close()
    assert streamer.wait_until_empty(PATIENCE)


def test_the_place_of_a_detaching_response_that_was_dropped_is_free_for_the_next(
    hub: MemoryHub, server: socket.socket
) -> None:
    endpoint = StreamEndpoint(hub, StreamLimiter(1))
    endpoint.answer(request(server), "orders", TENANT)
    gc.collect()
    answer = endpoint.answer(request(server), "orders", TENANT)
    assert isinstance(answer.body, DetachedStream)
    close(answer)
    assert endpoint.limiter.open == 0


@pytest.mark.parametrize("detach", ["auto", "never"])
@pytest.mark.parametrize(("changes", "status"), [({}, "200 OK"), ({"HTTP_ACCEPT": "*/*"}, "503 Service Unavailable")])
def test_a_stream_that_would_take_one_of_the_last_descriptors_is_refused(
    endpoint: StreamEndpoint,
    server: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    detach: str,
    changes: dict[str, str],
    status: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda which: (4, 10**6))  # 2 of them are the server's
        answer = refused(endpoint, request(server, **changes))
        assert answer.status == status
        assert endpoint.limiter.open == 0
        close(endpoint.answer({**BROWSER, **changes}, "orders", TENANT))  # no socket, nothing to go by
    answer = endpoint.answer(request(server), "orders", TENANT, detach=detach)
    assert answer.status == "200 OK"
    close(answer)


def test_what_is_published_after_the_answer_reaches_a_detached_stream_too(
    endpoint: StreamEndpoint, server: socket.socket, client: socket.socket
) -> None:
    """As it reaches one in a thread: see `test_a_stream_carries_what_is_published_from_the_answer_on`."""
    answer = endpoint.answer(request(server), "orders", TENANT)
    with endpoint.hub.subscribe("orders", TENANT) as subscription:
        endpoint.hub.publish("orders", TENANT, "after the answer")
        subscription.get(PATIENCE)
    serve(answer, server)
    endpoint.hub.close()
    received = Client(client, chunked=False, skip=len(HEAD))
    assert [event.data for event in received.to_end()] == ['"after the answer"', "{}"]
