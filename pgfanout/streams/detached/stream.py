"""DetachedStream: the body of a response that hands its connection to the streamer.

The server itself writes the response's head and the first item. So the head has every header that a middleware added,
and the access log has its line. The takeover reads what the server writes. If the first item is in it unchanged,
chunked or as a body that ends with the connection, the streamer goes on in the same way, and the server's thread is
free. Otherwise the stream keeps its thread.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import BuiltinFunctionType
from typing import Any

from ...delivery.feed import Feed
from ...delivery.reader import Reader
from ...errors import PgFanoutError
from .. import sse
from ..client import close_after_response, server_socket, serves_requests, stop_reading
from ..threaded import ThreadedStream, close_later
from .connection import Connection
from .streamer import streamer
from .takeover import Takeover, framing

__all__ = ["DetachedStream", "are_moving", "reason_to_stay"]

logger = logging.getLogger("pgfanout")

OTHER_THREAD = "the response is made or read in another thread than the server's"
NO_DESCRIPTORS = "no descriptors are left"
CHANGED_BODY = "something between the application and the server changes or holds back the body"


# Streams whose opening the server is writing. No WeakSet: see `threaded.py`.
_moving: weakref.WeakKeyDictionary[DetachedStream, None] = weakref.WeakKeyDictionary()


def are_moving() -> bool:
    """Whether a stream is about to leave its thread. A server that stops waits for it, too."""
    return bool(_moving.keyrefs())


def reason_to_stay(environ: Mapping[str, Any]) -> str:
    """Return why the response to a request can't be detached. Return "" if it can.

    A request does not show everything: `DetachedStream` may find another reason later.
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
    if not serves_requests():
        return OTHER_THREAD
    return ""


class DetachedStream:
    """An iterator of one item, after which the connection is the streamer's.

    The streamer reads `feed` with `reader`. `release` gives the stream's place back. Whatever happens, the stream
    leaves the feed and calls `release` once. After the hand-over the connection does that.

    If the stream has to keep its thread, it calls `stay` with the reason, and goes on with the stream that this
    returns. That one takes over the reader and the place. `stay` may raise `PgFanoutError`.

    Iterate it in the server thread that created it. In any other thread it keeps that thread, or ends if it is too
    late.
    """

    def __init__(
        self,
        connection: socket.socket,
        feed: Feed,
        reader: Reader,
        *,
        resumed: bool,
        keepalive: float,
        encoder: sse.Encoder = sse.encode,
        stay: Callable[[str], ThreadedStream],
        release: Callable[[], object],
    ) -> None:
        self._owner = threading.current_thread()
        self._connection = connection
        self._feed = feed
        self._reader = reader
        self._keepalive = keepalive
        self._encoder = encoder
        self._stay = stay
        self._release = release
        self._give_back: list[Callable[[], object]] = [feed.leave, release]
        self._opening = sse.opening(resumed, number=reader.number)
        self._takeover: Takeover | None = None
        self._in_thread: ThreadedStream | None = None
        self._closes = False  # the server was told to close the client's connection, and still has it
        # No bound method: a cycle would keep a dropped stream until a collection.
        self._next = DetachedStream._open

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The opening, and nothing after it; or what the stream that stays in the thread has."""
        return self._next(self)

    def close(self) -> None:
        """The server is done with the response. Idempotent."""
        takeover, self._takeover = self._takeover, None
        _moving.pop(self, None)
        try:
            if takeover is not None:
                if takeover.is_crowded():
                    _give_advice()
                self._end_takeover(takeover)
        except OSError:
            pass  # the client has left
        finally:
            self._wait_for_nothing()
            while self._give_back:
                self._give_back.pop(0)()

    def __del__(self) -> None:
        # It may run in the middle of anything, with locks held that giving back needs.
        close_later(*self._give_back)
        if self._takeover is not None:
            if self._takeover.is_crowded():
                close_later(_give_advice)
            self._takeover.abandon()

    def _open(self) -> bytes:
        if self._is_elsewhere():
            return self._keep_thread(OTHER_THREAD) or self._open_and_end()
        try:
            streamer.prepare()
            self._takeover = Takeover(self._connection)
        except OSError:
            return self._keep_thread(NO_DESCRIPTORS) or self._open_and_end()
        self._close_after_response()
        self._next = DetachedStream._decide
        _moving[self] = None
        return self._opening

    def _decide(self) -> bytes:
        try:
            return self._leave_or_stay()
        finally:
            _moving.pop(self, None)

    def _leave_or_stay(self) -> bytes:
        """Hand the connection over, if the opening left unchanged. The server asks for more, so it has written that."""
        takeover = self._takeover
        assert takeover is not None
        written = takeover.written()
        framed = framing(written, self._opening)
        if framed:
            self._hand_over(takeover, written, chunked=framed == "chunked")
            return self._end()
        self._takeover = None
        # In another thread it is too late to stay: the server may be writing at this moment. The opening of a stream
        # that stays is on its way already.
        try:
            stays = not self._is_elsewhere() and self._keep_thread(CHANGED_BODY)
        finally:
            self._end_takeover(takeover, written)
        if not stays:
            return self._end_now()
        return sse.KEEPALIVE

    def _hand_over(self, takeover: Takeover, written: bytes, *, chunked: bool) -> None:
        connection = Connection(
            takeover.take(),
            self._feed,
            self._reader,
            chunked=chunked,
            head=written,
            keepalive=self._keepalive,
            encoder=self._encoder,
            on_close=self._release,
        )
        self._give_back.clear()
        self._closes = False
        self._next = DetachedStream._end
        try:
            with suppress(OSError):  # the client has left, which the streamer finds out as well
                connection.write()
            streamer.adopt(connection)
        except Exception:  # no thread could be started; what ends the process may come later, when it is the streamer's
            connection.close(stalled=False)
            raise

    def _keep_thread(self, reason: str) -> bytes:
        """Return the opening of the stream that goes on in the thread; nothing if the hub or the limiter refuses it."""
        try:
            self._in_thread = self._stay(reason)
        except PgFanoutError:
            return b""
        self._give_back = [self._in_thread.close]
        self._next = DetachedStream._follow_in_thread
        return next(self._in_thread)

    def _end_takeover(self, takeover: Takeover, written: bytes = b"") -> None:
        """Have the server's socket as it was, and send what the server had written meanwhile."""
        if takeover.taken:
            takeover.close()
        elif self._is_elsewhere():
            # The server may be writing at this moment, or close its socket: its place is not to be touched.
            takeover.abandon(written)
        else:
            try:
                written += takeover.written()
            finally:
                takeover.close()
            if written:
                self._connection.sendall(written)

    def _is_elsewhere(self) -> bool:
        return threading.current_thread() is not self._owner

    def _follow_in_thread(self) -> bytes:
        assert self._in_thread is not None
        return next(self._in_thread)

    def _open_and_end(self) -> bytes:
        """The opening has an id. The block of `close` has none, and alone it would make a client forget its own id."""
        return self._opening + self._end_now()

    def _end_now(self) -> bytes:
        self._next = DetachedStream._end
        self._close_after_response()
        self._wait_for_nothing()
        return sse.closing()

    def _close_after_response(self) -> None:
        """Have the server close its socket: a stand-in, or the connection of a client that was refused."""
        if not self._is_elsewhere():
            close_after_response()
            self._closes = True

    def _wait_for_nothing(self) -> None:
        """Have the server wait for nothing when it closes the connection: it may do that in its main thread.

        Called with the last item, since a middleware may lose `close`, and by `close`, since an error may come before
        the last item.
        """
        if self._closes and not self._is_elsewhere():
            stop_reading(self._connection)

    def _end(self) -> bytes:
        raise StopIteration


def _give_advice() -> None:
    logger.error(
        "a response has so much of its own between a stream's first bytes and the rest that a server which writes it"
        ' may fail, if the stream is to leave its thread. Call stream(..., detach="never") for such a response'
    )
