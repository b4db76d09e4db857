"""Session: one connection that LISTENs, what has arrived on it, and the proof that something does."""

from __future__ import annotations

import logging
import secrets
import select
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import PGnotify

from ...errors import HubConfigurationError
from ...rate_limit import RateLimit
from . import conninfo, diagnosis
from .conninfo import execute
from .watchdog import Watchdog

__all__ = ["PULSE_CHANNEL", "Session"]

logger = logging.getLogger("pgfanout")

PULSE_CHANNEL: Final = "pgfanout_pulse"
"""Where the hubs of a database let each other hear that notifications arrive. A payload says whose proof it is."""

_PROOF_TIME = 3.0
_SLICE = 64
_KEPT_BYTES = 4 * 1024 * 1024
"""Of the notifications that wait to be taken; one of them may be there in any case."""
_OVERHEAD = 64
"""Bytes that a notification takes beside its text, roughly."""
_LONGEST = 12
"""Times `timeout`: how long an answer may take while notifications keep arriving before it."""
# Asking for the usage makes the server free what everyone has read. It does so at no other time
# when its queue is full and nobody listens: all notifications would be refused for ever.
_ASK = (
    "SELECT pg_notification_queue_usage(),"
    " (SELECT count(*) FROM pg_listening_channels() AS channel WHERE channel = ANY (%s::text[]))"
)
_PULSE = f"{_ASK}, pg_notify('{PULSE_CHANNEL}', %s)"
_PROBE = f"SELECT pg_notification_queue_usage(), pg_notify('{PULSE_CHANNEL}', %s)"


class Session:
    """A listening connection, for the listener's thread alone. Every method raises psycopg's errors.

    The server has `timeout` seconds for each answer, counted anew when notifications arrive before it; then the
    watchdog cuts the connection. What arrives is kept, whatever is being waited for, and `take` hands it out in slices,
    so that the listener can look after the heartbeat between two of them.

    A server sends all notifications that wait for a session before it answers a statement, and anybody may cause any
    number of them. At most 4 MiB are kept. The notifications beyond that are dropped, and one empty text takes their
    place: a text that is no event, which has the history read, or is a gap for everyone.
    """

    def __init__(self, connection: psycopg.Connection[Any], channel: str, watchdog: Watchdog, timeout: float) -> None:
        self._connection = connection
        self._channel = channel
        self._relname = channel.encode()
        self._watchdog = watchdog
        self._timeout = timeout
        self._arrived: deque[bytes] = deque()
        self._kept = 0  # bytes, of those that have arrived
        self._dropped = 0  # notifications, since that was logged
        self._drop_lines = RateLimit(10.0)
        self._arrivals = 0
        self._expected = b""  # the pulse that has to arrive; empty once it has
        self._heard_last = float("-inf")
        self.heard_at = float("-inf")
        """When a notification arrived that was being waited for. One that was found may have lain there for long."""
        # As bytes: psycopg decodes a batch as a whole, and one wrong byte would hold up the rest of it.
        connection.pgconn.notify_handler = self._arrive
        self._wait = connection.wait
        connection.wait = self._wait_and_hear  # type: ignore[method-assign]

    def listen(self) -> None:
        """LISTEN. Raises `HubConfigurationError` for a database that can't promise text."""
        with self._limit():
            diagnosis.check_encoding(self._connection)
            for channel in (self._channel, PULSE_CHANNEL):
                execute(self._connection, sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def prove(self, parameters: conninfo.Parameters) -> None:
        """Have a second session notify, and wait for it. Then the session is ours, and gets our settings.

        A pooler in transaction mode accepts LISTEN and delivers nothing; a notification to
        oneself would come back all the same, with the answer to the statement. Events that
        arrive meanwhile are dropped: they are covered by what is told next, the gap or what the log
        has; before the first time nobody has subscribed. Raises `HubConfigurationError`.
        """
        pulse = self._new_pulse()
        try:
            self._probe(parameters, pulse)
        except psycopg.OperationalError as error:
            self._blame(error)
            raise
        if not self._comes_back(time.monotonic() + _PROOF_TIME):
            # A stalled server isn't a pooler: what it owes comes with its next answer.
            self.query("SELECT 1", ())
            if not self._comes_back(time.monotonic() + 0.1):
                raise HubConfigurationError(diagnosis.NOTHING_ARRIVES)
        with self._limit():
            conninfo.settle(self._connection)
        self._arrived.clear()
        self._kept = self._dropped = 0

    def query(self, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Execute a statement and fetch its rows."""
        with self._limit():
            return execute(self._connection, statement, params).fetchall()

    def ask(self, *, pulse: bool) -> float:
        """Ask whether this session still listens, and have it hear a pulse. Return how full the server's queue is.

        Raises `DeafError` when it does not listen, or when the pulse has not arrived in `timeout` seconds. These begin
        with the question, or with the last notification that arrived before the answer.
        """
        self._heard_last = time.monotonic()
        channels = [self._channel, PULSE_CHANNEL]
        try:
            if pulse:
                ((usage, listening, _),) = self.query(_PULSE, (channels, self._new_pulse()))
            else:
                ((usage, listening),) = self.query(_ASK, (channels,))
        except psycopg.errors.ProgramLimitExceeded:
            # It lives; its queue is full, so nobody's notification is taken, ours as little.
            return 1.0
        if listening < len(channels) or (pulse and not self._comes_back(self._heard_last + self._timeout)):
            raise diagnosis.DeafError(diagnosis.DEAF)
        return float(usage)

    def take(self, timeout: float) -> list[str]:
        """A slice of the events that have arrived, as texts. Wait up to `timeout` seconds if there is none."""
        if not self._arrived:
            self._read(timeout)
        payloads = [self._arrived.popleft() for _ in range(min(len(self._arrived), _SLICE))]
        self._kept -= sum(map(len, payloads)) + len(payloads) * _OVERHEAD
        if self._dropped:
            self._tell_dropped()
        return _texts(payloads)

    def _limit(self) -> AbstractContextManager[None]:
        """The time that the server has for an answer."""
        return self._watchdog.limit(self._timeout, longest=self._timeout * _LONGEST)

    def _probe(self, parameters: conninfo.Parameters, pulse: str) -> None:
        with (
            conninfo.connect(conninfo.same_server(parameters, self._connection), "pgfanout-probe") as probe,
            self._watchdog.watch_too(probe.fileno()),
            self._watchdog.limit(self._timeout),
        ):
            execute(probe, _PROBE, (pulse,))

    def _blame(self, error: psycopg.OperationalError) -> None:
        """If the second session got no answer in time and the first one does, raise what that means."""
        in_time = not (self._watchdog.expired or isinstance(error, psycopg.errors.ConnectionTimeout))
        if in_time or self._watchdog.stopped:
            return
        self._watchdog.expired = False
        self.query("SELECT 1", ())
        raise diagnosis.no_second_session() from None

    def _new_pulse(self) -> str:
        pulse = secrets.token_hex(8)
        self._expected = pulse.encode()
        return pulse

    def _comes_back(self, deadline: float) -> bool:
        """Read until the pulse has arrived, or the deadline. What else arrives is kept, and moves no deadline."""
        while self._expected and (left := deadline - time.monotonic()) > 0:
            self._read(left)
        return not self._expected

    def _arrive(self, notify: PGnotify) -> None:
        """One notification, as soon as libpq has it: also in the middle of a statement of ours."""
        self._arrivals += 1
        if notify.relname == self._relname:
            self._keep(notify.extra)
        elif notify.extra == self._expected:
            self._expected = b""

    def _keep(self, payload: bytes) -> None:
        if self._arrived and self._kept + len(payload) + _OVERHEAD > _KEPT_BYTES:
            self._dropped += 1
            if not self._arrived[-1]:
                return
            payload = b""
        self._arrived.append(payload)
        self._kept += len(payload) + _OVERHEAD

    def _tell_dropped(self) -> None:
        if self._drop_lines.take() is not None:
            logger.warning(
                "%d notifications were dropped: they came faster than this process can handle them. Events of a history"
                " are read from it; without one, all pages are told to refresh. Look for who notifies that much",
                self._dropped,
            )
            self._dropped = 0

    def _wait_and_hear(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """The connection's `wait`, which leaves no notifications in libpq while a statement is under way."""
        return self._wait(self._hearing(gen), *args, **options)

    def _hearing(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Run one of psycopg's generators, which reads once and waits again until the answer is complete.

        libpq keeps all notifications that arrive until somebody asks for them. psycopg does once the answer is there.
        """
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                wanted = gen.send(ready)
                self._hear()
        except StopIteration as stop:
            return stop.value

    def _hear(self) -> None:
        """Take what libpq has; that the server sent it shows that the server lives."""
        before = self._arrivals
        while (notify := self._connection.pgconn.notifies()) is not None:
            self._arrive(notify)
        if self._arrivals > before:
            self._heard_last = time.monotonic()
            self._watchdog.extend()

    def _read(self, timeout: float) -> None:
        """Let arrive what the server has sent, or sends within the time."""
        waits, before = not self._has_data(), self._arrivals
        try:
            # The whole batch has come to our handler before the first of it is handed out here, so nothing is lost
            # by leaving then, and psycopg need not decode the others.
            with closing(self._connection.notifies(timeout=timeout, stop_after=1)) as notifies:
                next(notifies, None)
        except UnicodeDecodeError:
            pass
        if waits and self._arrivals > before:
            self.heard_at = time.monotonic()

    def _has_data(self) -> bool:
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _texts(payloads: Sequence[bytes]) -> list[str]:
    """Notifications as texts; one that has bytes that are not UTF-8 is empty, which is no event."""
    try:
        return [payload.decode() for payload in payloads]
    except UnicodeDecodeError:
        return [_text(payload) for payload in payloads]


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return ""
