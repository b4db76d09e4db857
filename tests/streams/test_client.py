"""ClientSocket: what a stream does with the socket that a server shows."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from pgfanout.streams import client as client_module
from pgfanout.streams.client import ClientSocket, end_after_response, set_request

from ..support.detached import reset
from ..support.wait import eventually

PATIENCE = 20.0


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection: the server's and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname(), PATIENCE) as client:
            server, _ = listening.accept()
            with server:
                yield server, client


@pytest.fixture
def server(connection: tuple[socket.socket, socket.socket]) -> socket.socket:
    return connection[0]


@pytest.fixture
def client(connection: tuple[socket.socket, socket.socket]) -> socket.socket:
    return connection[1]


SERVERS = pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])


@SERVERS
def test_cutting_ends_both_directions(server: socket.socket, client: socket.socket, key: str) -> None:
    ClientSocket({key: server}).cut()
    assert client.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        server.sendall(b"x")


@SERVERS
def test_a_client_from_whom_nothing_is_expected_can_still_be_written_to(
    server: socket.socket, client: socket.socket, key: str
) -> None:
    ClientSocket({key: server}).stop_reading()
    assert server.recv(1) == b""
    server.sendall(b"x")
    assert client.recv(1) == b"x"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
@SERVERS
@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(30, 30_000), (0.25, 250), (0, 0), (1e12, 2**31 - 1), (float("inf"), 2**31 - 1)]
)
def test_a_silent_client_is_given_up_after_a_time(
    server: socket.socket, key: str, seconds: float, milliseconds: int
) -> None:
    ClientSocket({key: server}).limit_silence(seconds)
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
def test_a_time_that_the_system_does_not_know_sets_nothing(server: socket.socket) -> None:
    ClientSocket({"gunicorn.socket": server}).limit_silence(-1.0)
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


def test_a_system_without_the_option_sets_nothing(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    ClientSocket({"gunicorn.socket": server}).limit_silence(30)
    assert option is None or server.getsockopt(socket.IPPROTO_TCP, option) == 0


def test_a_socket_that_is_not_tcp_is_cut_all_the_same() -> None:
    server, client = socket.socketpair()
    with server, client:
        found = ClientSocket({"gunicorn.socket": server})
        found.limit_silence(30)
        found.cut()
        assert client.recv(1) == b""


@pytest.mark.parametrize("timeout", [None, 0.0, PATIENCE], ids=["blocking", "not blocking", "with a time-out"])
def test_who_is_there_has_not_left_and_who_has_closed_has(
    server: socket.socket, client: socket.socket, timeout: float | None
) -> None:
    server.settimeout(timeout)
    found = ClientSocket({"gunicorn.socket": server})
    assert found.has_left() is False
    client.shutdown(socket.SHUT_WR)
    server_sees_end(server)
    assert found.has_left() is True


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="this system does not tell the end apart from bytes")
@pytest.mark.parametrize("timeout", [None, 0.0, PATIENCE], ids=["blocking", "not blocking", "with a time-out"])
@pytest.mark.parametrize("leave", [lambda client: client.shutdown(socket.SHUT_WR), socket.socket.close, reset])
def test_who_leaves_after_sending_something_that_nobody_reads_has_left(
    server: socket.socket, client: socket.socket, leave: Callable[[socket.socket], object], timeout: float | None
) -> None:
    """A close_notify, a GOAWAY and a further request are such bytes."""
    client.sendall(b"GET")
    server_sees_end(server)
    server.settimeout(timeout)
    found = ClientSocket({"gunicorn.socket": server})
    assert found.has_left() is False
    leave(client)
    eventually(found.has_left, PATIENCE)


def test_where_the_system_cannot_tell_the_end_unread_bytes_hide_it(
    server: socket.socket, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_ENDED", 0)
    found = ClientSocket({"gunicorn.socket": server})
    assert found.has_left() is False
    client.sendall(b"GET")
    client.shutdown(socket.SHUT_WR)
    server_sees_end(server)
    assert found.has_left() is False
    server.recv(3)
    server_sees_end(server)
    assert found.has_left() is True


def server_sees_end(server: socket.socket) -> None:
    """Return when the end of what the client sends has arrived."""
    before = server.gettimeout()
    server.settimeout(PATIENCE)
    server.recv(1, socket.MSG_PEEK)
    server.settimeout(before)


def test_who_has_sent_something_has_not_left_and_it_can_still_be_read(
    server: socket.socket, client: socket.socket
) -> None:
    client.sendall(b"GET")
    server_sees_end(server)
    assert ClientSocket({"gunicorn.socket": server}).has_left() is False
    assert server.recv(3) == b"GET"


def test_who_has_reset_the_connection_has_left(server: socket.socket, client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with contextlib.suppress(ConnectionError):
        server_sees_end(server)
    assert ClientSocket({"gunicorn.socket": server}).has_left() is True


def test_whoever_was_at_a_closed_socket_has_left(server: socket.socket) -> None:
    found = ClientSocket({"gunicorn.socket": server})
    server.close()
    assert found.has_left() is True


def test_a_socket_that_is_closed_already_does_no_harm(server: socket.socket, client: socket.socket) -> None:
    found = ClientSocket({"gunicorn.socket": server})
    server.close()
    for method in (found.cut, found.stop_reading, lambda: found.limit_silence(30)):
        method()
    assert client.recv(1) == b""


@pytest.mark.parametrize("environ", [{}, {"gunicorn.socket": None}, {"werkzeug.socket": "no socket"}], ids=str)
def test_without_a_socket_there_is_nothing_to_do(environ: dict[str, object]) -> None:
    found = ClientSocket(environ)
    found.cut()
    found.stop_reading()
    found.limit_silence(30)
    assert found.has_left() is False


@pytest.fixture
def tls(server: socket.socket) -> Iterator[ssl.SSLSocket]:
    """The server's end, wrapped; no handshake is needed to see what becomes of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(server, server_side=True, do_handshake_on_connect=False) as wrapped:
        wrapped.settimeout(PATIENCE)
        yield wrapped


def everything(client: socket.socket) -> bytes:
    """What the server has sent until it ended the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(1000):
            received += chunk
    return received


def test_cutting_a_tls_connection_ends_it(tls: ssl.SSLSocket, client: socket.socket) -> None:
    ClientSocket({"gunicorn.socket": tls}).cut()
    assert client.recv(1) == b""


@pytest.mark.parametrize("method", [ClientSocket.cut, ClientSocket.stop_reading])
def test_nothing_leaves_a_tls_connection_in_clear_text(
    tls: ssl.SSLSocket, client: socket.socket, method: object
) -> None:
    assert callable(method)
    method(ClientSocket({"gunicorn.socket": tls}))
    client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        tls.sendall(b"secret")
    tls.close()
    assert b"secret" not in everything(client)


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="this system does not tell the end apart from bytes")
def test_leaving_below_tls_is_seen_behind_a_close_notify(tls: ssl.SSLSocket, client: socket.socket) -> None:
    found = ClientSocket({"gunicorn.socket": tls})
    client.sendall(b"\x15\x03\x03\x00\x02\x01\x00")  # an alert: close_notify
    socket.socket.recv(tls, 1, socket.MSG_PEEK)
    assert found.has_left() is False
    client.close()
    eventually(found.has_left, PATIENCE)


def test_leaving_is_seen_below_tls(tls: ssl.SSLSocket, client: socket.socket) -> None:
    found = ClientSocket({"gunicorn.socket": tls})
    assert found.has_left() is False
    client.shutdown(socket.SHUT_WR)
    socket.socket.recv(tls, 1, socket.MSG_PEEK)
    assert found.has_left() is True


class Request:
    """The server's own making."""

    closes = False

    def force_close(self) -> None:
        self.closes = True


@pytest.fixture
def request_of_the_server(monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.setattr(client_module, "_serving", threading.local())
    monkeypatch.setattr(client_module, "_threads_are_told", False)
    request = Request()
    set_request(request)
    return request


@SERVERS
def test_a_response_that_ends_at_once_ends_its_connection_and_the_server_waits_for_nothing(
    server: socket.socket, client: socket.socket, request_of_the_server: Request, key: str
) -> None:
    end_after_response({key: server})
    assert request_of_the_server.closes
    assert server.recv(1) == b""
    server.sendall(b"x")
    assert client.recv(1) == b"x"


def test_a_response_of_a_server_that_shows_nothing_of_itself_is_left_alone() -> None:
    end_after_response({})
