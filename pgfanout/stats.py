"""HubStats: the state and the counters of a hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HubStats"]


@dataclass(frozen=True)
class HubStats:
    """A snapshot. The counters cover this process, from the moment the hub was made in it."""

    listening: bool
    """Whether notifications arrive now."""
    since: float
    """Unix time, in seconds, at which `listening` last changed."""
    reconnects: int
    """How often the hub listened again after it had lost its connection."""
    dead_connections: int
    """Connections that were dropped: the server did not answer a heartbeat or a new session's first statements in
    time, or it answered but notifications no longer arrived."""
    last_error: str
    """The last error, in the server's words. Empty if there was none."""
    received: int
    """Notifications that arrived while the hub listened, including undecodable ones."""
    undecodable: int
    """Notifications that were not envelopes. Without history each is a gap: a refresh, at most one a second."""
    delivered: int
    """Events offered to subscriptions: one event to ten subscriptions counts ten."""
    refreshes: int
    """Times that a refresh replaced the backlog of a full subscription."""
    gaps: int
    """Times that all subscriptions, or all those of some topics, were sent a refresh."""
    stalled_readers: int
    """Streams that were dropped because their client accepted nothing for too long."""
    queue_usage: float
    """How full the server's notification queue was at the last heartbeat, from 0 to 1."""
    subscriptions: int
    """Subscriptions that are open now."""
    detached: int = 0
    """Open subscriptions that are detached streams: they use no thread of the server."""
    failed_streams: int = 0
    """Detached streams that ended with an internal error of pgfanout. The log has the error."""
    log_size: int = 0
    """Events in the history when they were last counted: an estimate, updated every `prune_every` seconds."""
    oldest_cursor: str = ""
    """The cursor after which the history was complete at that time."""
    replays: int = 0
    """Times that a reader got events from the history that it had missed or that its buffer had no room for."""
    replayed_events: int = 0
    """Events in these replays."""
    fills: int = 0
    """Times that the hub listened again and got the events that it had missed from the history."""
    filled_events: int = 0
    """Events in these fills, followed here or not."""
    pruned: int = 0
    """Events that this process removed from the history because they were too old or too many."""
    unroutable: int = 0
    """Envelopes whose topic no subscription can have, such as a channel of more than 63 bytes. They are ignored."""
    unlogged: int = 0
    """With a history that has every event (`log_only`): notifications that are not events of the history. They are
    not delivered. The subscriptions of their topics get a refresh."""
    kept_in_thread: Mapping[str, int] = field(default_factory=dict)
    """Why streams kept a thread of the server: how many streams for each reason."""
