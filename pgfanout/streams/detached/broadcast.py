"""Broadcast: the same bytes for many connections, some at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from . import held
from .connection import Connection

__all__ = ["Broadcast"]

_FEW = 16
_TOO_LONG = 0.001
"""Seconds for a write that takes some microseconds."""
_SLICE = 8 * _FEW
"""Writes of one slice. They take about a millisecond, for which other feeds wait."""


class Broadcast:
    """Bytes for every connection of an audience, and the connections that have not got them yet.

    They are written in slices, so that an event for thousands of streams does not delay other feeds. For the streamer's
    thread.
    """

    def __init__(self, connections: dict[Connection, None], frames: Sequence[bytes]) -> None:
        """Owns the dict, a set that keeps the order. `frames` has the bytes for each `form` that a connection has."""
        self._frames = frames
        self.left = connections
        """The connections that were not written to yet."""
        self._connections = list(connections)
        self._at = 0
        self._write: Callable[[int, bytes], int] = os.write

    def withdraw(self, connection: Connection) -> bytes:
        """Don't write to this connection any more. Return the bytes that it has yet to get, b"" if it has got them."""
        if connection not in self.left:
            return b""
        del self.left[connection]
        return self._frames[connection.form]

    def write_slice(self) -> list[tuple[Connection, memoryview, Exception | None]]:
        """Write to the next connections. Return those that did not take everything, with the rest and the error. The
        error is None if the socket is full.

        Each write releases the interpreter, so that ordinary requests can run. But a thread that computes then keeps it
        for some milliseconds each time, and thousands of streams would wait for seconds. When a few writes have taken
        that long, the other writes of this broadcast don't release it.
        """
        short: list[tuple[Connection, memoryview, Exception | None]] = []
        end = self._at + _SLICE
        while self._at < end and self.left:
            began = time.monotonic()
            self._write_few(short)
            if time.monotonic() - began > _FEW * _TOO_LONG:
                self._write = held.write
        return short

    def _write_few(self, short: list[tuple[Connection, memoryview, Exception | None]]) -> None:
        left, frames, write = self.left, self._frames, self._write
        connections = self._connections[self._at : self._at + _FEW]
        self._at += _FEW
        for connection in connections:
            if connection not in left:
                continue  # it was withdrawn
            del left[connection]
            data = frames[connection.form]
            error = None
            try:
                sent = write(connection.descriptor, data)
            except BlockingIOError:
                sent = 0
            except Exception as raised:
                # Its traceback has this frame, and so `short`: a cycle, in which the connection would stay.
                sent, error = 0, raised.with_traceback(None)
            if sent != len(data):
                short.append((connection, memoryview(data)[sent:], error))
