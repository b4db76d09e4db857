"""Takeover: replaces a server's socket by a stand-in, to read what the server writes and to take the connection."""

from __future__ import annotations

import os
import re
import select
import socket
from contextlib import suppress

__all__ = ["Takeover", "framing"]

_PIECE = 65536
_FRAMING_FIELDS = re.compile(rb"\r\n(transfer-encoding|content-length)[ \t]*:([^\r\n]*)", re.IGNORECASE)


class Takeover:
    """Stands between a WSGI server and its client while the server writes a response's first item.

    The server keeps its socket object, but the descriptor is one end of a socket pair now. So what the server writes,
    the response's head included, can be read at the other end before it reaches the client. Then `take` keeps the
    connection, and whatever the server still writes, shuts or closes hits the stand-in. Or `close` puts the connection
    back, and the server has not noticed anything.

    For the server's thread, but `is_crowded` and `abandon` are for any. Nothing blocks, whatever time-out sockets have
    by default. The stand-in does not block either: a write of more than it holds (some 200 KB or 250 writes) fails at
    once. Raise `OSError` when there are no descriptors left. Nothing has changed then.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._place = connection.fileno()
        self._client: int | None = os.dup(self._place)
        try:
            stand_in, self._our_end = socket.socketpair()
        except OSError:
            os.close(self._client)
            raise
        self._our_end.setblocking(False)
        with stand_in:
            stand_in.setblocking(False)
            os.dup2(stand_in.fileno(), self._place, inheritable=False)

    @property
    def taken(self) -> bool:
        """Whether the connection was taken."""
        return self._client is None

    def written(self) -> bytes:
        """What the server has written since the last call."""
        written = b""
        try:
            while data := self._our_end.recv(_PIECE):
                written += data
                if len(data) < _PIECE:
                    break
        except BlockingIOError:
            pass
        return written

    def is_crowded(self) -> bool:
        """Whether a quarter of what the stand-in holds, or more, was written and not read: a server that
        waits for room before it writes has none then."""
        poll = select.poll()
        poll.register(self._place, select.POLLOUT)
        return not poll.poll(0)

    def take(self) -> int:
        """The client's connection, which does not block any more, as a descriptor of the caller's.

        The server reads an end of file from its stand-in from now on: it need not wait for more.
        """
        assert self._client is not None
        descriptor, self._client = self._client, None
        os.set_blocking(descriptor, False)
        self._our_end.shutdown(socket.SHUT_WR)
        return descriptor

    def close(self) -> None:
        """Undo it; after `take`, close the stand-in, once the server has written its last."""
        if self._client is not None:
            # Once the server has closed its socket the number may be another connection's.
            if self._connection.fileno() == self._place:
                os.dup2(self._client, self._place, inheritable=False)
            os.close(self._client)
            self._client = None
        else:
            self.written()  # unread, it would turn the server's end of file into a reset
        self._our_end.close()

    def abandon(self, written: bytes = b"") -> None:
        """Give everything up, from whichever thread, a finaliser's included: the client gets what the
        server has written, from `written` on, and then the end of its connection.

        The server keeps the stand-in, since its number may become another connection's at any
        moment in any thread but its own.
        """
        if self._client is None:
            self.close()
            return
        with self._our_end, socket.socket(fileno=self._client) as client, suppress(OSError):
            self._client = None
            client.setblocking(False)
            if written := written + self.written():
                client.send(written)
            client.shutdown(socket.SHUT_RDWR)


def framing(written: bytes, item: bytes) -> str:
    """How a server has sent the first item of a body: "chunked", "plain" (the body ends with the
    connection), or "" when the item did not leave as it is, and at once.

    `written` is the response's head and what follows it (RFC 9112, 2.1 and 6).
    """
    head, _, body = written.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1."):
        return ""
    fields = {name.lower(): value.strip().lower() for name, value in _FRAMING_FIELDS.findall(head)}
    if not fields:
        return "plain" if body == item else ""
    size, _, rest = body.partition(b"\r\n")
    chunked = fields == {b"transfer-encoding": b"chunked"} and rest == item + b"\r\n" and _number(size) == len(item)
    return "chunked" if chunked else ""


def _number(hexadecimal: bytes) -> int:
    try:
        return int(hexadecimal, 16)
    except ValueError:
        return -1
