"""Reading server-sent events: a parser by the WHATWG standard's text, and a client on a plain socket.

Both are written from the standards and share nothing with the code under test.
"""

from __future__ import annotations

import codecs
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit


class SentEvent(NamedTuple):
    """One dispatched event, with the fields of a browser's MessageEvent."""

    type: str
    data: str
    last_event_id: str


_OWN_TYPES = "pgfanout."
"""What types of the library's own events begin with. A page has no handler for them."""


class EventStreamParser:
    """HTML standard, 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event stream", incrementally.

    `last_event_id` is what the standard says, `dispatched_id` what Firefox makes of it: a block without data leaves no
    id. `cursors` are the ids of the events of the library's own types, which `feed` leaves out as a page does.
    """

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.retries: list[int] = []
        self.last_event_id = ""
        self.dispatched_id = ""
        self.cursors: list[str] = []
        self.blocks = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._after_cr = False
        self._line: list[str] = []
        self._data = ""
        self._event_type = ""
        self._id = ""

    @property
    def retry(self) -> int | None:
        """The reconnection time, in milliseconds, that the stream has set last."""
        return self.retries[-1] if self.retries else None

    def feed(self, chunk: bytes) -> list[SentEvent]:
        """Take bytes as they arrive and return the events that they complete."""
        text = self._decoder.decode(chunk)
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix("\ufeff")  # one leading BOM is ignored
        events = [event for line in self._lines(text) if (event := self._interpret(line)) is not None]
        self.cursors += [event.last_event_id for event in events if event.type.startswith(_OWN_TYPES)]
        return [event for event in events if not event.type.startswith(_OWN_TYPES)]

    def _lines(self, text: str) -> Iterable[str]:
        """Lines end with CR LF, LF or CR; what follows the last end waits for more."""
        for character in text:
            if character == "\n" and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = character == "\r"
            if character in "\r\n":
                yield "".join(self._line)
                self._line.clear()
            else:
                self._line.append(character)

    def _interpret(self, line: str) -> SentEvent | None:
        if line == "":
            return self._dispatch()
        if line.startswith(":"):
            self.comments.append(line[1:])
        elif ":" in line:
            field, _, value = line.partition(":")
            self._process(field, value.removeprefix(" "))
        else:
            self._process(line, "")
        return None

    def _process(self, field: str, value: str) -> None:
        if field == "event":
            self._event_type = value
        elif field == "data":
            self._data += value + "\n"
        elif field == "id":
            self._id = self._id if "\0" in value else value
        elif field == "retry" and value and all(character in "0123456789" for character in value):
            self.retries.append(int(value))
        # "Otherwise: the field is ignored."

    def _dispatch(self) -> SentEvent | None:
        self.last_event_id = self._id
        self.blocks += 1
        data, event_type = self._data, self._event_type
        self._data = self._event_type = ""
        if data == "":
            return None
        self.dispatched_id = self.last_event_id
        return SentEvent(event_type or "message", data.removesuffix("\n"), self.last_event_id)


def parse(stream: bytes | Iterable[bytes]) -> list[SentEvent]:
    """The events of a whole stream. What is incomplete at its end is discarded."""
    parser = EventStreamParser()
    chunks = [stream] if isinstance(stream, bytes) else stream
    return [event for chunk in chunks for event in parser.feed(chunk)]


class EventSource:
    """A client of one stream: no thread, no reconnecting; the test decides when to read, and for how long.

    `timeout` limits connecting and waiting for the response's head, `receive_buffer` the bytes that the kernel holds
    for it. Every failed wait is an AssertionError that tells
    what was received.
    """

    def __init__(
        self,
        url: str,
        *,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 20.0,
        receive_buffer: int | None = None,
    ) -> None:
        self.url = url
        self.status = 0
        self.headers: dict[str, str] = {}
        self.received: list[SentEvent] = []
        self.body = b""
        self.parser = EventStreamParser()
        self._unread: deque[SentEvent] = deque()
        self._closed_by_server = False
        parts = urlsplit(url)
        self._socket = socket.socket()
        try:
            self._socket.settimeout(timeout)
            if receive_buffer is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._socket.connect((parts.hostname, parts.port or 80))
            self._socket.sendall(_request(url, last_event_id, headers or {}))
            rest = self._read_head(time.monotonic() + timeout)
        except BaseException:
            self._socket.close()
            raise
        self._framing = _framing(self.headers)
        self._take(rest)

    def __enter__(self) -> EventSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def comments(self) -> list[str]:
        return self.parser.comments

    @property
    def retry(self) -> int | None:
        return self.parser.retry

    @property
    def last_event_id(self) -> str:
        return self.parser.last_event_id

    @property
    def ended(self) -> bool:
        """Whether the body was seen to end properly: with the last chunk, by its length, or at EOF without either."""
        return self._framing.ended or (self._closed_by_server and self._framing.ends_at_eof)

    @property
    def cut(self) -> bool:
        """Whether the connection was seen to end before the body did."""
        return self._closed_by_server and not self.ended

    def fileno(self) -> int:
        return self._socket.fileno()

    def next_event(self, timeout: float = 20.0) -> SentEvent:
        """The next event, waiting for it at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self._unread:
            self._read_or_fail(deadline, f"no event within {timeout} s")
        return self._unread.popleft()

    def take(self, timeout: float) -> list[SentEvent]:
        """What is unread; waits for something, `timeout` seconds at most."""
        if not (self._unread or self.ended or self.cut):
            self._read(time.monotonic() + timeout)
        events = list(self._unread)
        self._unread.clear()
        return events

    def events_until(self, predicate: Callable[[SentEvent], object], timeout: float = 20.0) -> list[SentEvent]:
        """The next events up to and including the first for which `predicate` is true."""
        deadline = time.monotonic() + timeout
        events = [self.next_event(timeout)]
        while not predicate(events[-1]):
            events.append(self.next_event(max(0.0, deadline - time.monotonic())))
        return events

    def wait_for(self, check: Callable[[EventSource], object], timeout: float = 20.0) -> None:
        """Read until `check` of this source is true: `lambda source: source.comments`."""
        deadline = time.monotonic() + timeout
        while not check(self):
            self._read_or_fail(deadline, f"the condition was not met within {timeout} s")

    def wait_end(self, timeout: float = 20.0) -> bool:
        """Read to the end: true when the body ended properly, false when the connection was cut."""
        deadline = time.monotonic() + timeout
        while not (self.ended or self.cut):
            if not self._read(deadline):
                raise AssertionError(f"the stream did not end within {timeout} s; {self._story()}")
        return self.ended

    def assert_silent(self, seconds: float) -> None:
        """No event may be unread, or arrive in this time; comments may."""
        deadline = time.monotonic() + seconds
        while not self._unread and not (self.ended or self.cut) and self._read(deadline):
            pass
        assert not self._unread, f"an event arrived where none was expected; {self._story()}"

    def close(self) -> None:
        """Leave, as a browser does whose page is closed. Idempotent."""
        self._socket.close()

    def reset(self) -> None:
        """Leave with a reset (RST) instead of a proper end."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._socket.close()

    def _read_head(self, deadline: float) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError:
                raise AssertionError(f"{self.url}: no response in time, received {head!r}") from None
            assert chunk, f"{self.url}: the server closed the connection after {head!r}"
            head += chunk
        head, _, rest = head.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status_line.split(" ")[1])
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        return rest

    def _read_or_fail(self, deadline: float, complaint: str) -> None:
        if self.ended or self.cut:
            raise AssertionError(f"the stream has ended; {self._story()}")
        if not self._read(deadline):
            raise AssertionError(f"{complaint}; {self._story()}")

    def _read(self, deadline: float) -> bool:
        """Read what is there, or wait for it until the deadline; false when the time has passed."""
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            chunk = self._socket.recv(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            chunk, self._framing.ends_at_eof = b"", False
        if chunk:
            self._take(chunk)
        else:
            self._closed_by_server = True
        return True

    def _take(self, chunk: bytes) -> None:
        content = self._framing.feed(chunk)
        self.body += content
        events = self.parser.feed(content)
        self.received += events
        self._unread += events

    def _story(self) -> str:
        state = "ended" if self.ended else "cut" if self.cut else "open"
        return (
            f"{self.url}: status {self.status}, {state}, {len(self.received)} events of which the last are "
            f"{self.received[-5:]}, {len(self.comments)} comments, retry {self.retry}, last bytes {self.body[-200:]!r}"
        )


class _Close:
    """A body that ends with the connection (RFC 9112, 6.3, the last rule)."""

    def __init__(self) -> None:
        self.ended = False
        self.ends_at_eof = True

    def feed(self, raw: bytes) -> bytes:
        return raw


class _Length(_Close):
    """A body of known length."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.ends_at_eof = False
        self._left = length
        self.ended = length == 0

    def feed(self, raw: bytes) -> bytes:
        content = raw[: self._left]
        self._left -= len(content)
        self.ended = self._left == 0
        return content


class _Chunked(_Close):
    """A chunked body (RFC 9112, 7.1); extensions are skipped, trailers are not expected."""

    def __init__(self) -> None:
        super().__init__()
        self.ends_at_eof = False
        self._raw = b""

    def feed(self, raw: bytes) -> bytes:
        self._raw += raw
        content = b""
        while not self.ended and (chunk := self._next_chunk()) is not None:
            content += chunk
            self.ended = chunk == b""
        return content

    def _next_chunk(self) -> bytes | None:
        """The next complete chunk, empty for the last one; None when more must arrive first."""
        line, found, rest = self._raw.partition(b"\r\n")
        if not found:
            return None
        size = int(line.partition(b";")[0], 16)
        if len(rest) < size + 2:
            return None
        assert rest[size : size + 2] == b"\r\n", f"a chunk of {size} bytes does not end with CR LF: {rest[:200]!r}"
        self._raw = rest[size + 2 :]
        return rest[:size]


def _framing(headers: Mapping[str, str]) -> _Close:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _Chunked()
    if "content-length" in headers:
        return _Length(int(headers["content-length"]))
    return _Close()


def _request(url: str, last_event_id: str | None, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {"Host": parts.netloc, "Accept": "text/event-stream", "Cache-Control": "no-cache"}
    if last_event_id is not None:
        fields["Last-Event-ID"] = last_event_id
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in {**fields, **headers}.items())]
    # A browser sends the id as UTF-8 bytes.
    return "\r\n".join([*lines, "", ""]).encode()
