"""The listener: one session that LISTENs, for as long as the hub lives.

An outer loop that connects again after whatever went wrong, an inner one that hands on what
arrives. LISTEN comes before anything is announced, so that a page which loads its state when it
is told to refresh can't miss what is committed while it loads.
"""

from __future__ import annotations

import logging
import random
import secrets
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import PGnotify

from ...errors import HubConfigurationError
from . import conninfo, diagnosis
from .conninfo import execute
from .heartbeat import Heartbeat
from .log import Query, prepare
from .outage import Outage
from .publisher import abandon
from .watchdog import Watchdog

__all__ = ["PULSE_CHANNEL", "Listener", "Sink"]

logger = logging.getLogger("pgfanout")

PULSE_CHANNEL: Final = "pgfanout_pulse"
"""Where the hubs of a database let each other hear that notifications arrive. A payload says whose proof it is."""

_FIRST_DELAY = 0.1
_PROOF_TIME = 3.0
_QUEUE_ALARM = 0.5
_SLICE = 64
# Asking for the usage makes the server free what everyone has read. It does so at no other time
# when its queue is full and nobody listens: all notifications would be refused for ever.
_ASK = (
    "SELECT pg_notification_queue_usage(),"
    " (SELECT count(*) FROM pg_listening_channels() AS channel WHERE channel = ANY (%s::text[]))"
)
_PULSE = f"{_ASK}, pg_notify('{PULSE_CHANNEL}', %s)"
_PROBE = f"SELECT pg_notification_queue_usage(), pg_notify('{PULSE_CHANNEL}', %s)"


@dataclass(frozen=True)
class Sink:
    """Where a listener reports, in its own thread."""

    listening: Callable[[Query], bool]
    """It listens; and how to put a question to the server, which only this thread may do, when it is called.
    Tells whether nothing is missing of what came before. `HubConfigurationError`: waiting won't cure it."""
    not_listening: Callable[[str, bool], None]
    """Why, and whether the server had not answered in time."""
    receive: Callable[[Sequence[str]], None]
    heartbeat: Callable[[float], None]
    """The server has answered, and how full its notification queue is, from 0 to 1."""
    pause: Callable[[], float | None] = lambda: None
    """In how many seconds `receive` has to be called though nothing has arrived; None if it need not be."""


class Listener:
    """Listens until it is stopped. `run` is the thread; `stop` alone is for other threads.

    No thread but that of `run` touches the connection or an attribute; the watchdog's has a duplicate of the descriptor.
    What arrives is kept in `_arrived`, whatever is being waited for, and handed on in slices: between two of them the
    heartbeat is looked after. See `Heartbeat` for how soon a session is found to be deaf or dead, and why.
    """

    def __init__(
        self,
        parameters: conninfo.Parameters,
        channel: str,
        sink: Sink,
        *,
        heartbeat: float,
        heartbeat_timeout: float,
        max_reconnect_delay: float,
        outage: Outage | None = None,
    ) -> None:
        self._parameters = parameters
        self._channel = channel
        self._relname = channel.encode()
        self._sink = sink
        self._seconds = heartbeat
        self._timeout = heartbeat_timeout
        self._max_delay = max_reconnect_delay
        self._outage = outage or Outage()
        self._watchdog = Watchdog()
        self._connection: psycopg.Connection[Any] | None = None
        self._heartbeat = Heartbeat(heartbeat, 0.0)
        self._has_listened = False
        self._delay = self._first_delay = min(_FIRST_DELAY, max_reconnect_delay)
        self._server_words = ""
        self._alarmed = False
        self._arrived: deque[bytes] = deque()
        self._arrivals = 0
        self._expected = b""  # the pulse that has to come back; empty once it has

    def run(self) -> None:
        """Listen until `stop`. Raises `HubConfigurationError` before the first success only."""
        while not self._watchdog.stopped:
            try:
                self._session()
            except Exception as error:
                if not self._watchdog.stopped:
                    self._survive(error)

    def stop(self) -> None:
        """Make `run` return: within milliseconds, or `connect_timeout` while it connects."""
        self._watchdog.stop()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection."""
        abandon(self._connection)
        self._watchdog.abandon()

    def _session(self) -> None:
        """Connect, LISTEN, prove it, hand on what arrives until the connection is lost."""
        self._server_words, self._watchdog.expired = "", False
        connection = self._connection = conninfo.connect(self._parameters, "pgfanout-listener")
        try:
            connection.add_notice_handler(self._notice)
            prepare(connection)
            # As bytes: psycopg decodes a batch as a whole, and one wrong byte would hold up the rest of it.
            connection.pgconn.notify_handler = self._arrive
            with self._watchdog.watch(connection.fileno()):
                self._listen(connection)
                self._prove(connection)
                self._announce()
                while not self._watchdog.stopped:
                    self._round(connection)
        finally:
            connection.close()

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        with self._watchdog.limit(self._timeout):
            diagnosis.check_encoding(connection)
            for channel in (self._channel, PULSE_CHANNEL):
                execute(connection, sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def _prove(self, connection: psycopg.Connection[Any]) -> None:
        """Have a second session notify, and wait for it. Then the session is ours, and has our settings.

        A pooler in transaction mode accepts LISTEN and delivers nothing; a notification to
        oneself would come back all the same, with the answer to the statement. Events that
        arrive meanwhile are covered by what is told next: the gap, or what the log has; before the
        first time nobody has subscribed.
        """
        began = time.monotonic()
        pulse = self._new_pulse()
        try:
            self._probe(connection, pulse)
        except psycopg.OperationalError as error:
            self._blame(connection, error)
            raise
        if not self._comes_back(connection, time.monotonic() + _PROOF_TIME):
            # A stalled server isn't a pooler: what it owes comes with its next answer.
            with self._watchdog.limit(self._timeout):
                execute(connection, "SELECT 1")
            if not self._comes_back(connection, time.monotonic() + 0.1):
                raise HubConfigurationError(diagnosis.NOTHING_ARRIVES)
        with self._watchdog.limit(self._timeout):
            conninfo.settle(connection)
        self._arrived.clear()
        self._heartbeat = Heartbeat(self._seconds, began)

    def _probe(self, connection: psycopg.Connection[Any], pulse: str) -> None:
        with (
            conninfo.connect(conninfo.same_server(self._parameters, connection), "pgfanout-probe") as probe,
            self._watchdog.watch_too(probe.fileno()),
            self._watchdog.limit(self._timeout),
        ):
            execute(probe, _PROBE, (pulse,))

    def _blame(self, connection: psycopg.Connection[Any], error: psycopg.OperationalError) -> None:
        """The second session got no answer in time: raise what that means, if the first one has an answer."""
        if self._watchdog.stopped or not (
            self._watchdog.expired or isinstance(error, psycopg.errors.ConnectionTimeout)
        ):
            return
        self._watchdog.expired = False
        with self._watchdog.limit(self._timeout):
            execute(connection, "SELECT 1")
        raise diagnosis.no_second_session(self._timeout) from None

    def _announce(self) -> None:
        complete = self._sink.listening(self._query)
        logger.debug("listening on %s", self._channel)
        done = "the history had what was missed" if complete else "every subscription was told to refresh"
        self._outage.over(f"listening again; {done}" if self._has_listened else "listening")
        self._has_listened = True
        self._delay = self._first_delay

    def _query(self, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        with self._watchdog.limit(self._timeout):
            return execute(self._connection, statement, params).fetchall()

    def _round(self, connection: psycopg.Connection[Any]) -> None:
        """Hand on a slice of what has arrived, or what arrives before the heartbeat or the sink is due."""
        wait = self._heartbeat.due_at - time.monotonic()
        if wait <= 0:
            self._beat(connection)
            return
        pause = self._sink.pause()
        self._sink.receive(self._take(connection, wait if pause is None else min(wait, max(0.0, pause))))

    def _beat(self, connection: psycopg.Connection[Any]) -> None:
        """Ask the server whether this session still listens, and let it hear something if it has not for long."""
        sent = time.monotonic()
        pulse = self._new_pulse() if self._heartbeat.needs_pulse(sent) else ""
        usage = 1.0
        try:
            usage, listens = self._ask(connection, pulse)
        except psycopg.errors.ProgramLimitExceeded:
            # It lives; its queue is full, so nobody's notification is taken, ours as little.
            pass
        else:
            if not listens or (pulse and not self._comes_back(connection, sent + self._timeout)):
                raise diagnosis.DeafError(diagnosis.DEAF)
        self._heartbeat.answered(sent, pulse=bool(pulse))
        self._tell_usage(usage)

    def _ask(self, connection: psycopg.Connection[Any], pulse: str) -> tuple[float, bool]:
        channels = [self._channel, PULSE_CHANNEL]
        with self._watchdog.limit(self._timeout):
            if pulse:
                ((usage, listening, _),) = execute(connection, _PULSE, (channels, pulse)).fetchall()
            else:
                ((usage, listening),) = execute(connection, _ASK, (channels,)).fetchall()
        return usage, listening == len(channels)

    def _new_pulse(self) -> str:
        pulse = secrets.token_hex(8)
        self._expected = pulse.encode()
        return pulse

    def _comes_back(self, connection: psycopg.Connection[Any], deadline: float) -> bool:
        """Read until the pulse has arrived, or the deadline. What else arrives is kept, and moves no deadline."""
        while self._expected and (left := deadline - time.monotonic()) > 0:
            self._read(connection, left)
        return not self._expected

    def _tell_usage(self, usage: float) -> None:
        alarmed, self._alarmed = self._alarmed, usage >= _QUEUE_ALARM
        if self._alarmed and not alarmed:
            logger.warning(
                "the server's notification queue is %d %% full; when it is full, no transaction that notifies can"
                " commit. A session that executed LISTEN holds it up, usually by a transaction left open: look for the"
                " oldest xact_start in pg_stat_activity",
                usage * 100,
            )
        self._sink.heartbeat(usage)

    def _arrive(self, notify: PGnotify) -> None:
        """One notification, as soon as libpq has it: also in the middle of a statement of ours."""
        self._arrivals += 1
        if notify.relname == self._relname:
            self._arrived.append(notify.extra)
        elif notify.extra == self._expected:
            self._expected = b""

    def _take(self, connection: psycopg.Connection[Any], timeout: float) -> list[str]:
        """A slice of what has arrived, as texts; waits if that is nothing."""
        if not self._arrived:
            self._read(connection, timeout)
        return _texts([self._arrived.popleft() for _ in range(min(len(self._arrived), _SLICE))])

    def _read(self, connection: psycopg.Connection[Any], timeout: float) -> None:
        """Let arrive what the server has sent, or sends within the time."""
        waits, before = not _has_data(connection), self._arrivals
        try:
            # The whole batch has come to our handler before the first of it is handed out here, so nothing is lost
            # by leaving then, and psycopg need not decode the others.
            with closing(connection.notifies(timeout=timeout, stop_after=1)) as notifies:
                next(notifies, None)
        except UnicodeDecodeError:
            pass
        if waits and self._arrivals > before:
            self._heartbeat.heard(time.monotonic())

    def _survive(self, error: Exception) -> None:
        """`_lost`, whatever the application's log handlers do."""
        try:
            self._lost(error)
        except HubConfigurationError:
            raise
        except Exception:
            self._watchdog.wait_stopped(self._delay)

    def _lost(self, error: Exception) -> None:
        """After a failure: give up for what waiting won't cure, else wait a little."""
        dead = self._watchdog.expired or isinstance(error, diagnosis.DeafError)
        limit = f"the server did not answer within {self._timeout:g} s"
        words = limit if self._watchdog.expired else diagnosis.words(error, self._server_words)
        advice = diagnosis.advice(words)
        self._sink.not_listening(advice, dead)
        if not self._has_listened and diagnosis.is_incurable(error):
            raise HubConfigurationError(advice) from None
        if not isinstance(error, (psycopg.Error, HubConfigurationError)):
            logger.error("the listener failed, and goes on with a new connection", exc_info=error)
        pause = self._delay * random.uniform(0.5, 1.0)
        self._delay = min(self._delay * 2, self._max_delay)
        logger.debug("not listening (%s), trying again in %.1f s", words, pause)
        self._outage.failed(advice)
        self._watchdog.wait_stopped(pause)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # Why a server ends a session arrives as a notice, not with the exception.
        if notice.severity_nonlocalized in ("FATAL", "PANIC"):
            self._server_words = notice.message_primary or ""


def _has_data(connection: psycopg.Connection[Any]) -> bool:
    """Whether something has arrived that was not read. Raises `OperationalError` when the connection is closed."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
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
