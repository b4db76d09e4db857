"""Outage: limits the log lines about a connection that is lost or can't be made."""

from __future__ import annotations

import logging
import time

from ...rate_limit import RateLimit

__all__ = ["Outage"]

logger = logging.getLogger("pgfanout")

_BETWEEN_BEGINNINGS = 10.0
_WHILE_IT_LASTS = 60.0


class Outage:
    """Logs when an outage begins, once a minute while it lasts, and when it is over.

    If the connection is lost again and again, the beginning of at most one outage in ten seconds is logged. The end is
    logged for each outage that was logged. For the listener's thread.
    """

    def __init__(self) -> None:
        self._beginnings = RateLimit(_BETWEEN_BEGINNINGS)
        self._reminders = RateLimit(_WHILE_IT_LASTS)
        self._since: float | None = None
        self._is_logged = False

    def failed(self, words: str) -> None:
        """Note that the connection was lost, or that an attempt to connect has failed, for the reason in `words`."""
        now = time.monotonic()
        if self._since is None:
            self._begin(now, words)
        elif self._reminders.take() is not None:
            self._is_logged = True
            logger.warning("not listening for %.0f s (%s), still trying", now - self._since, words)

    def over(self, words: str) -> None:
        """Note that the hub listens again. `words` say so, and what it means for the subscriptions."""
        since, self._since = self._since, None
        if since is not None and self._is_logged:
            logger.warning("%s (after %.1f s)", words, time.monotonic() - since)

    def _begin(self, now: float, words: str) -> None:
        self._since = now
        self._reminders = RateLimit(_WHILE_IT_LASTS)
        self._reminders.take()
        held_back = self._beginnings.take()
        self._is_logged = held_back is not None
        if held_back:
            logger.warning("not listening (%s), trying again (%d more since the last such line)", words, held_back)
        elif self._is_logged:
            logger.warning("not listening (%s), trying again", words)
