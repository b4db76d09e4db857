"""Audience: the connections of one feed. For the streamer's thread, so nothing here is locked."""

from __future__ import annotations

from ...delivery.feed import Feed
from .broadcast import Broadcast, Written
from .connection import Connection

__all__ = ["Audience"]


class Audience:
    """The connections of one feed: those that a loop has admitted and not let go.

    `current` are those that stand where `reader` does, which they share. They are known by their descriptors: one dict
    for bodies that end with the connection, and one for chunked ones.
    """

    __slots__ = ("broadcast", "current", "ended", "feed", "has_news", "reader", "replaying", "size", "written_at")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.reader = feed.reader()
        self.current: tuple[dict[int, Connection], dict[int, Connection]] = ({}, {})
        self.replaying: dict[Connection, None] = {}  # a set that keeps the order
        """Those that read the log."""
        self.size = 0
        """With those that are not current."""
        self.broadcast: Broadcast | None = None
        """What the current ones are about to get; `reader` is behind it already."""
        self.has_news = False
        """Whether its feed has had news since the broadcast began."""
        self.ended = False
        """Whether the feed has ended, and its reader has read all of it."""
        self.written_at = 0.0
        """When the current ones were written to last."""

    @property
    def current_size(self) -> int:
        """How many are current."""
        return len(self.current[False]) + len(self.current[True])

    def all_current(self) -> list[Connection]:
        """Those that are current."""
        return [*self.current[False].values(), *self.current[True].values()]

    def is_current(self, connection: Connection) -> bool:
        """Whether it has everything that the current ones have."""
        return connection.reader is self.reader

    def join(self, connection: Connection) -> None:
        """It belongs here from now on, and is not current yet."""
        self.size += 1
        self.note_replay(connection)

    def leave(self, connection: Connection) -> None:
        """It does not belong here any more. Before it is closed, since it is known by its descriptor."""
        self.exclude(connection)
        self.replaying.pop(connection, None)
        self.size -= 1

    def note_replay(self, connection: Connection) -> None:
        """Note whether it reads the log now."""
        if connection.reader.behind:
            self.replaying[connection] = None
        else:
            self.replaying.pop(connection, None)

    def include(self, connection: Connection) -> None:
        """It is current from now on, unless it has left."""
        if connection.open:
            # The log may have told it more than had been offered when the shared reader came here. All of that is
            # before this position.
            self.reader.advance(connection.reader.number)
            connection.reader = self.reader
            self.current[connection.chunked][connection.descriptor] = connection

    def exclude(self, connection: Connection) -> None:
        """It goes its own way from now on. Idempotent."""
        if self.current[connection.chunked].pop(connection.descriptor, None) is not None:
            connection.reader = self.reader.copy()
            if self.broadcast is not None and (data := self.broadcast.withdraw(connection)):
                connection.rest = (data, *connection.rest)

    def start(self, data: bytes) -> None:
        """Begin to write data to all that are current; `write_slice` goes on until there is no `broadcast`."""
        self.broadcast = Broadcast(*self.current, data)

    def write_slice(self) -> Written:
        """Write to some of those that have not got what is broadcast. The others of them are current all the same: what
        they lack goes with them when they are excluded."""
        assert self.broadcast is not None
        written = self.broadcast.write_slice()
        for connection, rest in written.rests:
            self.exclude(connection)
            connection.rest = (rest, *connection.rest)
        if self.broadcast.done:
            self.broadcast = None
        return written
