"""The NOTIFY envelope: an event and its tenant as JSON text, and the limit on its size.

    {"channel": "orders", "tenant_id": "7d0e...", "payload": {"id": 42}, "type": "...", "id": "..."}

A decoder ignores fields that it doesn't know. `type` and `id` may be missing. An object has 32 members at most.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from functools import lru_cache
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Final

from .errors import InvalidEventError, PayloadTooLargeError, PgFanoutError
from .event import Event, check_type, refuse_constant
from .topic import Topic

__all__ = [
    "NOTIFY_LIMIT",
    "MalformedEnvelopeError",
    "UnroutableEnvelopeError",
    "compose",
    "compose_logged",
    "decode",
    "encode",
    "new_id",
    "payload_json",
]

NOTIFY_LIMIT: Final = 7999
"""Bytes of UTF-8 in a NOTIFY payload (https://www.postgresql.org/docs/current/sql-notify.html)."""

_MEMBER_LIMIT: Final = 32
"""Members of an envelope. Each costs the listener time, and 7,999 bytes have room for 1,500."""


class MalformedEnvelopeError(PgFanoutError, ValueError):
    """A notification that is no envelope. The message tells why and shows nothing of it.

    `topic` is what the event was about, where that can be read all the same.
    """

    def __init__(self, problem: str, topic: Topic | None = None) -> None:
        super().__init__(problem)
        self.topic = topic


class UnroutableEnvelopeError(MalformedEnvelopeError):
    """A JSON object with a channel and a tenant that nobody can follow here."""


def encode(event: Event, tenant: str) -> str:
    """The NOTIFY text of an event. Raises `PayloadTooLargeError`."""
    fields = [
        f'"channel":{_text(event.channel)}',
        f'"tenant_id":"{tenant}"',
        f'"payload":{event.payload.decode()}',
    ]
    if event.type:
        fields.append(f'"type":{_text(event.type)}')
    if event.id:
        fields.append(f'"id":{_text(event.id)}')
    text = "{" + ",".join(fields) + "}"
    size = len(text) if text.isascii() else len(text.encode())
    if size > NOTIFY_LIMIT:
        raise PayloadTooLargeError(size, NOTIFY_LIMIT)
    return text


def compose(channel: str, tenant_id: str | uuid.UUID, payload: object, type: str = "") -> str:
    """The NOTIFY text of a new event, with an id of its own. Raises `InvalidEventError`, `PayloadTooLargeError`."""
    topic = Topic.of(channel, tenant_id)
    return encode(Event(channel, payload_json(payload), type, new_id()), topic.tenant)


def compose_logged(limit: int, channel: str, tenant_id: str | uuid.UUID, payload: object, type: str = "") -> str:
    """A new event for the log, which gives it its id: channel, tenant, type and payload, with a line's end between
    them, which only the payload may have in it. The payload has `limit` bytes at most.

    Raises `InvalidEventError`, `PayloadTooLargeError`.
    """
    topic = Topic.of(channel, tenant_id)
    event = Event(channel, payload_json(payload), type)
    if len(event.payload) > limit:
        raise PayloadTooLargeError(len(event.payload), limit)
    return "\n".join((channel, topic.tenant, type, event.payload.decode()))


def decode(text: str) -> tuple[Topic, Event]:
    """The event of a NOTIFY text and the topic it goes to. Raises `MalformedEnvelopeError`,
    and `UnroutableEnvelopeError` where its topic is one that nobody can follow.

    The payload's bytes are those that were sent, so no number loses a digit on the way. In a text of the form that
    `encode` makes, blanks around the payload are the payload's; elsewhere they are the envelope's, and left out.

    An id is kept if it has 1 to 64 of the characters `0-9A-Za-z_-`. The event is delivered without any other id: a
    browser sends the last id back in a header, and a server refuses the request when the header has a control
    character. A browser does not try again after that.
    """
    try:
        return _decode_own(text)
    except (InvalidEventError, ValueError, StopIteration, IndexError, RecursionError):
        pass  # it is another's, which may be right all the same, or it is wrong, and the careful way tells why
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
    # Raised outside the handler: a JSON error carries the whole text.
    raise MalformedEnvelopeError(problem, topic or _beginning(text))


def payload_json(payload: object) -> bytes:
    """A payload as JSON in UTF-8: `bytes` as they are (`Event` checks them), anything else dumped.

    Raises `InvalidEventError`.
    """
    if isinstance(payload, bytes):
        return payload
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        # These messages name a type or a rule, never the value.
        problem = str(error)
    else:
        try:
            return text.encode()
        except UnicodeEncodeError:  # a lone surrogate can be written as an escape only
            return json.dumps(payload, allow_nan=False, separators=(",", ":")).encode()
    raise InvalidEventError("payload", f"not serialisable as JSON: {problem}")


def new_id() -> str:
    """An id that no other publish has: PostgreSQL folds notifications that are identical."""
    return uuid.uuid4().hex


def _decode_own(text: str) -> tuple[Topic, Event]:
    """What `encode` has made of strings that need no escape and a payload without blanks around it: nearly everything
    that arrives.

    Raises `ValueError` for any other text, `InvalidEventError` and what a JSON parser does.
    """
    global _last
    head, topic = _last
    if not text.startswith(head):
        found = _head(text)
        if found is None:
            raise ValueError
        head, topic = _last = found.group(), _topic(*found.groups())
    start = len(head)
    _, end = _quick_scan(text, start)  # refuses a blank
    name, kind = text[end + 7 : -2], ""
    # An id that a hub or the history makes has letters and digits alone.
    quick = name.isalnum() and name.isascii() and len(name) <= _ID_LIMIT
    if not (quick and text.startswith(',"id":"', end) and text.endswith('"}')):
        tail = _tail(text, end)
        if tail is None:
            raise ValueError
        kind, name = tail.groups("")
        check_type(kind)
        name = _id(name)
    return topic, Event.checked(topic.channel, text[start:end].encode(), kind, name)


def _id(name: str) -> str:
    """An id that a browser can send back, or none."""
    return name if _sendable_id(name) else ""


_ID_LIMIT: Final = 64
_sendable_id = re.compile(f"[0-9A-Za-z_-]{{1,{_ID_LIMIT}}}").fullmatch
# A string without escapes is its own value, and has neither CR nor LF nor NUL; no half of a surrogate pair either.
_PLAIN: Final = r'"([^"\\\x00-\x1f\ud800-\udfff]*)"'
_head = re.compile(rf'\{{"channel":{_PLAIN},"tenant_id":{_PLAIN},"payload":').match
_tail = re.compile(rf'(?:,"type":{_PLAIN})?(?:,"id":{_PLAIN})?\}}').fullmatch
_topic = lru_cache(maxsize=4096)(Topic.of)
_last: tuple[str, Topic] = ("\0", Topic("", ""))
"""How the last text began, up to its payload, and whose it was: the next one often begins alike."""
# With numbers of the parser's own making, which are thrown away; it refuses some that are too long for them.
_quick_scan = json.JSONDecoder(parse_constant=refuse_constant).scan_once  # type: ignore[attr-defined]


def _routed(members: Mapping[str, str]) -> Topic:
    """The topic. Raises `KeyError` where it is missing, `UnroutableEnvelopeError` where nobody can follow it."""
    for name in ("channel", "tenant_id"):
        if name not in members:
            raise KeyError(name)
    try:
        names = _string(members, "channel"), _string(members, "tenant_id")
    except KeyError as error:
        problem = f"{error.args[0]} is missing or of the wrong kind"
    else:
        return _followed(*names)
    raise UnroutableEnvelopeError(problem)


def _beginning(text: str) -> Topic | None:
    """The topic of a text that can't be read as a whole, if it begins like an envelope.

    Raises `UnroutableEnvelopeError`.
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
    """What any envelope has beside its topic. Raises `KeyError` and what a JSON parser does, too."""
    kind = check_type(_string(members, "type", default=""))
    name = _id(_string(members, "id", default=""))
    payload = members["payload"] if (own := _own_payload(text)) is None else own
    return Event.checked(topic.channel, payload.encode(), kind, name)


def _own_payload(text: str) -> str | None:
    """The payload with the blanks around it, when a well-formed envelope has the form that `encode` makes."""
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
    """The members of a JSON object, each value as its JSON text.

    Raises what a JSON parser does, and `MalformedEnvelopeError` when there are too many members. Members with the
    same name count, too.
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
    """The place after a token and the blanks around it; a string's blanks are its own."""
    at = _skip(text, at).end()  # type: ignore[union-attr]
    if text[at] != token:
        raise ValueError("unexpected token")
    return at + 1 if token == '"' else _skip(text, at + 1).end()  # type: ignore[union-attr]


def _end(text: str, at: int, members: dict[str, str]) -> dict[str, str]:
    if _skip(text, at).end() != len(text):  # type: ignore[union-attr]
        raise ValueError("text after the object")
    return members


_text = json.JSONEncoder(ensure_ascii=False).encode
