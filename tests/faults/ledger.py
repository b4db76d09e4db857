"""Ledger: every event that was tried, and what strangers have sent that is none."""

from __future__ import annotations

import itertools
import re
import threading
from dataclasses import dataclass

from .record import Topic

__all__ = ["Ledger", "Sent"]


@dataclass(eq=False)
class Sent:
    """An event that a publisher tried to publish; whether it was committed, the server's log tells."""

    key: int
    topic: Topic
    payload: bytes
    type: str
    begun: float = float("inf")
    """Monotonic time just before its commit was asked for; infinity if that never came."""
    has_id: bool = False
    """Whether it has to arrive with an id, which no other event has."""


class Ledger:
    """Every event that was tried. Payloads are unique, so that what arrives is known by its bytes.

    `_lock` guards the dict and the count of keys, which no two ledgers of a process share.
    """

    _keys = itertools.count(1)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_payload: dict[bytes, Sent] = {}
        self._strange: set[bytes] = set()

    def next_key(self) -> int:
        with self._lock:
            return next(Ledger._keys)

    def add(self, sent: Sent) -> None:
        with self._lock:
            assert sent.payload not in self._by_payload
            self._by_payload[sent.payload] = sent
            # As an event stream has it, in which every line ends alike.
            self._by_payload[re.sub(rb"\r\n?", b"\n", sent.payload)] = sent

    def new_strange_payload(self) -> str:
        """A payload for a notification that is no event of ours, though it looks like one."""
        text = f'{{"strange": {self.next_key()}}}'
        self._strange.add(text.encode())
        return text

    def find(self, payload: bytes) -> Sent | None:
        return self._by_payload.get(payload)

    def is_strange(self, payload: bytes) -> bool:
        return payload in self._strange

    def all(self) -> list[Sent]:
        with self._lock:
            return list(dict.fromkeys(self._by_payload.values()))
