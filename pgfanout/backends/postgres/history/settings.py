"""History: how events are kept, and what may be replayed."""

from __future__ import annotations

from dataclasses import dataclass

from .schema import MAX_PAYLOAD, Schema

__all__ = ["History", "schema_of"]


@dataclass(frozen=True)
class History:
    """The settings of a hub's history.

    The log is in the schema `schema`. It keeps events for `max_age` seconds, and at most `max_rows` of them. An event
    has at most `max_payload` bytes of JSON. These three settings are the database's: `install_history` writes them into
    a new log, and `pgfanout sql install` changes them.

    A reader that has missed more than `max_replay` events gets a refresh instead. With `refill`, a reader that is too
    slow gets the events from the log that its buffer had no room for. Without `refill`, it gets a refresh.

    With `log_only`, the log has every event. A notification that is not in the log is counted and not delivered, and
    its topic gets a refresh. Without `log_only`, such an event is delivered. But nobody can know which of them were
    missed. So a reader that reconnects, or whose hub has lost its connection, always gets a refresh.

    About every `prune_every` seconds, one of the processes removes events that are too old or too many.
    """

    schema: str = "pgfanout"
    max_age: float = 86_400.0
    max_rows: int = 1_000_000
    max_payload: int = MAX_PAYLOAD
    max_replay: int = 10_000
    refill: bool = True
    log_only: bool = True
    prune_every: float = 60.0

    def __post_init__(self) -> None:
        schema_of(self, "pgfanout_events")
        if self.max_replay < 1:
            raise ValueError("max_replay is a number of events: at least 1")
        if not 0 < self.prune_every <= 86_400:
            raise ValueError("prune_every is a number of seconds: above 0, a day at most")


def schema_of(history: History, postgres_channel: str) -> Schema:
    """Return the schema for hubs that listen on this channel. Raise `ValueError` for a wrong setting."""
    return Schema(history.schema, postgres_channel, history.max_age, history.max_rows, history.max_payload)
