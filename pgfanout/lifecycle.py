"""Lifecycle: the listener's thread, from the first start to the close."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from .errors import HubClosedError, HubConfigurationError, HubTimeoutError
from .threads import start_thread

__all__ = ["Lifecycle", "Listener"]

logger = logging.getLogger("pgfanout")


class Listener(Protocol):
    """What blocks in the hub's thread and hands on what arrives."""

    def run(self) -> None:
        """Listen until `stop`. Raises `HubConfigurationError` for what waiting won't cure, but
        only before it has listened for the first time."""

    def stop(self) -> None:
        """Make `run` return soon. From any thread, idempotent, never waits."""


class _Attempt:
    """One listener and the thread that runs it; `error` is how it failed, when it did."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.thread = threading.current_thread()
        self.error: HubConfigurationError | None = None
        self.ended = False


class Lifecycle:
    """New, trying to listen, listening, healing, closed.

    `_changed` guards every attribute below it, and is notified when one of them changes. The
    listener runs, stops and is joined without it. Single flags are also read without it: such an
    answer was true a moment ago, which is all that any answer can be.
    """

    def __init__(self, new_listener: Callable[[], Listener]) -> None:
        self._new_listener = new_listener
        self._changed = threading.Condition()
        self._attempt: _Attempt | None = None
        self._running: list[_Attempt] = []  # with those that start gave up on
        self._waiting = 0
        self._has_listened = False
        self._closed = False
        self.listening = False
        self.since = time.time()
        self.reconnects = 0
        self.last_error = ""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check_open(self) -> None:
        """Raises `HubClosedError` after `close`."""
        if self._closed:
            raise HubClosedError

    def start(self, timeout: float) -> None:
        """See `NotifyHub.start`."""
        if self._has_listened and not self._closed:
            return
        with self._changed:
            attempt = self._begin()
            self._waiting += 1
            try:
                self._await(attempt, timeout)
            finally:
                self._waiting -= 1
                forsaken = not self._waiting and not self._has_listened
                if forsaken and self._attempt is attempt:
                    self._attempt = None
        if forsaken:
            attempt.listener.stop()
        if attempt.error is not None:
            raise HubConfigurationError(str(attempt.error))
        self.check_open()
        if not self._has_listened:
            raise HubTimeoutError(f"not listening after {timeout:g} s: {self.last_error or 'no answer yet'}")

    def run(self) -> None:
        """See `NotifyHub.run`."""
        with self._changed:
            self.check_open()
            attempt = self._attempt
            mine = attempt is None
            if attempt is None:
                attempt = self._attempt = _Attempt(self._new_listener())
                self._running.append(attempt)
            self._waiting += 1  # so that no start whose time is over stops it
        try:
            if mine:
                self._run(attempt)
            else:
                with self._changed:
                    self._changed.wait_for(lambda: attempt.ended)
        finally:
            with self._changed:
                self._waiting -= 1
        if attempt.error is not None:
            raise HubConfigurationError(str(attempt.error))

    def close(self, timeout: float) -> None:
        """See `NotifyHub.close`."""
        with self._changed:
            self._closed = True
            self._set_listening(False)
            running = list(self._running)
        for attempt in running:
            attempt.listener.stop()
        me = threading.current_thread()
        others = [attempt for attempt in running if attempt.thread is not me]
        with self._changed:
            ended = self._changed.wait_for(lambda: all(attempt.ended for attempt in others), _lock_time(timeout))
        if not ended:
            logger.warning("the listener's thread did not stop within %g s and is left behind", timeout)

    def now_listening(self) -> bool:
        """The listener's word that it listens. Whether it had listened before."""
        with self._changed:
            if not self._speaks_for_us():
                return False
            again = self._has_listened
            self._has_listened = True
            self.reconnects += again
            self._set_listening(not self._closed)
        return again

    def not_listening(self, error: str) -> None:
        """The listener's word that it doesn't listen (any more), and why."""
        with self._changed:
            if self._speaks_for_us():
                self.last_error = error
                self._set_listening(False)

    def _speaks_for_us(self) -> bool:
        # A listener that start gave up on may still be on its way out.
        return self._attempt is not None and self._attempt.thread is threading.current_thread()

    def _begin(self) -> _Attempt:
        self.check_open()
        if self._attempt is None:
            attempt = _Attempt(self._new_listener())
            # Started under the lock, so that nobody can wait for a thread that never ran; the
            # new thread's first steps don't need the lock.
            attempt.thread = start_thread("pgfanout-listener", self._run, attempt)
            self._attempt = attempt
            self._running.append(attempt)
        return self._attempt

    def _await(self, attempt: _Attempt, timeout: float) -> None:
        self._changed.wait_for(lambda: self._has_listened or self._closed or attempt.ended, _lock_time(timeout))

    def _run(self, attempt: _Attempt) -> None:
        try:
            attempt.listener.run()
        except HubConfigurationError as error:
            attempt.error = error
        finally:
            with self._changed:
                attempt.ended = True
                self._running.remove(attempt)
                if self._attempt is attempt and not self._closed:
                    self._attempt = None
                    self._set_listening(False)
                self._changed.notify_all()

    def _set_listening(self, listening: bool) -> None:
        if listening is not self.listening:
            self.listening = listening
            self.since = time.time()
        self._changed.notify_all()


def _lock_time(timeout: float) -> float:
    """A time that a lock can count: infinity is one that it can't."""
    return min(max(0.0, timeout), threading.TIMEOUT_MAX)
