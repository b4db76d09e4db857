"""Heartbeat: when a session that LISTENs has to prove that notifications still arrive."""

from __future__ import annotations

import random

__all__ = ["Heartbeat"]

_EARLIEST = 0.75  # of a heartbeat, without a notification
_LONGEST_BREAK = 0.25  # of a heartbeat, between two questions


class Heartbeat:
    """The times of one session's questions and pulses, in seconds of a monotonic clock. No I/O, for one thread.

    A *question* shows that the server answers and that the session is still registered as a listener. It is due one
    heartbeat after the last answered question was sent. A *pulse* is a question that also notifies, on a channel that
    all hubs of the database listen on. Only a notification that arrives proves that notifications arrive. Any session's
    notification will do. So a question is a pulse if three quarters of a heartbeat have passed without a notification,
    and without one a pulse is due at a random moment of the last quarter. The first of many idle hubs to send a pulse
    spares the others theirs.

    If the answer or the pulse takes longer than `heartbeat_timeout`, the session is dropped. The time begins when the
    question is sent. It begins anew with each notification that arrives before the answer, since a server sends all
    waiting notifications first, which may be a gigabyte from a stranger. Nothing else extends it. In all, notifications
    extend the time for an answer to at most 12 times `heartbeat_timeout`.

    The bound follows. Suppose a session is deaf or dead from the moment D. Its last notification arrived before D, and
    its last answered question was sent before D. So the next question or pulse is sent before D + heartbeat. The
    session is dropped `heartbeat_timeout` after that, or after its last notification, which came before D. Both are
    before D + heartbeat + heartbeat_timeout. The listener's current work adds to that: a slice of events that it hands
    on, notifications from before D that it still reads, or a question that is under way. After each question comes a
    break as long as the question took. It leaves the listener time to hand on events when the server is slower than the
    heartbeat. None of this matters while a round trip takes less than an eighth of a heartbeat.

    The argument requires that `heard` never gets a moment later than the arrival. So the listener reports only
    notifications that it was waiting for, and none that may have waited unread for long.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._patience = self._draw()
        self._heard = self._asked = self._rested = now

    @property
    def due_at(self) -> float:
        """When to send the next question, which may be a pulse."""
        return max(self._rested, min(self._asked + self._seconds, self._heard + self._patience))

    def needs_pulse(self, now: float) -> bool:
        """Whether a question sent now has to be a pulse."""
        return now >= self._heard + self._seconds * _EARLIEST

    def heard(self, at: float) -> None:
        """Note that a notification has arrived at this moment or later."""
        self._heard = max(self._heard, at)

    def answered(self, sent: float, now: float, *, pulse: bool) -> None:
        """Note that the question sent at `sent` was answered and, if it was a `pulse`, that the pulse has arrived."""
        self._asked = sent
        self._rested = now + min(now - sent, self._seconds * _LONGEST_BREAK)
        self._patience = self._draw()
        if pulse:
            self.heard(sent)

    def _draw(self) -> float:
        return self._seconds * random.uniform(_EARLIEST, 1.0)
