"""Topic: a channel of one tenant. Events are routed by topic."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from .errors import InvalidEventError

__all__ = ["CHANNEL_LIMIT", "Topic", "check_channel", "topics"]

CHANNEL_LIMIT = 63
"""The most bytes of UTF-8 in a channel, as in a PostgreSQL identifier."""

# Unicode's control characters: C0, DEL and C1.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

# `uuid.UUID` accepts whatever `int` accepts: "0x", blanks and underscores, too.
_UUID = re.compile(r"(?:urn:uuid:)?\{?[0-9a-fA-F-]+\}?")

# The length of the longest usual form, "urn:uuid:{...}". `uuid.UUID` accepts any number of hyphens, and the cache would
# keep such texts.
_TENANT_LIMIT = 47


class Topic(NamedTuple):
    """A channel of one tenant. Events of a topic reach this tenant alone. `Topic.of` validates both parts."""

    channel: str
    tenant: str

    @classmethod
    def of(cls, channel: str, tenant_id: str | uuid.UUID) -> Topic:
        """Return the topic of a channel and a tenant (a UUID, or its text in any usual form).

        Raise `InvalidEventError`.
        """
        return cls(check_channel(channel), _tenant(tenant_id))


def topics(channels: str | Iterable[str], tenant_id: str | uuid.UUID) -> list[Topic]:
    """Return the topics of one channel or of several, each once. Raise `InvalidEventError`."""
    names = [channels] if isinstance(channels, str) else list(channels)
    if not names:
        raise InvalidEventError("channel", "at least one is needed")
    return list(dict.fromkeys(Topic.of(name, tenant_id) for name in names))


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


def _tenant(tenant_id: str | uuid.UUID) -> str:
    if isinstance(tenant_id, uuid.UUID):
        return str(tenant_id)
    if not isinstance(tenant_id, str):
        raise InvalidEventError("tenant", f"a UUID is needed, not {type(tenant_id).__name__}")
    if len(tenant_id) > _TENANT_LIMIT:
        raise _no_uuid(tenant_id)
    return _tenant_from_text(tenant_id)


@lru_cache(maxsize=4096)
def _tenant_from_text(text: str) -> str:
    try:
        if _UUID.fullmatch(text):
            return str(uuid.UUID(text))
    except ValueError:
        pass
    raise _no_uuid(text)


def _no_uuid(text: str) -> InvalidEventError:
    return InvalidEventError("tenant", f"{text[:80]!r} is not a UUID")
