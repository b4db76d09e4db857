"""Connection and Audience: what leaves for the clients, and what waits when a socket has no room."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pgfanout import Event
from pgfanout.delivery.feed import Feed
from pgfanout.delivery.reader import Reader
from pgfanout.streams import sse
from pgfanout.streams.detached import broadcast as broadcast_module
from pgfanout.streams.detached import held
from pgfanout.streams.detached.audience import Audience
from pgfanout.streams.detached.connection import Connection, chunk

from ...support.detached import (
    BUFFER,
    PATIENCE,
    Client,
    dechunk,
    default_timeout,
    open_descriptors,
    read_exactly,
    read_to_end,
    reset,
    tcp_pair,
)
from ...support.sse import parse
from ...support.wait import eventually

KINDS = pytest.mark.parametrize("chunked", [False, True], ids=["plain", "chunked"])


class Owner:
    """Notes who has left."""

    def __init__(self) -> None:
        self.stalled: list[bool] = []

    def leave(self, consumer: Feed, *, stalled: bool = False) -> None:
        self.stalled.append(stalled)

    def count_refreshes(self, count: int) -> None:
        raise AssertionError("nobody reads here")

    def count_failure(self) -> None:
        raise AssertionError("nothing fails here")

    def count_followers(self, change: int) -> None:
        raise AssertionError("nothing follows in a thread here")


class Mailbox:
    """Does not care."""

    def news(self, feed: Feed) -> None:
        pass

    def wake(self) -> None:
        pass


class Line:
    """A connection, its client and what it was told."""

    def __init__(self, *, chunked: bool = False, head: bytes = b"", buffer: int | None = None) -> None:
        server, self.client = tcp_pair(buffer)
        server.setblocking(False)
        self.owner = Owner()
        self.feed = Feed(8, Mailbox(), self.owner)
        self.closed: list[bool] = []
        self.connection = Connection(
            server.detach(),
            self.feed,
            Reader(0),
            chunked=chunked,
            head=head,
            keepalive=15.0,
            on_close=lambda: self.closed.append(True),
        )

    def clean_up(self) -> None:
        self.client.close()
        if not self.closed:
            self.connection.close(stalled=False)

    def receive_rest(self) -> bytes:
        """Write and read by turns until nothing is left, and the end of it all."""
        received = b""
        while not self.connection.write():
            assert select.select([self.client], [], [], PATIENCE)[0]
            received += self.client.recv(1 << 20)
        self.connection.ending = True
        self.connection.close(stalled=False)
        while data := self.client.recv(1 << 20):
            received += data
        return received


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    """What a test puts here is closed after it."""
    lines: list[Line] = []
    yield lines
    for line in lines:
        line.clean_up()


def line_for(
    lines: list[Line], *, chunked: bool = False, head: bytes = b"", buffer: int | None = None
) -> tuple[Line, Connection, socket.socket]:
    line = Line(chunked=chunked, head=head, buffer=buffer)
    lines.append(line)
    return line, line.connection, line.client


def numbers(count: int) -> bytes:
    """So many bytes, no two parts of which look the same."""
    return b"".join(b"%08x" % number for number in range(count // 8))


# Chunks.


@pytest.mark.parametrize(
    ("data", "framed"),
    [
        (b"a", b"1\r\na\r\n"),
        (b"x" * 10, b"a\r\n" + b"x" * 10 + b"\r\n"),
        (b"x" * 255, b"ff\r\n" + b"x" * 255 + b"\r\n"),
        (b"\r\n", b"2\r\n\r\n\r\n"),
        ("é".encode(), b"2\r\n\xc3\xa9\r\n"),
    ],
)
def test_a_chunk_has_its_size_in_bytes_before_it(data: bytes, framed: bytes) -> None:
    assert chunk(data) == framed
    assert dechunk(framed + b"0\r\n\r\n") == data


def test_data_is_put_as_one_chunk_where_the_body_has_chunks(lines: list[Line]) -> None:
    _, connection, client = line_for(lines, chunked=True)
    connection.put(b"hello")
    assert connection.write()
    assert read_exactly(client, 10) == b"5\r\nhello\r\n"


def test_data_is_put_as_it_is_where_the_body_ends_with_the_connection(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    connection.put(b"hello")
    assert connection.write()
    assert read_exactly(client, 5) == b"hello"


@KINDS
def test_the_head_is_written_first_and_as_it_is(lines: list[Line], chunked: bool) -> None:
    _, connection, client = line_for(lines, chunked=chunked, head=b"HTTP/1.1 200 OK\r\n\r\n")
    before = connection.has_news
    assert connection.write()
    assert read_exactly(client, 19) == b"HTTP/1.1 200 OK\r\n\r\n"
    assert (before, connection.has_news) == (True, False)


# Writing.


@KINDS
def test_a_write_that_the_socket_cuts_short_goes_on_where_it_was(lines: list[Line], chunked: bool) -> None:
    line, connection, _ = line_for(lines, chunked=chunked, buffer=BUFFER)
    data = numbers(20 * BUFFER)
    connection.put(data)
    assert connection.write() is False
    assert 0 < len(rest_of(connection)) < len(data)
    assert line.receive_rest() == (chunk(data) if chunked else data)


def test_a_full_socket_takes_nothing_and_loses_nothing(lines: list[Line]) -> None:
    line, connection, _ = line_for(lines, buffer=BUFFER)
    fill(connection)
    left = rest_of(connection)
    assert connection.write() is False
    assert rest_of(connection) == left
    assert line.receive_rest() == numbers(20 * BUFFER)


def rest_of(connection: Connection) -> bytes:
    """What its socket has not taken yet."""
    return b"".join(connection.rest)


def fill(connection: Connection) -> None:
    """Write until the socket takes nothing more, when it has moved on to its client what that has room for."""
    connection.put(numbers(20 * BUFFER))
    refused = 0

    def is_full() -> bool:
        nonlocal refused
        before = len(rest_of(connection))
        connection.write()
        refused = refused + 1 if len(rest_of(connection)) == before else 0
        return refused == 20

    eventually(is_full, interval=0.01)  # a client may acknowledge 40 ms later
    assert connection.rest


@KINDS
def test_parts_are_one_chunk_and_written_in_their_order_whatever_the_socket_takes(
    lines: list[Line], chunked: bool
) -> None:
    line, connection, _ = line_for(lines, chunked=chunked, head=b"head ", buffer=BUFFER)
    parts = [b"%d " % number + numbers(8 * (number % 700)) for number in range(3000)]
    connection.put(*parts)
    connection.put(b"end")
    whole = b"".join(parts)
    assert line.receive_rest() == b"head " + (chunk(whole) + chunk(b"end") if chunked else whole + b"end")


def test_what_waits_for_room_is_not_copied(lines: list[Line]) -> None:
    _, connection, _ = line_for(lines, chunked=True, buffer=BUFFER)
    parts = [numbers(20 * BUFFER), numbers(20 * BUFFER)]
    connection.put(*parts)
    connection.write()
    connection.put(b"more")
    connection.put_closing()
    held = [part.obj if isinstance(part, memoryview) else part for part in connection.rest]
    assert [any(part is each for each in held) for part in parts] == [True, True]


def test_nothing_to_write_is_written(lines: list[Line]) -> None:
    _, connection, _ = line_for(lines)
    assert connection.write() is True


def test_writing_to_a_client_that_has_reset_is_an_error(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    reset(client)
    wait_for_hang_up(connection)
    connection.put(b"hello")
    with pytest.raises(OSError, match=r"reset|pipe"):
        connection.write()


def wait_for_hang_up(connection: Connection) -> None:
    """Return when the client's end, or its reset, has arrived."""
    poll = select.poll()
    poll.register(connection.descriptor, select.POLLRDHUP | select.POLLHUP)
    assert poll.poll(PATIENCE * 1000)


# The news.


def test_there_is_news_when_the_feed_is_ahead_or_has_ended(lines: list[Line]) -> None:
    line, connection, _ = line_for(lines)
    seen = [connection.has_news]
    line.feed.offer(Event("orders", b"1"))
    seen.append(connection.has_news)
    connection.reader.position = 1
    seen.append(connection.has_news)
    line.feed.end()
    seen.append(connection.has_news)
    assert seen == [False, True, False, True]


# The end.


def test_a_farewell_is_a_retry_a_close_and_nothing_more(lines: list[Line]) -> None:
    line, connection, _ = line_for(lines)
    before = connection.ending
    connection.put_closing()
    assert (before, connection.ending) == (False, True)
    body = line.receive_rest()
    assert [event.type for event in parse(body)] == ["close"]
    assert body.startswith(b"retry: ")


def test_the_farewell_of_a_chunked_body_has_its_last_chunk(lines: list[Line]) -> None:
    line, connection, _ = line_for(lines, chunked=True)
    connection.put_closing()
    body = line.receive_rest()
    assert body.endswith(b"\r\n0\r\n\r\n")
    assert [event.type for event in parse(dechunk(body))] == ["close"]


@KINDS
def test_after_a_farewell_the_connection_ends_with_a_fin(lines: list[Line], chunked: bool) -> None:
    line, connection, client_socket = line_for(lines, chunked=chunked)
    connection.put_closing()
    assert connection.write()
    connection.close(stalled=False)
    client = Client(client_socket, chunked=chunked)
    assert [event.type for event in client.to_end()] == ["close"]
    assert (line.closed, line.owner.stalled) == ([True], [False])


def test_what_the_client_has_sent_does_not_turn_the_end_into_a_reset(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    assert select.select([connection.descriptor], [], [], PATIENCE)[0]
    connection.put_closing()
    assert connection.write()
    connection.close(stalled=False)
    assert [event.type for event in Client(client, chunked=False).to_end()] == ["close"]
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_closing_in_the_middle_ends_the_connection_at_once(lines: list[Line]) -> None:
    """Both ways: the client's next word is answered with a reset even while a forked child has the descriptor."""
    line, connection, client = line_for(lines, buffer=BUFFER)
    copy = os.dup(connection.descriptor)
    try:
        connection.put(numbers(20 * BUFFER))
        assert not connection.write()
        connection.ending = True
        connection.close(stalled=True)
        with pytest.raises(BrokenPipeError):
            os.write(copy, b"x")
        with socket.socket(fileno=os.dup(copy)) as other:
            assert other.recv(1) == b""
        while client.recv(1 << 20):
            pass
    finally:
        os.close(copy)
    assert (line.closed, line.owner.stalled) == ([True], [True])


def test_closing_without_a_farewell_ends_both_directions(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    with socket.socket(fileno=os.dup(connection.descriptor)) as copy:
        connection.close(stalled=False)
        assert copy.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            copy.send(b"x")
    assert client.recv(1) == b""


def test_closing_after_a_farewell_ends_what_is_sent_and_not_what_is_received(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    with socket.socket(fileno=os.dup(connection.descriptor)) as copy:
        connection.put_closing()
        connection.write()
        connection.close(stalled=False)
        assert Client(client, chunked=False).to_end()
        client.sendall(b"x")
        copy.settimeout(PATIENCE)
        assert copy.recv(1) == b"x"


def test_closing_waits_for_nothing_whatever_time_out_sockets_have(lines: list[Line]) -> None:
    line = Line()
    lines.append(line)
    line.connection.put_closing()
    assert line.connection.write()
    with default_timeout(2 * PATIENCE), ThreadPoolExecutor(1) as pool:
        pool.submit(line.connection.close, stalled=False).result(PATIENCE)
    assert read_to_end(line.client).endswith(b"\n\n")


def test_closing_after_a_reset_gives_everything_back(lines: list[Line]) -> None:
    before = open_descriptors()
    line, connection, client = line_for(lines)
    reset(client)
    wait_for_hang_up(connection)
    connection.close(stalled=False)
    assert line.closed == [True]
    assert open_descriptors() == before


def test_a_closed_connection_has_no_descriptor_and_is_closed_once(lines: list[Line]) -> None:
    """Its number may be another connection's at any time."""
    line, connection, _ = line_for(lines)
    number = connection.descriptor
    connection.close(stalled=False)
    others = [os.dup(0) for _ in range(3)]
    try:
        assert number in others
        connection.put(b"hello")
        with pytest.raises(OSError, match="Bad file descriptor"):
            connection.write()
        connection.close(stalled=True)
        os.fstat(number)
    finally:
        for other in others:
            os.close(other)
    assert (connection.open, line.closed, line.owner.stalled) == (False, [True], [False])


def test_what_fails_at_the_end_keeps_nothing(lines: list[Line]) -> None:
    line, connection, client = line_for(lines)

    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    line.owner.leave = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        connection.close(stalled=False)
    assert line.closed == [True]
    assert client.recv(1) == b""


# What a client sends.


def test_what_a_client_sends_is_read_and_dropped(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    assert connection.drop_input()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    assert select.select([connection.descriptor], [], [], PATIENCE)[0]
    while select.select([connection.descriptor], [], [], 0.1)[0]:
        assert connection.drop_input()
    assert connection.received == 1800


def test_a_client_that_sends_too_much_is_told_apart(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    client.sendall(b"x" * 65_537)
    heard = [0]
    while connection.received < 65_537:
        assert select.select([connection.descriptor], [], [], PATIENCE)[0]
        assert connection.drop_input() is (connection.received <= 65_536)
        assert connection.received > heard[-1]
        heard.append(connection.received)
    assert not connection.drop_input()


# Errors.


def test_a_connection_that_is_well_has_no_error_and_stays_open(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    assert connection.error() is None
    client.close()
    wait_for_hang_up(connection)
    assert connection.error() is None
    os.fstat(connection.descriptor)


def test_a_reset_is_the_error_of_the_connection_once(lines: list[Line]) -> None:
    _, connection, client = line_for(lines)
    reset(client)
    wait_for_hang_up(connection)
    error = connection.error()
    assert error is not None
    assert error.errno == errno.ECONNRESET
    assert connection.error() is None


# Audiences.


def audience_of(connections: list[Connection], position: int = 0) -> Audience:
    audience = Audience(connections[0].feed)
    audience.reader.position = position
    for connection in connections:
        audience.join(connection)
        audience.include(connection)
    return audience


def write(audience: Audience, data: bytes) -> tuple[list[Connection], list[tuple[Connection, Exception]]]:
    """Write to all that are current, slice after slice; those that took less, and those that failed."""
    behind: list[Connection] = []
    failed: list[tuple[Connection, Exception]] = []
    audience.broadcast = broadcast_module.Broadcast(dict.fromkeys(audience.current), [data, chunk(data)])
    for _ in iter(lambda: audience.broadcast, None):
        for connection, error in audience.write_slice():
            if error is None:
                behind.append(connection)
            else:
                failed.append((connection, error))
    return behind, failed


def test_a_new_audience_is_empty(lines: list[Line]) -> None:
    line, connection, _ = line_for(lines)
    line.feed.offer(Event("orders", b"1"))
    audience = Audience(line.feed)
    assert (audience.reader.position, audience.ended) == (1, False)
    assert (audience.current_size, audience.current) == (0, ())
    assert not audience.is_current(connection)
    assert write(audience, b"x") == ([], [])


def test_who_is_included_is_current_until_it_is_excluded(lines: list[Line]) -> None:
    connections = [line_for(lines, chunked=chunked)[1] for chunked in (False, True, True)]
    audience = audience_of(connections, 5)
    assert audience.current_size == 3
    assert set(audience.current) == set(connections)
    audience.exclude(connections[1])
    assert [audience.is_current(connection) for connection in connections] == [True, False, True]
    assert set(audience.current) == {connections[0], connections[2]}
    assert connections[1].reader.position == 5
    connections[1].reader.position = 4
    audience.exclude(connections[1])  # it was not current: it knows its own place
    assert connections[1].reader.position == 4
    assert audience.current_size == 2


def test_a_connection_that_has_left_is_in_the_audience_no_more(lines: list[Line]) -> None:
    connections = [line_for(lines)[1] for _ in range(2)]
    audience = audience_of(connections)
    audience.leave(connections[0])
    assert audience.current == (connections[1],)
    assert audience.size == 1


def test_all_get_the_same_each_in_its_own_framing(lines: list[Line]) -> None:
    kinds = [False, True, False, True]
    made = [line_for(lines, chunked=chunked) for chunked in kinds]
    audience = audience_of([connection for _, connection, _ in made])
    assert write(audience, b"hello") == ([], [])
    for chunked, (_, _, client) in zip(kinds, made, strict=True):
        expected = b"5\r\nhello\r\n" if chunked else b"hello"
        assert read_exactly(client, len(expected)) == expected
    assert audience.current_size == 4


@pytest.mark.parametrize(("seconds", "expected"), [(0.0009, 0), (0.0011, 34)])
def test_where_writes_take_long_all_but_the_first_hold_the_interpreter(
    lines: list[Line], monkeypatch: pytest.MonkeyPatch, seconds: float, expected: int
) -> None:
    made = [line_for(lines) for _ in range(50)]
    audience = audience_of([connection for _, connection, _ in made])
    descriptors = [connection.descriptor for _, connection, _ in made]
    writes: list[int] = []
    held_writes: list[int] = []

    def slow_write(descriptor: int, data: bytes) -> int:
        writes.append(descriptor)
        return os.writev(descriptor, [data])

    def held_write(descriptor: int, data: bytes) -> int:
        held_writes.append(descriptor)
        return os.writev(descriptor, [data])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", slow_write)
        patch.setattr(held, "write", held_write)
        patch.setattr(broadcast_module, "time", SimpleNamespace(monotonic=lambda: seconds * len(writes)))
        assert write(audience, b"hello") == ([], [])
    assert writes + held_writes == descriptors
    assert len(held_writes) == expected
    for _, _, client in made:
        assert read_exactly(client, 5) == b"hello"


@KINDS
def test_who_has_no_room_is_behind_with_what_it_did_not_take_and_the_others_have_all(
    lines: list[Line], chunked: bool
) -> None:
    data = numbers(20 * BUFFER)
    full_line, full, _ = line_for(lines, chunked=chunked, buffer=BUFFER)
    fill(full)
    before = rest_of(full)
    full.rest = ()  # what it had before is not what matters here
    part_line, part, _ = line_for(lines, chunked=chunked, buffer=BUFFER)
    fine_line, fine, _ = line_for(lines, chunked=not chunked)
    audience = audience_of([full, part, fine], 3)
    big = numbers(20 * BUFFER)[::-1]
    assert write(audience, b"small") == ([full], [])
    assert (rest_of(full), full.reader.position) == (chunk(b"small") if chunked else b"small", 3)
    assert set(audience.current) == {part, fine}
    behind, failed = write(audience, big)
    assert part in behind
    assert failed == []
    assert 0 < len(rest_of(part)) < len(big)
    assert part.reader.position == 3
    assert not audience.is_current(part)
    assert not audience.is_current(full)
    framed = chunk(b"small") + chunk(big)
    assert part_line.receive_rest() == (framed if chunked else b"small" + big)
    received = full_line.receive_rest()
    sent = chunk(data) if chunked else data
    assert received == sent[: len(sent) - len(before)] + (chunk(b"small") if chunked else b"small")
    fine.write()
    assert fine_line.receive_rest() == (b"small" + big if chunked else framed)


def test_a_dead_socket_fails_alone_and_its_error_is_told(lines: list[Line]) -> None:
    made = [line_for(lines, chunked=chunked) for chunked in (True, False, True)]
    _, dead, client = made[2]
    reset(client)
    wait_for_hang_up(dead)
    audience = audience_of([dead, *(connection for _, connection, _ in made[:2])])
    behind, ((connection, error),) = write(audience, b"hello")
    assert (behind, connection) == ([], dead)
    assert isinstance(error, (ConnectionResetError, BrokenPipeError))
    assert read_exactly(made[0][2], 10) == b"5\r\nhello\r\n"
    assert read_exactly(made[1][2], 5) == b"hello"
    assert audience.is_current(made[0][1])
    audience.exclude(dead)
    assert write(audience, b"again") == ([], [])


def test_an_event_is_framed_once_and_its_rest_shared_by_all_who_are_behind(lines: list[Line]) -> None:
    connections = [line_for(lines, buffer=BUFFER)[1] for _ in range(2)]
    behind, _ = write(audience_of(connections), numbers(20 * BUFFER))
    assert len(behind) == 2
    views = [part for connection in connections for part in connection.rest]
    assert all(isinstance(view, memoryview) for view in views)
    assert len({id(view.obj) for view in views if isinstance(view, memoryview)}) == 1


def test_a_keepalive_is_a_chunk_like_any_other(lines: list[Line]) -> None:
    _, connection, client = line_for(lines, chunked=True)
    connection.put(sse.KEEPALIVE)
    connection.write()
    framed = chunk(sse.KEEPALIVE)
    assert read_exactly(client, len(framed)) == framed
    with contextlib.suppress(BlockingIOError):
        client.setblocking(False)
        assert not client.recv(1)
