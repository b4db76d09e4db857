"""Session: one connection that LISTENs, the notifications that arrived on it, and the proof that they do."""

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
"""The channel on which a database's hubs show each other that notifications arrive. The payload names the pulse."""

_PROOF_TIME = 3.0
_SLICE = 64
_KEPT_BYTES = 4 * 1024 * 1024
"""The most bytes of notifications that wait to be taken. One notification may wait, whatever its size."""
_OVERHEAD = 64
"""Bytes that a notification takes besides its text, roughly."""
_LONGEST = 12
"""How many times `timeout` an answer may take while notifications keep arriving before it."""
# Asking for the usage makes the server free notifications that all have read. If its queue is full and nobody listens,
# it does so at no other time, and would refuse all notifications for ever.
_ASK = (
    "SELECT pg_notification_queue_usage(),"
    " (SELECT count(*) FROM pg_listening_channels() AS channel WHERE channel = ANY (%s::text[]))"
)
_PULSE = f"{_ASK}, pg_notify('{PULSE_CHANNEL}', %s)"
_PROBE = f"SELECT pg_notification_queue_usage(), pg_notify('{PULSE_CHANNEL}', %s)"


class Session:
    """A listening connection, for the listener's thread alone. Every method raises psycopg's errors.

    The watchdog cuts the connection if the server does not answer within `timeout` seconds. Notifications that arrive
    before the answer begin this time anew. Every method keeps the notifications that arrive. `take` returns them in
    slices, so that the listener can check the heartbeat between two slices.

    A server sends all waiting notifications before it answers a statement, and anybody may cause any number of them. At
    most 4 MiB are kept. The session drops further ones, and one empty text replaces them. The empty text is not an
    event, so the hub reads the history, or without history every subscription gets a refresh.
    """

    def __init__(self, connection: psycopg.Connection[Any], channel: str, watchdog: Watchdog, timeout: float) -> None:
        self._connection = connection
        self._channel = channel
        self._relname = channel.encode()
        self._watchdog = watchdog
        self._timeout = timeout
        self._arrived: deque[bytes] = deque()
        self._kept = 0  # bytes in `_arrived`
        self._dropped = 0  # notifications dropped since the last line in the log
        self._drop_lines = RateLimit(10.0)
        self._arrivals = 0
        self._expected = b""  # the pulse that has to arrive, or empty once it has
        self._heard_last = float("-inf")
        self.heard_at = float("-inf")
        """When a notification last arrived while the session waited. Others may have been unread for long."""
        # Take bytes: psycopg decodes a batch as a whole, and one invalid byte would delay the rest of the batch.
        connection.pgconn.notify_handler = self._arrive
        self._wait = connection.wait
        connection.wait = self._wait_and_hear  # type: ignore[method-assign]

    def listen(self) -> None:
        """LISTEN. Raise `HubConfigurationError` if the database can't guarantee that notifications are text."""
        with self._limit():
            diagnosis.check_encoding(self._connection)
            for channel in (self._channel, PULSE_CHANNEL):
                execute(self._connection, sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def prove(self, parameters: conninfo.Parameters) -> None:
        """Have a second session notify, and block until that arrives. The session is then ours: apply our settings.

        A pooler in transaction mode accepts LISTEN and delivers nothing. But a notification to oneself would arrive
        with the answer to the statement, so it proves nothing. Events that arrive meanwhile are dropped. A refresh or
        the log covers them, and before the first proof nobody has subscribed. Raise `HubConfigurationError`.
        """
        pulse = self._new_pulse()
        try:
            self._probe(parameters, pulse)
        except psycopg.OperationalError as error:
            self._blame(error)
            raise
        if not self._comes_back(time.monotonic() + _PROOF_TIME):
            # The server may only have stalled. Then the notification comes with its next answer.
            self.query("SELECT 1", ())
            if not self._comes_back(time.monotonic() + 0.1):
                raise HubConfigurationError(diagnosis.NOTHING_ARRIVES)
        with self._limit():
            conninfo.settle(self._connection)
        self._arrived.clear()
        self._kept = self._dropped = 0

    def query(self, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        with self._limit():
            return execute(self._connection, statement, params).fetchall()

    def ask(self, *, pulse: bool) -> float:
        """Ask whether this session still listens, with or without a pulse. Return the server's `queue_usage`, 0 to 1.

        Raise `DeafError` if it does not listen, or if the pulse does not arrive in `timeout` seconds. This time begins
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
            # The server is alive, but its queue is full. It accepts no notifications, including ours.
            return 1.0
        if listening < len(channels) or (pulse and not self._comes_back(self._heard_last + self._timeout)):
            raise diagnosis.DeafError(diagnosis.DEAF)
        return float(usage)

    def take(self, timeout: float) -> list[str]:
        """Return a slice of the events that have arrived, as texts. Block up to `timeout` seconds if there is none."""
        if not self._arrived:
            self._read(timeout)
        payloads = [self._arrived.popleft() for _ in range(min(len(self._arrived), _SLICE))]
        self._kept -= sum(map(len, payloads)) + len(payloads) * _OVERHEAD
        if self._dropped:
            self._tell_dropped()
        return _texts(payloads)

    def _limit(self) -> AbstractContextManager[None]:
        """Limit the time for an answer."""
        return self._watchdog.limit(self._timeout, longest=self._timeout * _LONGEST)

    def _probe(self, parameters: conninfo.Parameters, pulse: str) -> None:
        with (
            conninfo.connect(conninfo.same_server(parameters, self._connection), "pgfanout-probe") as probe,
            self._watchdog.watch_too(probe.fileno()),
            self._watchdog.limit(self._timeout),
        ):
            execute(probe, _PROBE, (pulse,))

    def _blame(self, error: psycopg.OperationalError) -> None:
        """If the second session got no answer in time but the first one gets one, raise the error that says so."""
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
        """Return whether the pulse arrives before the deadline. Keep other notifications: they don't extend it."""
        while self._expected and (left := deadline - time.monotonic()) > 0:
            self._read(left)
        return not self._expected

    def _arrive(self, notify: PGnotify) -> None:
        """Take one notification as soon as libpq has it, even in the middle of a statement."""
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
                "%d notifications were dropped: they came faster than this process can handle them. With history, the"
                " events are read from it. Without, all pages get a refresh. Find the session that sends so many",
                self._dropped,
            )
            self._dropped = 0

    def _wait_and_hear(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """The connection's `wait`, which also takes notifications from libpq while a statement is under way."""
        return self._wait(self._hearing(gen), *args, **options)

    def _hearing(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Run one of psycopg's generators, which reads once and waits again until the answer is complete.

        libpq keeps all notifications that arrive until they are fetched. psycopg fetches them only after the answer.
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
        """Take the notifications that libpq has. They show that the server is alive, so it gets more time to answer."""
        before = self._arrivals
        while (notify := self._connection.pgconn.notifies()) is not None:
            self._arrive(notify)
        if self._arrivals > before:
            self._heard_last = time.monotonic()
            self._watchdog.extend()

    def _read(self, timeout: float) -> None:
        """Receive what the server has sent, or sends within `timeout` seconds."""
        waits, before = not self._has_data(), self._arrivals
        try:
            # Our handler gets the whole batch before `notifies` yields the first one. So nothing is lost by stopping
            # there, and psycopg need not decode the others.
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
    """Return notifications as texts. One that is not UTF-8 becomes an empty text, which is not an event."""
    try:
        return [payload.decode() for payload in payloads]
    except UnicodeDecodeError:
        return [_text(payload) for payload in payloads]


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return ""
