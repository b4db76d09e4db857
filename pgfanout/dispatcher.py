"""Dispatcher: hands what arrives to those who follow its topic."""

from __future__ import annotations

import logging
import time

from .event import REFRESH_EVENT, Event
from .feed import Feed, NewsReader
from .registry import Registry
from .relay import Relay
from .topic import Topic

__all__ = ["Dispatcher"]

logger = logging.getLogger("pgfanout")


class Dispatcher:
    """Offers events and gaps to the consumers of the registry, and wakes who reads them.

    For the listener's thread, which alone writes the counters; any thread may read them, and `wake`.
    Nothing here waits.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self.relay = Relay()
        self.reader: NewsReader | None = None
        """Who reads the feeds, once there are some."""
        self.undecodable = self.delivered = self.refreshes = self.gaps = 0
        self._complain_at = 0.0

    def offer(self, topic: Topic, event: Event) -> None:
        """Hand an event to those who follow its topic; `wake` follows.

        They are looked up for each event: one who comes meanwhile sees all its topics from the same
        event on, and no gap between two of them.
        """
        for consumer in self.registry.of(topic):
            self.delivered += consumer.members
            if not consumer.offer(event):
                self.refreshes += 1

    def wake(self) -> None:
        """Consumers have told who reads them that there is something: once for all that was offered."""
        self.relay.start()
        if self.reader is not None:
            self.reader.wake()

    def has_followers(self, topic: Topic) -> bool:
        """Whether anyone follows a topic."""
        return bool(self.registry.of(topic))

    def gap(self) -> None:
        """Tell everyone that events may have been lost here."""
        self.gaps += 1
        for consumer in self.registry.all():
            consumer.offer(REFRESH_EVENT)
        self.wake()

    def refresh_early(self) -> None:
        """Tell the streams that came before the hub listened for the first time that events may have been lost."""
        for consumer in self.registry.all():
            if isinstance(consumer, Feed) and consumer.early:
                consumer.offer(REFRESH_EVENT)
        self.wake()

    def malformed(self, problem: Exception) -> None:
        """A notification that nobody can read may have been anyone's event: that's a gap."""
        self.undecodable += 1
        now = time.monotonic()
        if now >= self._complain_at:
            # Any role that can connect can notify: it must not be able to fill the log.
            self._complain_at = now + 10.0
            logger.warning(
                "a notification was no event (%s), %d so far; everyone is told to refresh."
                " Does something else notify this channel?",
                problem,
                self.undecodable,
            )
        self.gap()
