"""MemoryHub: a hub within one process, for tests and development."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import Any

from ..delivery.tail import BUFFER_BYTES
from ..hub import NotifyHub

__all__ = ["MemoryHub"]


class MemoryHub(NotifyHub):
    """Publishes to the subscriptions of the same process, with every check and limit of
    PostgreSQL's hub: what passes here passes there. There are no transactions, so `executor` is
    accepted and has no effect: an event is delivered at once.
    """

    def __init__(self, *, buffer_size: int = 32, buffer_bytes: int = BUFFER_BYTES) -> None:
        super().__init__(buffer_size=buffer_size, buffer_bytes=buffer_bytes)

    def _new_listener(self) -> _Listener:
        self._inbox: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
        return _Listener(self._inbox, self._listening, self._receive, self._pause)

    def _send(self, texts: Sequence[str], executor: Any) -> None:
        if self.listening:  # nobody has ever heard a notification that came before LISTEN
            self._inbox.put(texts)


class _Listener:
    """One thread hands everything on, so that all subscribers see one order."""

    def __init__(
        self,
        inbox: queue.SimpleQueue[Sequence[str] | None],
        listening: Callable[[], None],
        receive: Callable[[Sequence[str]], None],
        pause: Callable[[], float | None],
    ) -> None:
        self._inbox = inbox
        self._listening = listening
        self._receive = receive
        self._pause = pause

    def run(self) -> None:
        self._listening()
        while (texts := self._next()) is not None:
            self._receive(texts)

    def stop(self) -> None:
        self._inbox.put(None)

    def _next(self) -> Sequence[str] | None:
        try:
            return self._inbox.get(timeout=self._pause())
        except queue.Empty:
            return ()
