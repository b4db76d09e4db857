"""Broadcast: the same bytes for many connections, some at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from . import held
from .connection import Connection, chunk

__all__ = ["Broadcast", "Written"]

_FEW = 16
_TOO_LONG = 0.001
"""Seconds for a write that takes some microseconds."""
_SLICE = 8 * _FEW
"""Writes of one slice, which take about a millisecond: others wait so long for their news."""


class Written(NamedTuple):
    """What became of a slice, apart from the connections that took everything."""

    rests: list[tuple[Connection, memoryview]]
    """Those that took less, and what they did not take."""
    failures: list[tuple[Connection, Exception]]


class Broadcast:
    """Bytes that every connection of an audience is to get, and the connections that have not got them yet.

    In slices, so that an event for thousands of streams does not hold up those of other feeds. For the streamer's
    thread.
    """

    def __init__(self, plain: Mapping[int, Connection], chunked: Mapping[int, Connection], data: bytes) -> None:
        """Connections by their descriptors: those whose bodies end with the connection, and those with chunked ones."""
        self._frames = data, chunk(data) if chunked else b""
        self._left: dict[int, Connection] = {**plain, **chunked}
        self._descriptors = list(self._left)
        self._at = 0
        self._write: Callable[[int, bytes], int] = os.write

    @property
    def done(self) -> bool:
        """Whether no connection is left."""
        return not self._left

    def withdraw(self, connection: Connection) -> bytes:
        """Write to this connection no more. What it was to get; nothing if it has got that."""
        if self._left.get(connection.descriptor) is not connection:
            return b""
        del self._left[connection.descriptor]
        return self._frames[connection.chunked]

    def write_slice(self) -> Written:
        """Write to the next connections.

        Each write gives the interpreter up, which ordinary requests are glad of. A thread that computes, though, keeps
        it for some milliseconds each time, and thousands of streams would wait for seconds: when a few writes have
        taken that long, the others hold it.
        """
        written = Written([], [])
        end = self._at + _SLICE
        while self._at < end and self._left:
            began = time.monotonic()
            self._write_few(written)
            if time.monotonic() - began > _FEW * _TOO_LONG:
                self._write = held.write
        return written

    def _write_few(self, written: Written) -> None:
        pop, frames, write = self._left.pop, self._frames, self._write
        descriptors = self._descriptors[self._at : self._at + _FEW]
        self._at += _FEW
        for descriptor in descriptors:
            connection = pop(descriptor, None)
            if connection is None:
                continue  # it was withdrawn
            data = frames[connection.chunked]
            try:
                sent = write(descriptor, data)
            except BlockingIOError:
                sent = 0
            except Exception as error:
                written.failures.append((connection, error))
                continue
            if sent != len(data):
                written.rests.append((connection, memoryview(data)[sent:]))
