"""Takeover: a server goes on with its socket, and its client does not notice; and what the server wrote is judged."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import os
import resource
import select
import socket
from collections.abc import Iterator

import pytest

from pgfanout.streams.detached.takeover import Takeover, framing

from ...support.detached import (
    PATIENCE,
    default_timeout,
    open_descriptors,
    read_exactly,
    read_to_end,
    reset,
    tcp_pair,
)

ITEM = b": open\nid: start\n\n"  # 18 bytes
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNK = b"12\r\n" + ITEM + b"\r\n"


def head(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines]) + b"\r\n\r\n"


# What a server wrote, and what that is.
FRAMINGS: list[tuple[str, bytes, bytes, str]] = [
    ("chunked", CHUNKED + CHUNK, ITEM, "chunked"),
    ("size with zeros", CHUNKED + b"0012\r\n" + ITEM + b"\r\n", ITEM, "chunked"),
    ("size in lower case", CHUNKED + b"1a\r\n" + b"x" * 26 + b"\r\n", b"x" * 26, "chunked"),
    ("size in upper case", CHUNKED + b"1A\r\n" + b"x" * 26 + b"\r\n", b"x" * 26, "chunked"),
    ("an item with line ends of chunks", CHUNKED + b"4\r\n\r\n\r\n\r\n", b"\r\n\r\n", "chunked"),
    ("names in lower case", head(b"transfer-encoding: chunked") + CHUNK, ITEM, "chunked"),
    ("names in upper case", head(b"TRANSFER-ENCODING:CHUNKED") + CHUNK, ITEM, "chunked"),
    ("blanks", head(b"Transfer-Encoding: \t chunked \t") + CHUNK, ITEM, "chunked"),
    ("chunked, another minor version", head(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK") + CHUNK, ITEM,
     "chunked"),
    ("plain", PLAIN + ITEM, ITEM, "plain"),
    ("plain HTTP/1.0", head(b"Content-Type: text/event-stream", status=b"HTTP/1.0 200 OK") + ITEM, ITEM, "plain"),
    ("a head without fields", b"HTTP/1.1 200 OK\r\n\r\n" + ITEM, ITEM, "plain"),
    ("another field that ends like one", head(b"X-Content-Length: 5", b"X-Transfer-Encoding: gzip") + ITEM, ITEM,
     "plain"),
    ("a value that looks like a field", head(b"X-Note: Content-Length: 5") + ITEM, ITEM, "plain"),
    ("a length", head(b"Content-Length: 18") + ITEM, ITEM, ""),
    ("a length in lower case", head(b"content-length:18") + ITEM, ITEM, ""),
    ("a length in chunks", head(b"Transfer-Encoding: chunked", b"Content-Length: 18") + CHUNK, ITEM, ""),
    ("gzip and chunked", head(b"Transfer-Encoding: gzip, chunked") + CHUNK, ITEM, ""),
    ("identity", head(b"Transfer-Encoding: identity") + ITEM, ITEM, ""),
    ("announced as chunked and sent plain", CHUNKED + ITEM, ITEM, ""),
    ("announced as plain and sent in a chunk", PLAIN + CHUNK, ITEM, ""),
    ("compressed", PLAIN + gzip.compress(ITEM), ITEM, ""),
    ("compressed in a chunk", CHUNKED + b"%x\r\n%b\r\n" % (len(gzip.compress(ITEM)), gzip.compress(ITEM)), ITEM, ""),
    ("changed", PLAIN + ITEM.upper(), ITEM, ""),
    ("changed in a chunk", CHUNKED + b"12\r\n" + ITEM.upper() + b"\r\n", ITEM, ""),
    ("two chunks", CHUNKED + b"9\r\n" + ITEM[:9] + b"\r\n9\r\n" + ITEM[9:] + b"\r\n", ITEM, ""),
    ("a chunk more", CHUNKED + CHUNK + b"1\r\nx\r\n", ITEM, ""),
    ("the last chunk as well", CHUNKED + CHUNK + b"0\r\n\r\n", ITEM, ""),
    ("an extension", CHUNKED + b"12;a=b\r\n" + ITEM + b"\r\n", ITEM, ""),
    ("a wrong size", CHUNKED + b"13\r\n" + ITEM + b"\r\n", ITEM, ""),
    ("no size", CHUNKED + b"\r\n" + ITEM + b"\r\n", ITEM, ""),
    ("a size that is none", CHUNKED + b"xy\r\n" + ITEM + b"\r\n", ITEM, ""),
    ("a part of the chunk", CHUNKED + CHUNK[:-1], ITEM, ""),
    ("no body yet, chunked", CHUNKED, ITEM, ""),
    ("no body yet, plain", PLAIN, ITEM, ""),
    ("a part of the body", PLAIN + ITEM[:-1], ITEM, ""),
    ("more than the body", PLAIN + ITEM + b"x", ITEM, ""),
    ("the item twice", PLAIN + ITEM + ITEM, ITEM, ""),
    ("a part of the head", PLAIN[:-2], ITEM, ""),
    ("an interim response before", b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + CHUNK, ITEM, ""),
    ("nothing", b"", ITEM, ""),
    ("HTTP/2", b"\x00\x00\x12\x00\x00\x00\x00\x00\x01" + ITEM, ITEM, ""),
    ("HTTP/0.9", ITEM, ITEM, ""),
    ("TLS", b"\x17\x03\x03\x00\x20" + bytes(range(32)), ITEM, ""),
    ("garbage", bytes(range(256)) * 4, ITEM, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "item", "expected"), [case[1:] for case in FRAMINGS], ids=[case[0] for case in FRAMINGS]
)
def test_how_an_item_was_sent_is_seen_in_what_was_written(written: bytes, item: bytes, expected: str) -> None:
    assert framing(written, item) == expected


@pytest.mark.parametrize("response", [CHUNKED + CHUNK, PLAIN + ITEM], ids=["chunked", "plain"])
def test_only_the_whole_of_it_will_do(response: bytes) -> None:
    assert framing(response, ITEM)
    for length in range(len(response)):
        assert framing(response[:length], ITEM) == ""


# The takeover.


@pytest.fixture(params=["TCP", "Unix"])
def connection(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end, and the client's."""
    server, client = tcp_pair() if request.param == "TCP" else socket.socketpair()
    for each in (server, client):
        each.settimeout(PATIENCE)
    with server, client:
        yield server, client


@pytest.fixture
def server(connection: tuple[socket.socket, socket.socket]) -> socket.socket:
    return connection[0]


@pytest.fixture
def client(connection: tuple[socket.socket, socket.socket]) -> socket.socket:
    return connection[1]


def has_nothing(client: socket.socket) -> bool:
    """Whether nothing has arrived, not even the end."""
    return not select.select([client], [], [], 0)[0]


def test_what_the_server_writes_comes_here_and_not_to_the_client(server: socket.socket, client: socket.socket) -> None:
    with contextlib.closing(Takeover(server)) as takeover:
        assert takeover.written() == b""
        server.sendall(b"HTTP/1.1 ")
        server.sendall(b"200 OK")
        assert takeover.written() == b"HTTP/1.1 200 OK"
        assert takeover.written() == b""
        server.sendall(b"!")
        assert takeover.written() == b"!"
        assert has_nothing(client)
        assert not takeover.taken


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072])
def test_much_that_was_written_comes_as_a_whole(server: socket.socket, size: int) -> None:
    with contextlib.closing(Takeover(server)) as takeover:
        data = os.urandom(size)
        server.sendall(data)
        assert takeover.written() == data


def test_undoing_it_gives_the_server_its_client_back(server: socket.socket, client: socket.socket) -> None:
    number = server.fileno()
    takeover = Takeover(server)
    server.sendall(b"not this")
    client.sendall(b"request")
    takeover.close()
    assert server.fileno() == number
    server.sendall(b"this")
    assert read_exactly(client, 4) == b"this"
    assert read_exactly(server, 7) == b"request"
    assert server.getpeername() == client.getsockname()


def test_undoing_it_again_changes_nothing(server: socket.socket, client: socket.socket) -> None:
    takeover = Takeover(server)
    takeover.close()
    with contextlib.suppress(OSError):
        takeover.close()
    server.sendall(b"x")
    assert client.recv(2) == b"x"


@pytest.mark.parametrize("timeout", [None, 0.0, PATIENCE], ids=["blocking", "not blocking", "with a time-out"])
def test_the_server_finds_its_socket_blocking_as_it_was(server: socket.socket, timeout: float | None) -> None:
    server.settimeout(timeout)
    before = os.get_blocking(server.fileno())
    Takeover(server).close()
    assert (server.gettimeout(), os.get_blocking(server.fileno())) == (timeout, before)


def test_who_takes_it_writes_to_the_client(server: socket.socket, client: socket.socket) -> None:
    with contextlib.closing(Takeover(server)) as takeover:
        server.sendall(b"head")
        written = takeover.written()
        descriptor = takeover.take()
        assert takeover.taken
        with socket.socket(fileno=descriptor) as taken:
            taken.send(written + b", body")
            assert read_exactly(client, 10) == b"head, body"
            client.sendall(b"answer")
            taken.settimeout(PATIENCE)
            assert read_exactly(taken, 6) == b"answer"


def write_for_ever(descriptor: int) -> None:
    while True:
        os.write(descriptor, b"x" * 65536)


def test_what_was_taken_does_not_block(server: socket.socket) -> None:
    server.settimeout(None)
    with contextlib.closing(Takeover(server)) as takeover:
        descriptor = takeover.take()
        try:
            assert not os.get_blocking(descriptor)
            with pytest.raises(BlockingIOError):
                os.read(descriptor, 1)
            with pytest.raises(BlockingIOError):
                write_for_ever(descriptor)
        finally:
            os.close(descriptor)


def test_nothing_that_the_server_still_does_reaches_the_client(server: socket.socket, client: socket.socket) -> None:
    takeover = Takeover(server)
    descriptor = takeover.take()
    server.sendall(b"0\r\n\r\n")
    server.shutdown(socket.SHUT_WR)
    takeover.close()
    assert server.recv(1) == b""
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()
    assert has_nothing(client)
    os.write(descriptor, b"mine")
    assert read_exactly(client, 4) == b"mine"
    os.close(descriptor)
    assert client.recv(1) == b""


def test_the_server_reads_the_end_when_its_client_was_taken(server: socket.socket, client: socket.socket) -> None:
    client.sendall(b"another request")
    takeover = Takeover(server)
    descriptor = takeover.take()
    takeover.close()
    assert server.recv(100) == b""
    assert os.read(descriptor, 100) == b"another request"
    os.close(descriptor)


@pytest.mark.parametrize("unread", [b"", b"0\r\n\r\n"])
def test_the_server_reads_the_end_and_no_reset_after_all_is_over(server: socket.socket, unread: bytes) -> None:
    takeover = Takeover(server)
    os.close(takeover.take())
    if unread:
        server.sendall(unread)
    takeover.close()
    assert server.recv(1) == b""


@pytest.mark.parametrize("take", [False, True], ids=["undone", "taken"])
def test_no_descriptor_is_left(server: socket.socket, client: socket.socket, take: bool) -> None:
    before = open_descriptors()
    takeover = Takeover(server)
    server.sendall(b"x")
    if take:
        descriptor = takeover.take()
        takeover.close()
        server.close()
        os.close(descriptor)
        gone = [each for each in before if each not in open_descriptors()]
        assert len(gone) == 1  # the server's own
        assert open_descriptors() < before
    else:
        takeover.close()
        assert open_descriptors() == before


def test_no_descriptor_goes_to_programs_that_are_started_meanwhile(server: socket.socket) -> None:
    before = open_descriptors()
    takeover = Takeover(server)

    def new() -> list[int]:
        return [int(each.split()[0]) for each in open_descriptors() - before]

    assert len(new()) == 3  # the client, our end, and the stand-in at the server's own number
    assert not any(map(os.get_inheritable, new()))
    takeover.close()
    assert not os.get_inheritable(server.fileno())


def test_a_client_that_has_reset_is_no_obstacle() -> None:
    server, client = tcp_pair()
    with server:
        takeover = Takeover(server)
        reset(client)
        server.sendall(b"head")
        assert takeover.written() == b"head"
        os.close(takeover.take())
        takeover.close()


@pytest.mark.parametrize("timeout", [None, 2 * PATIENCE], ids=["none", "some"])
def test_what_it_does_waits_for_nothing_whatever_time_out_sockets_have(
    server: socket.socket, client: socket.socket, timeout: float | None
) -> None:
    with default_timeout(timeout):
        takeover = Takeover(server)
        assert takeover.written() == b""
        server.sendall(b"head")
        assert takeover.written() == b"head"
        assert takeover.written() == b""
        os.close(takeover.take())
        takeover.close()


def test_a_server_that_writes_more_than_fits_or_reads_fails_instead_of_waiting_for_ever(server: socket.socket) -> None:
    server.settimeout(None)
    with contextlib.closing(Takeover(server)):
        with pytest.raises(BlockingIOError):
            server.recv(1)
        with pytest.raises(BlockingIOError):
            server.sendall(bytes(10_000_000))


# Letting go.


@pytest.mark.parametrize("written", [b"", b"head"])
def test_whoever_abandons_it_ends_the_connection_after_what_was_written(
    server: socket.socket, client: socket.socket, written: bytes
) -> None:
    before = open_descriptors()
    takeover = Takeover(server)
    place = os.fstat(server.fileno()).st_ino
    server.sendall(written)
    takeover.abandon()
    assert os.fstat(server.fileno()).st_ino == place
    assert read_to_end(client) == written
    server.close()
    assert open_descriptors() < before


def test_abandoning_it_after_the_connection_was_taken_leaves_that_alone(
    server: socket.socket, client: socket.socket
) -> None:
    takeover = Takeover(server)
    descriptor = takeover.take()
    takeover.abandon()
    os.write(descriptor, b"mine")
    assert read_exactly(client, 4) == b"mine"
    os.close(descriptor)


# Without descriptors.


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_enough_descriptors_nothing_has_changed(
    connection: tuple[socket.socket, socket.socket], left: int
) -> None:
    server, client = connection
    before = open_descriptors()
    with only_so_many_left(left):
        with pytest.raises(OSError, match="Too many open files") as caught:
            Takeover(server)
        assert caught.value.errno == errno.EMFILE
    assert open_descriptors() == before
    server.sendall(b"as before")
    assert read_exactly(client, 9) == b"as before"
    client.sendall(b"too")
    assert read_exactly(server, 3) == b"too"


def test_three_descriptors_are_enough_and_taking_needs_none(server: socket.socket) -> None:
    with only_so_many_left(3):
        takeover = Takeover(server)
        descriptor = takeover.take()
        takeover.close()
        os.close(descriptor)


@contextlib.contextmanager
def only_so_many_left(count: int) -> Iterator[None]:
    """Use up the descriptors of a low limit, but for so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.split()[0]) for each in open_descriptors())
    filler: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                filler.append(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 0))
        for _ in range(count):
            os.close(filler.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filler:
            os.close(descriptor)


def test_a_socket_that_is_closed_already_is_refused_and_nothing_is_left(server: socket.socket) -> None:
    server.close()
    before = open_descriptors()
    with pytest.raises(OSError, match="Bad file descriptor"):
        Takeover(server)
    assert open_descriptors() == before


def test_undoing_it_after_the_server_has_closed_its_socket_spares_whoever_has_its_number_now(
    server: socket.socket, client: socket.socket
) -> None:
    """Else one client's data would go to another one."""
    takeover = Takeover(server)
    number = server.fileno()
    server.close()
    other, other_client = tcp_pair()
    with other_client:
        os.dup2(other.fileno(), number, inheritable=False)  # as accepting the next connection would
        other.close()
        with socket.socket(fileno=number) as next_one:
            takeover.close()
            next_one.sendall(b"secret")
            assert read_exactly(other_client, 6) == b"secret"
            assert client.recv(6) == b""
