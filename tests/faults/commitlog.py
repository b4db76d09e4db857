"""The commit log: which events the server committed, and in which order, as its write-ahead log has it.

Each transaction of a publisher writes a logical message beside each event. PostgreSQL decodes the messages of
committed transactions alone, in commit order (https://www.postgresql.org/docs/current/logicaldecoding-explanation.html),
and keeps the notifications' lock until the commit is in the log: the log has the order of the notifications.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg

__all__ = ["MARK", "Branch", "CommitLog", "Commits", "merge"]

_PREFIX = "pgfanout-faults"
_SLOT = "pgfanout_faults"

MARK = f"SELECT pg_logical_emit_message(true, '{_PREFIX}', %s)"
"""Writes a key (as text) into the log, in the same transaction as the event."""

_READ = f"""
    SELECT data FROM pg_logical_slot_get_binary_changes('{_SLOT}', NULL, NULL,
        'proto_version', '1', 'publication_names', '{_SLOT}', 'messages', 'true')
"""


class Commits(NamedTuple):
    """The keys of what was committed, in order. Those of a timeline that was lost come where it was left, and `lost`
    tells of each which of them that was."""

    keys: list[int]
    lost: dict[int, int]


class Branch(NamedTuple):
    """What a server had committed when its data were replaced, and how many keys had been read by then."""

    keys: list[int]
    read: int


class CommitLog:
    """A replication slot in one database, and every key that was read from it so far."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(f"CREATE PUBLICATION {_SLOT}")
        connection.execute(f"SELECT pg_create_logical_replication_slot('{_SLOT}', 'pgoutput')")
        self._keys: dict[int, None] = {}
        self._branches: list[Branch] = []

    def read(self, connection: psycopg.Connection[Any]) -> Commits:
        """All committed events, in commit order."""
        # A server that crashed may repeat what it had told already.
        self._keys.update(dict.fromkeys(_read(connection)))
        return merge(list(self._keys), self._branches)

    def read_lost(self, connection: psycopg.Connection[Any]) -> int:
        """Read what a server has whose data were replaced since the last `read`; the number of that timeline."""
        self._branches.append(Branch(list(dict.fromkeys(_read(connection))), len(self._keys)))
        return len(self._branches) - 1


def merge(kept: list[int], branches: list[Branch]) -> Commits:
    """Put the keys of each branch that were not kept behind the last that was."""
    places = {key: place for place, key in enumerate(kept)}
    behind: dict[int, list[int]] = {}
    lost: dict[int, int] = {}
    for number, branch in enumerate(branches):
        own = [key for key in branch.keys if key not in places and key not in lost]
        fork = max((places[key] + 1 for key in branch.keys if key in places), default=branch.read)
        behind.setdefault(max(fork, branch.read), []).extend(own)
        lost.update(dict.fromkeys(own, number))
    keys = [key for place in range(len(kept) + 1) for key in (*behind.get(place, ()), *kept[place : place + 1])]
    return Commits(keys, lost)


def _read(connection: psycopg.Connection[Any]) -> list[int]:
    return [key for (change,) in connection.execute(_READ) for key in _keys(change)]


def _keys(change: bytes) -> Iterator[int]:
    """https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html, "Message"."""
    if change[:1] != b"M":
        return
    prefix, _, rest = change[1 + 1 + 8 :].partition(b"\0")
    if prefix == _PREFIX.encode():
        (size,) = struct.unpack("!i", rest[:4])
        yield int(rest[4 : 4 + size])
