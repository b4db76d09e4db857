"""The client's socket under a WSGI response, where the server lets an application have it."""

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
"""Milliseconds that a socket option can hold."""

# That the client has ended what it sends; nothing where the system can't tell (macOS).
_ENDED = getattr(select, "POLLRDHUP", 0)


def server_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """The client's connection, where the server gives it to the application."""
    found = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return found if isinstance(found, socket.socket) else None


_serving = threading.local()
_threads_are_told = False


def set_request(request: Any) -> None:
    """Tell which request of the server's own making this thread answers from now on: its hooks do."""
    global _threads_are_told
    _serving.request = request
    _threads_are_told = True


def serves_requests() -> bool:
    """Whether this thread is one of the server's: true as well where no hook tells which are."""
    return not _threads_are_told or hasattr(_serving, "request")


def close_after_response() -> None:
    """Have the server close its connection after the response that this thread gives, where it can be told so.

    Called before the head is written, which tells the client then. gunicorn (25 or newer) closes such a connection in
    its main thread, and waits there, 2 s at most, until the client has closed it, too: see `stop_reading`.
    """
    force_close = getattr(getattr(_serving, "request", None), "force_close", None)
    if force_close is not None:
        force_close()


def end_after_response(environ: Mapping[str, Any]) -> None:
    """Have the server close the client's connection after this response, and wait for nothing then.

    For a response that ends at once, such as a refusal, in the server's thread, before the head is written.
    """
    close_after_response()
    stop_reading(server_socket(environ))


def stop_reading(connection: socket.socket | None) -> None:
    """End what comes from the client: a server that is about to close the connection need not wait for more of it.

    What has arrived can still be read, and everything be written. Not below TLS, whose own end would be missing then.
    """
    if type(connection) is socket.socket:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RD)


def has_vanished(error: BaseException | None) -> bool:
    """Whether a connection failed because the client acknowledged nothing (TCP_USER_TIMEOUT), or its
    network said meanwhile that it is not there."""
    return isinstance(error, OSError) and error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


class ClientSocket:
    """What a stream does with its client's socket besides writing, which the server does.

    Servers that give no socket get a ClientSocket as well, whose methods do nothing. Every method
    may be called from any thread, and never waits.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._socket = server_socket(environ)

    def limit_silence(self, seconds: float) -> None:
        """Have the kernel give up a client that has acknowledged nothing for so long.

        A client that vanishes without a FIN, or stops reading, holds its thread for many minutes
        otherwise (TCP_USER_TIMEOUT, RFC 5482; Linux has it, elsewhere nothing is set).
        """
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is None or self._socket is None:
            return
        milliseconds = round(min(seconds * 1000, _LONGEST))
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, milliseconds)

    def send_at_once(self) -> None:
        """Have the kernel wait for nothing before it sends a small event (TCP_NODELAY)."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is no TCP socket
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def has_left(self) -> bool:
        """Whether the client has closed its side, as one does that leaves a page.

        Bytes that nobody has read may stand before that end: a close_notify of TLS, a GOAWAY of HTTP/2, a further
        request. So the kernel is asked for the end itself, where it can tell; elsewhere they hide it.
        """
        if self._socket is None:
            return False
        try:
            # Asked first, since `recv` of a socket with a time-out waits, whatever its flags.
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | _ENDED)
            happened = poll.poll(0)
            if not happened:
                return False
            if happened[0][1] & (_ENDED | select.POLLHUP | select.POLLERR):
                return True
            # Of the socket itself: a TLS socket's own method would decrypt, and refuses flags.
            return not socket.socket.recv(self._socket, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (OSError, ValueError):  # ValueError: it is closed, and has no descriptor
            return True

    def stop_reading(self) -> None:
        """See the function of this name."""
        stop_reading(self._socket)

    def cut(self) -> None:
        """End the connection, so that a thread which writes to it gets an error at once."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Of the socket itself: a TLS socket's own method would go on in clear text.
                socket.socket.shutdown(self._socket, how)
