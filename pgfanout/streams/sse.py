"""Event to bytes, by the WHATWG event-stream format.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from ..event import CLOSE_EVENT, REFRESH_EVENT, Event, keep_frame

__all__ = [
    "HEADERS",
    "KEEPALIVE",
    "encode",
    "encode_all",
    "farewell",
    "keepalive",
    "last_event_id",
    "opening",
    "retry",
    "wants_events",
]

HEADERS: Final = (
    ("Content-Type", "text/event-stream"),
    # no-transform: a compressing proxy would hold events back.
    ("Cache-Control", "no-cache, no-transform"),
    # nginx passes each write on at once.
    ("X-Accel-Buffering", "no"),
)

KEEPALIVE: Final = b": keepalive\n\n"
"""A comment: browsers ignore it, and nobody in between finds the connection idle."""

_START_ID: Final = "start"

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
    """What a stream starts with.

    The comment makes the response's head leave. The id, which dispatches nothing, makes a
    browser send `Last-Event-ID` when it reconnects, even if no event came meanwhile: that's how
    a reconnect is told from a first visit. A stream that is `resumed` has a refresh at once, since
    what was missed can't be known.

    With a log, the id is the `number` up to which the browser has everything. That is the browser's own
    where a stream replays what came after it, and has to be repeated: by the letter of the standard a
    connection begins without an id, and a blank line makes that the last one. With a refresh it comes in
    one block: who has the number was told.
    """
    if number:
        return b": open\nid: %d\n%b" % (number, encode(REFRESH_EVENT) if resumed else b"\n")
    start = b": open\nid: " + _START_ID.encode() + b"\n\n"
    return start + encode(REFRESH_EVENT) if resumed else start


def keepalive(number: int | None) -> bytes:
    """What breaks the silence; with a number of the log up to which there was nothing to tell, a browser
    that reconnects asks for what came after that."""
    return b"%bid: %d\n\n" % (KEEPALIVE[:-1], number) if number else KEEPALIVE


def farewell(retry_spread: float = 3.0) -> bytes:
    """What a stream ends with: browsers come back after a random part of so many seconds, so that
    not all of them do at once."""
    return retry(random.uniform(0.1, 1.0) * retry_spread) + b"\n" + encode(CLOSE_EVENT)


def retry(seconds: float) -> bytes:
    """How long a browser is to wait before it reconnects. A line that counts at once, without the blank one after it:
    that one would make a browser forget its last event id where none was sent before (see `opening`)."""
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
