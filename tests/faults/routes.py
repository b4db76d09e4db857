"""What a hub has: routes, and a session for its history. Read from within, since what has left must not stay behind in
any corner."""

from __future__ import annotations

from pgfanout import NotifyHub
from pgfanout.backends.postgres.history.store import HistoryStore
from pgfanout.delivery.few import members
from pgfanout.hub import core_of

__all__ = ["reads_history", "routes"]


def routes(hub: NotifyHub) -> int:
    """How many routes there are: topics, and consumers of each."""
    consumers = dict(core_of(hub).dispatcher.registry._consumers)
    return len(consumers) + sum(len(members(few)) for few in consumers.values())


def reads_history(hub: NotifyHub) -> bool:
    """Whether it has a session to read its history with at the moment."""
    store = core_of(hub).backend.log
    return isinstance(store, HistoryStore) and store._connection is not None and not store._connection.closed
