"""The load client against a server that says what a test wants: counts are right, however the bytes are cut."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.compiler import compile_program, missing_reason
from benchmarks.load import LoadClient, Opening
from tests.support.need import need

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = HEAD + b"Connection: close\r\n\r\n"
OPENING = b": open\n\n"


@pytest.fixture(scope="module")
def load_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = missing_reason()
    need(reason is None, str(reason))
    return compile_program("load", tmp_path_factory.mktemp("load"))


class Site:
    """Accepts connections and lets the test write to them."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []

    def accept(self, count: int, *texts: bytes) -> None:
        for index in range(count):
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert connection.recv(4096).endswith(b"\r\n\r\n")
            connection.sendall(texts[index % len(texts)])
            self.connections.append(connection)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    for connection in [*site.connections, site.listener]:
        connection.close()


def frame(number: int, published: int | None = None, end: bytes = b"\n", blank: bytes = b" ") -> bytes:
    data = b'data:%s{"n":%d,"t":%d,"x":"xx"}' % (blank, number, published or time.monotonic_ns())
    return end.join([b"id: abc", data, b"", b""])


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def opened(client: LoadClient, site: Site, count: int, *texts: bytes) -> Opening:
    client.start_opening(count)
    site.accept(count, *texts)
    return client.wait_until_open()


def test_counts_what_arrives(load_client: Path, site: Site) -> None:
    with LoadClient(load_client, site.port) as client:
        opening = opened(client, site, 3, CHUNKED + chunk(OPENING))
        assert (opening.streams, opening.refused) == (3, 0)
        client.start_window(2)
        then = time.monotonic_ns() - 50_000_000
        for connection in site.connections:
            connection.sendall(chunk(frame(1, then)) + chunk(frame(2, then)))
        window = client.end_window(5)
    assert window.complete
    assert (window.delivered, window.missing, window.duplicates, window.refreshes) == (6, 0, 0, 0)
    assert 50 <= window.p50 <= window.p99 <= window.max < 1000


def test_holes_repetitions_and_refreshes_are_told_apart(load_client: Path, site: Site) -> None:
    refresh = b"event: refresh\ndata: {}\n\n"
    with LoadClient(load_client, site.port) as client:
        opened(client, site, 2, CHUNKED + chunk(OPENING))
        client.start_window(10)
        one, other = site.connections
        one.sendall(chunk(b"".join(frame(n) for n in (1, 2, 5, 5, 4, 10))))  # 3 4 6 7 8 9 missing
        other.sendall(chunk(frame(1) + refresh + frame(4)))  # 2 3 5 6 7 8 9 10 missing
        window = client.end_window(0.5)
    assert not window.complete
    assert (window.delivered, window.missing, window.duplicates, window.refreshes) == (6, 14, 2, 1)


def test_the_event_with_number_0_counts_for_nothing(load_client: Path, site: Site) -> None:
    with LoadClient(load_client, site.port) as client:
        opened(client, site, 1, CHUNKED + chunk(OPENING))
        client.start_window(1)
        site.connections[0].sendall(chunk(frame(0) + frame(1) + frame(0)))
        window = client.end_window(5)
    assert (window.complete, window.delivered, window.missing, window.duplicates) == (True, 1, 0, 0)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("blank", [b" ", b""])
@pytest.mark.parametrize("seed", range(3))
def test_events_may_be_cut_anywhere(load_client: Path, site: Site, end: bytes, blank: bytes, seed: int) -> None:
    cut = random.Random(seed)
    frames = b"".join(frame(n, end=end, blank=blank) for n in range(1, 101))
    chunks, at = b"", 0
    while at < len(frames):
        size = cut.randint(1, 150)
        chunks += chunk(frames[at : at + size])
        at += size
    with LoadClient(load_client, site.port) as client:
        opened(client, site, 1, CHUNKED + chunk(OPENING))
        client.start_window(100)
        at = 0
        while at < len(chunks):
            size = cut.randint(1, 120)
            site.connections[0].sendall(chunks[at : at + size])
            at += size
            time.sleep(0.0005)
        window = client.end_window(5)
    assert (window.complete, window.delivered, window.missing, window.duplicates) == (True, 100, 0, 0)


def test_a_body_without_chunks(load_client: Path, site: Site) -> None:
    with LoadClient(load_client, site.port) as client:
        opened(client, site, 1, PLAIN + OPENING)
        client.start_window(3)
        site.connections[0].sendall(b"".join(frame(n) for n in (1, 2, 3)))
        window = client.end_window(5)
    assert (window.complete, window.delivered) == (True, 3)


def test_a_stream_that_ends_is_closed_and_what_it_lacks_missing(load_client: Path, site: Site) -> None:
    with LoadClient(load_client, site.port) as client:
        opened(client, site, 2, CHUNKED + chunk(OPENING))
        client.start_window(3)
        one, other = site.connections
        one.sendall(chunk(frame(1)) + b"0\r\n\r\n")
        other.sendall(chunk(b"".join(frame(n) for n in (1, 2, 3))))
        window = client.end_window(5)
    assert (window.streams, window.closed, window.delivered, window.missing) == (1, 1, 4, 2)


def test_who_gets_no_stream_is_refused_with_the_reason(load_client: Path, site: Site) -> None:
    with LoadClient(load_client, site.port) as client:
        full = CHUNKED + chunk(b"retry: 5000\n\n") + b"0\r\n\r\n"
        busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\nfull\n"
        whole = HEAD + b"Content-Length: 13\r\n\r\nretry: 5000\n\n"
        opening = opened(client, site, 4, full, busy, whole, CHUNKED + chunk(OPENING))
    assert opening.streams == 1
    assert opening.reasons == {"ended": 2, "status": 1}


def test_nobody_listens(load_client: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with LoadClient(load_client, port) as client:
        client.start_opening(300)
        opening = client.wait_until_open()
    assert (opening.streams, opening.reasons) == (0, {"refused": 300})
