"""Registry: which consumers have which topics."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar, cast

from ..errors import HubClosedError
from ..event import Event
from ..topic import Topic
from .few import Few, Many, excluding, including

__all__ = ["Consumer", "Registry"]


class Consumer(Protocol):
    """What events are offered to: a subscription's backlog, or a feed that many streams read. No method blocks."""

    @property
    def members(self) -> int:
        """How many readers it has. An event that is offered to it counts as delivered so often."""

    def offer(self, event: Event) -> bool:
        """Take an event. Return False if a refresh has replaced waiting events."""

    def skip(self, after: int, until: int) -> None:
        """Have readers read the log after one number, up to another: these events are not offered."""

    def end(self) -> None:
        """Take no further event."""


class SharedConsumer(Consumer, Protocol):
    """A consumer that several join; the registry counts them."""

    members: int


_Shared = TypeVar("_Shared", bound=SharedConsumer)


class Registry:
    """Topic to consumers, and consumer to topics.

    `_lock` guards the attributes below it. It is held for operations on dicts and tuples alone. Consumers are called
    without it. `_routes` has the consumers of topics that have many. Its tuples never change: after a change the next
    event makes a new one. So the listener goes on with the tuple that it has while consumers come and leave, and
    thousands that come cost one tuple.

    `_dropped` has the consumers of subscriptions that were garbage-collected without a `close`. A finaliser puts them
    there. It may run while its thread holds `_lock`, so it can't remove them. Every method that looks at the consumers
    removes them first.

    `stalled` counts consumers that were removed because they had stalled, `refreshes` those of readers that were too
    slow, `failed` readers that ended because of an error in pgfanout, and `followers` readers that keep a thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped: queue.SimpleQueue[Consumer] = queue.SimpleQueue()
        self._consumers: dict[Topic, Few[Consumer]] = {}
        self._routes: dict[Topic, tuple[Consumer, ...]] = {}
        self._topics: dict[Consumer, tuple[Topic, ...]] = {}
        self._shared: dict[tuple[Topic, ...], SharedConsumer] = {}
        self._members = 0
        self._sealed = False
        self.shared_members = 0
        self.stalled = 0
        self.refreshes = 0
        self.failed = 0
        self.followers = 0

    def add(self, consumer: Consumer, topics: Iterable[Topic]) -> None:
        """Route the topics' events to a consumer. Raises `HubClosedError` once sealed."""
        topics = tuple(topics)
        self.remove_dropped()
        with self._lock:
            self._add(consumer, topics)
            self._members += 1

    def remove(self, consumer: Consumer, *, stalled: bool = False) -> None:
        """Route nothing to a consumer any more. Idempotent."""
        with self._lock:
            if consumer in self._topics:
                self._remove(consumer)
                self._members -= 1
                self.stalled += stalled

    def drop(self, consumer: Consumer) -> None:
        """Have a consumer removed soon. For finalisers: it takes no lock."""
        self._dropped.put(consumer)

    def remove_dropped(self) -> None:
        """Remove and end the consumers of garbage-collected subscriptions. Never blocks."""
        while not self._dropped.empty():
            try:
                consumer = self._dropped.get_nowait()
            except queue.Empty:  # another thread was faster
                return
            self.remove(consumer)
            consumer.end()

    def join(self, topics: Iterable[Topic], make: Callable[[], _Shared]) -> _Shared:
        """Return the shared consumer of exactly these topics, with one more member. `make` it if there is none.

        Raise `HubClosedError` once sealed.
        """
        topics = tuple(topics)
        if len(topics) > 1:  # a tuple of one is kept as it is: the consumer has the same
            topics = tuple(sorted(topics))
        with self._lock:
            consumer: Any = self._shared.get(topics)
            if consumer is None:
                consumer = make()
                self._add(consumer, topics)
                self._shared[topics] = consumer
            consumer.members += 1
            self.shared_members += 1
        return cast(_Shared, consumer)

    def leave(self, consumer: SharedConsumer, *, stalled: bool = False) -> None:
        """Undo one `join`. A consumer without members is removed."""
        with self._lock:
            consumer.members -= 1
            self.stalled += stalled
            if consumer not in self._topics:
                return  # sealed
            self.shared_members -= 1
            if not consumer.members:
                del self._shared[self._topics[consumer]]
                self._remove(consumer)

    def count_refreshes(self, count: int) -> None:
        """Count refreshes of a feed's readers."""
        with self._lock:
            self.refreshes += count

    def count_followers(self, change: int) -> None:
        """Count readers of feeds that keep a thread."""
        with self._lock:
            self.followers += change

    def count_failure(self) -> None:
        """Count a reader of a feed that ends because of an error in pgfanout."""
        with self._lock:
            self.failed += 1

    def of(self, topic: Topic) -> tuple[Consumer, ...]:
        """The consumers of a topic.

        A route is removed before its consumers change, so one that exists is right and is read without the lock. A
        consumer that is found for one of its topics is found for all of them from then on.
        """
        self.remove_dropped()
        route = self._routes.get(topic)
        if route is None:
            with self._lock:
                consumers = self._consumers.get(topic)
                if not isinstance(consumers, Many):
                    return () if consumers is None else (consumers,)
                route = self._routes[topic] = tuple(consumers)
        return route

    def all(self) -> list[Consumer]:
        """Every consumer, once."""
        self.remove_dropped()
        with self._lock:
            return list(self._topics)

    def seal(self) -> list[Consumer]:
        """Accept no consumer any more. Return those that are left, which the caller has to end."""
        with self._lock:
            self._sealed = True
            consumers = list(self._topics)
            for each in (self._topics, self._consumers, self._routes, self._shared):
                each.clear()
            self._members = self.shared_members = 0
        return consumers

    def __len__(self) -> int:
        """Subscriptions and members of feeds."""
        self.remove_dropped()
        with self._lock:
            return self._members + self.shared_members

    def _add(self, consumer: Consumer, topics: tuple[Topic, ...]) -> None:
        if self._sealed:
            raise HubClosedError
        self._topics[consumer] = topics
        for topic in topics:
            self._consumers[topic] = including(self._consumers.get(topic), consumer)
            self._routes.pop(topic, None)

    def _remove(self, consumer: Consumer) -> None:
        for topic in self._topics.pop(consumer):
            self._consumers[topic] = excluding(self._consumers[topic], consumer)
            self._routes.pop(topic, None)
            if self._consumers[topic] is None:
                del self._consumers[topic]
