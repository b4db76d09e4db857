"""Starting a thread that belongs to the process, whoever asks for it first."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["start_thread"]


def start_thread(name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
    """Start a daemon thread in an empty `contextvars` context, and return it. Raises `RuntimeError` when there is none.

    A thread is started by the first request that needs it and outlives that request. Tracers and error reporters hand
    the context of `Thread.start` down to the new thread, as Python 3.14 does itself (`thread_inherit_context`): each
    record that the thread logs later would carry the first visitor's request and user.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    contextvars.Context().run(thread.start)
    return thread
