"""The commit log: which events the server committed, and in which order, as its write-ahead log has it.

Each transaction of a publisher writes a logical message beside each event. PostgreSQL decodes the messages of
committed transactions alone, in commit order (https://www.postgresql.org/docs/current/logicaldecoding-explanation.html),
and keeps the notifications' lock until the commit is in the log: the log has the order of the notifications.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import psycopg

__all__ = ["MARK", "CommitLog"]

_PREFIX = "pgfanout-faults"
_SLOT = "pgfanout_faults"

MARK = f"SELECT pg_logical_emit_message(true, '{_PREFIX}', %s)"
"""Writes a key (as text) into the log, in the same transaction as the event."""

_READ = f"""
    SELECT data FROM pg_logical_slot_get_binary_changes('{_SLOT}', NULL, NULL,
        'proto_version', '1', 'publication_names', '{_SLOT}', 'messages', 'true')
"""


class CommitLog:
    """A replication slot in one database, and every key that was read from it so far."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(f"CREATE PUBLICATION {_SLOT}")
        connection.execute(f"SELECT pg_create_logical_replication_slot('{_SLOT}', 'pgoutput')")
        self._keys: dict[int, None] = {}

    def read(self, connection: psycopg.Connection[Any]) -> list[int]:
        """The keys of all committed events, in commit order."""
        for (change,) in connection.execute(_READ):
            # A server that crashed may repeat what it had told already.
            self._keys.update(dict.fromkeys(_keys(change)))
        return list(self._keys)


def _keys(change: bytes) -> Iterator[int]:
    """https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html, "Message"."""
    if change[:1] != b"M":
        return
    prefix, _, rest = change[1 + 1 + 8 :].partition(b"\0")
    if prefix == _PREFIX.encode():
        (size,) = struct.unpack("!i", rest[:4])
        yield int(rest[4 : 4 + size])
