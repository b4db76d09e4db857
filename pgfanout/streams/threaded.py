"""ThreadedStream: the iterable that a WSGI server drains, one thread for each."""

from __future__ import annotations

import queue
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

from ..event import CLOSE_EVENT, Event
from . import sse
from .client import ClientSocket, has_vanished

__all__ = ["Source", "ThreadedStream", "close_dropped", "close_later", "close_left", "live_streams"]

# No WeakSet: listing one fails when another thread opens or closes a stream meanwhile.
_live: weakref.WeakKeyDictionary[ThreadedStream, None] = weakref.WeakKeyDictionary()

# Finalisers leave here what has to be closed. A finaliser may run in the middle of anything, while locks are held that
# closing needs. `SimpleQueue.put` may be called there.
_dropped: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()


def live_streams() -> list[ThreadedStream]:
    """The streams that have not ended. A server that stops waits for them."""
    return [stream for ref in _live.keyrefs() if (stream := ref()) is not None]


def close_left() -> bool:
    """Close the streams whose clients have left. Return whether there were any.

    Their threads would notice at the next write only, at the latest a keepalive.
    """
    left = [stream for stream in live_streams() if stream.client_has_left()]
    for stream in left:
        stream._close(stalled=False)
    return bool(left)


def close_dropped() -> None:
    """Close the streams that were garbage-collected without a `close`, for example because an `after_request` function
    has failed."""
    while True:
        try:
            _dropped.get_nowait()()
        except queue.Empty:
            return


def close_later(*closes: Callable[[], object]) -> None:
    """Have functions called by the next `close_dropped`. For finalisers."""
    for close in closes:
        _dropped.put(close)


def _nothing() -> None:
    pass


class Source(Protocol):
    """What a stream reads: a `Subscription` or a `Follower`."""

    @property
    def number(self) -> int | None: ...
    def get_all(self, timeout: float) -> list[Event]: ...
    def close(self, *, stalled: bool = False) -> None: ...


class ThreadedStream:
    """The body of a response that a thread of the server drains.

    Each item has all events that wait, so that they leave in one write. After `keepalive` seconds of silence it is a
    keepalive comment, up to a tenth earlier, so that many streams don't write at once. The stream ends after its source
    has ended, and asks browsers to reconnect after a random part of `retry_spread` seconds.

    A `resumed` stream starts with a refresh: nobody knows what its client has missed.

    `on_close` is called once, in the thread that closes the stream.

    This is an iterator class and no generator. A server also closes a response that it never iterated, such as that to
    HEAD, and `close` has to end the subscription then.
    """

    def __init__(
        self,
        source: Source,
        *,
        keepalive: float = 15.0,
        resumed: bool = False,
        retry_spread: float = 3.0,
        encoder: sse.Encoder = sse.encode,
        client: ClientSocket | None = None,
        on_close: Callable[[], None] = _nothing,
    ) -> None:
        self._closed = True  # as long as there is nothing to close
        if not 0 < keepalive <= 86_400:
            raise ValueError("keepalive is a number of seconds: above 0, a day at most")
        self._source = source
        self._keepalive = keepalive
        self._resumed = resumed
        self._retry_spread = retry_spread
        self._encoder = encoder
        self._client = client
        self._on_close = [on_close]  # empty once it was called: taking it is atomic, and several threads may close
        self._sent_number: int | None = None
        """The last number that was sent to its client, other than with an event."""
        # No bound method: a cycle would keep a dropped stream until a collection.
        self._next = ThreadedStream._open
        self._closed = False
        _live[self] = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next bytes to send; waits for them, `keepalive` seconds at most."""
        return self._next(self)

    def close(self) -> None:
        """Close the subscription and give the stream's place back. Idempotent, never waits."""
        # A server calls this while it handles the error of its write.
        self._close(stalled=has_vanished(sys.exc_info()[1]))

    def _close(self, *, stalled: bool) -> None:
        self._source.close(stalled=stalled)
        self._closed = True
        _live.pop(self, None)
        try:
            on_close = self._on_close.pop()
        except IndexError:
            return
        on_close()

    def __del__(self) -> None:
        if not self._closed:
            close_later(self._source.close)
            close_later(*self._on_close)

    def client_has_left(self) -> bool:
        """Whether the client has closed the connection; False where that can't be known."""
        return self._client is not None and self._client.has_left()

    def cut(self) -> None:
        """End the client's connection under a thread that may be stuck in writing to it."""
        if self._client is not None:
            self._client.cut()

    def _open(self) -> bytes:
        self._next = ThreadedStream._follow
        self._sent_number = self._source.number
        return sse.opening(self._resumed, number=self._sent_number)

    def _follow(self) -> bytes:
        try:
            events = self._source.get_all(self._keepalive * random.uniform(0.9, 1.0))
        except queue.Empty:
            sent, self._sent_number = self._sent_number, self._source.number
            return sse.keepalive(self._sent_number if self._sent_number != sent else None)
        if events[-1] is not CLOSE_EVENT:
            return sse.encode_all(events, self._encoder)
        self._next = ThreadedStream._end
        return sse.encode_all(events[:-1], self._encoder) + sse.closing(self._retry_spread)

    def _end(self) -> bytes:
        if self._client is not None:
            self._client.stop_reading()
        raise StopIteration
