"""Outlet: the client's end of a detached stream, and Audience: the outlets of one feed.

Both belong to the streamer's thread, so nothing here is locked.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from ..event import REFRESH_EVENT, Event
from ..feed import Feed
from ..log import number_of
from . import held, sse
from .wheel import Ticking

__all__ = ["Audience", "Outlet", "chunk"]

_MANY = 1024
"""Parts that one `writev` takes (IOV_MAX)."""

_PIECE = 16_384
_MOST_HEARD = 65_536
"""Bytes that a client may send: a pipelined request of ordinary size, and not what fills the kernel's memory."""

_FEW = 16
_TOO_LONG = 0.001
"""Seconds for a write that takes some microseconds."""

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Bytes as one chunk of a chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Outlet(Ticking):
    """A connection that streams are written to, and how far its client has come.

    It is current when it has everything up to its audience's position, and behind while `rest`
    (what its socket has not taken yet) or events of its feed wait for room in the socket. `rest` has the
    frames themselves, which all outlets share, and no copies of them.

    It is `open` until `close`, which alone closes the descriptor and forgets its number: by then it may be
    another connection's. Whatever is done with a closed outlet fails, or does nothing.
    """

    __slots__ = (
        "asked_at",
        "asks",
        "audience",
        "chunked",
        "descriptor",
        "ending",
        "feed",
        "fruitless",
        "heard",
        "keepalive",
        "known",
        "number",
        "on_close",
        "open",
        "passed",
        "position",
        "question",
        "replaying",
        "rest",
        "since",
        "told",
        "waiting",
    )

    def __init__(
        self,
        descriptor: int,
        feed: Feed,
        position: int,
        *,
        chunked: bool,
        head: bytes,
        keepalive: float,
        on_close: Callable[[], object],
        number: int = 0,
        replay: bool = False,
    ) -> None:
        """Owns the descriptor of a non-blocking socket. `head` is what is written first.

        `number` is that of the feed's log up to which its client has everything. With `replay`, what comes
        after it is to be found there; otherwise the feed has it, from the position on.
        """
        self.open = True
        self.descriptor = descriptor
        """-1 once it is closed."""
        self.feed = feed
        self.audience: Audience | None = None
        """The one that it is in, from its admission until it is let go."""
        self.position = position
        self.chunked = chunked
        self.keepalive = keepalive
        self.on_close = on_close
        self.rest: tuple[bytes | memoryview, ...] = (head,) if head else ()
        """What its socket has not taken yet."""
        self.heard = 0
        """How many bytes its client has sent."""
        self.since = time.monotonic()
        """When it was written to last, apart from what went to its whole audience."""
        self.tick = -1
        self.number = number
        """Everything up to it was put; kept up while the outlet is not current."""
        self.told = number
        """The number that its client was told last, other than by an event."""
        self.known = not replay
        """Whether the log has vouched for the number; one that a client has sent may be anything."""
        self.asked_at = position
        """The end of the feed when it asked the log last. After a gap of the feed since then, its number and the answer
        may be of a log that has lost them."""
        self.replaying = replay
        """Whether it reads the feed's log, and will join the feed."""
        self.passed = 0
        """What it has had of the feed itself before it replayed."""
        self.question: object = None
        """What the log is asked, if it is; an answer to something else came too late."""
        self.asks = 0
        self.fruitless = 0
        """How many answers it has had, and how many of the last ones led nowhere."""
        self.waiting = False
        """Whether its socket had no room, and the streamer waits for some."""
        self.ending = False
        """Whether `rest` is the last that it gets."""

    @property
    def has_news(self) -> bool:
        """Whether there is something to write to it."""
        return bool(self.rest) or self.replaying or self.feed.end_position > self.position or self.feed.ended

    def put(self, *parts: bytes) -> None:
        """Have the parts, one at least and none of them empty, written after the rest. They are not copied."""
        if self.chunked:
            self.rest += (b"%x\r\n" % sum(map(len, parts)), *parts, b"\r\n")
        else:
            self.rest += parts

    def fall_behind(self) -> None:
        """Its feed has no longer what comes next; the log has."""
        self.replaying, self.known, self.passed, self.asks = True, True, self.position, 0
        self.asked_at = self.position

    def put_keepalive(self, number: int) -> None:
        """Have a keepalive written next, with the number (0: none) unless its client was told that one last."""
        self.put(sse.keepalive(number if number != self.told else 0))
        self.told = number or self.told

    def put_farewell(self) -> None:
        """Have `retry`, `close` and the end of the body written next."""
        self.put(sse.farewell())
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

    def drop_input(self) -> bool:
        """Read what the client has sent, and drop it; False when the client has sent too much. Raises `OSError`."""
        with suppress(BlockingIOError):
            self.heard += len(os.read(self.descriptor, _PIECE))
        return self.heard <= _MOST_HEARD

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
        self.question = None  # the log need not answer
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


class Audience:
    """The outlets of one feed: those that a pump has admitted and not let go.

    `current` are those that have everything up to `position`, by their descriptors; one dict for
    bodies that end with the connection and one for chunked ones.
    """

    __slots__ = ("current", "ended", "feed", "number", "position", "replaying", "size", "written_at")

    def __init__(self, feed: Feed, position: int, number: int = 0) -> None:
        self.feed = feed
        self.position = position
        self.current: tuple[dict[int, Outlet], dict[int, Outlet]] = ({}, {})
        self.number = number
        """Everything up to it is before `position`."""
        self.replaying: dict[Outlet, None] = {}  # a set that keeps the order
        """Those that read the log."""
        self.size = 0
        """With those that are behind."""
        self.ended = False
        """Whether the feed has ended, and everything up to there is before `position`."""
        self.written_at = 0.0
        """When the current ones were written to last."""

    @property
    def cursor(self) -> int:
        """The number of the log up to which everything was put to those that are current; 0 without a log."""
        offered = self.feed.offered  # asked first: what is offered later may be on its way
        if self.feed.end_position == self.position:
            self.number = max(self.number, offered)
        return self.number

    def pass_on_to(self, offered: int, events: list[Event]) -> None:
        """Its position is behind these events now, and what was offered up to that number."""
        if self.feed.log is None:
            return
        refreshed = any(event is REFRESH_EVENT for event in events)  # numbers before it may have been wrong
        self.number = max(offered, 0 if refreshed else self.number, number_of(events[-1]) if events else 0)

    @property
    def current_size(self) -> int:
        """How many are current."""
        return len(self.current[False]) + len(self.current[True])

    def all_current(self) -> list[Outlet]:
        """Those that are current."""
        return [*self.current[False].values(), *self.current[True].values()]

    def is_current(self, outlet: Outlet) -> bool:
        """Whether it has everything up to `position`."""
        return outlet.descriptor in self.current[outlet.chunked]

    def join(self, outlet: Outlet) -> None:
        """It belongs here from now on, and is not current yet."""
        outlet.audience = self
        self.size += 1
        if outlet.replaying:
            self.replaying[outlet] = None

    def leave(self, outlet: Outlet) -> None:
        """It does not belong here any more. Before it is closed, since it is known by its descriptor."""
        self.exclude(outlet)
        self.replaying.pop(outlet, None)
        self.size -= 1
        outlet.audience = None

    def include(self, outlet: Outlet) -> None:
        """It is current from now on, unless it has left."""
        if outlet.audience is self:
            self.current[outlet.chunked][outlet.descriptor] = outlet

    def exclude(self, outlet: Outlet) -> None:
        """It may fall behind from now on. Idempotent."""
        if self.current[outlet.chunked].pop(outlet.descriptor, None) is not None:
            outlet.position, outlet.number = self.position, self.number

    def write(self, data: bytes) -> tuple[list[Outlet], list[tuple[Outlet, Exception]]]:
        """Write data to all that are current; those who did not take all of it, and those who failed."""
        behind: list[Outlet] = []
        failed: list[tuple[Outlet, Exception]] = []
        for chunked, outlets in enumerate(self.current):
            if outlets:
                framed = chunk(data) if chunked else data
                for descriptor, sent in _write_to_all(outlets, framed, failed):
                    outlet = outlets.pop(descriptor)
                    outlet.rest = (memoryview(framed)[sent:],)
                    outlet.position, outlet.number = self.position, self.number
                    behind.append(outlet)
        return behind, failed


def _write_to_all(
    outlets: dict[int, Outlet], data: bytes, failed: list[tuple[Outlet, Exception]]
) -> Iterable[tuple[int, int]]:
    """The loop that everything here is for; those that took less, and how much they took.

    Each write gives the interpreter up, which ordinary requests are glad of. A thread that
    computes, though, keeps it for some milliseconds each time, and thousands of streams would wait
    for seconds: when a few writes have taken that long, the others hold it.
    """
    write: Callable[[int, bytes], int] = os.write
    size = len(data)
    behind: list[tuple[int, int]] = []
    descriptors = list(outlets)
    for start in range(0, len(descriptors), _FEW):
        began = time.monotonic()
        for descriptor in descriptors[start : start + _FEW]:
            try:
                sent = write(descriptor, data)
            except BlockingIOError:
                sent = 0
            except Exception as error:
                failed.append((outlets[descriptor], error))
                continue
            if sent != size:
                behind.append((descriptor, sent))
        if time.monotonic() - began > _FEW * _TOO_LONG:
            write = held.write
    return behind
