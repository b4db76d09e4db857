"""HubStats: what a hub has done, and how it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HubStats"]


@dataclass(frozen=True)
class HubStats:
    """A snapshot; counters count from the hub's making in this process."""

    listening: bool
    """Whether notifications arrive now."""
    since: float
    """Unix time, in seconds, at which `listening` became what it is."""
    reconnects: int
    """How often the hub listened again after it had lost its connection."""
    dead_connections: int
    """Connections that ended without a word: the server did not answer a heartbeat, or what a new
    session asks first, in time."""
    last_error: str
    """What went wrong last, in the server's words; empty when nothing did."""
    received: int
    """Notifications that arrived while the hub listened, the undecodable ones included."""
    undecodable: int
    """Notifications that were no envelope; each is told as a gap."""
    delivered: int
    """Events offered to subscriptions: one event to ten subscriptions counts ten."""
    refreshes: int
    """Times that a full subscription's backlog was replaced by a refresh."""
    gaps: int
    """Times that every subscription was told to refresh."""
    stalled_readers: int
    """Streams that were let go because their client took nothing for too long."""
    queue_usage: float
    """How full the server's notification queue was at the last heartbeat, from 0 to 1."""
    subscriptions: int
    """Subscriptions that are open now."""
    detached: int = 0
    """Those of them that are streams without a thread of the server."""
    kept_in_thread: Mapping[str, int] = field(default_factory=dict)
    """Why streams kept a thread of the server, and how many have done so for each reason."""
