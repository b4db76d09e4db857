"""Senders: a transaction's events, out to where a contender hears of them."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pgfanout import PostgresHub

from .servers.topic import CHANNEL, TENANT

__all__ = ["FloorSender", "PostgresSender", "RedisSender", "Sender"]


class Sender(Protocol):
    """Sends events, each given as its payload's JSON."""

    def send(self, payloads: Sequence[bytes]) -> None:
        """Send them together, in their order."""

    def close(self) -> None:
        """Let go of the connection."""


class PostgresSender:
    """One `publish_many`, which is one statement and one transaction. The hub here publishes only, it never listens."""

    def __init__(self, hub: PostgresHub, channel: str = CHANNEL) -> None:
        self._hub = hub
        self._channel = channel

    def send(self, payloads: Sequence[bytes]) -> None:
        self._hub.publish_many([(self._channel, TENANT, payload) for payload in payloads])

    def close(self) -> None:
        self._hub.close()


class RedisSender:
    """What `sse.publish` of flask-sse sends, the events of a transaction by one MULTI."""

    def __init__(self, url: str) -> None:
        import redis  # only there where this contender can run

        self._redis: Any = redis.Redis.from_url(url)

    def listeners(self) -> int:
        """How many have subscribed."""
        ((_, count),) = self._redis.pubsub_numsub("sse")
        return int(count)

    def send(self, payloads: Sequence[bytes]) -> None:
        with self._redis.pipeline(transaction=True) as pipeline:
            for payload in payloads:
                pipeline.publish("sse", json.dumps({"data": payload.decode(), "id": uuid.uuid4().hex}))
            pipeline.execute()

    def close(self) -> None:
        self._redis.close()


class FloorSender:
    """Frames that are ready to be written, a transaction's in one datagram."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def send(self, payloads: Sequence[bytes]) -> None:
        frames = [b"id: %s\ndata: %s\n\n" % (uuid.uuid4().hex.encode(), payload) for payload in payloads]
        self._socket.sendto(b"".join(frames), self._path)

    def close(self) -> None:
        self._socket.close()
