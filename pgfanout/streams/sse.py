"""Encoding events as bytes of the WHATWG event-stream format.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from ..event import CLOSE_EVENT, REFRESH_EVENT, RESERVED_PREFIX, Event, keep_frame, keep_text_frame

__all__ = [
    "CURSOR_TYPE",
    "ENCODERS",
    "HEADERS",
    "KEEPALIVE",
    "Encoder",
    "closing",
    "encode",
    "encode_all",
    "encode_text",
    "keepalive",
    "last_event_id",
    "opening",
    "refusal",
    "retry",
    "wants_events",
]

HEADERS: Final = (
    # An event stream is always UTF-8, but some clients take text/* without a charset for ISO-8859-1.
    ("Content-Type", "text/event-stream; charset=utf-8"),
    # no-transform: a compressing proxy would hold events back.
    ("Cache-Control", "no-cache, no-transform"),
    # nginx passes each write on at once.
    ("X-Accel-Buffering", "no"),
)

KEEPALIVE: Final = b": keepalive\n"
"""A comment: browsers ignore it, and it keeps proxies from closing an idle connection. No blank line follows: some
clients that aren't browsers turn each blank line into an empty message."""

CURSOR_TYPE: Final = RESERVED_PREFIX + "cursor"
"""The type of a block with an id for the client to remember and nothing for the page. The block has data, since Firefox
ignores the id of a block without data."""

_CURSOR: Final = b"event: %b\ndata: {}\n\n" % CURSOR_TYPE.encode()
_START_ID: Final = b"start"
_repeatable_id = re.compile("[0-9A-Za-z_-]{1,64}").fullmatch

_line_ends = re.compile(b"\r\n|\n|\r")


Encoder = Callable[[Event], bytes]
"""Returns an event's frame. A frame is encoded once, and all streams with the same encoder share the bytes."""


def encode(event: Event) -> bytes:
    """Return an event's frame with its payload as JSON."""
    frame = event._frame  # a cache that belongs to this module
    if frame is None:
        frame = _frame(event, event.payload)
        keep_frame(event, frame)
    return frame


def encode_text(event: Event) -> bytes:
    """Return an event's frame. A payload that is a JSON string is sent as its text, any other payload as JSON."""
    try:
        return event._text_frame  # a cache that belongs to this module
    except AttributeError:
        text = _text(event.payload)
        frame = encode(event) if text is None else _frame(event, text)
        keep_text_frame(event, frame)
        return frame


ENCODERS: Final[Mapping[str, Encoder]] = {"json": encode, "text": encode_text}
"""The encoders by the names that `stream(..., data=...)` has for them."""


def encode_all(events: Iterable[Event], encoder: Encoder = encode) -> bytes:
    """Return the frames of several events, for one write."""
    return b"".join(map(encoder, events))


def opening(resumed: bool = False, *, number: int | None = None) -> bytes:
    """Return the first bytes of a stream.

    The comment makes the server send the response's head. The id makes a browser send `Last-Event-ID` when it
    reconnects, even if no event came meanwhile. So the server can tell a reconnect from a first visit. A `resumed`
    stream starts with a refresh, because nobody knows which events it missed. The refresh and the id share a block, so
    that a browser that has the id has the refresh, too.

    With a log, the id is the `number` up to which the browser has everything. A replay repeats the browser's own
    number: under the standard a new connection begins with an empty id, and the next block would make that the last id.
    """
    start = b"%d" % number if number else _START_ID
    return b": open\nid: %b\n%b" % (start, encode(REFRESH_EVENT) if resumed else _CURSOR)


def keepalive(number: int | None) -> bytes:
    """Return the bytes that keep a silent stream alive.

    `number` is the log's number up to which the stream had nothing to send. A browser that reconnects then asks for the
    events after it. Pass None if the stream has sent the number before.
    """
    return b"%bid: %d\n%b" % (KEEPALIVE, number, _CURSOR) if number else KEEPALIVE


def closing(retry_spread: float = 3.0) -> bytes:
    """Return the last bytes of a stream. Browsers reconnect after a random part of `retry_spread` seconds, so that not
    all of them reconnect at once."""
    return retry(random.uniform(0.1, 1.0) * retry_spread) + encode(CLOSE_EVENT)


def refusal(seconds: float, last_id: str) -> bytes:
    """Return the body for a client that gets no stream now and has to retry after a number of seconds.

    Under the standard, a connection whose first block has no id makes the client forget its last event id. So the block
    repeats `last_id`, the result of `last_event_id`. An id that no hub makes is replaced by "start", which is just as
    unknown to the log.
    """
    known = _repeatable_id(last_id)
    again = b"id: %b\n" % (last_id.encode() if known else _START_ID) if last_id else b""
    return retry(seconds) + again + _CURSOR


def retry(seconds: float) -> bytes:
    """Return the line that tells a browser how long to wait before it reconnects. Put it into a block with an event:
    some clients drop a block without one, and the delay with it."""
    return b"retry: %d\n" % round(seconds * 1000)


def last_event_id(environ: Mapping[str, Any]) -> str:
    """Return the `Last-Event-ID` of a WSGI request, which a browser sends when it reconnects. Without it, return
    `last_event_id` of the query string, with which a page begins its first stream where it was rendered."""
    header = str(environ.get("HTTP_LAST_EVENT_ID", ""))
    return header or parse_qs(str(environ.get("QUERY_STRING", ""))).get("last_event_id", [""])[0]


def wants_events(environ: Mapping[str, Any]) -> bool:
    """Whether the request says that it is an EventSource's. An EventSource gives up for good on any status but 200."""
    return "text/event-stream" in str(environ.get("HTTP_ACCEPT", "")).lower()


def _frame(event: Event, data: bytes) -> bytes:
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_line_ends.split(data))
    kind = b"event: %b\n" % event.type.encode() if event.type else b""
    if event.id:
        return b"id: %b\n%bdata: %b\n\n" % (event.id.encode(), kind, data)
    return b"%bdata: %b\n\n" % (kind, data)


def _text(payload: bytes) -> bytes | None:
    """Return the text of a payload that is a JSON string. Return None for any other payload."""
    if not payload.lstrip().startswith(b'"'):
        return None
    # JSON can escape half of a surrogate pair, for which UTF-8 has no bytes. It becomes a question mark.
    return str(json.loads(payload)).encode(errors="replace")
