"""Endings: the application's functions that are called when a stream has ended."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..threads import start_thread

__all__ = ["Endings", "background"]

logger = logging.getLogger("pgfanout")


class Endings:
    """Functions that are called once and in order when a stream has ended. Their errors are logged.

    The list's operations are atomic, so two threads that run the endings at once call each function once.
    """

    __slots__ = ("_functions",)

    def __init__(self) -> None:
        self._functions: list[Callable[[], object]] | None = None  # most streams have none

    def append(self, function: Callable[[], object]) -> Callable[[], object]:
        """Add a function, and return it."""
        if self._functions is None:
            self._functions = []
        self._functions.append(function)
        return function

    def run(self) -> None:
        """Call the functions. Block until they are done."""
        while self._functions:
            try:
                function = self._functions.pop(0)
            except IndexError:  # another thread was faster
                return
            try:
                function()
            except Exception as error:
                logger.error("a call_on_close function of a stream failed", exc_info=error)


class Background:
    """One thread that calls functions that must not block the streamer.

    `_lock` guards `_calls` and `_thread`. The thread starts with the first call and ends when no call is left.
    """

    _thread: threading.Thread | None

    def __init__(self) -> None:
        self._renew()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function soon. Never block or raise."""
        with self._lock:
            self._calls.append(function)
            if self._thread is None or not self._thread.is_alive():
                with suppress(RuntimeError):  # the system has no thread to spare: the next call tries again
                    self._thread = start_thread("pgfanout-endings", self._run)

    def wait_until_done(self, timeout: float) -> None:
        """Block until all functions were called, for at most `timeout` seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._thread = None
                    return
                function = self._calls.popleft()
            function()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], object]] = deque()
        self._thread = None


background = Background()
"""The only instance in the process. Creating it starts no thread."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=background._renew)
