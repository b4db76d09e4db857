"""A man in the middle of a session that LISTENs, who takes its notifications away and leaves everything else alone."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import IO
from urllib.parse import urlsplit

from .ports import LOOPBACK

_NOTIFICATION, _READY = b"A", b"Z"
_LONG = 20.0


class Deafening:
    """Passes sessions on to a server, as poolers do. `inject` is for the last one of them that LISTENed.

    The threads end with the connections, and the connections with the `with` block.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._door = socket.create_server((LOOPBACK, 0), backlog=64)
        self._sockets = [self._door]
        self._swallowing = threading.Event()
        self._dropping = threading.Event()
        self._listening: socket.socket | None = None
        self._changed = threading.Condition()
        """Guards `_asked`, and sending to the servers: a query that is injected comes between two of the client's."""
        self._asked: set[socket.socket] = set()
        """The sessions that have not answered their client's last query yet."""

    @property
    def url(self) -> str:
        """The same database, through this."""
        netloc = f"{self._parts.username}@{LOOPBACK}:{self._door.getsockname()[1]}"
        return self._parts._replace(netloc=netloc, query="sslmode=disable&gssencmode=disable").geturl()

    def inject(self, query: str) -> None:
        """Have the listening session execute a query that its client knows nothing of."""
        body = query.encode() + b"\0"
        with self._changed:
            assert self._listening is not None
            assert self._changed.wait_for(lambda: self._listening not in self._asked, _LONG)
            self._swallowing.set()
            self._listening.sendall(b"Q" + (len(body) + 4).to_bytes(4, "big") + body)

    def drop_notifications(self) -> None:
        """No notification passes any more, to no client; answers do."""
        self._dropping.set()

    def __enter__(self) -> Deafening:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
                server = socket.create_connection((str(self._parts.hostname), self._parts.port or 0))
            except OSError:
                return
            self._sockets += [client, server]
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while part := client.recv(65_536):
                with self._changed:
                    if b"LISTEN" in part:
                        self._listening = server
                    self._asked.add(server)
                    server.sendall(part)
            server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        answers: IO[bytes] = server.makefile("rb")
        try:
            while kind := answers.read(1):
                size = answers.read(4)
                body = answers.read(int.from_bytes(size, "big") - 4)
                if kind == _READY and not self._swallowing.is_set():
                    with self._changed:
                        self._asked.discard(server)
                        self._changed.notify_all()
                if self._swallowing.is_set() and server is self._listening:
                    if kind == _READY:
                        self._swallowing.clear()
                elif kind != _NOTIFICATION or not self._dropping.is_set():
                    client.sendall(kind + size + body)
            client.shutdown(socket.SHUT_RDWR)
        except (OSError, ValueError):
            pass
