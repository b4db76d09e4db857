"""StreamEndpoint: which answer a request gets."""

from __future__ import annotations

import gc
import logging
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from pgfanout import MemoryHub, StreamLimiter
from pgfanout.errors import HubConfigurationError, InvalidEventError
from pgfanout.streams import Answer, EventStream, StreamEndpoint, sse
from pgfanout.streams import endpoint as endpoint_module
from pgfanout.streams import limiter as limiter_module

from .support.sse import EventStreamParser, parse

PATIENCE = 20.0
TENANT = uuid.UUID(int=1)
BROWSER = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/event-stream"}
OTHER_CLIENT = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "*/*"}


class NeverListeningHub(MemoryHub):
    """A hub whose server doesn't answer."""

    def _listening(self) -> None:
        pass


class MisconfiguredHub(MemoryHub):
    """A hub whose password is wrong."""

    def _listening(self) -> None:
        raise HubConfigurationError("wrong password")


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


def body(answer: Answer) -> EventStream:
    assert isinstance(answer.body, EventStream)
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
    assert not isinstance(answer.body, EventStream)
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
    assert b"streams of this " + (b"process" if user is None else b"user") in b"".join(answer.body)


def test_a_full_process_refuses_and_accepts_again_when_a_stream_has_ended(endpoint: StreamEndpoint) -> None:
    answers = [endpoint.answer(OTHER_CLIENT, "orders", TENANT) for _ in range(2)]
    assert refused(endpoint, OTHER_CLIENT).status.startswith("503")
    close(answers[0])
    answers.append(endpoint.answer(OTHER_CLIENT, "orders", TENANT))
    assert answers[-1].status == "200 OK"
    for answer in answers:
        close(answer)


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
    assert caplog.messages == ["a stream was refused: all 0 streams of this process are taken"]


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
    assert "not listening after 0.01 s: no answer yet" in caplog.text


@pytest.mark.parametrize(("environ", "status"), [(BROWSER, "200 OK"), (OTHER_CLIENT, "503 Service Unavailable")])
def test_a_hub_that_is_closing_sends_its_clients_to_the_next_one(
    endpoint: StreamEndpoint, environ: dict[str, Any], status: str
) -> None:
    endpoint.hub.close()
    assert refused(endpoint, environ).status == status
    assert endpoint.limiter.open == 0


@pytest.mark.parametrize(("channels", "tenant"), [("", TENANT), ([], TENANT), ("orders", "me")])
def test_a_wrong_channel_or_tenant_is_the_callers_to_answer(
    endpoint: StreamEndpoint, channels: Any, tenant: Any
) -> None:
    with pytest.raises(InvalidEventError):
        endpoint.answer(BROWSER, channels, tenant)
    assert endpoint.limiter.open == 0


def test_what_waiting_will_not_cure_is_raised_and_gives_the_place_back() -> None:
    with MisconfiguredHub() as hub:
        endpoint = StreamEndpoint(hub)
        with pytest.raises(HubConfigurationError, match="wrong password"):
            endpoint.answer(BROWSER, "orders", TENANT)
        assert endpoint.limiter.open == 0


# The server's hooks.


@pytest.fixture
def no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server's hooks were called, and nobody was warned of that."""
    monkeypatch.setattr(limiter_module, "_told", False)
    endpoint_module._complain_about_hooks.cache_clear()


GUNICORN = {**BROWSER, "SERVER_SOFTWARE": "gunicorn/27.0.1"}


def hook_warnings(endpoint: StreamEndpoint, environ: dict[str, Any], caplog: pytest.LogCaptureFixture) -> int:
    """How many lines of the log name the hooks after two streams."""
    for _ in range(2):
        close(endpoint.answer(environ, "orders", TENANT))
    return sum("post_worker_init, worker_exit" in message for message in caplog.messages)


@pytest.mark.usefixtures("no_hooks")
def test_gunicorn_without_the_hooks_is_warned_of_once(
    endpoint: StreamEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    assert hook_warnings(endpoint, GUNICORN, caplog) == 1


@pytest.mark.usefixtures("no_hooks")
@pytest.mark.parametrize("environ", [BROWSER, {**BROWSER, "SERVER_SOFTWARE": "Werkzeug/3.1"}], ids=["none", "werkzeug"])
def test_another_server_needs_no_hooks(
    endpoint: StreamEndpoint, environ: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert hook_warnings(endpoint, environ, caplog) == 0


@pytest.mark.usefixtures("no_hooks")
def test_gunicorn_with_the_hooks_is_no_reason_for_a_warning(
    endpoint: StreamEndpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter_module, "_told", True)
    assert hook_warnings(endpoint, GUNICORN, caplog) == 0


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
