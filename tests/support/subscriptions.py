"""Subscriptions without a hub: the test offers their events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pgfanout import Event, Subscription
from pgfanout.delivery.backlog import Backlog
from pgfanout.delivery.log import Log
from pgfanout.delivery.tail import BUFFER_BYTES
from pgfanout.delivery.waker import Waker
from pgfanout.topic import Topic


def _nothing(backlog: Backlog, **how: Any) -> None:
    pass


class FedSubscription(Subscription):
    """A subscription to which a test offers events, as a hub's dispatcher does."""

    def __init__(
        self,
        buffer_size: int,
        on_close: Callable[..., object] = _nothing,
        waker: Waker | None = None,
        log: Log | None = None,
        topics: Sequence[Topic] = (),
        *,
        buffer_bytes: int = BUFFER_BYTES,
        on_drop: Callable[[Backlog], object] = _nothing,
    ) -> None:
        self.consumer = Backlog(buffer_size, waker, log, topics, buffer_bytes)
        super().__init__(self.consumer, on_close, on_drop)

    def offer(self, event: Event) -> bool:
        """See `Backlog.offer`."""
        return self.consumer.offer(event)

    def end(self) -> None:
        """See `Backlog.end`."""
        self.consumer.end()
