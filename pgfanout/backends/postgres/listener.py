"""The listener: one session that LISTENs, for as long as the hub lives.

An outer loop that connects again after whatever went wrong, an inner one that hands on what
arrives. LISTEN comes before anything is announced, so that a page which loads its state when it
is told to refresh can't miss what is committed while it loads.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import PGnotify

from ...errors import HubConfigurationError
from . import conninfo, diagnosis
from .log import Query, prepare
from .publisher import abandon
from .watchdog import Watchdog

__all__ = ["Listener", "Sink"]

logger = logging.getLogger("pgfanout")

_FIRST_DELAY = 0.1
_PROOF_TIME = 3.0
_QUEUE_ALARM = 0.5
# Asking for the usage makes the server free what everyone has read. It does so at no other time
# when its queue is full and nobody listens: all notifications would be refused for ever.
_PULSE = "SELECT pg_notification_queue_usage(), pg_notify(%s, 'pulse')"


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
    """How full the server's notification queue is, from 0 to 1."""
    pause: Callable[[], float | None] = lambda: None
    """Seconds until `receive` has to be called even if nothing arrives; None when it need not."""


class Listener:
    """Listens until it is stopped. `run` is the thread; `stop` alone is for other threads."""

    def __init__(
        self,
        parameters: conninfo.Parameters,
        channel: str,
        sink: Sink,
        *,
        heartbeat: float,
        heartbeat_timeout: float,
        max_reconnect_delay: float,
    ) -> None:
        self._parameters = parameters
        self._channel = channel
        self._sink = sink
        self._heartbeat = heartbeat
        self._heartbeat_timeout = heartbeat_timeout
        self._max_delay = max_reconnect_delay
        self._pulse = f"pgfanout_{secrets.token_hex(8)}"  # a channel that nobody else listens to
        self._watchdog = Watchdog()
        self._connection: psycopg.Connection[Any] | None = None
        self._has_listened = False
        self._delay = self._first_delay = min(_FIRST_DELAY, max_reconnect_delay)
        self._server_words = ""
        self._alarmed = False
        self._arrived: deque[PGnotify] = deque()

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
            self._arrived.clear()
            # As bytes: psycopg decodes a batch as a whole, and one wrong byte would hold up the rest of it.
            connection.pgconn.notify_handler = self._arrived.append
            with self._watchdog.watch(connection.fileno()):
                self._listen(connection)
                self._prove(connection)
                self._announce()
                while not self._watchdog.stopped:
                    self._receive(connection)
        finally:
            connection.close()

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        with self._watchdog.limit(self._heartbeat_timeout):
            diagnosis.check_encoding(connection)
            for channel in (self._channel, self._pulse):
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def _prove(self, connection: psycopg.Connection[Any]) -> None:
        """Have a second session notify, and wait for it.

        A pooler in transaction mode accepts LISTEN and delivers nothing; a notification to
        oneself would come back all the same, with the answer to the statement. Events that
        arrive meanwhile are covered by what is told next: the gap, or what the log has; before the
        first time nobody has subscribed.
        """
        with (
            conninfo.connect(conninfo.same_server(self._parameters, connection), "pgfanout-probe") as probe,
            self._watchdog.watch_too(probe.fileno()),
            self._watchdog.limit(self._heartbeat_timeout),
        ):
            probe.execute(_PULSE, (self._pulse,))
        deadline = time.monotonic() + _PROOF_TIME
        while (left := deadline - time.monotonic()) > 0:
            if self._take(connection, left)[1]:
                return
        # A stalled server isn't a pooler: what it owes comes with its next answer.
        with self._watchdog.limit(self._heartbeat_timeout):
            connection.execute("SELECT 1")
            pulse = self._take(connection, 0.1)[1]
        if not pulse:
            raise HubConfigurationError(diagnosis.NOTHING_ARRIVES)

    def _announce(self) -> None:
        complete = self._sink.listening(self._query)
        if self._has_listened:
            done = "the history had what was missed" if complete else "every subscription was told to refresh"
            logger.warning("listening again; %s", done)
        else:
            logger.debug("listening on %s", self._channel)
        self._has_listened = True
        self._delay = self._first_delay

    def _query(self, statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        with self._watchdog.limit(self._heartbeat_timeout):
            return self._connection.execute(statement.encode(), params).fetchall()

    def _receive(self, connection: psycopg.Connection[Any]) -> None:
        """Hand on what arrives until the next heartbeat is due."""
        deadline = time.monotonic() + self._heartbeat
        while (left := deadline - time.monotonic()) > 0 and not self._watchdog.stopped:
            pause = self._sink.pause()
            self._sink.receive(self._take(connection, left if pause is None else min(left, pause))[0])
        self._beat(connection)

    def _beat(self, connection: psycopg.Connection[Any]) -> None:
        """Make sure that the server lives and that notifications arrive."""
        try:
            with self._watchdog.limit(self._heartbeat_timeout):
                ((usage, _),) = connection.execute(_PULSE, (self._pulse,)).fetchall()
        except psycopg.errors.ProgramLimitExceeded:
            # It lives; its queue is full, so nobody's notification is taken, ours as little.
            self._tell_usage(1.0)
            return
        self._tell_usage(usage)
        pulse = False
        while not pulse:
            # Whatever arrives shows that the server lives; handing it on is not its time.
            with self._watchdog.limit(self._heartbeat_timeout):
                texts, pulse = self._take(connection, self._heartbeat_timeout)
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

    def _take(self, connection: psycopg.Connection[Any], timeout: float) -> tuple[list[str], bool]:
        """One batch, waiting for it: the events' texts, and whether our pulse was among them."""
        if not self._arrived:
            try:
                # The whole batch has come to our handler before the first of it is handed out here, so nothing is lost
                # by leaving then, and psycopg need not decode the others.
                with closing(connection.notifies(timeout=timeout, stop_after=1)) as notifies:
                    next(notifies, None)
            except UnicodeDecodeError:
                pass
        batch = [self._arrived.popleft() for _ in range(len(self._arrived))]
        channel, pulse = self._channel.encode(), self._pulse.encode()
        texts = _texts([notify.extra for notify in batch if notify.relname == channel])
        return texts, len(texts) < len(batch) and any(notify.relname == pulse for notify in batch)

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
        dead = self._watchdog.expired
        limit = f"the server did not answer within {self._heartbeat_timeout:g} s"
        words = limit if dead else diagnosis.words(error, self._server_words)
        self._sink.not_listening(words, dead)
        several_hosts = conninfo.has_several_hosts(self._parameters)
        if not self._has_listened and diagnosis.is_incurable(error, several_hosts=several_hosts):
            raise HubConfigurationError(diagnosis.advice(error, words)) from None
        if not isinstance(error, (psycopg.Error, HubConfigurationError)):
            logger.error("the listener failed, and goes on with a new connection", exc_info=error)
        pause = self._delay * random.uniform(0.5, 1.0)
        log = logger.warning if self._has_listened else logger.debug
        log("not listening (%s), trying again in %.1f s", words, pause)
        self._delay = min(self._delay * 2, self._max_delay)
        self._watchdog.wait_stopped(pause)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # Why a server ends a session arrives as a notice, not with the exception.
        if notice.severity_nonlocalized in ("FATAL", "PANIC"):
            self._server_words = notice.message_primary or ""


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
