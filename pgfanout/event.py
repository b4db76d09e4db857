"""Event, and the two control events that a hub adds: close and refresh."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from .errors import InvalidEventError
from .topic import check_channel

__all__ = [
    "CLOSE_EVENT",
    "REFRESH_EVENT",
    "RESERVED_PREFIX",
    "Event",
    "check_json",
    "check_label",
    "check_type",
    "checked_event",
    "keep_frame",
    "keep_text_frame",
    "refuse_constant",
]

_RESERVED: Final = frozenset({"close", "refresh"})

RESERVED_PREFIX: Final = "pgfanout."
"""The prefix of the types that the library uses itself. No event may have such a type."""

_TYPE_LIMIT: Final = 255
"""The most bytes of UTF-8 in a type."""

# CR LF, LF and CR end a line of an event stream, and browsers ignore an id that contains NUL
# (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
_UNSAFE: Final = re.compile("[\r\n\x00]")

# The escape \u0000 after an even number of backslashes. After an odd number it is a backslash and text.
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Event:
    """An event on a channel.

    `payload` is JSON text as UTF-8 bytes. `type` is the name of the server-sent event, in at most 255 bytes of UTF-8.
    An empty type means "message" to a browser. `id` is the event's id, or empty. The constructor checks everything and
    raises `InvalidEventError`. An event does not change afterwards, so threads may share it.

    `id` may be any text without CR, LF and NUL here. A hub delivers only ids of the form that hubs make: see
    `envelope.decode`.
    """

    __slots__ = ("_frame", "_text_frame", "channel", "id", "payload", "type")

    channel: str
    payload: bytes
    type: str
    id: str
    _frame: bytes | None
    """The event as bytes of an event stream. The first stream that encodes it keeps it here for all (`keep_frame`)."""
    _text_frame: bytes
    """The same for streams with `data="text"` (`keep_text_frame`). Not set until the first of them: most events never
    need it, and setting it would cost each of them time."""

    def __init__(self, channel: str, payload: bytes, type: str = "", id: str = "") -> None:
        check_json(payload)
        self._set(check_channel(channel), payload, check_type(type), check_label("id", id))

    def _set(self, channel: str, payload: bytes, type: str, id: str) -> None:
        _put_channel(self, channel)
        _put_payload(self, payload)
        _put_type(self, type)
        _put_id(self, id)
        keep_frame(self, None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an Event does not change: {name} can't be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an Event does not change: {name} can't be deleted")

    def json(self) -> Any:
        """Return the payload, decoded.

        Raises `ValueError` when the payload has an integer of more digits than Python converts
        (`sys.get_int_max_str_digits()`, 4,300 by default). JSON allows such integers, and any publisher can send one.
        """
        return json.loads(self.payload)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, bytes, str, str]:
        return (self.channel, self.payload, self.type, self.id)

    def __repr__(self) -> str:
        # Without the payload: a repr ends up in logs.
        return (
            f"<Event channel={self.channel!r} type={self.type!r} id={self.id!r} payload of {len(self.payload)} bytes>"
        )

    def __reduce__(self) -> str | tuple[Any, ...]:
        # CLOSE_EVENT and REFRESH_EVENT are compared by identity, so copying and unpickling return the same object.
        for name in ("CLOSE_EVENT", "REFRESH_EVENT"):
            if globals()[name] is self:
                return name
        return (checked_event, self._key())


# The setters of the slots. They bypass `__setattr__`, and are as fast as setting an attribute.
_put_channel, _put_payload, _put_type, _put_id, keep_frame, keep_text_frame = (
    Event.__dict__[name].__set__ for name in ("channel", "payload", "type", "id", "_frame", "_text_frame")
)


def checked_event(channel: str, payload: bytes, type: str, id: str) -> Event:
    """Return an event made of parts that the caller has checked. It saves the decoder time."""
    event = Event.__new__(Event)
    event._set(channel, payload, type, id)
    return event


def check_type(type: str) -> str:
    """Return the type if it is a label of at most 255 bytes and not reserved, else raise `InvalidEventError`."""
    if type == "":
        return type
    if check_label("type", type) in _RESERVED or type.startswith(RESERVED_PREFIX):
        raise InvalidEventError("type", f"{type[:80]!r} is reserved for the hub")
    size = len(type) if type.isascii() else len(type.encode())
    if size > _TYPE_LIMIT:
        raise InvalidEventError("type", f"{type[:80]!r} has {size} bytes of UTF-8, the limit is {_TYPE_LIMIT}")
    return type


def check_label(field: str, value: str) -> str:
    """Return the value if it fits in one line of an event stream, else raise `InvalidEventError`."""
    if not isinstance(value, str):
        raise InvalidEventError(field, f"a str is needed, not {type(value).__name__}")
    if _UNSAFE.search(value):
        raise InvalidEventError(field, f"{value[:80]!r} has CR, LF or NUL")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidEventError(field, f"{value[:80]!r} is not valid Unicode") from None
    return value


def check_json(payload: bytes) -> None:
    """Raise `InvalidEventError` unless the bytes are JSON (RFC 8259) in UTF-8, without NUL."""
    if not isinstance(payload, bytes):
        raise InvalidEventError("payload", f"bytes are needed, not {type(payload).__name__}")
    try:
        json.loads(payload.decode(), parse_constant=refuse_constant, parse_int=str, parse_float=str)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        problem = f"not JSON at character {error.pos}: {error.msg}"
    except ValueError as error:
        problem = f"not JSON: {error}"
    except RecursionError:
        problem = "nested too deeply"
    else:
        if b"\\u0000" not in payload or not _ESCAPED_NUL.search(payload):
            return
        problem = "it has a NUL character, which PostgreSQL's text can't hold"
    # Raised outside the handler, so that no traceback carries the payload.
    raise InvalidEventError("payload", problem)


def refuse_constant(constant: str) -> Any:
    """Raise `ValueError`: a JSON parser's `parse_constant` for NaN and Infinity, which RFC 8259 does not have."""
    raise ValueError(f"{constant} is not a JSON value")


CLOSE_EVENT: Final = checked_event("", b"{}", "close", "")
"""The last event of a subscription: the hub or the subscription was closed."""

REFRESH_EVENT: Final = checked_event("", b"{}", "refresh", "")
"""Events may have been lost here: reload the current state."""
