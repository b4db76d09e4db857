"""Whatever arrives, a stream carries the events it was meant to carry, and not a line more."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import Phase, assume, example, find, given, settings
from hypothesis import strategies as st

from pgfanout import Event, MemoryHub, PayloadTooLargeError, envelope
from pgfanout.errors import InvalidEventError
from pgfanout.event import check_json
from pgfanout.payload import payload_json
from pgfanout.streams import StreamEndpoint, StreamLimiter, sse
from pgfanout.topic import as_text
from tests.support.sse import EventStreamParser

from .readback import check_frame, check_frames, check_notification, delivered_id

TENANT = "7d0e1c4a-1111-4222-8333-abcdefabcdef"

FORGERIES = [
    *(
        "\r",
        "\n",
        "\r\n",
        "\n\n",
        "\r\r",
        "\x00",
        "\u2028",
        "\u2029",
        "\x85",
        "\x0b",
        "\x0c",
        "\x1c",
        "\ufeff",
        "\ud800",
    ),
    *(
        "data:",
        "data: ",
        "event: close",
        "\nevent: close\ndata: {}\n\n",
        "\rid: forged\r",
        "\n: comment\n",
        "\nretry: 1\n",
    ),
    *(
        ":",
        "id",
        "close",
        "refresh",
        "\nX-Forged: 1",
        "\r\nSet-Cookie: a=b\r\n\r\n",
        '"',
        "\\",
        "\\u000a",
        "\\u000D",
        "\\u0000",
    ),
]
nasty = st.lists(st.sampled_from(FORGERIES) | st.text(max_size=3), max_size=5).map("".join)
blanks = st.text(st.sampled_from(" \t\r\n"), max_size=3)
sizes = st.lists(st.integers(1, 9), max_size=4)
numbers = st.sampled_from(["0", "-0", "1e400", "-1E+9999", "9" * 5000, "0.1", "01", "1.", "NaN", "-Infinity", "0x1"])


def escaped(character: str) -> str:
    """A character as JSON's \\u escapes, two for one beyond the basic plane."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


@st.composite
def strings(draw: st.DrawFn, texts: st.SearchStrategy[str] = nasty) -> str:
    """A JSON string that says it with escapes, as JSON's writers do, or raw, which JSON may forbid."""
    text = draw(texts)
    form = draw(st.sampled_from(["dumped", "escaped", "raw", "mixed"]))
    if form == "dumped":
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    if form == "raw":
        return f'"{text}"'
    return '"' + "".join(escaped(c) if form == "escaped" or draw(st.booleans()) else c for c in text) + '"'


@st.composite
def containers(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """A JSON array or object with line ends between its tokens, and keys that come twice."""
    items = draw(st.lists(inner, max_size=3))
    if draw(st.booleans()):
        items = [f"{draw(strings())}{draw(blanks)}:{draw(blanks)}{item}" for item in items]
        brackets = "{}"
    else:
        brackets = "[]"
    comma = draw(blanks) + "," + draw(blanks)
    return brackets[0] + draw(blanks) + comma.join(items) + draw(blanks) + brackets[1]


deep = st.tuples(st.sampled_from([1, 50, 990, 3000]), st.sampled_from(["[]", "[\r]", '{"a":1}'])).map(
    lambda shape: "[" * shape[0] + shape[1] + "]" * shape[0]
)
values = st.recursive(strings() | numbers | st.sampled_from(["null", "true", "{}"]), containers, max_leaves=6) | deep
tenants = strings(st.sampled_from([TENANT, TENANT.upper(), "acme", "7", 'a"\\c', "größe", ""]) | nasty)
labels = strings(nasty | st.sampled_from(["order.created", "close", "refresh", "pgfanout.cursor", "", "7"]))


@st.composite
def envelopes(draw: st.DrawFn) -> str:
    """An envelope of any order, with members that come twice, and each of them written in any way."""
    members = [("channel", strings(st.just("orders"))), ("tenant_id", tenants), ("payload", values)]
    optional = [("type", labels), ("id", labels), ("x", values), ("channel", labels), ("payload", values)]
    members += draw(st.lists(st.sampled_from(optional), max_size=3) | st.just([]))
    # Half of the names as everybody writes them: the more is wrong with a notification, the fewer pass.
    parts = [
        f"{draw(strings(st.just(name)) | st.just(json.dumps(name)))}{draw(blanks)}:{draw(blanks)}{draw(value)}"
        for name, value in draw(st.permutations(members))
    ]
    return draw(blanks) + "{" + (draw(blanks) + "," + draw(blanks)).join(parts) + "}" + draw(blanks)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """An envelope into which something was put."""
    text = draw(envelopes())
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(nasty) + text[at + draw(st.integers(0, 3)) :]


notifications = envelopes() | damaged() | nasty


@st.composite
def published(draw: st.DrawFn) -> Event:
    """What a publish makes of a value, or of bytes that are JSON."""
    kind, name = draw(safe), draw(safe | st.builds(envelope.new_id))
    assume(kind not in ("close", "refresh") and not kind.startswith("pgfanout."))
    payload: Any = draw(safe | st.dictionaries(safe, safe, max_size=3) | values.map(_utf8).filter(_is_payload))
    return Event("orders", payload_json(payload), kind, name)


safe = nasty.map(lambda text: re.sub("[\r\n\x00\ud800]", "", text))


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")


def _is_payload(payload: bytes) -> bool:
    try:
        check_json(payload)
    except InvalidEventError:
        return False
    return True


@given(notifications, sizes)
@example(f'{{"channel":"o","tenant_id":"{TENANT}","payload":"\u2028\\n","type":"a\\u000aevent: close"}}', [1])
@example(f'{{"channel":"o","tenant_id":"{TENANT}","payload":1,"id":"7\\u000d","id":"8"}}', [])
@example(f'{{"channel":"o","tenant_id":"{TENANT}","payload":[1,\r\n\r2,\r\r]\n}}', [1])
def test_a_notification_is_refused_or_becomes_exactly_one_event(text: str, cuts: list[int]) -> None:
    check_notification(text, cuts)


TRIES = settings(max_examples=50_000, phases=[Phase.generate], derandomize=True, database=None)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\u2028", "\\u000a"])
def test_the_payloads_tried_have_such_ends_among_those_that_pass(end: str) -> None:
    def passes(payload: str) -> bool:
        event = check_notification(f'{{"channel":"orders","tenant_id":"{TENANT}","payload":{payload}}}')
        return event is not None and end.encode() in event.payload

    assert find(strings() | values, passes, settings=TRIES)


def test_of_the_notifications_tried_some_pass() -> None:
    assert find(envelopes(), lambda text: check_notification(text) is not None, settings=TRIES)


@pytest.mark.parametrize("end", ["\r", "\n", "\x00"])
def test_a_line_end_written_as_an_escape_is_refused_in_a_type_and_leaves_an_id_out(end: str) -> None:
    text = f'{{"channel":"orders","tenant_id":"{TENANT}","payload":1,"%s":"a{escaped(end)}event: close"}}'
    with pytest.raises(envelope.MalformedEnvelopeError, match="^invalid type$"):
        envelope.decode(text % "type")
    assert envelope.decode(text % "id")[1].id == ""


@given(
    st.lists(published(), max_size=6),
    sizes,
    st.sampled_from([TENANT, "acme", "7", 'a"\\c\\', '","payload":2}', "größe"]),
)
def test_what_is_published_is_what_a_browser_reads(events: list[Event], cuts: list[int], tenant: str) -> None:
    arrived = []
    for event in events:
        try:
            text = envelope.encode(event, tenant)
        except PayloadTooLargeError:
            assume(False)
        topic, decoded = envelope.decode(text)
        assert topic.tenant == tenant
        assert decoded == Event(event.channel, event.payload, event.type, delivered_id(event.id))
        arrived.append(decoded)
    check_frames(arrived, cuts)


@given(st.lists(notifications, max_size=6), sizes)
def test_a_batch_of_notifications_is_as_many_events_as_were_accepted(texts: list[str], cuts: list[int]) -> None:
    accepted = [event for text in texts if (event := check_notification(text)) is not None]
    check_frames(accepted, cuts)


@given(st.sampled_from(FORGERIES), st.sampled_from(["channel", "type", "id"]), nasty)
def test_publish_refuses_what_an_event_could_not_carry_safely(forgery: str, field: str, rest: str) -> None:
    parts: dict[str, Any] = {"channel": "orders", "payload": b"1", "type": "", "id": "", field: rest + forgery}
    try:
        event = Event(**parts)
    except InvalidEventError as error:
        assert error.field == field
        assert len(str(error).splitlines()) == 1, "the message would forge a line of the log"
        return
    check_frames([event])


@given(st.sampled_from(FORGERIES), nasty)
def test_a_tenant_or_a_user_that_is_refused_forges_no_line_of_a_log(forgery: str, rest: str) -> None:
    for field in ("tenant", "user"):
        try:
            text = as_text(rest + forgery, field)
        except InvalidEventError as error:
            assert error.field == field
            assert len(str(error).splitlines()) == 1
        else:
            assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


@given(st.text(st.characters(max_codepoint=255)) | nasty, st.sampled_from(["text/event-stream", "*/*"]) | nasty)
@example("start\r\nX-Forged: 1\r\n\r\ndata: forged\n\n", "text/event-stream\r\nX-Forged: 1")
def test_nothing_that_a_client_sends_comes_back_in_the_answer(last_event_id: str, accept: str) -> None:
    environ = {"REQUEST_METHOD": "GET", "HTTP_LAST_EVENT_ID": last_event_id, "HTTP_ACCEPT": accept}
    with MemoryHub() as hub:
        answer = StreamEndpoint(hub).answer(environ, "orders", TENANT)
        stream = iter(answer.body)
        first = next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert first == sse.opening(bool(last_event_id))
    assert (answer.status, answer.headers) == ("200 OK", list(sse.HEADERS))


@given(nasty, st.sampled_from(["text/event-stream", "*/*"]).flatmap(lambda kind: nasty.map(lambda end: kind + end)))
def test_nothing_that_a_client_sends_comes_back_in_a_refusal_but_a_hubs_id(last_event_id: str, accept: str) -> None:
    environ = {"REQUEST_METHOD": "GET", "HTTP_LAST_EVENT_ID": last_event_id, "HTTP_ACCEPT": accept}
    with MemoryHub() as hub:
        answer = StreamEndpoint(hub, StreamLimiter(0)).answer(environ, "orders", TENANT)
    body = b"".join(answer.body)
    if accept.startswith("text/event-stream"):
        parser = EventStreamParser()
        assert parser.feed(body) == [] and len(parser.retries) == 1
        own = re.fullmatch("[0-9A-Za-z_-]{1,64}", last_event_id)
        assert parser.last_event_id == (last_event_id if own else "start" if last_event_id else "")
        assert parser.blocks == 1 and body.count(b"\n") == (5 if last_event_id else 4)
        assert answer.headers == list(sse.HEADERS)
    else:
        assert body == b"this process has reached its limit of 0 streams\n"
        assert [name for name, _ in answer.headers] == ["Content-Type", "Retry-After"]


EVENT = Event("orders", b'{"a":\n1}', "order.created", "7")


@pytest.mark.parametrize(
    "frame",
    [
        b'id: 7\nevent: order.created\ndata: {"a":\ndata: 1}\n\n\n',
        b'id: 7\nevent: order.created\ndata: {"a":\n1}\n\n',
        b'id: 7\nevent: order.created\ndata: {"a":\rdata: 1}\n\n: x\n',
        b'id: 7\nevent: order.created\nfield: x\ndata: {"a":\ndata: 1}\n\n',
        b'id: 7\nevent: order.created\ndata: {"a":\ndata: 1}\n\nevent: close\ndata: {}\n\n',
        b'id: 7\nevent: order.created\nretry: 1\ndata: {"a":\ndata: 1}\n\n',
        b'event: order.created\ndata: {"a":\ndata: 1}\n\n',
        b'id: 7\nevent: order.created\ndata: {"a":\ndata: 1}\n',
        b"",
    ],
)
def test_the_read_back_notices_a_frame_that_is_not_its_event(frame: bytes) -> None:
    check_frame(EVENT, sse.encode(EVENT))
    with pytest.raises(AssertionError):
        check_frame(EVENT, frame)
