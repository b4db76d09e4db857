"""What a hub has: routes, and a session for its history. Read from within, since what has left must not stay behind in
any corner."""

from __future__ import annotations

from pgfanout import NotifyHub, PostgresHub

__all__ = ["reads_history", "routes"]


def routes(hub: NotifyHub) -> int:
    """How many routes there are: topics, and consumers of each."""
    consumers = dict(hub._dispatcher.registry._consumers)
    return len(consumers) + sum(map(len, consumers.values()))


def reads_history(hub: NotifyHub) -> bool:
    """Whether it has a session to read its history with at the moment."""
    assert isinstance(hub, PostgresHub)
    replayer = hub._replayer
    return replayer is not None and replayer._connection is not None and not replayer._connection.closed
