"""Endings: what an application wants to be called when a stream has ended."""

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
    """Functions that are called once, in their order, when a stream has ended. An error in one is logged.

    The list's operations are atomic: two threads that run the endings at once share them out.
    """

    __slots__ = ("_functions",)

    def __init__(self) -> None:
        self._functions: list[Callable[[], object]] = []  # a deque takes ten times the memory, for each stream

    def append(self, function: Callable[[], object]) -> Callable[[], object]:
        """Have a function called at the end, and return it."""
        self._functions.append(function)
        return function

    def run(self) -> None:
        """Call the functions. Blocks for as long as they take."""
        while self._functions:
            try:
                function = self._functions.pop(0)
            except IndexError:  # another thread was faster
                return
            try:
                function()
            except Exception as error:
                logger.error("a call_on_close function of a stream failed", exc_info=error)

    def run_in_background(self) -> None:
        """Have the thread for that call the functions, if there are any. Never waits."""
        if self._functions:
            background.call(self.run)


class Background:
    """One thread that calls what the streamer must not wait for.

    `_lock` guards the attributes below it. The thread starts with the first call and ends when no call is left.
    """

    _thread: threading.Thread | None

    def __init__(self) -> None:
        self._renew()

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called soon. Never waits, raises nothing."""
        with self._lock:
            self._calls.append(function)
            if self._thread is None or not self._thread.is_alive():
                with suppress(RuntimeError):  # the system has no thread to spare: the next call tries again
                    self._thread = start_thread("pgfanout-endings", self._run)

    def wait_until_done(self, timeout: float) -> None:
        """Wait until everything was called, `timeout` seconds at most."""
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
"""The process's own. Making it starts nothing."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=background._renew)
