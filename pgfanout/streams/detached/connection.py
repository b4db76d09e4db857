"""Connection: the client's end of a detached stream. For the streamer's thread, so nothing here is locked."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ...delivery.feed import Feed
from ...delivery.reader import Reader
from .. import sse
from .wheel import Ticking

__all__ = ["FORMS", "Connection", "chunk"]

FORMS: Final = tuple((encoder, chunked) for encoder in sse.ENCODERS.values() for chunked in (False, True))
"""Every encoder, without chunks and with them."""

_MANY = 1024
"""Parts that one `writev` takes (IOV_MAX)."""

_PIECE = 16_384
_MOST_RECEIVED = 65_536
"""Bytes that a client may send: a pipelined request of ordinary size, and not what fills the kernel's memory."""

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Bytes as one chunk of a chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection(Ticking):
    """A connection that streams are written to, and how far its client has come.

    It is current while it has everything that its audience has: then it shares the audience's reader. Otherwise
    `rest` (what its socket has not taken yet) or events wait for room in the socket, and it has a reader of its own.
    `rest` has the frames themselves, which all connections share, and no copies of them.

    It is `open` until `close`, which alone closes the descriptor and forgets its number: by then it may be
    another connection's. Whatever is done with a closed connection fails, or does nothing.
    """

    __slots__ = (
        "blocked",
        "chunked",
        "descriptor",
        "encoder",
        "ending",
        "feed",
        "form",
        "keepalive",
        "on_close",
        "open",
        "reader",
        "received",
        "rest",
        "sent_number",
        "since",
    )

    def __init__(
        self,
        descriptor: int,
        feed: Feed,
        reader: Reader,
        *,
        chunked: bool,
        head: bytes,
        keepalive: float,
        encoder: sse.Encoder = sse.encode,
        on_close: Callable[[], object],
    ) -> None:
        """Owns the descriptor of a non-blocking socket. `head` is what is written first; it has the reader's number,
        if there is one."""
        self.open = True
        self.descriptor = descriptor
        """-1 once it is closed."""
        self.feed = feed
        self.reader = reader
        self.chunked = chunked
        self.encoder = encoder
        self.form = FORMS.index((encoder, chunked))
        """Connections with the same form share the bytes that are written to them."""
        self.keepalive = keepalive
        self.on_close = on_close
        self.rest: tuple[bytes | memoryview, ...] = (head,) if head else ()
        """What its socket has not taken yet."""
        self.received = 0
        """How many bytes its client has sent."""
        self.since = time.monotonic()
        """When it was written to last, apart from what went to its whole audience."""
        self.tick = -1
        self.sent_number = reader.number
        """The last number that was sent to its client, other than with an event."""
        self.blocked = False
        """Whether its socket had no room, and the streamer waits for some."""
        self.ending = False
        """Whether `rest` is the last that it gets."""

    @property
    def has_news(self) -> bool:
        """Whether there is something to write to it."""
        return bool(self.rest) or self.feed.has_news(self.reader)

    def put(self, *parts: bytes) -> None:
        """Have the parts, one at least and none of them empty, written after the rest. They are not copied."""
        if self.chunked:
            self.rest += (b"%x\r\n" % sum(map(len, parts)), *parts, b"\r\n")
        else:
            self.rest += parts

    def put_keepalive(self, number: int) -> None:
        """Have a keepalive written next, with the number (0: none) unless that was sent last."""
        self.put(sse.keepalive(number if number != self.sent_number else 0))
        self.sent_number = number or self.sent_number

    def put_closing(self) -> None:
        """Have `retry`, `close` and the end of the body written next."""
        self.put(sse.closing())
        if self.chunked:
            self.rest += (LAST_CHUNK,)
        self.ending = True

    def write(self) -> bool:
        """Write what the socket takes; whether nothing is left. Raises `OSError`."""
        if self.rest:
            try:
                sent = os.writev(self.descriptor, self.rest[:_MANY])
            except BlockingIOError:
                return False
            self.rest = _without(self.rest, sent)
        return not self.rest

    def note_blocked(self) -> None:
        """Note whether its socket has room now."""
        self.blocked = bool(self.rest)
        if not self.blocked:
            self.since = time.monotonic()

    def drop_input(self) -> bool:
        """Read what the client has sent, and drop it; False when the client has sent too much. Raises `OSError`."""
        with suppress(BlockingIOError):
            self.received += len(os.read(self.descriptor, _PIECE))
        return self.received <= _MOST_RECEIVED

    def close(self, *, stalled: bool) -> None:
        """End the connection, leave the feed and give the stream's place back. Idempotent, never waits.

        Raises what `on_close` raises.
        """
        if not self.open:
            return
        self.open = False
        descriptor, self.descriptor = self.descriptor, -1
        with suppress(OSError):
            self._end_connection(descriptor)
        self.rest = ()
        try:
            self.feed.leave(stalled=stalled)
        finally:
            self.on_close()

    def _end_connection(self, descriptor: int) -> None:
        # A forked child may have the descriptor, too: a shutdown ends the connection all the same.
        with socket.socket(fileno=descriptor) as connection:
            connection.setblocking(False)  # it has the default time-out of sockets otherwise
            connection.shutdown(socket.SHUT_WR if self.ending and not self.rest else socket.SHUT_RDWR)
            # What a client has sent and nobody read would turn the end into a reset.
            connection.recv(65536)

    def error(self) -> OSError | None:
        """What the connection has failed with, when it has."""
        connection = socket.socket(fileno=self.descriptor)
        try:
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        finally:
            connection.detach()
        return OSError(code, os.strerror(code)) if code else None


def _without(parts: tuple[bytes | memoryview, ...], sent: int) -> tuple[bytes | memoryview, ...]:
    """The parts without their first `sent` bytes."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return (memoryview(part)[sent:] if sent else part, *parts[number + 1 :])
        sent -= len(part)
    return ()
