"""Dispatcher: hands events and gaps to the consumers that they concern."""

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
from .waker import Waker

__all__ = ["Dispatcher"]

logger = logging.getLogger("pgfanout")

_PERIOD = 1.0
"""Seconds between two refreshes that strangers cause."""


class Dispatcher:
    """Offers events and gaps to the consumers of the registry, and wakes their readers.

    For the listener's thread, which alone writes the counters. Any thread may read them, and call `wake`. Nothing here
    blocks.

    Any role that can connect can notify, and so cause a gap. The first such gap is a refresh at once. Those of the next
    second wait until that is over: the consumers that they concern are in `_waiting`, and get one refresh each. Until
    then they are offered no event, because no event may come between a gap and its refresh. They are about to load the
    current state anyway. `pause` says when `refresh_waiting` has to be called.

    With `fills_gaps`, a log has every event that the hub promises. Then a text that can't be decoded is no gap, and no
    event is dropped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = Registry()
        self.waker = Waker()
        self.mailbox: Mailbox | None = None
        """The streamer's, once there are feeds."""
        self.fills_gaps = False
        self.undecodable = self.unroutable = self.unlogged = 0
        self.delivered = self.refreshes = self.gaps = 0
        self._clock = clock
        self._waiting: set[Consumer] = set()
        self._refresh_at = float("-inf")
        self._malformed_lines = RateLimit(10.0)
        self._unlogged_lines = RateLimit(60.0)

    def offer(self, topic: Topic, event: Event) -> None:
        """Offer an event to the consumers of its topic. Call `wake` after the batch.

        The consumers are looked up for each event, so one that comes meanwhile gets all its topics from the same event
        on, with no gap between two of them.
        """
        held = self._waiting and not self.fills_gaps
        for consumer in self.registry.of(topic):
            if held and consumer in self._waiting:
                continue
            self.delivered += consumer.members
            if not consumer.offer(event):
                self.refreshes += 1

    def wake(self) -> None:
        """Wake the readers of what was offered."""
        self.waker.wake_some()
        if self.mailbox is not None:
            self.mailbox.wake()

    def has_followers(self, topic: Topic) -> bool:
        """Whether a consumer follows a topic."""
        return bool(self.registry.of(topic))

    def has_consumers(self) -> bool:
        """Whether there is a consumer at all."""
        return len(self.registry) > 0

    def gap(self) -> None:
        """Refresh every consumer now: events may have been lost here."""
        self._refresh(self.registry.all())
        self.wake()

    def refresh_early(self) -> None:
        """Refresh the streams that came before the hub listened for the first time."""
        for consumer in self.registry.all():
            if isinstance(consumer, Feed) and consumer.early:
                consumer.offer(REFRESH_EVENT)
        self.wake()

    def skip(self, after: int, until: int) -> None:
        """Have every consumer read in the log what is after one number, up to another. Call `wake` then."""
        for consumer in self.registry.all():
            consumer.skip(after, until)

    def take_malformed(self, error: MalformedEnvelopeError) -> None:
        """Count and log a text that can't be decoded. It may have been any event, of its topic if that is known."""
        self.undecodable += 1
        held_back = self._malformed_lines.take()
        if held_back is not None:
            logger.warning(
                "a notification was no event (%s), %d so far; %s. Does something else notify this channel?",
                error,
                self.undecodable,
                "the history has every event all the same" if self.fills_gaps else "its followers are told to refresh",
            )
        self.note_gap(error.topic)

    def take_unlogged(self, topic: Topic) -> None:
        """Count and log an event that the log does not have. It is not delivered: its topic has a gap."""
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
        self.note_gap(topic)

    def note_gap(self, topic: Topic | None) -> None:
        """Refresh a topic's consumers, or all of them: now, or as soon as the last refresh is a second ago."""
        if topic is not None:
            self._waiting.update(self.registry.of(topic))
        elif not self.fills_gaps:
            self._waiting.update(self.registry.all())
        self.refresh_waiting()

    def refresh_waiting(self) -> None:
        """Refresh the consumers that wait for it, if it is time to. Call `wake` then."""
        if self._waiting and self._clock() >= self._refresh_at:
            self._refresh(self._waiting)

    def pause(self) -> float | None:
        """Seconds until `refresh_waiting` has to be called. None when no consumer waits for a refresh."""
        return max(0.0, self._refresh_at - self._clock()) if self._waiting else None

    def _refresh(self, consumers: Iterable[Consumer]) -> None:
        self.gaps += 1
        self._waiting = set()
        self._refresh_at = self._clock() + _PERIOD
        for consumer in consumers:
            consumer.offer(REFRESH_EVENT)
