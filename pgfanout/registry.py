"""Registry: which subscriptions have which topics."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from .errors import HubClosedError
from .event import Event
from .topic import Topic

__all__ = ["Consumer", "Registry"]


class Consumer(Protocol):
    """What events are offered to: a subscription, or whatever is like one."""

    def offer(self, event: Event) -> bool:
        """Take an event without waiting; False when a refresh had to replace a backlog."""

    def end(self) -> None:
        """Take the end without waiting."""


class Registry:
    """Topic to consumers, and consumer to topics.

    `_lock` guards the attributes below it. It is held for operations on dicts and tuples
    alone: what is done with a consumer is done outside. The tuples are never changed but
    replaced, so a reader goes on with the one it got while others come and leave.

    `stalled` counts the consumers that were removed for having stalled.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._consumers: dict[Topic, tuple[Consumer, ...]] = {}
        self._topics: dict[Consumer, tuple[Topic, ...]] = {}
        self._sealed = False
        self.stalled = 0

    def add(self, consumer: Consumer, topics: Iterable[Topic]) -> None:
        """Route the topics' events to a consumer. Raises `HubClosedError` once sealed."""
        topics = tuple(topics)
        with self._lock:
            if self._sealed:
                raise HubClosedError
            self._topics[consumer] = topics
            for topic in topics:
                self._consumers[topic] = (*self._consumers.get(topic, ()), consumer)

    def remove(self, consumer: Consumer, *, stalled: bool = False) -> None:
        """Route nothing to a consumer any more. Idempotent."""
        with self._lock:
            topics = self._topics.pop(consumer, ())
            self.stalled += stalled and bool(topics)
            for topic in topics:
                rest = tuple(c for c in self._consumers[topic] if c is not consumer)
                if rest:
                    self._consumers[topic] = rest
                else:
                    del self._consumers[topic]

    def of(self, topic: Topic) -> tuple[Consumer, ...]:
        """The consumers of a topic."""
        with self._lock:
            return self._consumers.get(topic, ())

    def all(self) -> list[Consumer]:
        """Every consumer, once."""
        with self._lock:
            return list(self._topics)

    def seal(self) -> list[Consumer]:
        """Accept nobody any more; every consumer that is still there, to be ended."""
        with self._lock:
            self._sealed = True
            consumers = list(self._topics)
            self._topics.clear()
            self._consumers.clear()
        return consumers

    def __len__(self) -> int:
        with self._lock:
            return len(self._topics)
