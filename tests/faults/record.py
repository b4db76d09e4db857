"""Record: what one subscriber received, and when it came back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["REFRESH", "RETURN", "Item", "Record", "Topic"]

REFRESH = "refresh"
RETURN = "return"


class Topic(NamedTuple):
    channel: str
    tenant: str


class Item(NamedTuple):
    """Something that a subscriber received, and the monotonic time right after it. A refresh has no payload but where
    it came; a return, which is the subscriber's own, has the number that it came back with."""

    payload: bytes
    type: str
    at: float
    id: str = ""


@dataclass(eq=False)
class Record:
    """What one subscriber received, from the moment on at which its subscription was there. With history it goes on
    when the subscriber comes back. `paths` are those of the hubs that it may have had it from."""

    name: str
    topics: frozenset[Topic]
    since: float = float("inf")
    items: list[Item] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What the subscriber itself saw that breaks the protocol."""
    paths: frozenset[str] = frozenset()
    prompt: bool = False
    """Whether it takes what comes before its buffer is full, however much that is."""

    @property
    def events(self) -> list[Item]:
        return [item for item in self.items if item.type not in (REFRESH, RETURN)]

    def refresh(self, at: float, where: str = "") -> None:
        self.items.append(Item(where.encode(), REFRESH, at))

    def come_back(self, at: float, number: str) -> None:
        self.items.append(Item(number.encode(), RETURN, at))
