"""What a TCP proxy does with one connection: two sockets, a pipe for each direction, and the rules for all of them."""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass

_READ_SIZE = 65536
_MOST_HELD = 1 << 24  # bytes of one direction; beyond it the sender has to wait
_RESET = b"\1\0\0\0\0\0\0\0"  # linger for 0 s: close sends RST


@dataclass
class Rules:
    """How bytes pass; the defaults are the normal state."""

    frozen: bool = False
    refusing: bool = False
    delay: float = 0.0
    size: int = 0  # of the pieces in which bytes pass; 0: as they come
    pause: float = 0.0
    old: bytes = b""
    new: bytes = b""
    times: int = 0


class Pipe:
    """One direction. What can't be passed on yet is held, each chunk with its time; an empty one is the FIN."""

    def __init__(self, source: socket.socket, sink: socket.socket, rules: Rules) -> None:
        self.source = source
        self.sink = sink
        self.rules = rules
        self.held: deque[tuple[float, memoryview]] = deque()
        self.tail = b""  # it may be the start of what is to be corrupted
        self.ended = False  # the source has sent FIN
        self.finished = False  # and the sink has got it
        self.blocked = False
        self.when: float | None = None  # to push again
        self._size = 0
        self._next_at = 0.0

    @property
    def reads(self) -> bool:
        return not self.ended and self._size < _MOST_HELD

    def read(self, *, corruptible: bool) -> None:
        """Take what has arrived and pass on what may pass."""
        chunk = self.source.recv(_READ_SIZE)
        self.ended = not chunk
        rules = self.rules
        if corruptible and (rules.times or self.tail):
            chunk = self._corrupted(chunk)
        if not (self.held or self.ended or rules.delay or rules.size):
            chunk = self._send_at_once(chunk)
        if chunk:
            self._hold(chunk)
        if self.ended:
            self._hold(b"")
        if self.held:
            self.push()

    def push(self) -> None:
        """Send what is due, and set when to do it again."""
        self.blocked, self.when = False, None
        while self.held and not self.rules.frozen:
            due, chunk = self.held[0]
            now = time.monotonic()
            self.when = max(due, self._next_at)
            if self.when > now:
                return
            self.when = None
            try:
                self._advance(self._send(chunk[: self.rules.size or None]))
            except BlockingIOError:
                self.blocked = True
                return
            self._next_at = now + self.rules.pause

    def release(self, *, at_once: bool) -> None:
        """Hold nothing for corruption any more, and with `at_once` for no other reason either."""
        if self.tail:
            tail, self.tail = self.tail, b""
            self._hold(tail)
        if at_once:
            self._next_at = 0.0
            self.held = deque((0.0, chunk) for _, chunk in self.held)
        self.push()

    def _hold(self, chunk: bytes) -> None:
        self.held.append((time.monotonic() + self.rules.delay, memoryview(chunk)))
        self._size += len(chunk)

    def _send_at_once(self, chunk: bytes) -> bytes:
        """The common case, without a takeover by the deque; returns what did not go."""
        try:
            sent = self.sink.send(chunk)
        except BlockingIOError:
            return chunk
        return b"" if sent == len(chunk) else chunk[sent:]

    def _send(self, chunk: memoryview) -> int:
        if chunk:
            return self.sink.send(chunk)
        self.sink.shutdown(socket.SHUT_WR)
        self.finished = True
        return 0

    def _advance(self, sent: int) -> None:
        self._size -= sent
        due, chunk = self.held.popleft()
        if sent < len(chunk):
            self.held.appendleft((due, chunk[sent:]))

    def _corrupted(self, chunk: bytes) -> bytes:
        """The chunk with the replacements in it, less the end that may be the start of one more."""
        rules = self.rules
        rest, done, self.tail = self.tail + chunk, b"", b""
        while rules.times and rules.old in rest:
            head, _, rest = rest.partition(rules.old)
            done += head + rules.new
            rules.times -= 1
        if rules.times and not self.ended:
            sizes = range(min(len(rules.old) - 1, len(rest)), 0, -1)
            size = next((size for size in sizes if rest.endswith(rules.old[:size])), 0)
            cut = len(rest) - size
            rest, self.tail = rest[:cut], rest[cut:]
        return done + rest


class Link:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, rules: Rules) -> None:
        self.client = client
        self.server = socket.socket()
        for end in (self.client, self.server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.up = Pipe(self.client, self.server, rules)
        self.down = Pipe(self.server, self.client, rules)
        self.pipes = (self.up, self.down)
        self.started = self.connected = self.stranded = self.closed = False

    @property
    def finished(self) -> bool:
        """Whether both directions have ended."""
        return self.up.finished and self.down.finished

    def connect(self, target: tuple[str, int]) -> None:
        """Begin to connect to the server; the socket will be ready for writing."""
        self.started = True
        error = self.server.connect_ex(target)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "the server can't be reached")

    def strand(self) -> None:
        """Pass nothing on any more, for ever; either side's end is noticed, and not told to the other."""
        self.stranded = self.started
        for pipe in self.pipes:
            pipe.held.clear()
            pipe.tail = b""

    def serve(self, end: socket.socket, mask: int) -> None:
        """Do what one of the sockets is ready for. Raises OSError when the connection is lost."""
        if self.stranded:
            if not end.recv(_READ_SIZE):
                raise OSError(errno.ECONNRESET, "one side has given the connection up")
            return
        if not self.connected:
            self._check()
            return
        out, into = self.pipes if end is self.client else (self.down, self.up)
        if mask & selectors.EVENT_WRITE:
            into.push()
        if mask & selectors.EVENT_READ:
            try:
                out.read(corruptible=out is self.down)
            except BlockingIOError:
                pass

    def interests(self) -> tuple[tuple[socket.socket, int], ...]:
        """What each of the sockets waits for."""
        if self.stranded:
            return (self.client, selectors.EVENT_READ), (self.server, selectors.EVENT_READ)
        if not self.connected:
            return (self.client, 0), (self.server, selectors.EVENT_WRITE * self.started)
        return (self.client, _mask(self.up, self.down)), (self.server, _mask(self.down, self.up))

    def close(self, *, reset: bool) -> None:
        self.closed = True
        for end in (self.client, self.server):
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()

    def _check(self) -> None:
        error = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "the server can't be reached")
        self.connected = True


def _mask(out: Pipe, into: Pipe) -> int:
    return selectors.EVENT_READ * out.reads | selectors.EVENT_WRITE * into.blocked
