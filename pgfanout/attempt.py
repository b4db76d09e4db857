"""Attempt: a thread that runs one listener after the other, and the log lines about those that fail."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from .errors import HubConfigurationError
from .rate_limit import RateLimit

__all__ = ["Attempt", "Failures", "Listener"]

logger = logging.getLogger("pgfanout")

_LOG_EVERY = 60.0


class Listener(Protocol):
    """What blocks in the hub's thread and hands on what arrives."""

    def run(self) -> None:
        """Listen until `stop`. May raise anything: another listener takes its place then.

        Raises `HubConfigurationError` for what waiting won't cure.
        """

    def stop(self) -> None:
        """Make `run` return soon. From any thread, idempotent, never waits."""

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection without a word to its server."""


class Attempt:
    """The state of a thread that runs one listener after the other until it is stopped.

    `error` is what waiting won't cure, as the last listener has found. `failed` says that a listener has failed, and
    `ended` that the thread is done. The lifecycle's lock guards all of it.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.thread: threading.Thread | None = None  # the one that runs it, once that has begun
        self.error: HubConfigurationError | None = None
        self.failed = False
        self.stopped = False
        self.ended = False


class Failures:
    """Logs why listeners fail, at a bounded rate, whatever the application's log handlers raise."""

    def __init__(self) -> None:
        self._lines = RateLimit(_LOG_EVERY)

    def log(self, error: Exception) -> None:
        """Log an error after which another listener is run."""
        if (held_back := self._lines.take()) is None:
            return
        more = f" ({held_back} more like this since the last line)" if held_back else ""
        try:
            if isinstance(error, HubConfigurationError):
                logger.error("the hub can't listen, and goes on trying: %s%s", error, more)
            else:
                logger.error("the listener failed, and another one takes its place%s", more, exc_info=error)
        except Exception:
            pass
