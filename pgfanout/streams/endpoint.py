"""StreamEndpoint: from a WSGI request to the answer that carries its stream."""

from __future__ import annotations

import functools
import logging
import math
import random
import socket
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..errors import HubClosedError, HubTimeoutError, PgFanoutError, TooManyStreamsError, TooManyStreamsForUserError
from ..hub import NotifyHub
from ..log import numbered
from ..topic import Topic, topics
from . import sse
from .client import ClientSocket, server_socket
from .descriptors import check_descriptors
from .detached import DetachingStream, reason_to_stay
from .limiter import Place, StreamLimiter, hooks_are_installed
from .stream import EventStream, close_abandoned, close_forgotten
from .streamer import streamer

__all__ = ["Answer", "StreamEndpoint", "check_detach"]

logger = logging.getLogger("pgfanout")

_CONFIGURED = "it is configured so"
_SETTLE_TIME = 0.5

_Taken = TypeVar("_Taken")


def check_detach(mode: str | bool) -> str:
    """The mode: "auto" or "never", for which True and False do as well. Raises `ValueError`."""
    for name, same in (("auto", True), ("never", False)):
        if mode == name or mode is same:
            return name
    raise ValueError(f'detach is "auto" or "never", not {mode!r}')


@dataclass(frozen=True)
class Answer:
    """What to return to the server: any framework can make its response of it."""

    status: str
    """Code and reason, as WSGI's `start_response` takes them."""
    headers: list[tuple[str, str]]
    body: Iterable[bytes]
    """A stream has a `close` that has to be called at the end, which every WSGI server does."""


@dataclass(frozen=True)
class _Start:
    """What a stream begins with: with what came `after` a number, or with the next event; `replay` when the
    client has asked for it, `resumed` when it wanted to but has to refresh."""

    after: int | None
    replay: bool
    resumed: bool


class StreamEndpoint:
    """Opens streams of one hub within the caps of one limiter.

    `keepalive` and `client_timeout` are seconds: of silence before a keepalive comment, and
    before a client that acknowledges nothing is let go. `start_timeout` is how long the first
    stream waits for the hub to listen. A refused client is asked to come back after about
    `retry_after` seconds. `detach` is "auto" (streams leave their threads where that is safe) or
    "never".
    """

    def __init__(
        self,
        hub: NotifyHub,
        limiter: StreamLimiter | None = None,
        *,
        keepalive: float = 15.0,
        client_timeout: float = 30.0,
        start_timeout: float = 5.0,
        retry_after: float = 5.0,
        detach: str | bool = "auto",
    ) -> None:
        if not 0 < keepalive <= 86_400:
            raise ValueError("keepalive is a number of seconds: above 0, a day at most")
        self.hub = hub
        self.limiter = limiter if limiter is not None else StreamLimiter()
        self.keepalive = keepalive
        self.client_timeout = client_timeout
        self.start_timeout = start_timeout
        self.retry_after = retry_after
        self.detach = check_detach(detach)

    def answer(
        self,
        environ: Mapping[str, Any],
        channels: str | Iterable[str],
        tenant_id: str | uuid.UUID,
        user_id: Hashable = None,
        *,
        detach: str | bool | None = None,
    ) -> Answer:
        """The answer to a request for the events of one channel of a tenant, or of several.

        The caller has made sure that this client may see this tenant. `detach` is "auto" or
        "never" for this answer, None for what the endpoint does. May wait for the hub to
        listen. A full server, or one whose database is away, answers so that browsers try again.
        So does one that is stopping. Raises `InvalidEventError` and `HubConfigurationError`.
        """
        mode = self.detach if detach is None else check_detach(detach)
        if environ.get("REQUEST_METHOD") == "HEAD":
            return Answer("200 OK", list(sse.HEADERS), [])
        _warn_without_hooks(environ)
        try:
            body = self._open(environ, topics(channels, tenant_id), user_id, mode)
        except (TooManyStreamsError, HubTimeoutError, HubClosedError) as error:
            logger.warning("a stream was refused: %s", error)
            return self._refusal(environ, error)
        return Answer("200 OK", list(sse.HEADERS), body)

    def _open(
        self, environ: Mapping[str, Any], wanted: list[Topic], user_id: Hashable, mode: str
    ) -> EventStream | DetachingStream:
        reason = _CONFIGURED if mode == "never" else reason_to_stay(environ)
        connection = server_socket(environ)
        if connection is not None:
            check_descriptors(connection.fileno(), self.limiter.open)
        place = _with_room(lambda: self.limiter.acquire(user_id, detached=not reason))
        try:
            self.hub.start(self.start_timeout)
            client = ClientSocket(environ)
            client.limit_silence(self.client_timeout)
            client.send_at_once()
            asked = sse.last_event_id(environ)
            after = numbered(asked) if self.hub.has_history else 0
            start = _Start(after or None, replay=after > 0, resumed=bool(asked) and not after)
            if reason or connection is None:
                return self._stream_in_thread(environ, wanted, place, reason, start)
            return self._detaching_stream(connection, environ, wanted, place, start)
        except BaseException:
            place()
            raise

    def _stream_in_thread(
        self, environ: Mapping[str, Any], wanted: list[Topic], place: Place, reason: str, start: _Start
    ) -> EventStream:
        self.hub.count_kept_in_thread(reason)
        channels, tenant = [topic.channel for topic in wanted], wanted[0].tenant
        return EventStream(
            self.hub.subscribe(channels, tenant, after=start.after, start_timeout=self.start_timeout),
            keepalive=self.keepalive,
            resumed=start.resumed,
            client=ClientSocket(environ),
            on_close=place,
        )

    def _detaching_stream(
        self, connection: socket.socket, environ: Mapping[str, Any], wanted: list[Topic], place: Place, start: _Start
    ) -> DetachingStream:
        def stay(reason: str) -> EventStream:
            _with_room(place.keep_thread)
            late = replace(start, after=number or None, resumed=start.resumed or not number)
            return self._stream_in_thread(environ, wanted, place, reason, late)

        feed, position = self.hub.follow(wanted, streamer)
        number = start.after or feed.begun
        return DetachingStream(
            connection,
            feed,
            position,
            number=number,
            replay=start.replay,
            resumed=start.resumed,
            keepalive=self.keepalive,
            stay=stay,
            release=place,
        )

    def _refusal(self, environ: Mapping[str, Any], error: PgFanoutError) -> Answer:
        seconds = self.retry_after * random.uniform(0.5, 1.5)
        if sse.wants_events(environ):
            # An EventSource gives up for good on any status but 200.
            return Answer("200 OK", list(sse.HEADERS), [sse.retry(seconds)])
        user = isinstance(error, TooManyStreamsForUserError)
        status = "429 Too Many Requests" if user else "503 Service Unavailable"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Retry-After", str(math.ceil(seconds))),
        ]
        # Why the hub doesn't listen is the operator's to know: it is in the log.
        reason = error if isinstance(error, TooManyStreamsError) else "live updates are not available at the moment"
        return Answer(status, headers, [f"{reason}\n".encode()])


def _with_room(take: Callable[[], _Taken]) -> _Taken:
    """What a limiter gives; when it has nothing, what it gives once those who have left are counted out."""
    close_forgotten()
    try:
        return take()
    except TooManyStreamsError:
        streamer.settle(_SETTLE_TIME)
        close_abandoned()
    return take()


@functools.cache
def _complain_about_hooks() -> None:
    logger.warning(
        "gunicorn runs without pgfanout's hooks, so streams may take every thread and hold up each restart:"
        " add `from pgfanout.gunicorn import post_worker_init, worker_exit` to gunicorn.conf.py"
    )


def _warn_without_hooks(environ: Mapping[str, Any]) -> None:
    if str(environ.get("SERVER_SOFTWARE", "")).startswith("gunicorn") and not hooks_are_installed():
        _complain_about_hooks()
