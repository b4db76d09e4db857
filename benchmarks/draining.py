"""One who listens, and throws away what comes: a NOTIFY that nobody hears would cost less than in life."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

__all__ = ["draining"]


@contextlib.contextmanager
def draining(connection: psycopg.Connection[Any], channel: str) -> Iterator[None]:
    """Listen, and read the bytes into nothing in a thread, as cheaply as can be. The connection is used up."""
    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    with connection, socket.socket(fileno=os.dup(connection.fileno())) as raw:
        raw.settimeout(None)
        thread = threading.Thread(target=_drain, args=(raw,), name="draining", daemon=True)
        thread.start()
        try:
            yield
        finally:
            raw.shutdown(socket.SHUT_RDWR)
            thread.join()


def _drain(raw: socket.socket) -> None:
    while raw.recv(1 << 20):
        pass
