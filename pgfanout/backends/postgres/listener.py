"""The listener: one session that LISTENs, for as long as the hub lives.

An outer loop reconnects after any failure, an inner one hands on what arrives. The session LISTENs before the hub
refreshes its subscribers. So a page that reloads its state on a refresh can't miss what is committed while it loads.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg

from ...backend import Sink
from ...delivery.log import LogSession
from ...errors import HubConfigurationError
from . import conninfo, diagnosis
from .heartbeat import Heartbeat
from .history.table import Query, prepare
from .outage import Outage
from .session import Session
from .watchdog import Watchdog

__all__ = ["Listener", "Timing"]

logger = logging.getLogger("pgfanout")

_FIRST_DELAY = 0.1
_QUEUE_ALARM = 0.5


class Timing(NamedTuple):
    """Seconds: see `PostgresHub`."""

    heartbeat: float = 5.0
    heartbeat_timeout: float = 5.0
    max_reconnect_delay: float = 1.5


class Listener:
    """Listens until it is stopped. `run` is the thread; `stop` alone is for other threads.

    No thread but that of `run` touches the connection or an attribute. The watchdog has a duplicate of the descriptor.
    See `Heartbeat` for how soon a session is found to be deaf or dead, and why.
    """

    def __init__(
        self,
        parameters: conninfo.Parameters,
        channel: str,
        sink: Sink,
        timing: Timing,
        outage: Outage,
        *,
        table: Callable[[Query], LogSession] | None = None,
    ) -> None:
        """`table` makes the log's table of a session's query, for a hub with history."""
        self._parameters = parameters
        self._channel = channel
        self._sink = sink
        self._heartbeat, self._timeout, self._max_delay = timing
        self._outage = outage
        self._table = table
        self._watchdog = Watchdog()
        self._connection: psycopg.Connection[Any] | None = None
        self._has_listened = False
        self._delay = self._first_delay = min(_FIRST_DELAY, self._max_delay)
        self._server_words = ""
        self._alarmed = False

    def run(self) -> None:
        """Listen until `stop`. Raise `HubConfigurationError`, but only before the first success."""
        while not self._watchdog.stopped:
            try:
                self._session()
            except Exception as error:
                if not self._watchdog.stopped:
                    self._survive(error)

    def stop(self) -> None:
        """Make `run` return within milliseconds, or within `connect_timeout` while it connects."""
        self._watchdog.stop()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection."""
        conninfo.abandon(self._connection)
        self._watchdog.abandon()

    def _session(self) -> None:
        """Connect, LISTEN, prove it, hand on what arrives until the connection is lost."""
        self._server_words, self._watchdog.expired = "", False
        connection = self._connection = conninfo.connect(self._parameters, "pgfanout-listener")
        try:
            connection.add_notice_handler(self._notice)
            prepare(connection)
            session = Session(connection, self._channel, self._watchdog, self._timeout)
            with self._watchdog.watch(connection.fileno()):
                session.listen()
                heartbeat = Heartbeat(self._heartbeat, time.monotonic())
                session.prove(self._parameters)
                self._announce(session.query)
                while not self._watchdog.stopped:
                    self._round(session, heartbeat)
        finally:
            connection.close()

    def _announce(self, query: Query) -> None:
        complete = self._sink.listening(None if self._table is None else self._table(query))
        logger.debug("listening on %s", self._channel)
        done = "the history had what was missed" if complete else "every subscription was told to refresh"
        self._outage.over(f"listening again; {done}" if self._has_listened else "listening")
        self._has_listened = True
        self._delay = self._first_delay

    def _round(self, session: Session, heartbeat: Heartbeat) -> None:
        """Hand on one batch of notifications, or send the heartbeat if it is due."""
        now = time.monotonic()
        if now >= heartbeat.due_at:
            pulse = heartbeat.needs_pulse(now)
            usage = session.ask(pulse=pulse)
            heartbeat.answered(now, time.monotonic(), pulse=pulse)
            self._tell_usage(usage)
            return
        pause = self._sink.pause()
        wait = heartbeat.due_at - now
        texts = session.take(wait if pause is None else max(0.0, min(wait, pause)))
        heartbeat.heard(session.heard_at)
        self._sink.receive(texts)

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

    def _survive(self, error: Exception) -> None:
        """`_lost`, whatever the application's log handlers do."""
        try:
            self._lost(error)
        except HubConfigurationError:
            raise
        except Exception:
            self._watchdog.wait_stopped(self._delay)

    def _lost(self, error: Exception) -> None:
        """After a failure: raise if waiting won't cure it, otherwise wait before the next try."""
        dead = self._watchdog.expired or isinstance(error, diagnosis.DeafError)
        limit = f"the server did not answer within {self._timeout:g} s"
        words = limit if self._watchdog.expired else diagnosis.words(error, self._server_words)
        advice = diagnosis.advice(words)
        self._sink.not_listening(advice, dead)
        several_hosts = conninfo.may_have_several_hosts(self._parameters)
        if not self._has_listened and diagnosis.is_incurable(error, several_hosts=several_hosts):
            raise HubConfigurationError(advice) from None
        if not isinstance(error, (psycopg.Error, HubConfigurationError)):
            logger.error("the listener failed, and goes on with a new connection", exc_info=error)
        pause = self._delay * random.uniform(0.5, 1.0)
        self._delay = min(self._delay * 2, self._max_delay)
        logger.debug("not listening (%s), trying again in %.1f s", words, pause)
        self._outage.failed(advice)
        self._watchdog.wait_stopped(pause)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # The reason why a server ends a session arrives as a notice, not with the exception.
        if notice.severity_nonlocalized in ("FATAL", "PANIC"):
            self._server_words = notice.message_primary or ""
