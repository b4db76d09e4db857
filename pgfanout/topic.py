"""Topic: a channel of one tenant. Events are routed by topic."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast

from .errors import InvalidEventError

__all__ = [
    "CHANNEL_LIMIT",
    "NO_TENANT",
    "TENANT_LIMIT",
    "TenantId",
    "Topic",
    "as_text",
    "check_channel",
    "is_uuid",
    "topics",
]

CHANNEL_LIMIT = 63
"""The most bytes of UTF-8 in a channel, as in a PostgreSQL identifier."""

TENANT_LIMIT = 63
"""The most bytes of UTF-8 in a tenant."""

TenantId: TypeAlias = uuid.UUID | int | str | None
"""A tenant: a UUID, an int, or text of 1 to 63 bytes of UTF-8 without control characters.

None is the tenant of an application without tenants. Text of exactly 8-4-4-4-12 hexadecimal digits is a UUID. So
`UUID(x)` and `str(x)` are one tenant, in lower and upper case, and so are 7 and "7".
"""

NO_TENANT = str(uuid.UUID(int=0))
"""The text that stands for None."""

# Unicode's control characters: C0, DEL and C1.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

is_uuid = re.compile("[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}").fullmatch
"""Whether a text is a UUID: 8-4-4-4-12 hexadecimal digits. `_tenant_text` of functions.sql has the same rule."""


class Topic(NamedTuple):
    """A channel of one tenant. Events of a topic reach this tenant alone. `Topic.of` validates both parts."""

    channel: str
    tenant: str

    @classmethod
    def of(cls, channel: str, tenant_id: TenantId) -> Topic:
        """Return the topic of a channel and a tenant, with the tenant as text. Raise `InvalidEventError`."""
        return cls(check_channel(channel), as_text(tenant_id))


def topics(channels: str | Iterable[str], tenant_id: TenantId | Iterable[TenantId]) -> list[Topic]:
    """Return the topics of one channel or several, of one tenant or several: each channel of each tenant, once.

    Raise `InvalidEventError`.
    """
    names = [channels] if isinstance(channels, str) else list(channels)
    if not names:
        raise InvalidEventError("channel", "at least one is needed")
    tenants = _several(tenant_id)
    if not tenants:
        raise InvalidEventError("tenant", "at least one is needed")
    return list(dict.fromkeys(Topic.of(name, tenant) for tenant in tenants for name in names))


def _several(tenant_id: TenantId | Iterable[TenantId]) -> list[TenantId]:
    # Bytes are iterable, too: integers would be followed. As one tenant they are refused. psycopg2 gives a memoryview.
    is_one = isinstance(tenant_id, str | bytes | bytearray | memoryview) or not isinstance(tenant_id, Iterable)
    return [cast(TenantId, tenant_id)] if is_one else list(cast("Iterable[TenantId]", tenant_id))


def check_channel(channel: str) -> str:
    """Return the channel if it has 1 to 63 bytes of UTF-8 and no control characters, else raise `InvalidEventError`."""
    if not isinstance(channel, str):
        raise InvalidEventError("channel", f"a str is needed, not {type(channel).__name__}")
    return _check_channel(channel)


@lru_cache(maxsize=1024)
def _check_channel(channel: str) -> str:
    if not channel:
        raise InvalidEventError("channel", "it is empty")
    try:
        size = len(channel.encode())
    except UnicodeEncodeError:
        raise InvalidEventError("channel", f"{channel!r} is not valid Unicode") from None
    if size > CHANNEL_LIMIT:
        raise InvalidEventError("channel", f"{channel[:80]!r} has {size} bytes of UTF-8, the limit is {CHANNEL_LIMIT}")
    if _CONTROL.search(channel):
        raise InvalidEventError("channel", f"{channel!r} has a control character")
    return channel


def as_text(id: TenantId, field: str = "tenant") -> str:
    """Return the text of a tenant, or of another id that follows the tenants' rule.

    Raise `InvalidEventError` for `field`.
    """
    if isinstance(id, str):
        # The length is checked first: the cache would keep long texts. A member of an Enum becomes a plain str.
        text = _as_text(str.__str__(id)) if len(id) <= TENANT_LIMIT else ""
        if text:
            return text
        raise _refused(field, repr(str.__str__(id[:80])))
    if isinstance(id, uuid.UUID):
        return uuid.UUID.__str__(id)  # a subclass may write it in another way
    if id is None:
        return NO_TENANT
    if isinstance(id, int) and not isinstance(id, bool):
        if -(10 ** (TENANT_LIMIT - 1)) < id < 10**TENANT_LIMIT:
            return int.__repr__(id)
        raise _refused(field, "an int of so many digits")
    raise _refused(field, type(id).__name__)


@lru_cache(maxsize=4096)
def _as_text(text: str) -> str:
    """Return the text of a tenant in its one form, or "" if it breaks the rule."""
    if is_uuid(text):
        return text.lower()
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return ""
    return "" if size > TENANT_LIMIT or _CONTROL.search(text) else text


def _refused(field: str, given: str) -> InvalidEventError:
    return InvalidEventError(
        field,
        f"it has to be a UUID, an int, text of 1 to {TENANT_LIMIT} bytes of UTF-8 without control characters, or None,"
        f" not {given}",
    )
