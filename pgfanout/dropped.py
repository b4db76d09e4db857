"""What closes a hub when the garbage collector frees the application that has it."""

from __future__ import annotations

import _thread
import contextlib
import weakref

from .hub import NotifyHub
from .threads import start_thread

__all__ = ["close_with"]

_TIME = 1.0
"""Seconds."""


def close_with(owner: object, hub: NotifyHub) -> None:
    """Close the hub when its owner is freed, but not at the exit of the interpreter. The hub must not keep it."""
    weakref.finalize(owner, _close, hub).atexit = False


def _close(hub: NotifyHub) -> None:
    """Close the hub of an owner that is being freed. Block for `_TIME` at most.

    The garbage collector calls this in any thread, which may hold any lock: one that `hub.close` needs, so that another
    thread has to close the hub, or one that `Thread.start` needs, so that a third has to start that one. The wait is
    bounded. There is a wait, so that the database has no session of this hub after `gc.collect`.
    """
    if hub.closed:  # a test suite has many such owners, and the waits would add up
        return
    closed = _thread.allocate_lock()
    closed.acquire()

    def close() -> None:
        try:
            hub.close()
        finally:
            closed.release()

    with contextlib.suppress(RuntimeError):  # no thread can start at the interpreter's end
        _thread.start_new_thread(start_thread, ("pgfanout-closer", close))
        closed.acquire(timeout=_TIME)
