"""MemoryHub: a hub within one process, for tests and development."""

from __future__ import annotations

import functools
import logging
import queue
from collections.abc import Sequence
from functools import partial

from ..backend import Backend, Sink
from ..delivery.tail import BUFFER_BYTES
from ..executor import Executor, identify
from ..hub import NotifyHub
from ..payload import JsonDefault
from .after_commit import after_commit

__all__ = ["MemoryHub"]

logger = logging.getLogger("pgfanout")


class MemoryHub(NotifyHub):
    """Publishes to the subscriptions of the same process, with every check and limit of PostgreSQL's hub.

    An event is delivered at once, except in a transaction that the hub can see: that of an `executor` of SQLAlchemy or
    Django. Then it is delivered after the commit, and never after a rollback, also to a savepoint. Other executors are
    checked and not used.
    """

    def __init__(
        self,
        *,
        buffer_size: int = 32,
        buffer_bytes: int = BUFFER_BYTES,
        json_default: JsonDefault | None = None,
    ) -> None:
        super().__init__(_MemoryBackend, buffer_size=buffer_size, buffer_bytes=buffer_bytes, json_default=json_default)


class _MemoryBackend(Backend):
    one_process = True

    def __init__(self) -> None:
        self._listener: _Listener | None = None

    def new_listener(self, sink: Sink) -> _Listener:
        self._listener = _Listener(sink)
        return self._listener

    def send(self, texts: Sequence[str], executor: Executor | None) -> None:
        deliver = partial(self._deliver, texts)
        if executor is None:
            deliver()
        else:
            after_commit(*identify(executor), deliver)

    def _deliver(self, texts: Sequence[str]) -> None:
        if self._listener is not None:
            self._listener.hear(texts)
        else:
            _say_that_nobody_hears()
        self.sent(texts)


@functools.cache
def _say_that_nobody_hears() -> None:
    logger.info(
        "a memory hub has published an event, and nothing in this process has subscribed yet. Other processes can't: a"
        " job in a worker of its own needs a postgresql:// URL to reach pages"
    )


class _Listener:
    """One thread hands on all events, so that all subscribers see one order."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._inbox: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
        self._hears = False

    def run(self) -> None:
        self._hears = True
        self._sink.listening()
        while (texts := self._next()) is not None:
            self._sink.receive(texts)

    def hear(self, texts: Sequence[str]) -> None:
        """Take what was published. As with LISTEN, what came before `run` is not heard."""
        if self._hears:
            self._inbox.put(texts)

    def stop(self) -> None:
        self._inbox.put(None)

    def abandon(self) -> None:
        """There is no connection."""

    def _next(self) -> Sequence[str] | None:
        try:
            return self._inbox.get(timeout=self._sink.pause())
        except queue.Empty:
            return ()
