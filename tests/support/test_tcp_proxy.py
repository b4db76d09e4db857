"""The TCP proxy: what passes, when, and what doesn't."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.ports import LOOPBACK, free_port
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import eventually

# Private members: what the proxy holds back shows nowhere else.

LONG = 20.0
SHORT = 0.2  # how long silence is watched; a noisy machine makes it longer, never wrong


class Upstream:
    """A listening socket, with the connections that it took."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._listener = self._stack.enter_context(socket.create_server((LOOPBACK, 0)))
        self._listener.settimeout(LONG)
        self.port: int = self._listener.getsockname()[1]

    def accept(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(LONG)
        return self._stack.enter_context(connection)

    def connect(self, proxy: TcpProxy) -> socket.socket:
        """A client of the proxy."""
        return self._stack.enter_context(socket.create_connection(proxy.address, timeout=LONG))

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with contextlib.closing(Upstream()) as upstream:
        yield upstream


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[TcpProxy]:
    with TcpProxy(LOOPBACK, upstream.port) as proxy:
        yield proxy


@pytest.fixture
def client(upstream: Upstream, proxy: TcpProxy) -> socket.socket:
    return upstream.connect(proxy)


@pytest.fixture
def server(upstream: Upstream, client: socket.socket) -> socket.socket:
    """The other end of `client`."""
    return upstream.accept()


def receive(end: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer at the end."""
    content = bytearray()
    while len(content) < size and (chunk := end.recv(size - len(content))):
        content += chunk
    return bytes(content)


def is_silent(end: socket.socket) -> bool:
    end.settimeout(SHORT)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(LONG)
    return False


def test_bytes_pass_in_both_directions(client: socket.socket, server: socket.socket) -> None:
    client.sendall(b"question")
    assert receive(server, 8) == b"question"
    server.sendall(b"answer")
    assert receive(client, 6) == b"answer"


def test_a_slow_reader_makes_the_sender_wait_and_loses_nothing(client: socket.socket, server: socket.socket) -> None:
    content = bytes(range(256)) * 200_000  # more than the proxy and the kernel hold
    sender = threading.Thread(target=server.sendall, args=(content,))
    sender.start()
    sender.join(SHORT)
    assert sender.is_alive()
    assert receive(client, len(content)) == content
    sender.join(LONG)


def test_a_half_close_is_passed_on_and_the_other_direction_goes_on(
    proxy: TcpProxy, client: socket.socket, server: socket.socket
) -> None:
    client.sendall(b"all of it")
    client.shutdown(socket.SHUT_WR)
    assert receive(server, 100) == b"all of it"
    server.sendall(b"thanks")
    assert receive(client, 6) == b"thanks"
    assert proxy.connections == 1
    server.close()
    assert receive(client, 1) == b""
    eventually(lambda: proxy.connections == 0)


def test_a_reset_is_passed_on(proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    eventually(lambda: proxy.connections == 0)


def test_cut_resets_both_sides_of_every_connection(
    proxy: TcpProxy, upstream: Upstream, client: socket.socket, server: socket.socket
) -> None:
    more = [upstream.connect(proxy) for _ in range(3)]
    proxy.cut()
    assert proxy.connections == 0
    for end in (client, server, *more):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    upstream.connect(proxy).sendall(b"again")


def test_nothing_passes_while_it_is_frozen_and_everything_afterwards(
    proxy: TcpProxy, client: socket.socket, server: socket.socket
) -> None:
    proxy.freeze()
    client.sendall(b"question")
    server.sendall(b"answer")
    server.shutdown(socket.SHUT_WR)
    assert is_silent(client)
    assert is_silent(server)
    proxy.heal()
    assert receive(client, 100) == b"answer"
    assert receive(server, 8) == b"question"


def test_a_connection_made_while_it_is_frozen_is_silent_and_works_afterwards(
    proxy: TcpProxy, upstream: Upstream
) -> None:
    proxy.freeze()
    client = upstream.connect(proxy)
    client.sendall(b"hello")
    assert is_silent(client)
    proxy.heal()
    server = upstream.accept()
    assert receive(server, 5) == b"hello"


def test_a_cut_works_on_what_is_frozen(proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
    proxy.freeze()
    proxy.cut()
    for end in (client, server):
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_delayed_chunks_come_later_and_in_order_with_the_end_after_them(
    proxy: TcpProxy, client: socket.socket, server: socket.socket
) -> None:
    proxy.delay(0.3)
    began = time.monotonic()
    for chunk in (b"one ", b"two ", b"three"):
        client.sendall(chunk)
    client.shutdown(socket.SHUT_WR)
    assert receive(server, 4) == b"one "
    assert time.monotonic() - began >= 0.3
    assert receive(server, 100) == b"two three"


def test_healing_passes_on_what_is_delayed(proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
    proxy.delay(1000)
    client.sendall(b"late")
    assert is_silent(server)
    proxy.heal()
    assert receive(server, 4) == b"late"
    client.sendall(b"soon")
    assert receive(server, 4) == b"soon"


def test_healing_passes_on_what_is_dribbled(proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
    proxy.dribble(1, 1000)
    client.sendall(b"late")
    assert receive(server, 1) == b"l"
    assert is_silent(server)
    proxy.heal()
    assert receive(server, 3) == b"ate"


def test_a_change_of_the_delay_leaves_what_is_delayed_in_its_place(
    proxy: TcpProxy, client: socket.socket, server: socket.socket
) -> None:
    proxy.delay(SHORT)
    client.sendall(b"first ")
    eventually(lambda: any(link.up.held for link in proxy._links))
    proxy.delay(0)
    client.sendall(b"second")
    assert receive(server, 12) == b"first second"


def test_dribbled_bytes_come_in_pieces_with_pauses(
    proxy: TcpProxy, client: socket.socket, server: socket.socket
) -> None:
    proxy.dribble(7, 0.05)
    began = time.monotonic()
    client.sendall(b"0123456789" * 5)
    client.shutdown(socket.SHUT_WR)
    pieces = []
    while piece := server.recv(100):
        pieces.append(piece)
    assert b"".join(pieces) == b"0123456789" * 5
    assert time.monotonic() - began >= 0.05 * 7
    assert len(pieces[0]) == 7


def test_dribbling_without_a_pause_passes_everything(
    proxy: TcpProxy, client: socket.socket, server: socket.socket
) -> None:
    proxy.dribble(7, 0.0)
    client.sendall(b"0123456789" * 1000)
    assert receive(server, 10_000) == b"0123456789" * 1000


def test_new_connections_are_refused_while_open_ones_go_on(
    proxy: TcpProxy, upstream: Upstream, client: socket.socket, server: socket.socket
) -> None:
    proxy.refuse()
    assert upstream.connect(proxy).recv(1) == b""
    client.sendall(b"still here")
    assert receive(server, 10) == b"still here"
    proxy.heal()
    upstream.connect(proxy).sendall(b"back")
    assert receive(upstream.accept(), 4) == b"back"


def test_what_the_server_sends_is_corrupted_so_often_as_asked(
    proxy: TcpProxy, client: socket.socket, server: socket.socket
) -> None:
    proxy.corrupt(b"good", b"\xff\xfe\xfd\xfc", times=2)
    client.sendall(b"good")
    assert receive(server, 4) == b"good"
    server.sendall(b"a good good good day")
    assert receive(client, 20) == b"a \xff\xfe\xfd\xfc \xff\xfe\xfd\xfc good day"


@pytest.mark.parametrize("size", range(1, 5))
def test_what_lies_across_the_borders_of_chunks_is_corrupted_too(
    proxy: TcpProxy, client: socket.socket, server: socket.socket, size: int
) -> None:
    proxy.corrupt(b"aab", b"xyz", times=2)
    content = b"aaab.aab.aab.aa"
    for at in range(0, len(content), size):
        server.sendall(content[at : at + size])
        eventually(lambda: all(link.down._size == 0 for link in proxy._links))
    assert receive(client, len(content)) == b"axyz.xyz.aab.aa"


@pytest.mark.parametrize("release", ["heal", "end", "other"])
def test_the_start_of_what_is_corrupted_is_not_lost_when_nothing_follows(
    proxy: TcpProxy, client: socket.socket, server: socket.socket, upstream: Upstream, release: str
) -> None:
    proxy.corrupt(b"word", b"WORD")
    server.sendall(b"a wor")
    assert receive(client, 2) == b"a "
    if release == "heal":
        proxy.heal()
    elif release == "end":
        server.shutdown(socket.SHUT_WR)
    else:
        upstream.connect(proxy)
        upstream.accept().sendall(b"word")
    assert receive(client, 3) == b"wor"


def test_new_connections_go_to_another_server_after_retarget(
    proxy: TcpProxy, upstream: Upstream, client: socket.socket, server: socket.socket
) -> None:
    with contextlib.closing(Upstream()) as other:
        proxy.retarget(LOOPBACK, other.port)
        other.connect(proxy).sendall(b"new")
        assert receive(other.accept(), 3) == b"new"
    client.sendall(b"old")
    assert receive(server, 3) == b"old"


def test_a_server_that_is_not_there_is_a_reset_for_the_client(proxy: TcpProxy, upstream: Upstream) -> None:
    proxy.retarget(LOOPBACK, free_port())
    with pytest.raises(ConnectionResetError):
        upstream.connect(proxy).recv(1)
    eventually(lambda: proxy.connections == 0)


def test_a_url_leads_through_the_proxy_with_everything_else_as_it_was() -> None:
    proxy = TcpProxy("192.0.2.1", 5432)
    there = proxy.through("postgresql://me:p%40ss@192.0.2.1:5432/base?connect_timeout=3")
    assert there == f"postgresql://me:p%40ss@{LOOPBACK}:{proxy.port}/base?connect_timeout=3"


def test_rules_set_before_the_start_hold_from_the_first_connection(upstream: Upstream) -> None:
    proxy = TcpProxy(LOOPBACK, upstream.port)
    proxy.refuse()
    with proxy:
        assert upstream.connect(proxy).recv(1) == b""


def test_closing_ends_the_thread_and_every_connection_and_may_be_repeated(
    proxy: TcpProxy, client: socket.socket, server: socket.socket
) -> None:
    proxy.freeze()
    proxy.close()
    proxy.close()
    assert (client.recv(1), server.recv(1)) == (b"", b"")
    assert not [thread for thread in threading.enumerate() if thread.name == f"tcp-proxy-{proxy.port}"]
    with pytest.raises(RuntimeError, match="closed"):
        proxy.heal()


def test_many_threads_may_change_it_at_once(proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
    changes: list[Callable[[], None]] = [proxy.freeze, proxy.heal, partial(proxy.delay, 0.01)]
    threads = [threading.Thread(target=lambda: [change() for change in changes * 20]) for _ in range(4)]
    for thread in threads:
        thread.start()
    client.sendall(b"x" * 10_000)
    for thread in threads:
        thread.join(LONG)
    proxy.heal()
    assert receive(server, 10_000) == b"x" * 10_000
