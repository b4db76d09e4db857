"""Heartbeat: when a session that LISTENs has to prove that it still hears."""

from __future__ import annotations

import random

__all__ = ["Heartbeat"]

_EARLIEST = 0.75  # of a heartbeat, without a notification
_LONGEST_BREAK = 0.25  # of a heartbeat, between two questions


class Heartbeat:
    """The times of one session's questions and pulses, in seconds of a monotonic clock. No I/O, for one thread.

    A *question* shows that the server answers and that the session is still registered as a listener. It is due one
    heartbeat after the last one that was answered was sent. A *pulse* is a question that notifies as well, on a channel
    that all hubs of the database listen to. Only a notification that arrives shows that notifications arrive, and
    anybody's will do. So a question is a pulse when three quarters of a heartbeat have passed without a notification,
    and one is due, at a random moment of the last quarter, for that alone: the first of many idle hubs to pulse spares
    the others theirs.

    Both are answered within `heartbeat_timeout`, or the session is given up. That time begins when the question is
    sent. It begins anew with each notification that arrives before the answer: a server sends all notifications that
    wait before it answers, which may be a gigabyte of a stranger's. Nothing else extends it. Notifications extend the
    time for an answer to 12 times `heartbeat_timeout` at most.

    The bound follows. Say that a session is deaf or dead since D. Its last notification arrived before D, and its last
    answered question was sent before D. So the next question or pulse is sent before D + heartbeat. The session is
    given up `heartbeat_timeout` after that, or after its last notification, which is before D: in any case before
    D + heartbeat + heartbeat_timeout. What the listener is busy with at that moment adds to it: a slice of events that
    it hands on, notifications that arrived before D and that it still reads, or a question that is under way. A break
    after each question, as long as that took, leaves the listener time to hand on events where the server is slower
    than the heartbeat. None of these counts while a round trip takes less than an eighth of a heartbeat.

    For the argument to hold, `heard` must not be given a moment later than the arrival. The listener gives it one only
    when it was waiting for the notification, not when it found one that may have lain there for long.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._patience = self._draw()
        self._heard = self._asked = self._rested = now

    @property
    def due_at(self) -> float:
        """When the next question is to be sent, a pulse or not."""
        return max(self._rested, min(self._asked + self._seconds, self._heard + self._patience))

    def needs_pulse(self, now: float) -> bool:
        """Whether a question that is sent now has to be a pulse."""
        return now >= self._heard + self._seconds * _EARLIEST

    def heard(self, at: float) -> None:
        """A notification has arrived, at this moment or later."""
        self._heard = max(self._heard, at)

    def answered(self, sent: float, now: float, *, pulse: bool) -> None:
        """A question that was sent at a moment was answered; if it was a pulse, that has arrived as well."""
        self._asked = sent
        self._rested = now + min(now - sent, self._seconds * _LONGEST_BREAK)
        self._patience = self._draw()
        if pulse:
            self.heard(sent)

    def _draw(self) -> float:
        return self._seconds * random.uniform(_EARLIEST, 1.0)
