"""What a test does inside a hub: it stands between the listener and the sink, or between `publish` and the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgfanout import NotifyHub
from pgfanout.hub import core_of

__all__ = ["replace_heartbeat", "replace_listening", "replace_send"]


def replace_listening(hub: NotifyHub, listening: Callable[[Callable[..., bool]], Any]) -> None:
    """Before the start: have the listener's word that it listens taken by a function, which is given the hub's own."""
    sink = core_of(hub).sink
    own = sink.listening
    sink.listening = lambda *session: bool(listening(lambda: own(*session)))  # type: ignore[method-assign]


def replace_heartbeat(hub: NotifyHub, heartbeat: Callable[[Callable[[], None]], Any]) -> None:
    """Before the start: have each heartbeat taken by a function, which is given the hub's own."""
    sink = core_of(hub).sink
    own = sink.heartbeat
    sink.heartbeat = lambda queue_usage: heartbeat(lambda: own(queue_usage))  # type: ignore[method-assign]


def replace_send(hub: NotifyHub, send: Callable[..., Any]) -> None:
    """Have what is published sent by a function, which is given the backend's own, the texts and the executor."""
    backend = core_of(hub).backend
    own = backend.send
    backend.send = lambda texts, executor: send(own, texts, executor)  # type: ignore[method-assign]
