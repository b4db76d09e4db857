"""Poller: what happens to the sockets of connections."""

from __future__ import annotations

import select
from contextlib import suppress
from typing import Final

from .connection import Connection

__all__ = ["LEFT", "READY", "SENT", "Poller"]

# Where there is no epoll nothing is detached, but the module has to be importable.
LEFT: Final = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)
READY: Final = getattr(select, "EPOLLOUT", 0)
SENT: Final = getattr(select, "EPOLLIN", 0)

_WATCHED = getattr(select, "EPOLLRDHUP", 0) | SENT


class Poller:
    """Waits for the mailbox and for all sockets. `watch` and `unwatch` are for any thread.

    Raises `OSError` when there is no descriptor left for it.
    """

    def __init__(self, wake_descriptor: int) -> None:
        self._poll = select.epoll()
        self._poll.register(wake_descriptor, SENT)

    def watch(self, connection: Connection) -> None:
        """Have what happens to a connection end the wait, from now on. Raises `OSError`."""
        connection.blocked = bool(connection.rest)
        self._poll.register(connection.descriptor, _WATCHED | READY if connection.rest else _WATCHED)

    def watch_room(self, connection: Connection) -> None:
        """Have room in its socket end the wait as long as there is something left for it. Raises `OSError`."""
        if bool(connection.rest) != connection.blocked:
            connection.note_blocked()
            self._poll.modify(connection.descriptor, _WATCHED | READY if connection.blocked else _WATCHED)

    def unwatch(self, connection: Connection) -> None:
        """Undo `watch`: a forked child may have the descriptor, so closing it would not be enough."""
        with suppress(OSError):
            self._poll.unregister(connection.descriptor)

    def wait(self, pause: float | None) -> list[tuple[int, int]]:
        """Wait so many seconds, or for ever, until something happens. Return what has, by descriptors."""
        return self._poll.poll(pause)

    def close(self) -> None:
        """Watch nothing any more. Nothing happens to the sockets."""
        self._poll.close()
