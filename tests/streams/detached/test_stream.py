"""DetachedStream: a response that hands its connection over where that is safe, and stays where it is not."""

from __future__ import annotations

import _thread
import contextlib
import errno
import gc
import os
import select
import socket
import ssl
import threading
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar

import pytest

from pgfanout import MemoryHub
from pgfanout import gunicorn as hooks
from pgfanout.delivery.follower import Follower
from pgfanout.errors import HubClosedError, TooManyStreamsError
from pgfanout.gunicorn import _end_streams as say_goodbye
from pgfanout.hub import core_of
from pgfanout.streams import ThreadedStream, sse
from pgfanout.streams import client as client_module
from pgfanout.streams.client import ClientSocket, set_request
from pgfanout.streams.detached.connection import Connection
from pgfanout.streams.detached.stream import (
    CHANGED_BODY,
    NO_DESCRIPTORS,
    OTHER_THREAD,
    DetachedStream,
    are_moving,
    reason_to_stay,
)
from pgfanout.streams.detached.streamer import Streamer, streamer
from pgfanout.streams.threaded import close_dropped, close_left, live_streams
from pgfanout.topic import topics

from ...support.detached import (
    PATIENCE,
    Client,
    dechunk,
    default_timeout,
    open_descriptors,
    read_to_end,
    reset,
    tcp_pair,
)
from ...support.sse import EventStreamParser, parse
from ...support.wait import eventually

# Private members: that a thread waits, and which socket was taken over, shows nowhere else.

TENANT = uuid.UUID(int=1)
KINDS = pytest.mark.parametrize("chunked", [False, True], ids=["plain", "chunked"])
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Middleware: was here\r\n"


# Who may leave.


def request(connection: object, **changes: object) -> dict[str, Any]:
    return {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "gunicorn.socket": connection, **changes}


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_a_plain_socket_and_http_1_may_leave(protocol: str, key: str) -> None:
    with socket.socket() as connection:
        assert reason_to_stay({"SERVER_PROTOCOL": protocol, key: connection}) == ""


@pytest.mark.parametrize(
    "environ", [{}, {"gunicorn.socket": None}, {"gunicorn.socket": 7}, {"werkzeug.socket": "no socket"}], ids=str
)
def test_without_a_socket_it_stays(environ: dict[str, Any]) -> None:
    assert reason_to_stay({"SERVER_PROTOCOL": "HTTP/1.1", **environ}) == "the server gives no socket"


@pytest.mark.parametrize("protocol", ["HTTP/2", "HTTP/2.0", "HTTP/3", "", "http/1.1", None])
def test_another_protocol_stays(protocol: str | None) -> None:
    with socket.socket() as connection:
        assert reason_to_stay(request(connection, SERVER_PROTOCOL=protocol)) == "the request is not HTTP/1"
        environ = request(connection)
        del environ["SERVER_PROTOCOL"]
        assert reason_to_stay(environ) == "the request is not HTTP/1"


def test_a_connection_with_tls_stays() -> None:
    server, client = tcp_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with client, context.wrap_socket(server, server_side=True, do_handshake_on_connect=False) as tls:
        assert reason_to_stay(request(tls)) == "TLS ends in the server"


class OtherSocket(socket.socket):
    """As a server's own class, or that of a library of green threads."""


def test_a_socket_that_is_not_the_standard_librarys_stays() -> None:
    with OtherSocket() as connection:
        assert reason_to_stay(request(connection)) == "the socket is not the standard library's"


def test_a_socket_of_that_name_from_elsewhere_stays() -> None:
    other = type("socket", (socket.socket,), {"__module__": "gevent._socket3"})
    with other() as connection:
        assert reason_to_stay(request(connection)) == "the socket is not the standard library's"


def test_patched_threads_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", lambda *arguments: 0)
    with socket.socket() as connection:
        assert reason_to_stay(request(connection)) == "threads are patched"


@pytest.mark.parametrize(("module", "name"), [(select, "epoll"), (os, "eventfd")], ids=["epoll", "eventfd"])
def test_a_system_without_epoll_stays(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
    monkeypatch.delattr(module, name)
    with socket.socket() as connection:
        assert reason_to_stay(request(connection)) == "this system has no epoll"


def test_in_a_thread_that_the_servers_hooks_do_not_know_it_stays(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a middleware's own, which may run the whole application while the server's thread writes."""
    monkeypatch.setattr(client_module, "_serving", threading.local())
    monkeypatch.setattr(client_module, "_threads_are_told", False)
    with socket.socket() as connection:
        assert reason_to_stay(request(connection)) == ""
        thread.submit(set_request, object()).result()
        assert reason_to_stay(request(connection)) == OTHER_THREAD
        assert thread.submit(reason_to_stay, request(connection)).result() == ""


# A small server, and what stands in it.

Body = Iterable[bytes]
Middleware = Callable[[Body], Body]


def serve(connection: socket.socket, body: Body, *, chunked: bool) -> None:
    """What a WSGI server does with a body, and then with the connection."""
    head = HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Connection: close\r\n\r\n")
    try:
        for item in body:
            connection.sendall(head + (b"%x\r\n%b\r\n" % (len(item), item) if chunked else item))
            head = b""
        connection.sendall(head + (b"0\r\n\r\n" if chunked else b""))
    finally:
        if hasattr(body, "close"):
            body.close()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        connection.close()


class Closing:
    """A middleware that goes over the items, and closes what it goes over, as PEP 3333 asks."""

    def __init__(self, body: Body, items: Callable[[Body], Iterator[bytes]]) -> None:
        self._body, self._items = body, items(body)

    def __iter__(self) -> Iterator[bytes]:
        return self._items

    def close(self) -> None:
        if hasattr(self._body, "close"):
            self._body.close()


def passing(body: Body) -> Body:
    return Closing(body, iter)


def compressing(body: Body) -> Body:
    """Each item compressed and flushed, as a gzip middleware for streams does."""

    def items(body: Body) -> Iterator[bytes]:
        compressor = zlib.compressobj()
        for item in body:
            yield compressor.compress(item) + compressor.flush(zlib.Z_SYNC_FLUSH)

    return Closing(body, items)


def pairing(body: Body) -> Body:
    """Two items are one."""

    def items(body: Body) -> Iterator[bytes]:
        items = iter(body)
        for item in items:
            yield item + next(items, b"")

    return Closing(body, items)


def looking_ahead(body: Body) -> Body:
    """The next item is asked for before the one before it is handed on."""

    def items(body: Body) -> Iterator[bytes]:
        before: bytes | None = None
        for item in body:
            if before is not None:
                yield before
            before = item
        if before is not None:
            yield before

    return Closing(body, items)


class Response:
    """A detaching stream on a connection of its own; notes what becomes of it."""

    made: ClassVar[list[Response]] = []

    def __init__(self, hub: MemoryHub, *, resumed: bool = False, no_thread: bool = False) -> None:
        feed, reader = core_of(hub).follow(topics("orders", TENANT), streamer.mailbox)  # raises once the hub is closed
        self.server, self.connection = tcp_pair()
        self.made.append(self)
        self.released: list[str] = []
        self.reasons: list[str] = []
        self._hub, self._no_thread, self.feed, self._reader = hub, no_thread, feed, reader
        self.reach: Callable[[str], None] = lambda step: None
        """Called where a test may want to intervene."""
        self.follower: Follower | None = None
        """Of a stream that stays."""
        self.body = DetachedStream(
            self.server,
            feed,
            reader,
            resumed=resumed,
            keepalive=60.0,
            stay=self._stay,
            release=self.release,
        )

    def release(self) -> None:
        self.released.append(threading.current_thread().name)

    def _stay(self, reason: str) -> ThreadedStream:
        self.reasons.append(reason)
        self.reach("staying")
        if self._no_thread:
            raise TooManyStreamsError(1)
        self.follower = core_of(self._hub).follow_in_thread(self.feed, self._reader)
        self.reach("following")
        client = ClientSocket({"gunicorn.socket": self.server})
        return ThreadedStream(self.follower, keepalive=60.0, on_close=self.release, client=client)

    def client(self, *, chunked: bool) -> Client:
        """The client, after it has read the head."""
        self.connection.settimeout(PATIENCE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = self.connection.recv(1)
            assert data, f"the end came after {head!r}"
            head += data
        assert head.startswith(HEAD)
        return Client(self.connection, chunked=chunked)

    def answer(self) -> bytes:
        """All that the client gets, to the end."""
        return read_to_end(self.connection)

    def give_up(self) -> None:
        """What a client and a server do in the end."""
        self.connection.close()
        self.server.close()


def stays(hub: MemoryHub) -> bool:
    """Whether the one stream of a hub has a subscription, and is no member of a feed any more."""
    stats = hub.stats()
    return (stats.subscriptions, stats.detached) == (1, 0)


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with MemoryHub() as hub:
        hub.start()
        yield hub


@pytest.fixture(autouse=True)
def nothing_is_lost(hub: MemoryHub) -> Iterator[None]:
    """At the end nobody is counted, nothing is forgotten, and no descriptor is left."""
    gc.collect()
    close_dropped()
    streamer.prepare()
    before = open_descriptors()
    yield
    for response in Response.made:
        response.give_up()
    Response.made.clear()
    hub.close()
    assert streamer.wait_until_empty(PATIENCE)
    assert hub.stats().subscriptions == 0
    gc.collect()
    eventually(lambda: open_descriptors() <= before, 3.0)


@pytest.fixture
def thread(hub: MemoryHub) -> Iterator[ThreadPoolExecutor]:
    """A thread of a server."""
    with ThreadPoolExecutor(1) as pool:
        yield pool
        hub.close()  # or a stream that stays would not end


# Leaving.


@KINDS
@pytest.mark.parametrize("middleware", [None, passing], ids=["alone", "through a middleware"])
def test_after_the_first_item_the_thread_is_free_and_the_stream_goes_on(
    hub: MemoryHub, chunked: bool, middleware: Middleware | None
) -> None:
    response = Response(hub)
    serve(response.server, middleware(response.body) if middleware else response.body, chunked=chunked)
    assert (streamer.open, response.released, response.reasons) == (1, [], [])
    client = response.client(chunked=chunked)
    for number in range(3):
        hub.publish("orders", TENANT, number)
        assert [event.data for event in client.events(1)] == [str(number)]
    assert client.content.startswith(sse.opening())
    hub.close()
    assert [event.type for event in client.to_end()] == ["close"]
    assert client.parser.retry is not None
    assert streamer.wait_until_empty(PATIENCE)
    assert response.released == ["pgfanout-streamer"]
    response.give_up()


@KINDS
def test_what_the_server_writes_after_the_first_item_reaches_nobody(hub: MemoryHub, chunked: bool) -> None:
    response = Response(hub)
    serve(response.server, response.body, chunked=chunked)
    client = response.client(chunked=chunked)
    hub.publish("orders", TENANT, 1)
    client.events(1)
    assert client.content.count(b"\n\n") == 2  # the opening and the event
    response.connection.close()
    assert streamer.wait_until_empty(PATIENCE)
    assert response.released == ["pgfanout-streamer"]


def test_a_resumed_stream_is_told_to_refresh_first(hub: MemoryHub) -> None:
    response = Response(hub, resumed=True)
    serve(response.server, response.body, chunked=True)
    client = response.client(chunked=True)
    assert [event.type for event in client.events(1)] == ["refresh"]
    hub.publish("orders", TENANT, 1)
    assert [event.data for event in client.events(1)] == ["1"]
    response.give_up()


def test_the_body_is_an_iterator_of_one_item(hub: MemoryHub) -> None:
    response = Response(hub)
    assert iter(response.body) is response.body
    response.server.sendall(plain_head() + next(response.body))
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(response.body)
    response.body.close()
    response.body.close()
    assert response.released == []
    response.give_up()
    assert streamer.wait_until_empty(PATIENCE)
    assert response.released == ["pgfanout-streamer"]


def plain_head() -> bytes:
    return HEAD + b"Connection: close\r\n\r\n"


def test_nothing_reaches_the_client_before_the_hand_over(hub: MemoryHub) -> None:
    response = Response(hub)
    response.server.sendall(plain_head() + next(response.body))
    assert not select.select([response.connection], [], [], 0.01)[0]
    with pytest.raises(StopIteration):
        next(response.body)
    assert hub.stats().subscriptions == 1
    assert response.connection.recv(10) == b"HTTP/1.1 2"
    response.body.close()
    response.give_up()


def test_an_event_right_after_the_hand_over_is_delivered(hub: MemoryHub) -> None:
    """Before the server has closed the body, and whether the streamer has admitted the stream or not."""
    response = Response(hub)
    response.server.sendall(plain_head() + next(response.body))
    with pytest.raises(StopIteration):
        next(response.body)
    hub.publish("orders", TENANT, 1)
    client = response.client(chunked=False)
    assert [event.data for event in client.events(1)] == ["1"]
    response.body.close()
    response.give_up()


def test_two_hundred_responses_one_after_the_other_leave_nothing_behind(hub: MemoryHub) -> None:
    for number in range(200):
        response = Response(hub)
        serve(response.server, response.body, chunked=number % 2 == 0)
        response.give_up()
    assert streamer.wait_until_empty(PATIENCE)


def pipeline_and_close(connection: socket.socket) -> None:
    """Send a further request, which nobody will read, and leave."""
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    connection.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset, pipeline_and_close])
def test_a_client_that_leaves_after_the_hand_over_is_let_go(
    hub: MemoryHub, leave: Callable[[socket.socket], object]
) -> None:
    response = Response(hub)
    serve(response.server, response.body, chunked=True)
    hub.publish("orders", TENANT, 1)
    response.client(chunked=True).events(1)
    leave(response.connection)
    assert streamer.wait_until_empty(PATIENCE)
    assert response.released == ["pgfanout-streamer"]


@pytest.mark.parametrize("leave", [socket.socket.close, reset, pipeline_and_close])
def test_a_client_that_leaves_before_the_hand_over_is_let_go(
    hub: MemoryHub, leave: Callable[[socket.socket], object]
) -> None:
    response = Response(hub)
    response.server.sendall(plain_head() + next(response.body))
    leave(response.connection)
    with pytest.raises(StopIteration):
        next(response.body)
    response.body.close()
    response.give_up()
    assert streamer.wait_until_empty(PATIENCE)
    assert response.released == ["pgfanout-streamer"]


# Staying.


def served(
    thread: ThreadPoolExecutor, hub: MemoryHub, *, chunked: bool, middleware: Middleware = passing
) -> tuple[Response, Future[None]]:
    """A response of a server's own thread, and what becomes of its serving there."""
    response = thread.submit(Response, hub).result()
    return response, thread.submit(serve, response.server, middleware(response.body), chunked=chunked)


@KINDS
def test_a_body_that_a_middleware_changes_stays_in_its_thread(
    hub: MemoryHub, thread: ThreadPoolExecutor, chunked: bool
) -> None:
    response, serving = served(thread, hub, chunked=chunked, middleware=compressing)
    client = response.client(chunked=chunked)
    decompressor = zlib.decompressobj()
    eventually(lambda: stays(hub))
    hub.publish("orders", TENANT, 1)
    text = b""
    while b"data: 1\n\n" not in text:
        client.read(PATIENCE)
        text += decompressor.decompress(client.content)
        client.content = b""
    assert text.startswith(sse.opening())
    assert text.count(sse.opening()) == 1
    assert not serving.done()
    assert (response.reasons, streamer.open) == ([CHANGED_BODY], 0)
    hub.close()
    serving.result(PATIENCE)
    client.to_end()
    text += decompressor.decompress(client.content)
    assert [event.type for event in parse(text)] == ["message", "close"]
    assert len(response.released) == 1
    response.give_up()


@KINDS
@pytest.mark.parametrize("middleware", [pairing, looking_ahead])
def test_a_middleware_that_holds_the_first_item_back_keeps_the_thread_and_loses_nothing(
    hub: MemoryHub, thread: ThreadPoolExecutor, chunked: bool, middleware: Middleware
) -> None:
    response, serving = served(thread, hub, chunked=chunked, middleware=middleware)
    eventually(lambda: stays(hub))
    subscription = hub.subscribe("orders", TENANT)
    for number in range(4):
        hub.publish("orders", TENANT, number)
        subscription.get(PATIENCE)
    subscription.close()
    hub.close()
    serving.result(PATIENCE)
    client = response.client(chunked=chunked)
    assert [event.data for event in client.to_end()] == ["0", "1", "2", "3", "{}"]
    assert client.content.startswith(sse.opening())
    assert (response.reasons, len(response.released)) == ([CHANGED_BODY], 1)
    response.give_up()


@KINDS
def test_what_is_published_before_a_stream_is_found_to_stay_is_not_missed(
    hub: MemoryHub, thread: ThreadPoolExecutor, chunked: bool
) -> None:
    """As by a view that publishes after it has made its response."""
    response = thread.submit(Response, hub).result()
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, "before")
    subscription.get(PATIENCE)
    subscription.close()
    thread.submit(serve, response.server, pairing(response.body), chunked=chunked)
    client = response.client(chunked=chunked)
    hub.close()
    assert [event.data for event in client.to_end()] == ['"before"', "{}"]
    response.give_up()


def stay(hub: MemoryHub) -> Response:
    """A response that was found to stay in this thread, up to its first event."""
    response = Response(hub)
    next(response.body)  # and nothing is written
    assert next(response.body) == sse.KEEPALIVE
    assert stays(hub)
    hub.publish("orders", TENANT, 1)
    assert b"data: 1\n\n" in next(response.body)
    return response


def test_a_server_that_announces_a_length_keeps_its_connection(hub: MemoryHub) -> None:
    response = Response(hub)
    response.server.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + next(response.body))
    assert next(response.body) == sse.KEEPALIVE
    client = response.client(chunked=False)
    client.read(PATIENCE)
    assert client.content == sse.opening()
    response.body.close()
    assert (response.reasons, len(response.released)) == ([CHANGED_BODY], 1)
    response.give_up()


def test_closing_a_stream_that_stayed_ends_its_subscription(hub: MemoryHub) -> None:
    response = stay(hub)
    response.body.close()
    assert (len(response.released), hub.stats().subscriptions) == (1, 0)
    response.body.close()
    response.give_up()


def test_an_error_of_the_stream_that_was_to_stay_leaves_the_server_its_client(
    hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = Response(hub)

    def fail(reason: str) -> ThreadedStream:
        raise ZeroDivisionError

    monkeypatch.setattr(response.body, "_stay", fail)
    with pytest.raises(ZeroDivisionError):
        serve(response.server, looking_ahead(response.body), chunked=False)
    assert response.answer() == b""
    assert len(response.released) == 1
    response.give_up()


# Other threads than the one that has made the response.


@KINDS
def test_a_body_that_is_read_in_another_thread_stays_there(
    hub: MemoryHub, thread: ThreadPoolExecutor, chunked: bool
) -> None:
    response = Response(hub)
    serving = thread.submit(serve, response.server, response.body, chunked=chunked)
    client = response.client(chunked=chunked)
    hub.publish("orders", TENANT, 1)
    assert [event.data for event in client.events(1)] == ["1"]
    assert (response.reasons, streamer.open) == ([OTHER_THREAD], 0)
    hub.close()
    client.to_end()
    serving.result(PATIENCE)
    assert len(response.released) == 1
    response.give_up()


def test_a_thread_that_has_ended_is_no_other_thread_that_has_its_number(hub: MemoryHub) -> None:
    with ThreadPoolExecutor(1) as first:
        response = first.submit(Response, hub).result()
    with ThreadPoolExecutor(1) as second:
        assert second.submit(next, response.body).result() == sse.opening()
    assert response.reasons == [OTHER_THREAD]
    response.body.close()
    response.give_up()


@pytest.mark.parametrize("written", ["head", "everything"])
def test_a_body_whose_second_item_is_asked_for_in_another_thread_leaves_or_ends(
    hub: MemoryHub, thread: ThreadPoolExecutor, written: str
) -> None:
    """The server may be writing at that moment, so its socket is not touched."""
    response = Response(hub)
    item = next(response.body)
    number = os.fstat(response.server.fileno()).st_ino
    response.server.sendall(plain_head() + (item if written == "everything" else b""))
    second = thread.submit(next, response.body, b"the end").result(PATIENCE)
    assert os.fstat(response.server.fileno()).st_ino == number
    if written == "everything":
        assert second == b"the end"
        hub.publish("orders", TENANT, 1)
        client = response.client(chunked=False)
        assert [event.data for event in client.events(1)] == ["1"]
    else:
        assert response.answer() == plain_head()
        assert response.reasons == []
        with pytest.raises(BrokenPipeError):
            response.server.sendall(item)
    response.body.close()
    response.give_up()


def test_closing_in_another_thread_leaves_the_servers_socket_alone(hub: MemoryHub, thread: ThreadPoolExecutor) -> None:
    response = Response(hub)
    response.server.sendall(plain_head() + next(response.body))
    number = os.fstat(response.server.fileno()).st_ino
    thread.submit(response.body.close).result(PATIENCE)
    assert os.fstat(response.server.fileno()).st_ino == number
    assert response.answer() == plain_head() + sse.opening()
    assert len(response.released) == 1
    response.give_up()


# What else stands in its way.


@pytest.mark.parametrize("middleware", [passing, looking_ahead], ids=["leaves", "stays"])
def test_a_default_time_out_of_sockets_holds_nobody_up(
    hub: MemoryHub, thread: ThreadPoolExecutor, middleware: Middleware
) -> None:
    """An application may set one with `socket.setdefaulttimeout`."""
    with default_timeout(2 * PATIENCE):
        response, serving = served(thread, hub, chunked=False, middleware=middleware)
        client = response.client(chunked=False)
        eventually(lambda: streamer.open or stays(hub), PATIENCE)
        hub.close()
        assert client.to_end()[-1].type == "close"
        serving.result(PATIENCE)
        assert streamer.wait_until_empty(PATIENCE)
    response.give_up()


@pytest.mark.parametrize(("size", "count"), [(10_000_000, 1), (10, 100_000)])
@pytest.mark.parametrize("closes", [True, False], ids=["closed", "dropped"])
def test_a_response_with_much_of_its_own_fails_with_advice(
    hub: MemoryHub, caplog: pytest.LogCaptureFixture, closes: bool, size: int, count: int
) -> None:
    """Nobody reads it before the stream's next item is asked for, so a server that goes on would wait for ever."""
    response = Response(hub)

    def followed_by_much(body: Body) -> Iterator[bytes]:
        items = iter(body)
        yield next(items)
        for _ in range(count):
            yield b"x" * size
        yield from items

    response.server.settimeout(None)
    body = Closing(response.body, followed_by_much) if closes else followed_by_much(response.body)
    del response.body
    with pytest.raises(BlockingIOError):
        serve(response.server, body, chunked=True)
    close_dropped()
    assert 'detach="never"' in caplog.text
    assert len(response.released) == 1
    response.give_up()


# Without descriptors.


def no_pairs(*arguments: object) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


@KINDS
def test_without_descriptors_it_stays_and_loses_nothing(
    hub: MemoryHub, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", no_pairs)
        response, serving = served(thread, hub, chunked=chunked)
        client = response.client(chunked=chunked)
        hub.publish("orders", TENANT, 1)
        assert [event.data for event in client.events(1)] == ["1"]
    assert client.content.startswith(sse.opening())
    assert client.content.count(b": open") == 1
    assert (response.reasons, response.released) == ([NO_DESCRIPTORS], [])
    hub.close()
    assert [event.type for event in client.to_end()] == ["close"]
    serving.result(PATIENCE)
    assert len(response.released) == 1
    response.give_up()


def test_without_descriptors_for_the_streamer_it_stays(hub: MemoryHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Streamer, "prepare", no_pairs)
    response = Response(hub)
    assert next(response.body) == sse.opening()
    assert response.reasons == [NO_DESCRIPTORS]
    response.body.close()
    assert len(response.released) == 1
    response.give_up()


@KINDS
def test_without_descriptors_and_without_a_thread_the_client_is_told_to_come_back(
    hub: MemoryHub, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    """Politely: an EventSource gives up for good on any status but 200."""
    response = Response(hub, no_thread=True)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", no_pairs)
        serve(response.server, response.body, chunked=chunked)
    assert_farewell(response, chunked=chunked)


def test_without_descriptors_after_the_hub_was_closed_the_client_is_told_to_come_back(
    hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = Response(hub)
    hub.close()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", no_pairs)
        serve(response.server, response.body, chunked=True)
    assert_farewell(response, chunked=True)


def assert_farewell(response: Response, *, chunked: bool) -> None:
    """The client got 200, a time to come back after, and the end; the place is free."""
    client = response.client(chunked=chunked)
    assert [event.type for event in client.to_end()] == ["close"]
    assert client.parser.retry is not None
    assert streamer.wait_until_empty(PATIENCE)  # where it was the streamer that said so
    assert len(response.released) == 1
    response.give_up()


# Neither.


@KINDS
def test_when_the_hub_was_closed_before_the_hand_over_the_client_is_told_to_come_back(
    hub: MemoryHub, chunked: bool
) -> None:
    response = Response(hub)

    def closing_in_between(body: Body) -> Body:
        def items(body: Body) -> Iterator[bytes]:
            for item in body:
                yield item
                hub.close()

        return Closing(body, items)

    serve(response.server, closing_in_between(response.body), chunked=chunked)
    assert response.reasons == []
    assert_farewell(response, chunked=chunked)


@KINDS
def test_when_no_thread_is_left_for_a_stream_that_has_to_stay_the_client_is_told_to_come_back(
    hub: MemoryHub, chunked: bool
) -> None:
    response = Response(hub, no_thread=True)
    serve(response.server, looking_ahead(response.body), chunked=chunked)
    assert response.reasons == [CHANGED_BODY]
    assert_farewell(response, chunked=chunked)


def test_a_farewell_before_anything_else_comes_with_an_id(hub: MemoryHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the letter of the standard a browser would forget its own id otherwise, and come back as if it were new."""
    monkeypatch.setattr(socket, "socketpair", no_pairs)
    response = Response(hub, no_thread=True)
    assert response.reasons == []
    parser = EventStreamParser()
    (bytes_of_all,) = response.body
    assert [event.type for event in parser.feed(bytes_of_all)] == ["close"]
    assert (response.reasons, parser.last_event_id) == ([NO_DESCRIPTORS], "start")
    response.body.close()
    response.give_up()


def test_after_a_farewell_the_body_has_ended(hub: MemoryHub) -> None:
    response = Response(hub, no_thread=True)
    assert next(response.body) == sse.opening()
    assert b"retry: " in next(response.body)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(response.body)
    response.body.close()
    assert len(response.released) == 1
    response.give_up()


def test_when_no_thread_can_be_started_for_the_streamer_the_connection_ends(
    hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = Response(hub)

    def refuse(connection: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(streamer, "adopt", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        serve(response.server, response.body, chunked=True)
    assert response.answer().endswith(sse.opening() + b"\r\n")
    assert (len(response.released), hub.stats().subscriptions) == (1, 0)
    response.give_up()


# Given up.


def test_closing_without_a_look_at_the_body_gives_the_place_back(hub: MemoryHub) -> None:
    response = Response(hub)
    response.body.close()
    response.body.close()
    assert len(response.released) == 1
    response.server.sendall(b"HEAD")
    assert response.connection.recv(10) == b"HEAD"
    response.give_up()


def test_closing_after_the_first_item_sends_what_was_written_and_gives_everything_back(hub: MemoryHub) -> None:
    response = Response(hub)
    written = plain_head() + next(response.body)
    response.server.sendall(written)
    response.body.close()
    response.body.close()
    assert len(response.released) == 1
    response.server.sendall(b"!")
    response.server.close()
    assert response.answer() == written + b"!"
    response.give_up()


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_closing_after_the_client_has_left_gives_the_place_back(
    hub: MemoryHub, leave: Callable[[socket.socket], object]
) -> None:
    """At once: a server may keep what failed for long."""
    response = Response(hub)
    response.server.sendall(plain_head() + next(response.body))
    leave(response.connection)
    poll = select.poll()
    poll.register(response.body._takeover._client if response.body._takeover else -1, select.POLLRDHUP)  # type: ignore[arg-type]
    assert poll.poll(PATIENCE * 1000)
    with contextlib.suppress(OSError):
        response.body.close()
    released = list(response.released)
    response.give_up()
    del response.body
    gc.collect()
    close_dropped()
    assert len(released) == 1
    assert len(response.released) == 1


def test_the_error_of_a_server_between_the_items_gives_everything_back(hub: MemoryHub) -> None:
    response = Response(hub)

    def failing(body: Body) -> Body:
        def items(body: Body) -> Iterator[bytes]:
            for item in body:
                yield item
                raise ZeroDivisionError

        return Closing(body, items)

    with pytest.raises(ZeroDivisionError):
        serve(response.server, failing(response.body), chunked=True)
    assert response.answer().endswith(sse.opening() + b"\r\n")
    assert len(response.released) == 1
    response.give_up()


def drop(response: Response) -> None:
    """Let go of the body as one does that has failed, and have what was forgotten closed."""
    del response.body
    gc.collect()
    assert response.released == []  # a finaliser may run in the middle of anything
    close_dropped()


def test_a_stream_that_stayed_and_was_dropped_holds_up_no_farewell(hub: MemoryHub) -> None:
    response = stay(hub)
    del response.body
    gc.collect()
    assert live_streams()
    say_goodbye()
    assert not live_streams()
    assert len(response.released) == 1
    response.give_up()


def test_a_farewell_waits_for_a_stream_that_is_about_to_leave_its_thread(
    hub: MemoryHub, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_END_TIME", PATIENCE)
    response = Response(hub)
    response.server.sendall(plain_head() + next(response.body))
    farewell = thread.submit(say_goodbye)
    eventually(lambda: hub.closed)
    assert not wait([farewell], 0.1).done
    with pytest.raises(StopIteration):
        next(response.body)
    farewell.result(PATIENCE)
    assert streamer.open == 0
    assert [event.type for event in response.client(chunked=False).to_end()] == ["close"]
    response.body.close()
    response.give_up()


@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_a_farewell_does_not_wait_for_a_stream_that_was_given_up_before_it_left(hub: MemoryHub, end: str) -> None:
    response = Response(hub)
    next(response.body)
    assert are_moving()
    if end == "closed":
        response.body.close()
    else:
        drop(response)
    assert not are_moving()
    response.give_up()


def test_a_body_that_was_dropped_without_a_look_gives_its_place_back(hub: MemoryHub) -> None:
    response = Response(hub)
    drop(response)
    assert len(response.released) == 1
    response.give_up()


@pytest.mark.parametrize("written", [b"", b"HTTP/1.1 500 Internal Server Error\r\n\r\n"])
def test_a_body_that_was_dropped_after_its_first_item_gives_its_place_back_and_ends_the_connection(
    hub: MemoryHub, written: bytes
) -> None:
    """What the server has written comes first; its socket is not touched, for a finaliser may run in any thread."""
    response = Response(hub)
    next(response.body)
    number = os.fstat(response.server.fileno()).st_ino
    response.server.sendall(written)
    drop(response)
    assert len(response.released) == 1
    assert response.answer() == written
    assert os.fstat(response.server.fileno()).st_ino == number
    with pytest.raises(BrokenPipeError):
        response.server.sendall(b"more")
    response.give_up()


def test_a_body_that_is_dropped_is_found_without_a_collection(hub: MemoryHub) -> None:
    gc.disable()
    try:
        response = Response(hub)
        next(response.body)
        del response.body
        close_dropped()
        assert len(response.released) == 1
        response.give_up()
    finally:
        gc.enable()


def test_a_body_that_was_dropped_after_the_hand_over_leaves_the_stream_alone(hub: MemoryHub) -> None:
    response = Response(hub)
    response.server.sendall(plain_head() + next(response.body))
    with pytest.raises(StopIteration):
        next(response.body)
    drop(response)
    assert response.released == []
    client = response.client(chunked=False)
    hub.publish("orders", TENANT, 1)
    assert [event.data for event in client.events(1)] == ["1"]
    response.give_up()
    assert streamer.wait_until_empty(PATIENCE)
    assert len(response.released) == 1


def test_a_body_that_was_dropped_after_it_stayed_gives_its_place_back(hub: MemoryHub) -> None:
    response = stay(hub)
    drop(response)
    assert (len(response.released), hub.stats().subscriptions) == (1, 0)
    response.give_up()


def test_a_body_that_is_dropped_after_the_server_has_closed_its_socket_spares_the_next_connection(
    hub: MemoryHub,
) -> None:
    response = Response(hub)
    next(response.body)
    number = response.server.fileno()
    response.server.close()
    other, other_client = tcp_pair()
    os.dup2(other.fileno(), number, inheritable=False)  # as accepting the next connection would
    other.close()
    with socket.socket(fileno=number) as next_one, other_client:
        drop(response)
        next_one.sendall(b"secret")
        next_one.close()
        response.connection.settimeout(PATIENCE)
        assert response.connection.recv(10) == b""
        assert read_to_end(other_client) == b"secret"
    response.give_up()


# The end of the process's hub meets a hand-over.


def test_every_client_gets_an_end_when_the_hub_closes_in_a_rush(hub: MemoryHub) -> None:
    rush = threading.Barrier(4, timeout=PATIENCE)

    def come() -> list[Response]:
        rush.wait()
        responses: list[Response] = []
        try:
            while True:
                responses.append(Response(hub))
                serve(responses[-1].server, responses[-1].body, chunked=True)
        except HubClosedError:
            return responses

    with ThreadPoolExecutor(3) as pool:
        coming = [pool.submit(come) for _ in range(3)]
        rush.wait()
        hub.close()
    for future in coming:
        for response in future.result(PATIENCE):
            _, _, body = response.answer().partition(b"\r\n\r\n")
            assert [event.type for event in parse(dechunk(body))] == ["close"]
            response.give_up()
    assert streamer.wait_until_empty(PATIENCE)
    assert all(len(response.released) == 1 for future in coming for response in future.result())


class Step:
    """Does something once, at a step of a response, or later when that is not reached."""

    def __init__(self, at: str, act: Callable[[], None]) -> None:
        self._at, self._act = at, act
        self._lock = threading.Lock()
        self.done = False

    def __call__(self, step: str) -> None:
        if step == self._at:
            self.now()

    def now(self) -> None:
        with self._lock:
            act, self.done = not self.done, True
        if act:
            self._act()


def stepwise(body: Body, reach: Callable[[str], None], name: str) -> Body:
    """A middleware that only tells which item comes through it."""

    def items(body: Body) -> Iterator[bytes]:
        for number, item in enumerate(body, 1):
            reach(f"{name} {number}")
            yield item
        reach(f"{name} end")

    return Closing(body, items)


def watch_hand_over(monkeypatch: pytest.MonkeyPatch, reach: Callable[[str], None]) -> None:
    """Tell the steps of a hand-over."""
    write, adopt = Connection.write, Streamer.adopt

    def watched_write(connection: Connection) -> bool:
        reach("writing the head")
        return write(connection)

    def watched_adopt(streamer: Streamer, connection: Connection) -> None:
        reach("adopting")
        adopt(streamer, connection)
        reach("adopted")

    monkeypatch.setattr(Connection, "write", watched_write)
    monkeypatch.setattr(Streamer, "adopt", watched_adopt)


STEPS = ["made", "given 1", "item 1", "staying", "subscribed", "given 2", "item 2", "given end", "item end"]
HAND_OVER = ["writing the head", "adopting", "adopted"]
FATES = {  # what stands before the server, whether there are descriptors, and whether there is a thread
    "detaches": (passing, True, True),
    "stays": (looking_ahead, True, True),
    "is refused": (looking_ahead, True, False),
    "stays from the beginning": (passing, False, True),
    "is refused from the beginning": (passing, False, False),
}


@pytest.mark.parametrize("leave", [None, socket.socket.close, reset], ids=["the hub closes", "leaves", "is reset"])
@pytest.mark.parametrize("step", [*STEPS, *HAND_OVER, "later"])
@pytest.mark.parametrize("fate", FATES)
def test_whenever_the_hub_closes_or_the_client_leaves_everything_is_given_back_once(
    hub: MemoryHub,
    thread: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    fate: str,
    step: str,
    leave: Callable[[socket.socket], None] | None,
) -> None:
    middleware, descriptors, has_thread = FATES[fate]
    response = thread.submit(Response, hub, no_thread=not has_thread).result()
    reach = response.reach = Step(step, hub.close if leave is None else lambda: leave(response.connection))
    watch_hand_over(monkeypatch, reach)
    if not descriptors:
        monkeypatch.setattr(socket, "socketpair", no_pairs)
    body = stepwise(middleware(stepwise(response.body, reach, "given")), reach, "item")
    reach("made")
    serving = thread.submit(serve, response.server, body, chunked=True)
    eventually(lambda: reach.done or serving.done() or waits(response))
    reach.now()
    if leave is None:
        client = response.client(chunked=True)
        assert [event.type for event in client.to_end() if event.type != "refresh"] == ["close"]
        assert client.parser.retry is not None
    else:
        eventually(lambda: close_left() or serving.done())
        eventually(lambda: response.released)
    error = serving.exception(PATIENCE)
    assert error is None or (leave is not None and isinstance(error, OSError))
    assert streamer.wait_until_empty(PATIENCE)
    assert len(response.released) == 1
    assert (response.feed.members, hub.stats().subscriptions, hub.stats().detached) == (0, 0, 0)
    assert not live_streams()
    response.give_up()


def waits(response: Response) -> bool:
    """Whether a thread waits for the next event of a response that has stayed."""
    return bool(response.follower and response.follower._waiting)


def test_following_a_closed_hub_is_refused(hub: MemoryHub) -> None:
    hub.close()
    with pytest.raises(HubClosedError):
        core_of(hub).follow(topics("orders", TENANT), streamer.mailbox)
