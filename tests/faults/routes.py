"""How many routes a hub has: topics, and consumers of each."""

from __future__ import annotations

from pgfanout import NotifyHub

__all__ = ["routes"]


def routes(hub: NotifyHub) -> int:
    """Read from within, since what has left must not stay behind in any corner."""
    consumers = dict(hub._registry._consumers)
    return len(consumers) + sum(map(len, consumers.values()))
