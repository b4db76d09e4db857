"""For tests of applications: what was published, and what a stream has sent. docs/testing.md shows how to use it."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol

from .event import RESERVED_PREFIX
from .hub import NotifyHub, core_of
from .threads import start_thread
from .topic import NO_TENANT

__all__ = ["PublishedEvent", "StreamedEvent", "capture", "read_events"]

_END_TIME: Final = 5.0


class PublishedEvent(NamedTuple):
    """An event as `capture` records it. It equals the tuple that `publish_many` takes."""

    channel: str
    tenant_id: str | None
    """The tenant's text, whatever it was published with: `"7"` for 7. None for None."""
    payload: Any
    """The decoded JSON."""
    type: str = ""


class StreamedEvent(NamedTuple):
    """An event as a browser sees it."""

    type: str
    """`"message"` for an event without a type, as in a browser."""
    data: str
    id: str = ""
    """The last id that the stream had sent by then."""

    def json(self) -> Any:
        """Return the decoded data."""
        return json.loads(self.data)


class _HasHub(Protocol):
    @property
    def hub(self) -> NotifyHub: ...


class _Response(Protocol):
    """A response of Flask's or Django's test client."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...
    def close(self) -> None: ...


_changing = threading.Lock()
"""Guards every backend's tuple of captures while it is replaced."""


@contextmanager
def capture(hub_or_fanout: NotifyHub | _HasHub) -> Iterator[list[PublishedEvent]]:
    """Record what a hub publishes in this process while the block runs, in its order.

    A `MemoryHub` records an event when it delivers it: after the commit of the executor's transaction if it can see
    that, and never after a rollback. A `PostgresHub` records an event once `publish` has sent it, and does not know
    what becomes of the transaction. Captures may be nested. Nothing needs to listen. The list may be read at any time,
    and after the block.
    """
    hub = hub_or_fanout if isinstance(hub_or_fanout, NotifyHub) else hub_or_fanout.hub
    backend = core_of(hub).backend
    events: list[PublishedEvent] = []

    def record(texts: Sequence[str]) -> None:
        for text in texts:
            (channel, tenant), event = backend.decompose(text)
            tenant_id = None if tenant == NO_TENANT else tenant
            events.append(PublishedEvent(channel, tenant_id, event.json(), event.type))

    with _changing:
        backend.captures += (record,)
    try:
        yield events
    finally:
        with _changing:
            backend.captures = tuple(each for each in backend.captures if each is not record)


def read_events(response: _Response, count: int = 1, *, timeout: float = 5.0) -> list[StreamedEvent]:
    """Return the first `count` events of a stream that a test client of Flask or Django has opened, and close it.

    Leave out keepalives and the library's own events (`pgfanout.cursor`). `refresh` and `close` count. Return fewer
    events if the stream ends before. Block for `timeout` seconds at most, then close the stream and raise
    `TimeoutError` with the events that have come. Raise `ValueError` if the response is no stream.
    """
    kind = str(response.headers.get("Content-Type", ""))
    if not kind.startswith("text/event-stream"):
        response.close()
        raise ValueError(f"the response is no stream: status {response.status_code}, Content-Type {kind!r}")
    arrived: queue.SimpleQueue[StreamedEvent | BaseException | None] = queue.SimpleQueue()
    # A thread, since nothing else can end the wait for a stream's next bytes in time.
    reader = start_thread("pgfanout-test-reader", _read, response, count, arrived)
    try:
        return _take(arrived, count, timeout)
    finally:
        response.close()
        reader.join(_END_TIME)


def _take(
    arrived: queue.SimpleQueue[StreamedEvent | BaseException | None], count: int, timeout: float
) -> list[StreamedEvent]:
    events: list[StreamedEvent] = []
    deadline = time.monotonic() + timeout
    while len(events) < count:
        try:
            event = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(f"{len(events)} of {count} events came within {timeout:g} s: {events}") from None
        if isinstance(event, BaseException):
            raise event
        if event is None:
            break
        events.append(event)
    return events


def _read(response: _Response, count: int, arrived: queue.SimpleQueue[StreamedEvent | BaseException | None]) -> None:
    """Run in a thread: put events, and None or an error at the end."""
    try:
        for event in _events(_lines(response)):
            arrived.put(event)
            count -= 1
            if count <= 0:
                return
        arrived.put(None)
    except BaseException as error:
        arrived.put(error)


def _lines(response: Any) -> Iterator[str]:
    """The lines of a body. Its chunks end anywhere. The library ends each line with LF."""
    rest = b""
    for chunk in getattr(response, "response", response):  # Werkzeug keeps the body there. Django's is iterated
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode()


def _events(lines: Iterator[str]) -> Iterator[StreamedEvent]:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""
    kind, last_id = "", ""
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value
        elif not line:
            if data and not kind.startswith(RESERVED_PREFIX):
                yield StreamedEvent(kind or "message", "\n".join(data), last_id)
            kind, data = "", []
