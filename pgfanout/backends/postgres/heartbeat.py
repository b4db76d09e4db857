"""Heartbeat: when a session that LISTENs has to prove that it still hears."""

from __future__ import annotations

import random

__all__ = ["Heartbeat"]

_EARLIEST = 0.75


class Heartbeat:
    """The times of one session's questions and pulses, in seconds of a monotonic clock. No I/O, for one thread.

    A *question* shows that the server answers and that the session is still registered as a listener. It is due one
    heartbeat after the last one that was answered was sent. A *pulse* is a question that notifies as well, on a channel
    that all hubs of the database listen to. Only a notification that arrives shows that notifications arrive, and
    anybody's will do. So a pulse is due only after three quarters of a heartbeat, or up to one, without any: the first
    of many idle hubs to pulse spares the others theirs.

    Both are answered within `heartbeat_timeout` of being sent, or the session is given up; nothing extends that time.
    The bound follows: of a session that is deaf or dead since D, the last notification arrived before D, and the last
    answered question was sent before D. So the next question or pulse is sent before D + heartbeat, and the session is
    given up before D + heartbeat + heartbeat_timeout. What the listener is doing when one falls due adds to that: it
    hands on a slice of the events that have arrived.

    For the argument to hold, `heard` must not be given a moment later than the arrival. The listener gives it one only
    when it was waiting for the notification, not when it found one that may have lain there for long.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._patience = self._draw()
        self._heard = self._asked = now

    @property
    def due_at(self) -> float:
        """When the next question or pulse is to be sent."""
        return min(self._asked + self._seconds, self._silent_at)

    def needs_pulse(self, now: float) -> bool:
        """Whether the next question has to be a pulse."""
        return now >= self._silent_at

    def heard(self, at: float) -> None:
        """A notification has arrived, at this moment or later."""
        self._heard = max(self._heard, at)

    def answered(self, sent: float, *, pulse: bool) -> None:
        """What was sent at a moment was answered; a pulse has arrived as well."""
        self._asked = sent
        self._patience = self._draw()
        if pulse:
            self.heard(sent)

    @property
    def _silent_at(self) -> float:
        return self._heard + self._patience

    def _draw(self) -> float:
        return self._seconds * random.uniform(_EARLIEST, 1.0)
