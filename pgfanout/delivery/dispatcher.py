"""Dispatcher: hands what arrives to those who follow its topic."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from ..envelope import MalformedEnvelopeError
from ..event import REFRESH_EVENT, Event
from ..rate_limit import RateLimit
from ..topic import Topic
from .feed import Feed, Mailbox
from .registry import Consumer, Registry
from .relay import Relay

__all__ = ["Dispatcher"]

logger = logging.getLogger("pgfanout")

_PERIOD = 1.0
"""Seconds from one refresh that anybody can cause to the next."""


class Dispatcher:
    """Offers events and gaps to the consumers of the registry, and wakes who reads them.

    For the listener's thread, which alone writes the counters; any thread may read them, and `wake`.
    Nothing here waits.

    Any role that can connect can notify, and so cause a gap. The first such gap is told at once. Those of the next
    second have to wait until the second is over: the consumers that they concern wait in `_missing`, and get one
    refresh each. Until then no event is offered to them, since no event may come between a gap and its refresh, and
    they are about to load the current state anyway. `pause` says when `tell_lost` has to be called.

    With `fills_gaps`, a log has every event that the hub promises. Then a notification that can't be read is no gap,
    and nothing is dropped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = Registry()
        self.relay = Relay()
        self.mailbox: Mailbox | None = None
        """Of the thread that reads the feeds, once there are some."""
        self.fills_gaps = False
        self.undecodable = self.unroutable = self.unlogged = 0
        self.delivered = self.refreshes = self.gaps = 0
        self._clock = clock
        self._missing: set[Consumer] = set()
        self._tell_at = float("-inf")
        self._malformed_lines = RateLimit(10.0)
        self._unlogged_lines = RateLimit(60.0)

    def offer(self, topic: Topic, event: Event) -> None:
        """Hand an event to those who follow its topic; `wake` follows.

        They are looked up for each event: one who comes meanwhile sees all its topics from the same
        event on, and no gap between two of them.
        """
        held = self._missing and not self.fills_gaps
        for consumer in self.registry.of(topic):
            if held and consumer in self._missing:
                continue
            self.delivered += consumer.members
            if not consumer.offer(event):
                self.refreshes += 1

    def wake(self) -> None:
        """Consumers have told who reads them that there is something: once for all that was offered."""
        self.relay.start()
        if self.mailbox is not None:
            self.mailbox.wake()

    def has_followers(self, topic: Topic) -> bool:
        """Whether anyone follows a topic."""
        return bool(self.registry.of(topic))

    def has_consumers(self) -> bool:
        """Whether anyone follows anything."""
        return len(self.registry) > 0

    def gap(self) -> None:
        """Tell everyone, now, that events may have been lost here."""
        self._tell(self.registry.all())
        self.wake()

    def refresh_early(self) -> None:
        """Tell the streams that came before the hub listened for the first time that events may have been lost."""
        for consumer in self.registry.all():
            if isinstance(consumer, Feed) and consumer.early:
                consumer.offer(REFRESH_EVENT)
        self.wake()

    def skip(self, after: int, until: int) -> None:
        """Send everyone to the log for what is after one number, up to another; `wake` follows."""
        for consumer in self.registry.all():
            consumer.skip(after, until)

    def take_malformed(self, error: MalformedEnvelopeError) -> None:
        """A notification that nobody can read may have been anyone's event, or any of its topic: that's a gap."""
        self.undecodable += 1
        held_back = self._malformed_lines.take()
        if held_back is not None:
            logger.warning(
                "a notification was no event (%s), %d so far; %s. Does something else notify this channel?",
                error,
                self.undecodable,
                "the history has every event all the same" if self.fills_gaps else "its followers are told to refresh",
            )
        self.lose(error.topic)

    def take_unlogged(self, topic: Topic) -> None:
        """An event that the history does not have is not delivered; its followers are told to refresh."""
        self.unlogged += 1
        held_back = self._unlogged_lines.take()
        if held_back is not None:
            logger.warning(
                "a notification was no event of the history (channel %r), %d so far: it is not delivered, and its"
                " followers are told to refresh. Let its publisher use history, or SELECT pgfanout.publish(...); or"
                " have such events delivered with log_only=False (PGFANOUT_HISTORY_LOG_ONLY)",
                topic.channel,
                self.unlogged,
            )
        self.lose(topic)

    def lose(self, topic: Topic | None) -> None:
        """Tell a topic's followers, or everyone, to refresh: now, or as soon as it may be told again."""
        if topic is not None:
            self._missing.update(self.registry.of(topic))
        elif not self.fills_gaps:
            self._missing.update(self.registry.all())
        self.tell_lost()

    def tell_lost(self) -> None:
        """Tell the gaps that wait, if it is time to; `wake` follows."""
        if self._missing and self._clock() >= self._tell_at:
            self._tell(self._missing)

    def pause(self) -> float | None:
        """Seconds until `tell_lost` has to be called; None when no gap waits to be told."""
        return max(0.0, self._tell_at - self._clock()) if self._missing else None

    def _tell(self, consumers: Iterable[Consumer]) -> None:
        self.gaps += 1
        self._missing = set()
        self._tell_at = self._clock() + _PERIOD
        for consumer in consumers:
            consumer.offer(REFRESH_EVENT)
