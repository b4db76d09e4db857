"""DetachingStream: the body of a response that hands its connection to the streamer.

The server itself writes the response's head and the first item, so whatever middlewares have
added is there, and its access log has its line. What it writes is looked at on its way: if the
item left as it is, chunked or as a body that ends with the connection, the streamer goes on in
the same way, and the server's thread is free. Otherwise the response stays in its thread.
"""

from __future__ import annotations

import _thread
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import BuiltinFunctionType
from typing import Any

from ..errors import PgFanoutError
from ..feed import Feed
from . import sse
from .client import expect_no_request, server_socket
from .detour import Detour, framing
from .outlet import Outlet
from .stream import EventStream, forget
from .streamer import streamer

__all__ = ["DetachingStream", "reason_to_stay"]

NO_DESCRIPTORS = "no descriptors are left"
CHANGED_BODY = "something between the application and the server changes or holds back the body"


def reason_to_stay(environ: Mapping[str, Any]) -> str:
    """Why the response to a request can't leave its thread; empty when it can.

    Not everything can be seen in a request: `DetachingStream` may find another reason.
    """
    connection = server_socket(environ)
    if connection is None:
        return "the server gives no socket"
    if isinstance(connection, ssl.SSLSocket):
        return "TLS ends in the server"
    if (type(connection).__module__, type(connection).__name__) != ("socket", "socket"):
        return "the socket is not the standard library's"
    if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
        return "threads are patched"
    if environ.get("SERVER_PROTOCOL") not in ("HTTP/1.0", "HTTP/1.1"):
        return "the request is not HTTP/1"
    if not (hasattr(select, "epoll") and hasattr(os, "eventfd")):
        return "this system has no epoll"
    return ""


class DetachingStream:
    """An iterator of one item, after which the connection is the streamer's.

    `follow` joins a feed, `stay` gives the stream that goes on in the thread for the reason that
    it is told, and closing that stream releases what this one would have; both raise
    `PgFanoutError`. One of them is called before a single byte reaches the client, so nothing is
    missed of what is committed after the client saw the response.

    `release` gives the stream's place back, once, whatever happens. For one thread, as every body
    is; after the hand-over the streamer's thread calls `release`.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        resumed: bool,
        keepalive: float,
        follow: Callable[[], tuple[Feed, int]],
        stay: Callable[[str], EventStream],
        release: Callable[[], object],
    ) -> None:
        self._connection = connection
        self._keepalive = keepalive
        self._follow = follow
        self._stay = stay
        self._release: Callable[[], object] | None = release
        self._opening = sse.opening(resumed)
        self._detour: Detour | None = None
        self._in_thread: EventStream | None = None
        # No bound method: a cycle would keep a dropped stream until a collection.
        self._next = DetachingStream._open

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The opening, and nothing after it; or what the stream that stays in the thread has."""
        return self._next(self)

    def close(self) -> None:
        """The server is done with the response. Idempotent."""
        detour, self._detour = self._detour, None
        if detour is not None:
            self._end_detour(detour)
        if self._in_thread is not None:
            self._in_thread.close()
        release, self._release = self._release, None
        if release is not None:
            release()

    def __del__(self) -> None:
        if self._release is not None:
            forget(self._release)
        if self._detour is not None:
            self._detour.close()

    def _open(self) -> bytes:
        self._next = DetachingStream._decide
        try:
            streamer.prepare()
            self._detour = Detour(self._connection)
        except OSError:
            return self._keep_thread(NO_DESCRIPTORS)
        expect_no_request()
        return self._opening

    def _decide(self) -> bytes:
        """The server asks for more, so it has written the opening."""
        detour = self._detour
        assert detour is not None
        written = detour.written()
        framed = framing(written, self._opening)
        try:
            if framed:
                self._hand_over(detour, written, chunked=framed == "chunked")
                self._next = DetachingStream._end
            else:
                self._keep_thread(CHANGED_BODY)  # its opening is already on the way
        except PgFanoutError:  # the hub was closed meanwhile, or the thread is not to be had
            self._next = DetachingStream._say_goodbye
        if self._next is not DetachingStream._end:
            self._detour = None
            self._end_detour(detour, written)
        return self._next(self)

    def _hand_over(self, detour: Detour, written: bytes, *, chunked: bool) -> None:
        feed, position = self._follow()
        assert self._release is not None
        outlet = Outlet(
            detour.take(),
            feed,
            position,
            chunked=chunked,
            head=written,
            keepalive=self._keepalive,
            on_close=self._release,
        )
        self._release = None
        try:
            with suppress(OSError):  # the client has left, which the streamer finds out as well
                outlet.write()
            streamer.adopt(outlet)
        except BaseException:  # no thread could be started
            outlet.close(stalled=False)
            raise

    def _keep_thread(self, reason: str) -> bytes:
        self._in_thread = self._stay(reason)
        self._release = None
        self._next = DetachingStream._follow_in_thread
        return next(self._in_thread)

    def _end_detour(self, detour: Detour, written: bytes = b"") -> None:
        """Have the server's socket as it was, and send what the server had written meanwhile."""
        taken = detour.taken
        written += b"" if taken else detour.written()
        detour.close()
        if written:
            self._connection.sendall(written)

    def _follow_in_thread(self) -> bytes:
        assert self._in_thread is not None
        return next(self._in_thread)

    def _say_goodbye(self) -> bytes:
        self._next = DetachingStream._end
        return sse.farewell()

    def _end(self) -> bytes:
        raise StopIteration
