"""Lifecycle: the listener's thread, from the first start to the close, and its healing."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from .attempt import Attempt, Failures, Listener
from .errors import HubClosedError, HubConfigurationError, HubTimeoutError
from .threads import lock_time, start_thread

__all__ = ["Lifecycle"]

logger = logging.getLogger("pgfanout")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.5

_first_wait = threading.Lock()
"""Held by the one thread of the process that waits for a first start; see `Lifecycle.await_first_start`. A child that
is forked meanwhile finds it held for ever: then no thread of the child waits."""


class Lifecycle:
    """New, trying to listen, listening, healing, closed.

    When a listener ends, whatever it raised, another one is run after a pause of 0.1 s to 1.5 s, until `close`. There
    are two exceptions before the hub has listened for the first time, unless `keep_trying` was called. A
    `HubConfigurationError` ends the attempt, and so does the last `start` that waited for it, when its time is over.

    `_changed` guards every attribute below it, and those of the attempts. It is notified when one of them changes. The
    listener runs, stops and is joined without the lock. Single flags are also read without it: they may be out of date
    a moment later in any case.
    """

    def __init__(self, new_listener: Callable[[], Listener]) -> None:
        self._new_listener = new_listener
        self._failures = Failures()
        self._changed = threading.Condition()
        self._attempt: Attempt | None = None
        self._running: list[Attempt] = []  # with those that start gave up on
        self._waiting = 0
        self._kept = False  # goes on trying though nobody waits
        self._first_wait_is_over = False
        self._has_listened = False
        self._misconfigured_since: float | None = None  # when that was logged
        self._closed = False
        self.listening = False
        self.since = time.time()
        self.reconnects = 0
        self.last_error = ""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def has_listened(self) -> bool:
        """Whether the hub has ever listened."""
        return self._has_listened

    def check_open(self) -> None:
        """Raises `HubClosedError` after `close`."""
        if self._closed:
            raise HubClosedError

    def start(self, timeout: float) -> None:
        """See `NotifyHub.start`."""
        if self._has_listened and self._attempt is not None and not self._closed:
            return
        with self._changed:
            attempt = self._begin()
            self._waiting += 1
            try:
                self._await(attempt, timeout)
                error = attempt.error  # the next listener takes it away
            finally:
                self._waiting -= 1
                forsaken = not (self._waiting or self._has_listened or self._kept)
                if forsaken and self._attempt is attempt:
                    self._attempt = None
        if forsaken:
            self._stop(attempt)
        if error is not None and not self._has_listened:
            raise HubConfigurationError(str(error))
        self.check_open()
        if not self._has_listened:
            raise HubTimeoutError(f"not listening after {timeout:g} s: {self.last_error or 'no answer yet'}")

    def keep_trying(self) -> None:
        """See `NotifyHub.start_in_background`."""
        if self._kept and self._attempt is not None and not self._closed:
            return
        with self._changed:
            self._begin()
            self._kept = True

    def await_first_start(self, timeout: float) -> bool:
        """Start the listener's thread like `keep_trying`, and return whether the hub listens.

        For threads of a server, which must not wait for a database that is away. Block the first thread that calls it,
        for at most `timeout` seconds, until the hub listens or a first attempt has failed. No other thread of the
        process blocks. Raise `HubClosedError`.
        """
        self.keep_trying()
        if self._has_listened or self._first_wait_is_over or not _first_wait.acquire(blocking=False):
            return self.listening
        try:
            with self._changed:
                self._changed.wait_for(self._first_attempt_is_over, lock_time(timeout))
                self._first_wait_is_over = True
        finally:
            _first_wait.release()
        return self.listening

    def run(self) -> None:
        """See `NotifyHub.run`."""
        with self._changed:
            self.check_open()
            attempt = self._attempt
            mine = attempt is None
            if attempt is None:
                attempt = self._attempt = Attempt(self._new_listener())
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
            self._stop(attempt)
        me = threading.current_thread()
        others = [attempt for attempt in running if attempt.thread is not me]
        with self._changed:
            ended = self._changed.wait_for(lambda: all(attempt.ended for attempt in others), lock_time(timeout))
        if not ended:
            logger.warning("the listener's thread did not stop within %g s and is left behind", timeout)

    def abandon(self) -> None:
        """In a forked child, where the lock may be held for ever: let go of the parent's connections."""
        for attempt in list(self._running):
            attempt.listener.abandon()

    def has_given_up(self) -> bool:
        """Whether `start` has given up the listener that the calling thread runs."""
        with self._changed:
            return not self._speaks_for_us()

    def now_listening(self) -> bool | None:
        """The listener listens. Return whether the hub had listened before, or None if `start` has given it up."""
        with self._changed:
            if not self._speaks_for_us():
                return None
            again = self._has_listened
            self._has_listened = True
            self.reconnects += again
            self._set_listening(not self._closed)
            since, self._misconfigured_since = self._misconfigured_since, None
        if since is not None:
            logger.warning("the hub listens now, after %.1f s", time.monotonic() - since)
        return again

    def not_listening(self, error: str) -> None:
        """The listener does not listen, or no longer, and why."""
        with self._changed:
            if self._speaks_for_us():
                self._fail(error)

    def _speaks_for_us(self) -> bool:
        # A listener that start gave up on may still be on its way out.
        return self._attempt is not None and self._attempt.thread is threading.current_thread()

    def _fail(self, error: str) -> None:
        assert self._attempt is not None
        self._attempt.failed = True
        self.last_error = error
        self._set_listening(False)

    def _begin(self) -> Attempt:
        self.check_open()
        if self._attempt is None:
            attempt = self._attempt = Attempt(self._new_listener())
            self._running.append(attempt)
            # Under the lock, so that nobody can wait for a thread that never ran. A signal handler may raise while
            # `start_thread` waits for the thread: that finds itself withdrawn then, or is one that we know.
            try:
                start_thread("pgfanout-listener", self._run, attempt)
            except BaseException:
                if attempt.thread is None:
                    self._attempt = None
                    self._running.remove(attempt)
                raise
        return self._attempt

    def _await(self, attempt: Attempt, timeout: float) -> None:
        self._changed.wait_for(
            lambda: self._has_listened or self._closed or attempt.ended or attempt.error is not None,
            lock_time(timeout),
        )

    def _first_attempt_is_over(self) -> bool:
        attempt = self._attempt
        return self.listening or self._closed or attempt is None or attempt.failed or attempt.ended

    def _stop(self, attempt: Attempt) -> None:
        with self._changed:
            attempt.stopped = True
            self._changed.notify_all()
            listener = attempt.listener
        listener.stop()

    def _run(self, attempt: Attempt) -> None:
        with self._changed:
            if attempt not in self._running:
                return
            attempt.thread = threading.current_thread()
        pause = _FIRST_PAUSE
        try:
            while True:
                began = time.monotonic()
                self._run_listener(attempt)
                if time.monotonic() - began > 2 * _LONGEST_PAUSE:
                    pause = _FIRST_PAUSE
                if self._is_over(attempt, pause):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            with self._changed:
                attempt.ended = True
                self._running.remove(attempt)
                if self._attempt is attempt and not self._closed:
                    self._attempt = None
                    self._set_listening(False)
                self._changed.notify_all()

    def _run_listener(self, attempt: Attempt) -> None:
        """Run the present listener until it ends, and note why it ended."""
        try:
            attempt.listener.run()
        except HubConfigurationError as error:
            self._note_failure(attempt, str(error), error)
        except Exception as error:
            self._note_failure(attempt, f"the listener failed: {type(error).__name__}", None)
            self._failures.log(error)
        else:
            self._note_failure(attempt, "the listener has ended", None)

    def _note_failure(self, attempt: Attempt, words: str, error: HubConfigurationError | None) -> None:
        with self._changed:
            if attempt.stopped or self._attempt is not attempt:
                return
            attempt.error = error
            self._fail(words)
            goes_on = self._kept or self._has_listened
            if error is not None and goes_on and self._misconfigured_since is None:
                self._misconfigured_since = time.monotonic()
        if error is not None and goes_on:
            self._failures.log(error)

    def _is_over(self, attempt: Attempt, pause: float) -> bool:
        """Whether the attempt is over; if not, pause, and put another listener into the place of the last."""
        with self._changed:
            if attempt.error is not None and not (self._kept or self._has_listened):
                if self._attempt is attempt:
                    self._attempt = None  # now, so that `keep_trying` doesn't take it for one that goes on
                return True
            # The threads that wait in `start` have been notified of the error, and read it during the pause.
            stopped = self._changed.wait_for(lambda: attempt.stopped, pause * random.uniform(0.5, 1.0))
            attempt.error = None
            if stopped:
                return True
            attempt.listener = self._new_listener()
        return False

    def _set_listening(self, listening: bool) -> None:
        if listening is not self.listening:
            self.listening = listening
            self.since = time.time()
        self._changed.notify_all()
