"""What clients that aren't browsers make of a stream: no message that is none, the right id, the delay, the letters."""

from __future__ import annotations

import io
from collections.abc import Callable

import httpx
import httpx_sse
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from pgfanout.event import Event
from pgfanout.streams import sse

from ..support.other_clients import Reading, fetch_event_source, firefox, htmx

Client = Callable[[bytes], Reading]

# A first visit with history: an event, silence, silence in which others had events, an event, silence, the end.
STREAM = (
    sse.opening(number=40)
    + sse.KEEPALIVE
    + sse.encode(Event("orders", '"Grüße €"'.encode(), "order.created", "41"))
    + sse.KEEPALIVE * 2
    + sse.keepalive(44)
    + sse.KEEPALIVE
    + sse.encode(Event("orders", b'"x"', "order.created", "45"))
    + sse.KEEPALIVE
)
MESSAGES = [
    ("pgfanout.cursor", "{}"),
    ("order.created", '"Grüße €"'),
    ("pgfanout.cursor", "{}"),
    ("order.created", '"x"'),
]


def with_httpx_sse(stream: bytes) -> Reading:
    answer = httpx.Response(200, headers=list(sse.HEADERS), content=stream)
    events = list(httpx_sse.EventSource(answer).iter_sse())
    retries = [event.retry for event in events if event.retry is not None]
    return Reading([(event.event, event.data) for event in events], events[-1].id, retries[-1] if retries else None)


@pytest.fixture(params=[with_httpx_sse, fetch_event_source, htmx, firefox], ids=lambda client: client.__name__)
def client(request: pytest.FixtureRequest) -> Client:
    read: Client = request.param
    return read


def test_each_message_is_an_event_and_each_event_a_message(client: Client) -> None:
    assert client(STREAM) == Reading(MESSAGES, "45", None)


@pytest.mark.parametrize(
    ("stream", "id"),
    [
        (sse.opening(), "start"),
        (sse.opening(True), "start"),
        (sse.opening(number=40), "40"),
        (sse.opening(True, number=40), "40"),
        (sse.opening(number=40) + sse.keepalive(44), "44"),
    ],
)
def test_an_idle_client_knows_how_far_it_has_come(client: Client, stream: bytes, id: str) -> None:
    assert client(stream).last_event_id == id


def test_a_farewell_says_when_to_come_back(client: Client) -> None:
    messages, id, retry = client(sse.opening(number=40) + sse.closing(3.0))
    assert (messages, id) == ([("pgfanout.cursor", "{}"), ("close", "{}")], "40")
    assert retry is not None and 300 <= retry <= 3000


def test_a_refusal_says_when_to_come_back_and_leaves_the_client_its_id(client: Client) -> None:
    assert client(sse.refusal(5.0, "45")) == Reading([("pgfanout.cursor", "{}")], "45", 5000)


def test_requests_takes_the_stream_for_utf_8() -> None:
    raw = HTTPResponse(io.BytesIO(STREAM), headers=dict(sse.HEADERS), status=200, preload_content=False)
    request = requests.Request("GET", "http://127.0.0.1/").prepare()
    answer = HTTPAdapter().build_response(request, raw)
    assert 'data: "Grüße €"' in answer.iter_lines(decode_unicode=True)
