"""Event to bytes, by the WHATWG event-stream format.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from ..event import CLOSE_EVENT, REFRESH_EVENT, RESERVED_PREFIX, Event, keep_frame

__all__ = [
    "CURSOR_TYPE",
    "HEADERS",
    "KEEPALIVE",
    "encode",
    "encode_all",
    "farewell",
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
"""A comment: browsers ignore it, and nobody in between finds the connection idle. It has no blank line after it: some
clients that aren't browsers make an empty message of each blank line."""

CURSOR_TYPE: Final = RESERVED_PREFIX + "cursor"
"""The type of a block that has an id for the client to remember, and nothing for the page. It has data, since Firefox
ignores the id of a block without data."""

_CURSOR: Final = b"event: %b\ndata: {}\n\n" % CURSOR_TYPE.encode()
_START_ID: Final = b"start"
_repeatable_id = re.compile("[0-9A-Za-z_-]{1,64}").fullmatch

_line_ends = re.compile(b"\r\n|\n|\r")


def encode(event: Event) -> bytes:
    """An event's frame. Encoded once; every stream shares the bytes."""
    frame = event.frame
    if frame is None:
        frame = _encode(event)
        keep_frame(event, frame)
    return frame


def encode_all(events: Iterable[Event]) -> bytes:
    """The frames of several events, for one write."""
    return b"".join(map(encode, events))


def opening(resumed: bool = False, *, number: int | None = None) -> bytes:
    """Return the first bytes of a stream.

    The comment makes the response's head leave. The id makes a browser send `Last-Event-ID` when it reconnects, even
    if no event came meanwhile, so that the server can tell a reconnect from a first visit. A `resumed` stream starts
    with a refresh, because nobody knows what it missed. The refresh and the id share a block: a browser that has the id
    has the refresh.

    With a log, the id is the `number` up to which the browser has everything. A stream that replays repeats the
    browser's own number: by the letter of the standard a connection begins without an id, and the next block would
    make that the last one.
    """
    start = b"%d" % number if number else _START_ID
    return b": open\nid: %b\n%b" % (start, encode(REFRESH_EVENT) if resumed else _CURSOR)


def keepalive(number: int | None) -> bytes:
    """Return what breaks the silence.

    With the `number` of the log up to which the stream had nothing to send, a browser that reconnects asks for what
    came after it. Leave the number out when the stream has sent it before.
    """
    return b"%bid: %d\n%b" % (KEEPALIVE, number, _CURSOR) if number else KEEPALIVE


def farewell(retry_spread: float = 3.0) -> bytes:
    """Return the last bytes of a stream. Browsers reconnect after a random part of `retry_spread` seconds, so that they
    don't all reconnect at once."""
    return retry(random.uniform(0.1, 1.0) * retry_spread) + encode(CLOSE_EVENT)


def refusal(seconds: float, last_id: str) -> bytes:
    """Return the body for a client that gets no stream now and is to ask again after so many seconds.

    A block without an id, the first one of a connection, would make a client forget its last event id, by the letter of
    the standard. So the block repeats `last_id`, what `last_event_id` returned. An id that no hub makes is not
    repeated: "start" stands for it, which is as unknown to the log.
    """
    known = _repeatable_id(last_id)
    again = b"id: %b\n" % (last_id.encode() if known else _START_ID) if last_id else b""
    return retry(seconds) + again + _CURSOR


def retry(seconds: float) -> bytes:
    """Return the line that tells a browser how long to wait before it reconnects. It belongs in a block that has an
    event: some clients drop a block without one, and the delay with it."""
    return b"retry: %d\n" % round(seconds * 1000)


def last_event_id(environ: Mapping[str, Any]) -> str:
    """`Last-Event-ID` of a WSGI request, not empty when a browser reconnects; else `last_event_id` of its query
    string, with which a page can make its first connection go on from where it was rendered."""
    header = str(environ.get("HTTP_LAST_EVENT_ID", ""))
    return header or parse_qs(str(environ.get("QUERY_STRING", ""))).get("last_event_id", [""])[0]


def wants_events(environ: Mapping[str, Any]) -> bool:
    """Whether an EventSource asks: it says so, and gives up for good on any status but 200."""
    return "text/event-stream" in str(environ.get("HTTP_ACCEPT", "")).lower()


def _encode(event: Event) -> bytes:
    payload = event.payload
    if b"\n" in payload or b"\r" in payload:
        payload = b"\ndata: ".join(_line_ends.split(payload))
    kind = b"event: %b\n" % event.type.encode() if event.type else b""
    if event.id:
        return b"id: %b\n%bdata: %b\n\n" % (event.id.encode(), kind, payload)
    return b"%bdata: %b\n\n" % (kind, payload)
