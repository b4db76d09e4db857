"""Frames, read back by a parser that was written from the standard alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgfanout.event import CLOSE_EVENT, REFRESH_EVENT, Event
from pgfanout.streams import sse

from ..support.sse import EventStreamParser, SentEvent, parse

# Private members: the frames that an event keeps.

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=10)
blanks = st.text(st.sampled_from(" \t\r\n"), max_size=4)
labels = st.text(
    st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs"])
    | st.sampled_from(": \u2028\u2029\x85\x0b\t")
)
types = labels.filter(
    lambda kind: kind not in ("close", "refresh") and not kind.startswith("pgfanout.") and len(kind.encode()) < 256
)
CURSOR = b"event: pgfanout.cursor\ndata: {}\n\n"


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """JSON with blanks and line ends of every kind wherever JSON allows them."""
    separators = (draw(blanks) + "," + draw(blanks), draw(blanks) + ":" + draw(blanks))
    indent = draw(st.none() | blanks)
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()), indent=indent, separators=separators)
    return (draw(blanks) + text + draw(blanks)).encode()


def test_an_event_is_an_id_a_type_and_data() -> None:
    event = Event("orders", b'{"id": 42}', "order.created", "7")
    assert sse.encode(event) == b'id: 7\nevent: order.created\ndata: {"id": 42}\n\n'


def test_what_an_event_does_not_have_is_left_out() -> None:
    assert sse.encode(Event("orders", b"1")) == b"data: 1\n\n"


@pytest.mark.parametrize(("event", "kind"), [(CLOSE_EVENT, b"close"), (REFRESH_EVENT, b"refresh")])
def test_control_events_have_data_since_browsers_drop_events_without(event: Event, kind: bytes) -> None:
    assert sse.encode(event) == b"event: " + kind + b"\ndata: {}\n\n"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_of_a_payload_is_a_data_line(end: bytes) -> None:
    assert sse.encode(Event("orders", b"[1," + end + b"2]")) == b"data: [1,\ndata: 2]\n\n"


def test_an_empty_line_of_a_payload_does_not_end_the_event() -> None:
    assert sse.encode(Event("orders", b"[1,\n\n2]\n")) == b"data: [1,\ndata: \ndata: 2]\ndata: \n\n"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_other_separators_end_no_line(separator: str) -> None:
    event = Event("orders", f'"{separator}"'.encode() if separator > "\x1f" else b'"x"', f"a{separator}b")
    assert sse.encode(event).count(b"\n") == 3


@given(payloads(), types, labels)
@example(b'"\xe2\x80\xa8"', "a\u2028b", "\x85")
@example(b" 1", " leading", " ")
@example(b"1", "data", ":")
@example(b"\r\n\r\n1\r\r\n\n", "", "")
def test_a_parser_gets_back_what_was_put_in_and_no_forged_line(payload: bytes, kind: str, name: str) -> None:
    parser = EventStreamParser()
    sent = parser.feed(sse.encode(Event("orders", payload, kind, name)))
    data = re.sub("\r\n|\r", "\n", payload.decode())
    assert sent == [SentEvent(kind or "message", data, name)]
    assert json.loads(sent[0].data) == json.loads(payload)
    assert (parser.comments, parser.retries) == ([], [])


@given(st.lists(st.tuples(payloads(), types, labels.filter(bool)), max_size=8), st.integers(1, 40))
def test_a_stream_of_frames_is_read_in_order_however_it_is_cut(parts: list[tuple[bytes, str, str]], size: int) -> None:
    stream = sse.encode_all(Event("orders", *part) for part in parts)
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [(event.type, event.last_event_id) for event in parse(chunks)] == [
        (kind or "message", name) for _, kind, name in parts
    ]


def test_several_frames_are_one_after_the_other() -> None:
    events = [Event("orders", b"1"), REFRESH_EVENT]
    assert sse.encode_all(events) == sse.encode(events[0]) + sse.encode(events[1])
    assert sse.encode_all([]) == b""


def test_a_frame_is_encoded_once_and_shared() -> None:
    event = Event("orders", b"1")
    assert sse.encode(event) is sse.encode(event) is event._frame


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b'"<b>4</b>"', b"<b>4</b>"),
        (b' \r\n"<b>4</b>"\n', b"<b>4</b>"),
        (b'"1\\n2\\r\\n3\\r4"', b"1\ndata: 2\ndata: 3\ndata: 4"),
        (b'"1\\n\\n2\\n"', b"1\ndata: \ndata: 2\ndata: "),
        (b'""', b""),
        (b'" 1"', b" 1"),
        (b'"\\u2028"', "\u2028".encode()),
        (b'"\\ud83d\\ude00"', "\U0001f600".encode()),
        (b'"\\ud83d"', b"?"),
        (b'{"id": "<b>"}', b'{"id": "<b>"}'),
        (b'["<b>"]', b'["<b>"]'),
        (b"4", b"4"),
        (b"null", b"null"),
    ],
)
def test_as_text_a_payload_that_is_a_string_is_sent_line_by_line_and_any_other_as_json(
    payload: bytes, data: bytes
) -> None:
    event = Event("orders", payload, "row", "7")
    assert sse.encode_text(event) == b"id: 7\nevent: row\ndata: " + data + b"\n\n"


@given(texts, types, labels)
@example("", "", "")
@example("\n", "", "")
@example("id: 4\n\nevent: close", "", "")
@example("\r\n\r\r\n\n", "", "")
def test_a_parser_gets_back_the_text_that_was_put_in_and_no_forged_line(text: str, kind: str, name: str) -> None:
    parser = EventStreamParser()
    sent = parser.feed(sse.encode_text(Event("orders", json.dumps(text).encode(), kind, name)))
    assert sent == [SentEvent(kind or "message", re.sub("\r\n|\r", "\n", text), name)]
    assert (parser.comments, parser.retries) == ([], [])


def test_a_frame_as_text_is_encoded_once_and_the_other_form_is_not_made_for_it() -> None:
    event = Event("orders", b'"1"')
    assert sse.encode_text(event) is sse.encode_text(event) is event._text_frame
    assert event._frame is None
    assert sse.encode(event) == b'data: "1"\n\n'


def test_both_forms_of_a_payload_that_is_no_string_share_their_bytes() -> None:
    event = Event("orders", b"1")
    assert sse.encode_text(event) is sse.encode(event)


def test_an_event_that_no_stream_wanted_as_text_holds_no_text() -> None:
    event = Event("orders", b'"1"')
    sse.encode(event)
    assert not hasattr(event, "_text_frame")


def test_the_opening_is_a_comment_and_an_id_in_a_block_with_data() -> None:
    assert sse.opening() == b": open\nid: start\n" + CURSOR


def test_an_opening_of_a_number_leaves_that_as_the_id() -> None:
    assert sse.opening(number=41) == b": open\nid: 41\n" + CURSOR


@pytest.mark.parametrize(("number", "id"), [(None, b"start"), (0, b"start"), (41, b"41")])
def test_a_refresh_of_the_opening_has_the_id_in_its_own_block(number: int | None, id: bytes) -> None:
    assert sse.opening(True, number=number) == b": open\nid: " + id + b"\nevent: refresh\ndata: {}\n\n"


def test_a_keepalive_is_a_comment_without_a_blank_line() -> None:
    assert sse.keepalive(None) == sse.keepalive(0) == sse.KEEPALIVE == b": keepalive\n"


def test_a_keepalive_with_a_number_has_it_in_a_block_with_data() -> None:
    assert sse.keepalive(42) == b": keepalive\nid: 42\n" + CURSOR


def test_a_farewell_is_one_block_of_a_retry_and_close() -> None:
    head, _, rest = sse.closing(3.0).partition(b"\n")
    assert rest == b"event: close\ndata: {}\n\n"
    assert 300 <= int(head.removeprefix(b"retry: ")) <= 3000


def test_a_refusal_is_one_block_with_a_retry_and_nothing_for_the_page() -> None:
    assert sse.refusal(1.74, "") == b"retry: 1740\n" + CURSOR


@pytest.mark.parametrize(
    "last", ["41", "1764000000000000-5d1f0e", "start", "0" * 64, "2b94017e986540c6ae9b7cbad97d02e7"]
)
def test_a_refusal_repeats_the_id_that_the_client_came_with(last: str) -> None:
    assert sse.refusal(1, last) == b"retry: 1000\nid: " + last.encode() + b"\n" + CURSOR


@pytest.mark.parametrize("last", ["1" * 65, "4\n1", "41\n", "4 1", "<b>", "½", "\udc00", "\x00", "\x7f", "id:"])
def test_a_refusal_repeats_nothing_that_no_hub_makes_but_the_client_stays_one_that_comes_back(last: str) -> None:
    assert sse.refusal(1, last) == sse.refusal(1, "start")


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0, 0), (1.74, 1740), (0.0004, 0), (3600, 3_600_000)])
def test_a_retry_is_whole_milliseconds(seconds: float, milliseconds: int) -> None:
    parser = EventStreamParser()
    assert parser.feed(sse.retry(seconds)) == []
    assert parser.retry == milliseconds


def test_the_headers_keep_caches_and_proxies_from_holding_events_back() -> None:
    assert dict(sse.HEADERS) == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }


@pytest.mark.parametrize(
    ("environ", "name"), [({}, ""), ({"HTTP_LAST_EVENT_ID": ""}, ""), ({"HTTP_LAST_EVENT_ID": "41"}, "41")]
)
def test_the_last_event_id_is_that_of_the_request(environ: dict[str, Any], name: str) -> None:
    assert sse.last_event_id(environ) == name


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; q=0.9", True),
        ("application/json, text/event-stream", True),
        ("*/*", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_an_event_source_is_told_by_what_it_accepts(accept: str, wants: bool) -> None:
    assert sse.wants_events({"HTTP_ACCEPT": accept}) is wants


def test_who_says_nothing_is_no_event_source() -> None:
    assert sse.wants_events({}) is False
