"""The oracle of the injection tests and the fuzzer: a frame, read back, is its event and nothing else.

It knows the two standards (RFC 8259, the WHATWG event stream) and nothing of the code under test but its entry points.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from pgfanout.envelope import MalformedEnvelopeError, decode
from pgfanout.event import Event
from pgfanout.streams import sse
from pgfanout.topic import Topic
from tests.support.sse import EventStreamParser, SentEvent

__all__ = ["check_frame", "check_frames", "check_notification", "chop", "delivered_id"]

_LINE_END = re.compile("\r\n|\n|\r")
_UUID = re.compile("-".join(f"[0-9A-Fa-f]{{{size}}}" for size in (8, 4, 4, 4, 12)))
_RESERVED = re.compile(r"close|refresh|pgfanout\..*", re.DOTALL)


def check_notification(text: str, sizes: Sequence[int] = ()) -> Event | None:
    """Decode a NOTIFY text as a hub does and check all that comes of it; None when it is refused as malformed."""
    try:
        topic, event = decode(text)
    except MalformedEnvelopeError:
        return None
    _check_reading(text, topic, event)
    assert not _RESERVED.fullmatch(event.type), "a notification became an event of the hub's own"
    check_frames([event], sizes)
    return event


def check_frames(events: Sequence[Event], sizes: Sequence[int] = ()) -> None:
    """Encode events as a stream does, one by one and in one write, and read them back cut into the given sizes."""
    for event in events:
        check_frame(event, sse.encode(event))
    parser = EventStreamParser()
    sent = [found for chunk in chop(sse.encode_all(events), sizes) for found in parser.feed(chunk)]
    assert sent == _as_sent(events), "the events of the stream are not those that were put in"
    _check_silence(parser)


def check_frame(event: Event, frame: bytes) -> None:
    """A frame is exactly the lines of its event, and a browser dispatches exactly that event."""
    lines = _LINE_END.split(frame.decode())
    assert lines == [*_lines(event), "", ""], "a line of the frame is not the event's"
    parser = EventStreamParser()
    assert parser.feed(frame) == _as_sent([event]), "what is dispatched is not the event"
    _check_silence(parser)


def chop(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The stream in pieces of these sizes, again and again; whole without sizes."""
    pieces = []
    lengths = cycle([size for size in sizes if size > 0] or [max(1, len(stream))])
    while stream:
        size = next(lengths)
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def delivered_id(name: str) -> str:
    """The id that an event arrives with: none instead of one that could not come back in a request's header."""
    return name if re.fullmatch("[0-9A-Za-z_-]{1,64}", name) else ""


def _check_reading(text: str, topic: Topic, event: Event) -> None:
    """The envelope means what any other JSON parser finds in it."""
    try:
        members = _parsed(text)
        payload = _parsed(event.payload.decode())
    except RecursionError:  # its values are deeper than this parser goes
        return
    assert payload == members["payload"], "the payload is not the one of the envelope"
    assert event.channel == topic.channel == members["channel"]
    tenant = members["tenant_id"]
    assert topic.tenant == (tenant.lower() if _UUID.fullmatch(tenant) else tenant)
    assert 1 <= len(tenant.encode()) <= 63 and not any(unicodedata.category(each) == "Cc" for each in tenant)
    assert (event.type, event.id) == (members.get("type") or "", delivered_id(members.get("id") or ""))


def _parsed(text: str) -> Any:
    # Numbers stay text: they may have more digits than Python turns into an int.
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON, and was taken for it")


def _lines(event: Event) -> list[str]:
    head = [f"id: {event.id}"] if event.id else []
    head += [f"event: {event.type}"] if event.type else []
    return head + [f"data: {line}" for line in _LINE_END.split(event.payload.decode())]


def _as_sent(events: Sequence[Event]) -> list[SentEvent]:
    """What a browser dispatches for these events; one without an id repeats the last."""
    sent, last_id = [], ""
    for event in events:
        last_id = event.id or last_id
        sent.append(SentEvent(event.type or "message", _LINE_END.sub("\n", event.payload.decode()), last_id))
    return sent


def _check_silence(parser: EventStreamParser) -> None:
    assert parser.comments == [], "a comment was forged"
    assert parser.retries == [], "a reconnection time was forged"
