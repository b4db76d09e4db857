"""Real detached streams: TCP pairs, descriptors, and a client that reads a stream as if it were a subscription.

What a client reads is de-chunked and parsed by code that shares nothing with the code under test.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType

from pgfanout import CLOSE_EVENT, REFRESH_EVENT, Event, NotifyHub, TenantId
from pgfanout.hub import core_of
from pgfanout.streams.detached.connection import Connection
from pgfanout.streams.detached.loop import Loop
from pgfanout.streams.detached.mailbox import Mailbox
from pgfanout.streams.detached.streamer import Streamer, streamer
from pgfanout.topic import topics

from .sse import EventStreamParser, SentEvent
from .wait import eventually

PATIENCE = 20.0
BUFFER = 32 * 1024


def tcp_pair(buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    """The two ends of a TCP connection on loopback: the server's and the client's; both wait `PATIENCE` at most.

    `buffer` is the size of what the kernel may hold for the client, at each end.
    """
    with socket.socket() as listening:
        if buffer is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client = socket.socket()
        if buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(PATIENCE)
        client.connect(listening.getsockname())
        server, _ = listening.accept()
    if buffer is not None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.settimeout(PATIENCE)
    return server, client


def reset(connection: socket.socket) -> None:
    """Close it with a reset (RST) instead of a proper end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_to_end(connection: socket.socket) -> bytes:
    """What arrives until the end of file; a reset is an error."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """The next so many bytes."""
    received = b""
    while len(received) < count:
        data = connection.recv(count - len(received))
        assert data, f"the end came after {received!r}"
        received += data
    return received


@contextlib.contextmanager
def default_timeout(seconds: float | None) -> Iterator[None]:
    """The time-out that new sockets have, for a while: an application may set one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def open_descriptors() -> set[str]:
    """The process's descriptors, each with what it is."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return found


def dechunk(raw: bytes) -> bytes:
    """The content of a chunked body that is complete (RFC 9112, 7.1)."""
    body = Dechunker()
    content = body.feed(raw)
    assert body.ended, f"the last chunk is missing: {raw[-100:]!r}"
    assert not body.raw, f"something follows the last chunk: {body.raw!r}"
    return content


class Dechunker:
    """A chunked body, incrementally; `raw` is what is not complete yet."""

    def __init__(self) -> None:
        self.ended = False
        self.raw = b""

    def feed(self, data: bytes) -> bytes:
        self.raw += data
        content = []
        position = 0
        while not self.ended:
            end = self.raw.find(b"\r\n", position)
            if end < 0:
                break
            size = int(self.raw[position:end], 16)
            if len(self.raw) < end + 2 + size + 2:
                break
            chunk = self.raw[end + 2 : end + 2 + size]
            position = end + 2 + size + 2
            assert self.raw[position - 2 : position] == b"\r\n"
            content.append(chunk)
            self.ended = not size
        self.raw = self.raw[position:]
        return b"".join(content)


def loop_without_thread() -> Loop:
    """A loop that a test drives. `abandon` it, and its mailbox, in the end."""
    mailbox = Mailbox(lambda: None)
    mailbox.prepare()
    mailbox.thread = threading.current_thread()
    return Loop(mailbox)


class Client:
    """The client's end of a stream: what it has received, as bytes, content and events."""

    def __init__(self, connection: socket.socket, *, chunked: bool, skip: int = 0) -> None:
        """`skip` is how many bytes come before the body."""
        self.connection = connection
        self.content = b""
        self.parser = EventStreamParser()
        self.ended = False
        """Whether the end of file was read; of a chunked body, after its last chunk."""
        self._unread: list[SentEvent] = []
        self._skip = skip
        self._body = Dechunker() if chunked else None

    def read(self, timeout: float) -> list[SentEvent]:
        """The events that are unread, or arrive with what is there or comes within `timeout` seconds."""
        if not self._unread and select.select([self.connection], [], [], max(0.0, timeout))[0]:
            self.take(self.connection.recv(1 << 20))
        events, self._unread = self._unread, []
        return events

    def take(self, data: bytes) -> None:
        """Bytes that were received; none at the end of file."""
        if not data:
            assert self._body is None or self._body.ended, f"the body was cut after {self.content[-100:]!r}"
            self.ended = True
        skipped = data[: self._skip]
        self._skip -= len(skipped)
        data = data[len(skipped) :]
        content = data if self._body is None else self._body.feed(data)
        self.content += content
        self._unread += self.parser.feed(content)

    def events(self, count: int) -> list[SentEvent]:
        """The next so many events, waiting for them."""
        events: list[SentEvent] = []
        deadline = time.monotonic() + PATIENCE
        while len(events) < count and not self.ended:
            assert time.monotonic() < deadline, f"only {events} came; {self.content[-200:]!r}"
            events += self.read(deadline - time.monotonic())
        assert len(events) >= count, f"{events} came, {count} were expected"
        self._unread = events[count:]
        return events[:count]

    def to_end(self) -> list[SentEvent]:
        """The events until the end of file, which the body has to come to before."""
        events: list[SentEvent] = []
        deadline = time.monotonic() + PATIENCE
        while not self.ended:
            assert time.monotonic() < deadline, f"no end came; {self.content[-200:]!r}"
            events += self.read(deadline - time.monotonic())
        return events


class DetachedSubscription:
    """A detached stream of a hub, read by its client like a `Subscription`.

    An event stream does not tell the channel, so the only one that was asked for is put in; with several, the first.
    One that `reads` nothing at first has a socket that is full from the beginning: its events wait in the feed.
    """

    def __init__(
        self,
        hub: NotifyHub,
        channels: str | Iterable[str],
        tenant_id: TenantId | Iterable[TenantId],
        *,
        chunked: bool = True,
        reads: bool = True,
        streamer: Streamer = streamer,
    ) -> None:
        wanted = topics(channels, tenant_id)
        hub.start()
        self._channel = wanted[0].channel
        self._streamer = streamer
        self._gone = threading.Event()
        self._reading = threading.Lock()
        self._unread: list[Event] = []
        self._last: Event | None = None
        server, connection = tcp_pair(None if reads else BUFFER)
        server.setblocking(False)
        head = b": open\n\n" if reads else b"x" * (16 * BUFFER)
        try:
            streamer.prepare()
            feed, position = core_of(hub).follow(wanted, streamer.mailbox)
        except BaseException:
            server.close()
            connection.close()
            raise
        self._client = Client(connection, chunked=chunked, skip=len(head))
        self._connection = Connection(
            server.detach(),
            feed,
            position,
            chunked=chunked,
            head=head,
            keepalive=60.0,
            on_close=self._gone.set,
        )
        self._connection.write()
        streamer.adopt(self._connection)

    def get(self, timeout: float | None = None) -> Event:
        """The next event, waiting for it; raises `queue.Empty`."""
        with self._reading:
            self._fill(timeout)
            return self._unread.pop(0) if self._unread else CLOSE_EVENT

    def get_all(self, timeout: float | None = None) -> list[Event]:
        """Everything that is there now, at least one event; the end included."""
        with self._reading:
            self._fill(timeout)
            while self._take_what_was_sent():
                pass
            events, self._unread = self._unread, []
            return events or [CLOSE_EVENT]

    def close(self) -> None:
        """Leave, as a browser does, and return once the streamer has let it go. Idempotent."""
        self._client.connection.close()
        assert self._gone.wait(PATIENCE), "a client has left, and the streamer did not notice"
        self._client.ended = True
        self._unread.clear()

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.get()
            yield event
            if event is CLOSE_EVENT:
                return

    def __enter__(self) -> DetachedSubscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, timeout: float | None) -> None:
        """Have an event unread, unless the stream has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._unread and not self._client.ended:
            left = PATIENCE if deadline is None else deadline - time.monotonic()
            if left > 0:
                self._read(left)
            elif not self._take_what_was_sent():
                raise queue.Empty

    def _take_what_was_sent(self) -> bool:
        """Read events that were on their way when it was called; whether there were any."""
        while not self._client.ended and not self._read(0):
            if self._has_everything():
                return False
            if self._read(0.01):
                return True
        return not self._client.ended

    def _read(self, timeout: float) -> bool:
        events = [self._event(each) for each in self._client.read(timeout)]
        self._unread += events
        self._last = events[-1] if events else self._last
        if self._client.ended:
            assert self._last is CLOSE_EVENT, f"the stream ended after {self._last}"
        return bool(events)

    def _has_everything(self) -> bool:
        """Whether all that the hub has offered by now was read."""
        answer: list[bool] = []
        if not self._streamer.mailbox.call(lambda: answer.append(self._is_current())):
            return False  # it has been let go, so the end is on its way
        eventually(lambda: answer, PATIENCE, 0.0005)
        return answer[0] and not select.select([self._client.connection], [], [], 0)[0]

    def _is_current(self) -> bool:
        """In the streamer's thread: whether the kernel has handed the client all that there was."""
        loop = self._streamer._loop
        audience = None if loop is None or self._gone.is_set() else loop._audiences.get(self._connection.feed)
        if audience is None or not audience.is_current(self._connection):
            return False
        unacknowledged = fcntl.ioctl(self._connection.descriptor, termios.TIOCOUTQ, bytes(4))
        return unacknowledged == bytes(4)

    def _event(self, sent: SentEvent) -> Event:
        for control in (REFRESH_EVENT, CLOSE_EVENT):
            if sent.type == control.type:
                assert sent.data == "{}"
                return control
        kind = "" if sent.type == "message" else sent.type
        return Event(self._channel, sent.data.encode(), kind, sent.last_event_id)
