"""What the fuzzer feeds: bytes to the calls that the library would make, under the tests' oracle."""

from __future__ import annotations

from collections.abc import Callable

from pgfanout import Event, InvalidEventError, PayloadTooLargeError
from pgfanout.envelope import decode, encode
from pgfanout.payload import payload_json

from .readback import check_frames, check_notification, delivered_id

__all__ = ["SEEDS", "TARGETS", "TOKENS"]

_TENANT = "7d0e1c4a-1111-4222-8333-abcdefabcdef"


def check_envelope(data: bytes) -> bool:
    """A notification of these bytes; whether it was accepted.

    With 0xff in them, they are the JSON of a payload and what stands between the quotes of type, id, channel and
    tenant, since changing a whole envelope's text at random nearly always leaves no JSON.
    """
    parts = [part.decode(errors="surrogateescape") for part in data.split(b"\xff")]
    text = parts[0] if len(parts) == 1 else _notification(*parts[:5])
    return check_notification(text, (1, 7)) is not None


def _notification(payload: str, kind: str, name: str = "", channel: str = "orders", tenant: str = _TENANT) -> str:
    return f'{{"channel":"{channel}","tenant_id":"{tenant}","payload":{payload},"type":"{kind}","id":"{name}"}}'


def check_sse(data: bytes) -> bool:
    """A stream of events; whether there were any.

    0xfe and 0xff occur in no UTF-8: the one separates events, the other the parts of an event (payload, type, id, and
    the sizes of the pieces that the stream is cut into).
    """
    groups = [group.split(b"\xff") for group in data.split(b"\xfe")]
    events = [event for group in groups for event in _events(*group[:3])]
    check_frames(events, tuple(groups[0][3]) if len(groups[0]) > 3 else ())
    return bool(events)


def _events(payload: bytes, kind: bytes = b"", name: bytes = b"") -> list[Event]:
    """The event of these parts as it was made, and as it arrives; none when a rule forbids it."""
    labels = [part.decode(errors="surrogateescape") for part in (kind, name)]
    try:
        event = _event(payload, *labels)
        topic, arrived = decode(encode(event, _TENANT))
    except PayloadTooLargeError:
        return [event]
    except InvalidEventError:
        return []
    assert topic == ("orders", _TENANT), "an event changed its topic on the way"
    sent = Event("orders", event.payload, event.type, delivered_id(event.id))
    assert arrived == sent, "an event changed on the way"
    return [event, arrived]


def _event(payload: bytes, kind: str, name: str) -> Event:
    """Of bytes that are JSON, or else of the text that they are."""
    try:
        return Event("orders", payload, kind, name)
    except InvalidEventError as error:
        if error.field != "payload":
            raise
    return Event("orders", payload_json(payload.decode(errors="replace")), kind, name)


TARGETS: dict[str, Callable[[bytes], bool]] = {"sse": check_sse, "envelope": check_envelope}

SEEDS: dict[str, tuple[bytes, ...]] = {
    "sse": (
        b'{"id": 42}\xfforder.created\xff7\xff\x01\x03',
        b'[1,\r\n"\xe2\x80\xa8"]\xff\xc2\x85\xff\xef\xbb\xbf\xfe"x"\xff\xff8\xff\x02',
        b"plain text\xff: x\xff\xfe\n1\r\xffdata\xffid\xfenull",
    ),
    "envelope": (
        f'{{"channel":"orders","tenant_id":"{_TENANT}","payload":{{"id":42}},"type":"order.created","id":"7"}}'.encode(),
        f'{{ "payload" : [1,\r\n"\u2028"]\r, "tenant_id":"{_TENANT.upper()}", "channel":"\\u006frders" }}'.encode(),
        f'{{"channel":"o","tenant_id":"{_TENANT}","payload":null,"type":null,"x":[{{}}],"id":"1","id":"2"}}'.encode(),
        b'{"id": [42, "x"]}\xfforder.created\xff\\u0037\xfforders',
        b'1\xff\xff7\xfforders\xffacme \\"\\\\ gr\xc3\xb6\xc3\x9fe\\u2028',
        b"1\xff\xff7\xfforders\xff7D0E1C4A-1111-4222-8333-ABCDEFABCDEF",
        b"1\xff\xff7\xfforders\xffa\\u0085b",
        b"[1,\r2]\xffa\\u000ab\xff7\\u000d",
    ),
}
"""Inputs to start from."""

TOKENS = (
    *('"channel"', '"tenant_id"', '"payload"', '"type"', '"id"', f'"{_TENANT}"', "\\u000a", "\\u000d", "\\u0000"),
    *("\\ud800", "\\n", "\r", "\n", "\r\n", "\x00", "\u2028", "\u2029", "\x85", "\ufeff", "null", "NaN", "1e999"),
    *("[[[[[[[[", "]]]]]]]]", "data:", "event: close", "refresh", "id: ", "retry: 1", ": x", "{", "}", ",", ":", '"'),
)
"""What random bytes would hardly ever form."""
