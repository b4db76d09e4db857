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
    """Connections that were given up: the server did not answer a heartbeat, or what a new session
    asks first, in time, or it answered and notifications did not arrive any more."""
    last_error: str
    """What went wrong last, in the server's words; empty when nothing did."""
    received: int
    """Notifications that arrived while the hub listened, the undecodable ones included."""
    undecodable: int
    """Notifications that were no envelope. Without history each is a gap, told at most once a second."""
    delivered: int
    """Events offered to subscriptions: one event to ten subscriptions counts ten."""
    refreshes: int
    """Times that a full subscription's backlog was replaced by a refresh."""
    gaps: int
    """Times that every subscription, or every one of some topics, was told to refresh."""
    stalled_readers: int
    """Streams that were let go because their client took nothing for too long."""
    queue_usage: float
    """How full the server's notification queue was at the last heartbeat, from 0 to 1."""
    subscriptions: int
    """Subscriptions that are open now."""
    detached: int = 0
    """Those of them that are streams without a thread of the server."""
    failed_streams: int = 0
    """Detached streams that an error of pgfanout's own ended; the log has the error."""
    log_size: int = 0
    """Events that the history had when somebody counted them last; roughly, and once in `prune_every` seconds."""
    oldest_cursor: int = 0
    """The number after which the history had everything at that time."""
    replays: int = 0
    """Times that a reader was given what it had missed, or had no room for, from the history."""
    replayed_events: int = 0
    """Events that were given in these."""
    fills: int = 0
    """Times that the hub, listening again, got from the history what it had missed."""
    filled_events: int = 0
    """Events that these brought, whoever follows them."""
    pruned: int = 0
    """Events that this process removed from the history, for their age or for being too many."""
    unroutable: int = 0
    """Envelopes of topics that nobody can follow, such as a channel of more than 63 bytes; they are passed over."""
    unlogged: int = 0
    """With a history that has every event (`log_only`): notifications that are none of its events. They are not
    delivered, and their topic's followers are told to refresh."""
    kept_in_thread: Mapping[str, int] = field(default_factory=dict)
    """Why streams kept a thread of the server, and how many have done so for each reason."""
