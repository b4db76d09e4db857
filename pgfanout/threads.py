"""Threads that belong to the process, not to the request that first needs them; and the times that they can wait."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["lock_time", "start_thread"]


def start_thread(name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
    """Start a daemon thread in an empty `contextvars` context and return it. Raise `RuntimeError` if it can't start.

    The first request that needs a thread starts it, and the thread outlives that request. Tracers and error reporters
    pass the context of `Thread.start` on to the new thread. Python 3.14 does so itself (`thread_inherit_context`). Each
    record that the thread logs later would carry the first visitor's request and user.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    contextvars.Context().run(thread.start)
    return thread


def lock_time(timeout: float) -> float:
    """Return a time-out that locks and `join` accept: they refuse negative times and infinity."""
    return min(max(0.0, timeout), threading.TIMEOUT_MAX)
