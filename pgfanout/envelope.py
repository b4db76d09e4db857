"""The NOTIFY envelope: an event and its tenant as JSON text, and the limit on its size.

    {"channel": "orders", "tenant_id": "7d0e...", "payload": {"id": 42}, "type": "...", "id": "..."}

A decoder ignores unknown fields. `type` and `id` may be missing. An object has at most 32 members.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from functools import lru_cache
from json.decoder import scanstring  # type: ignore[attr-defined]
from json.encoder import encode_basestring as _text
from typing import Final

from .errors import InvalidEventError, PayloadTooLargeError, PgFanoutError
from .event import Event, check_type, checked_event, refuse_constant
from .payload import JsonDefault, payload_json
from .topic import TenantId, Topic

__all__ = [
    "NOTIFY_LIMIT",
    "MalformedEnvelopeError",
    "UnroutableEnvelopeError",
    "compose",
    "compose_logged",
    "decode",
    "decompose_logged",
    "encode",
    "new_id",
]

NOTIFY_LIMIT: Final = 7999
"""Bytes of UTF-8 in a NOTIFY payload (https://www.postgresql.org/docs/current/sql-notify.html)."""

_MEMBER_LIMIT: Final = 32
"""The most members of an envelope. Each member costs the listener time, and 7,999 bytes have room for 1,500."""


class MalformedEnvelopeError(PgFanoutError, ValueError):
    """A notification is not an envelope. The message says why and shows nothing of the notification.

    `topic` is the topic of the event if that could be read.
    """

    def __init__(self, problem: str, topic: Topic | None = None) -> None:
        super().__init__(problem)
        self.topic = topic


class UnroutableEnvelopeError(MalformedEnvelopeError):
    """A JSON object has a channel and a tenant, but no subscription can have them: one of them is not valid here."""


def encode(event: Event, tenant: str) -> str:
    """Return the NOTIFY text of an event. Raise `PayloadTooLargeError`."""
    kind = f',"type":{_text(event.type)}' if event.type else ""
    name = f',"id":{_text(event.id)}' if event.id else ""
    payload = event.payload.decode()
    text = f'{{"channel":{_text(event.channel)},"tenant_id":{_text(tenant)},"payload":{payload}{kind}{name}}}'
    size = len(text) if text.isascii() else len(text.encode())
    if size > NOTIFY_LIMIT:
        raise PayloadTooLargeError(size, NOTIFY_LIMIT)
    return text


def compose(
    channel: str,
    tenant_id: TenantId,
    payload: object,
    type: str = "",
    *,
    json_default: JsonDefault | None = None,
) -> str:
    """Return the NOTIFY text of a new event with its own id. Raise `InvalidEventError` or `PayloadTooLargeError`."""
    topic = Topic.of(channel, tenant_id)
    return encode(Event(channel, payload_json(payload, json_default), type, new_id()), topic.tenant)


def compose_logged(
    limit: int,
    channel: str,
    tenant_id: TenantId,
    payload: object,
    type: str = "",
    *,
    json_default: JsonDefault | None = None,
) -> str:
    """Return a new event for the log as text: channel, tenant, type and payload, with a line feed between them.

    Only the payload may contain line feeds. It may have at most `limit` bytes. The log assigns the event's id.
    Raise `InvalidEventError` or `PayloadTooLargeError`.
    """
    topic = Topic.of(channel, tenant_id)
    event = Event(channel, payload_json(payload, json_default), type)
    if len(event.payload) > limit:
        raise PayloadTooLargeError(len(event.payload), limit)
    return "\n".join((channel, topic.tenant, type, event.payload.decode()))


def decompose_logged(text: str) -> tuple[Topic, Event]:
    """Return the topic and the event of a text that `compose_logged` has made."""
    channel, tenant, type, payload = text.split("\n", 3)
    return Topic(channel, tenant), Event(channel, payload.encode(), type)


def decode(text: str) -> tuple[Topic, Event]:
    """Return the topic and the event of a NOTIFY text.

    Raise `MalformedEnvelopeError`, or `UnroutableEnvelopeError` if no subscription can have the topic.

    The payload keeps the bytes that were sent, so no number loses a digit. In a text of the form that `encode` makes,
    blanks around the payload belong to the payload. In any other text they belong to the envelope and are left out.

    An id is kept if it has 1 to 64 of the characters `0-9A-Za-z_-`. Otherwise the event gets no id: a browser sends
    the last id back in a header, and a server refuses a header with a control character. The browser then gives up.
    """
    try:
        return _decode_own(text)
    except (InvalidEventError, ValueError, StopIteration, IndexError, RecursionError):
        pass  # another publisher's, or malformed: the slow path decides, and says what is wrong
    topic = None
    try:
        members = _members(text)
        topic = _routed(members)
        return topic, _event(topic, members, text)
    except UnroutableEnvelopeError:
        raise
    except MalformedEnvelopeError as error:
        problem = str(error)
    except InvalidEventError as error:
        problem = f"invalid {error.field}"
    except RecursionError:
        problem = "nested too deeply"
    except (ValueError, StopIteration, IndexError):
        problem = "not a JSON object"
    except KeyError as error:
        problem = f"{error.args[0]} is missing or of the wrong kind"
    # Raised outside the handler: a JSON error has the whole text, and would be this error's context.
    raise MalformedEnvelopeError(problem, topic or _beginning(text))


def new_id() -> str:
    """Return an id that no other publish has. PostgreSQL folds identical notifications of a transaction into one."""
    return uuid.uuid4().hex


def _decode_own(text: str) -> tuple[Topic, Event]:
    """Decode a text of the form that `encode` makes, without escapes in its strings or blanks around its payload.

    Nearly all notifications are of this form. Raise `ValueError` for any other text, `InvalidEventError`, and a JSON
    parser's errors.
    """
    global _last
    head, topic = _last
    if not text.startswith(head):
        found = _head(text)
        if found is None:
            raise ValueError
        head, topic = _last = found.group(), _topic(*found.groups())
    start = len(head)
    _, end = _quick_scan(text, start)  # raises StopIteration at a blank
    name, kind = text[end + 7 : -2], ""
    # The ids that hubs and the history make have only letters and digits.
    quick = name.isalnum() and name.isascii() and len(name) <= _ID_LIMIT
    if not (quick and text.startswith(',"id":"', end) and text.endswith('"}')):
        tail = _tail(text, end)
        if tail is None:
            raise ValueError
        kind, name = tail.groups("")
        check_type(kind)
        name = _id(name)
    return topic, checked_event(topic.channel, text[start:end].encode(), kind, name)


def _id(name: str) -> str:
    """Return the id if a browser can send it back, else an empty one."""
    return name if _sendable_id(name) else ""


_ID_LIMIT: Final = 64
_sendable_id = re.compile(f"[0-9A-Za-z_-]{{1,{_ID_LIMIT}}}").fullmatch
# A JSON string that is its own value: without escapes, control characters or lone surrogates.
_PLAIN: Final = r'"([^"\\\x00-\x1f\ud800-\udfff]*)"'
_head = re.compile(rf'\{{"channel":{_PLAIN},"tenant_id":{_PLAIN},"payload":').match
_tail = re.compile(rf'(?:,"type":{_PLAIN})?(?:,"id":{_PLAIN})?\}}').fullmatch
_topic = lru_cache(maxsize=4096)(Topic.of)
_last: tuple[str, Topic] = ("\0", Topic("", ""))
"""How the last text began, up to its payload, and its topic. The next text often has the same beginning."""
# The parser's own number types are the fastest. It fails on integers with too many digits, which `_scan` then accepts.
_quick_scan = json.JSONDecoder(parse_constant=refuse_constant).scan_once  # type: ignore[attr-defined]


def _routed(members: Mapping[str, str]) -> Topic:
    """Return the topic. Raise `KeyError` if a part is missing, `UnroutableEnvelopeError` if a part is not valid."""
    for name in ("channel", "tenant_id"):
        if name not in members:
            raise KeyError(name)
    try:
        return _followed(_string(members, "channel"), _string(members, "tenant_id"))
    except KeyError as error:
        problem = f"{error.args[0]} is missing or of the wrong kind"
    raise UnroutableEnvelopeError(problem)


def _beginning(text: str) -> Topic | None:
    """Return the topic of a text that can't be read as a whole, or None if it does not begin like an envelope.

    Raise `UnroutableEnvelopeError`.
    """
    found = _head(text)
    return None if found is None else _followed(*found.groups())


def _followed(channel: str, tenant: str) -> Topic:
    try:
        return Topic.of(channel, tenant)
    except InvalidEventError as error:
        problem = f"invalid {error.field}"
    raise UnroutableEnvelopeError(problem)


def _event(topic: Topic, members: Mapping[str, str], text: str) -> Event:
    """Return the event of an envelope in any form. Raise `InvalidEventError`, `KeyError` or a JSON parser's errors."""
    kind = check_type(_string(members, "type", default=""))
    name = _id(_string(members, "id", default=""))
    payload = members["payload"] if (own := _own_payload(text)) is None else own
    return checked_event(topic.channel, payload.encode(), kind, name)


def _own_payload(text: str) -> str | None:
    """Return the payload with the blanks around it if a well-formed envelope has the form of `encode`, else None."""
    head = _any_head(text)
    if head is None:
        return None
    _, end = _scan(text, _skip(text, head.end()).end())  # type: ignore[union-attr]
    end = _skip(text, end).end()  # type: ignore[union-attr]
    return text[head.end() : end] if _any_tail(text, end) else None


_ANY: Final = r'"(?:[^"\\]|\\.)*"'
_any_head = re.compile(rf'\{{"channel":{_ANY},"tenant_id":{_ANY},"payload":').match
_any_tail = re.compile(rf'(?:,"type":{_ANY})?(?:,"id":{_ANY})?\}}').fullmatch


def _string(members: Mapping[str, str], name: str, default: str | None = None) -> str:
    raw = members.get(name)
    if raw is None and default is not None:
        return default
    value = json.loads(members[name])
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise KeyError(name)
    return value


_scan = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=refuse_constant).scan_once  # type: ignore[attr-defined]
_skip = re.compile(r"[ \t\n\r]*").match


def _members(text: str) -> dict[str, str]:
    """Return the members of a JSON object, each value as its JSON text.

    Raise a JSON parser's errors, and `MalformedEnvelopeError` for too many members, counting repeated names.
    """
    if not text:
        raise MalformedEnvelopeError("empty, not UTF-8, or dropped because too many notifications came at once")
    at = _expect(text, 0, "{")
    members: dict[str, str] = {}
    if text[at] == "}":
        return _end(text, at + 1, members)
    for _ in range(_MEMBER_LIMIT):
        name, at = scanstring(text, _expect(text, at, '"'), True)
        start = _expect(text, at, ":")
        _, at = _scan(text, start)
        members[name] = text[start:at]
        at = _skip(text, at).end()  # type: ignore[union-attr]
        if text[at] == "}":
            return _end(text, at + 1, members)
        at = _expect(text, at, ",")
    raise MalformedEnvelopeError(f"more than {_MEMBER_LIMIT} members")


def _expect(text: str, at: int, token: str) -> int:
    """Return the index after a token and the blanks around it. Blanks after a quote belong to the string."""
    at = _skip(text, at).end()  # type: ignore[union-attr]
    if text[at] != token:
        raise ValueError("unexpected token")
    return at + 1 if token == '"' else _skip(text, at + 1).end()  # type: ignore[union-attr]


def _end(text: str, at: int, members: dict[str, str]) -> dict[str, str]:
    if _skip(text, at).end() != len(text):  # type: ignore[union-attr]
        raise ValueError("text after the object")
    return members
