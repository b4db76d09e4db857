"""HubStats: what a hub has done, and how it is."""

from __future__ import annotations

from dataclasses import dataclass

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
    last_error: str
    """What went wrong last, in the server's words; empty when nothing did."""
    received: int
    """Notifications that arrived, the undecodable ones included."""
    undecodable: int
    """Notifications that were no envelope; each is told as a gap."""
    deliveries: int
    """Events offered to subscriptions: one event to ten subscriptions counts ten."""
    refreshes: int
    """Times that a full subscription's backlog was replaced by a refresh."""
    gaps: int
    """Times that every subscription was told to refresh."""
    subscriptions: int
    """Subscriptions that are open now."""
