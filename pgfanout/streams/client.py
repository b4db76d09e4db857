"""The client's socket of a WSGI request, if the server gives it to the application."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
from collections.abc import Mapping
from typing import Any

__all__ = [
    "ClientSocket",
    "close_after_response",
    "end_after_response",
    "has_vanished",
    "server_socket",
    "serves_requests",
    "set_request",
    "stop_reading",
]

_LONGEST = 2**31 - 1
"""The most milliseconds that a socket option can hold."""

# The poll event for a client that has closed its side. 0 where the system has none (macOS).
_ENDED = getattr(select, "POLLRDHUP", 0)


def server_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the client's socket if the server gives it to the application."""
    found = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return found if isinstance(found, socket.socket) else None


_serving = threading.local()
_threads_are_told = False


def set_request(request: Any) -> None:
    """Set the server's own request object that this thread answers from now on. Called by the server's hooks."""
    global _threads_are_told
    _serving.request = request
    _threads_are_told = True


def serves_requests() -> bool:
    """Whether this thread is the server's. Also true if no hook ever called `set_request`."""
    return not _threads_are_told or hasattr(_serving, "request")


def close_after_response() -> None:
    """Have the server close its connection after this thread's response, if the server supports that.

    Call it before the head is written, which then tells the client. gunicorn (25 or newer) closes such a connection in
    its main thread, and blocks there for up to 2 s until the client has closed it, too: see `stop_reading`.
    """
    force_close = getattr(getattr(_serving, "request", None), "force_close", None)
    if force_close is not None:
        force_close()


def end_after_response(environ: Mapping[str, Any]) -> None:
    """Have the server close the client's connection after this response, without waiting for the client.

    For a response that ends at once, such as a refusal. Call it in the server's thread before the head is written.
    """
    close_after_response()
    stop_reading(server_socket(environ))


def stop_reading(connection: socket.socket | None) -> None:
    """Shut down reading from the client, so that a server that closes the connection need not wait for more data.

    Data that has arrived can still be read, and writing goes on. Does nothing under TLS, where close_notify would be
    missing.
    """
    if type(connection) is socket.socket:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RD)


def has_vanished(error: BaseException | None) -> bool:
    """Whether a connection failed because the client acknowledged nothing (TCP_USER_TIMEOUT) or is unreachable."""
    return isinstance(error, OSError) and error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


class ClientSocket:
    """What a stream does with its client's socket besides writing, which the server does.

    If the server gives no socket, the methods do nothing. Any thread may call them. They never block.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._socket = server_socket(environ)

    def limit_silence(self, seconds: float) -> None:
        """Have the kernel drop a client that acknowledges nothing for this time.

        Otherwise a client that vanishes without a FIN, or stops reading, keeps its thread for many minutes. This sets
        TCP_USER_TIMEOUT (RFC 5482) on Linux and does nothing elsewhere.
        """
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is None or self._socket is None:
            return
        milliseconds = round(min(seconds * 1000, _LONGEST))
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, milliseconds)

    def send_at_once(self) -> None:
        """Have the kernel send small events without delay (TCP_NODELAY)."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is no TCP socket
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def has_left(self) -> bool:
        """Whether the client has closed its side, as browsers do when the user leaves the page.

        Unread bytes may precede the end: a close_notify of TLS, a GOAWAY of HTTP/2, a further request. So ask the
        kernel for the end itself. Where the kernel can't tell, such bytes hide the end.
        """
        if self._socket is None:
            return False
        try:
            # Poll first, since `recv` blocks on a socket with a time-out, whatever its flags.
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | _ENDED)
            happened = poll.poll(0)
            if not happened:
                return False
            if happened[0][1] & (_ENDED | select.POLLHUP | select.POLLERR):
                return True
            # The base class's method: that of a TLS socket would decrypt, and refuses flags.
            return not socket.socket.recv(self._socket, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (OSError, ValueError):  # ValueError: it is closed, and has no descriptor
            return True

    def stop_reading(self) -> None:
        """Call the function `stop_reading` on the socket."""
        stop_reading(self._socket)

    def cut(self) -> None:
        """Shut the connection down, so that a thread that writes to it gets an error at once."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # The base class's method: that of a TLS socket would continue in clear text.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
