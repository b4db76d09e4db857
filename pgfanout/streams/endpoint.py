"""StreamEndpoint: answers a WSGI request with a stream."""

from __future__ import annotations

import logging
import math
import random
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ..delivery.log import numbered
from ..errors import (
    HubClosedError,
    HubConfigurationError,
    HubTimeoutError,
    PgFanoutError,
    TooManyOpenFilesError,
    TooManyStreamsError,
    TooManyStreamsForUserError,
)
from ..hub import NotifyHub, core_of
from ..rate_limit import RateLimit
from ..topic import TenantId, Topic, as_text, topics
from . import sse
from .advice import advise
from .client import ClientSocket, server_socket
from .descriptors import check_descriptors
from .detached import DetachedStream, reason_to_stay
from .detached.streamer import streamer
from .endings import Endings
from .limiter import Place, StreamLimiter
from .threaded import Source, ThreadedStream, close_dropped, close_left

__all__ = ["Answer", "StreamEndpoint", "check_detach", "encoder_of"]

logger = logging.getLogger("pgfanout")

_CONFIGURED = "it is configured so"
_CLOSE_TIME = 0.5
_SOON = 2.0
"""The longest time in seconds after which a client is asked to reconnect while the hub is not listening yet."""
_LOG_EVERY = 60.0

_Taken = TypeVar("_Taken")


_REFUSALS: Final = (
    # Each class has its own rate limit in the log. Subclasses come first, so that they match first.
    TooManyStreamsForUserError,
    TooManyOpenFilesError,
    TooManyStreamsError,
    HubTimeoutError,
    HubClosedError,
    HubConfigurationError,
)


def check_detach(mode: str | bool) -> str:
    """Return the mode, "auto" or "never". True stands for "auto", False for "never". Raise `ValueError`."""
    for name, same in (("auto", True), ("never", False)):
        if mode == name or mode is same:
            return name
    raise ValueError(f'detach is "auto" or "never", not {mode!r}')


def encoder_of(data: str) -> sse.Encoder:
    """Return the encoder for a stream's `data`. Raise `ValueError`."""
    encoder = sse.ENCODERS.get(data) if isinstance(data, str) else None
    if encoder is None:
        raise ValueError(f'data is "json" or "text", not {data!r}')
    return encoder


@dataclass(frozen=True)
class Answer:
    """The parts of a response, from which any framework can make its own."""

    status: str
    """Code and reason, as for WSGI's `start_response`."""
    headers: list[tuple[str, str]]
    body: Iterable[bytes]
    """The body of a stream has a `close`. Call it at the end, as every WSGI server does."""
    endings: Endings | None = None
    """The functions to call when the stream has ended. They may run in any thread. None if there is no stream."""


@dataclass(frozen=True)
class _Request:
    """What a stream is made of. It begins with the events `after` a number, or with the next event."""

    environ: Mapping[str, Any]
    topics: list[Topic]
    place: Place
    after: int | None
    resumed: bool
    """Whether the stream starts with a refresh, because nobody knows which events its client has missed."""
    encoder: sse.Encoder


class StreamEndpoint:
    """Opens streams of one hub within the limits of one limiter.

    All times are seconds. A keepalive comment is sent after `keepalive` of silence. A client that acknowledges nothing
    for `client_timeout` is cut. The first stream waits up to `start_timeout` until the hub listens, and no other
    stream waits. A refused client is asked to reconnect after about `retry_after`. `detach` is "auto" (streams leave
    their threads where that is safe) or "never".
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
        self._refusals: dict[type[PgFanoutError], RateLimit] = {kind: RateLimit(_LOG_EVERY) for kind in _REFUSALS}

    def answer(
        self,
        environ: Mapping[str, Any],
        channels: str | Iterable[str],
        tenant_id: TenantId | Iterable[TenantId],
        user_id: TenantId = None,
        *,
        detach: str | bool | None = None,
        data: str = "json",
        refresh_first: bool = False,
    ) -> Answer:
        """Answer a request for the events of one channel or several, of one tenant or several.

        Check before that this client may see these tenants. A `user_id` follows a tenant's rule, so 7 and "7" are one
        user. `detach` is "auto" or "never" for this answer. With None the endpoint's own setting holds. With
        `data="text"` a payload that is a JSON string is sent as its text. With `refresh_first` the stream starts with a
        refresh whether or not the client says where it was, and so replays nothing: the refresh covers everything
        before it.

        Errors of the hub are not raised. If the hub has never listened, a stream that can be detached is detached, and
        begins with a refresh once the hub listens. Any other stream is refused in a way that makes browsers retry. A
        stream is also refused if a limit is reached, the database is misconfigured, or the server is stopping. The log
        has the reason. Only the first answer may block until the hub listens. Raise `InvalidEventError`, and
        `ValueError` for `detach` and `data`.
        """
        mode = self.detach if detach is None else check_detach(detach)
        encoder = encoder_of(data)
        if environ.get("REQUEST_METHOD") == "HEAD":
            return Answer("200 OK", list(sse.HEADERS), [])
        advise(environ, one_process=core_of(self.hub).backend.one_process)
        wanted = topics(channels, tenant_id)
        user = None if user_id is None else as_text(user_id, "user")
        try:
            body, place = self._open(environ, wanted, user, mode, encoder, refresh_first)
        except _REFUSALS as error:
            self._log_refusal(error)
            return self._refusal(environ, error)
        return Answer("200 OK", list(sse.HEADERS), body, place)

    def _open(
        self,
        environ: Mapping[str, Any],
        wanted: list[Topic],
        user: str | None,
        mode: str,
        encoder: sse.Encoder,
        refresh_first: bool,
    ) -> tuple[ThreadedStream | DetachedStream, Place]:
        reason = _CONFIGURED if mode == "never" else reason_to_stay(environ)
        connection = server_socket(environ)
        if connection is not None:
            check_descriptors(connection.fileno(), self.limiter.open)
        place = _with_room(lambda: self.limiter.acquire(user, detached=not reason))
        try:
            self._check_hub(can_wait=not reason and connection is not None)
            client = ClientSocket(environ)
            client.limit_silence(self.client_timeout)
            client.send_at_once()
            after, resumed = self._beginning(environ, refresh_first)
            request = _Request(environ, wanted, place, after, resumed, encoder)
            if reason or connection is None:
                return self._subscribe(request, reason), place
            return self._detach(request, connection), place
        except BaseException:
            place()
            raise

    def _beginning(self, environ: Mapping[str, Any], refresh_first: bool) -> tuple[int | None, bool]:
        """Return the number after which a stream begins (None: now), and whether it starts with a refresh."""
        asked = sse.last_event_id(environ)
        after = numbered(asked) if self.hub.has_history and not refresh_first else 0
        return after or None, refresh_first or (bool(asked) and not after)

    def _check_hub(self, *, can_wait: bool) -> None:
        """Raise `HubTimeoutError` for a stream that would block its thread until the hub listens for the first time."""
        core_of(self.hub).lifecycle.await_first_start(self.start_timeout)
        if not (can_wait or self.hub.has_listened):
            reason = self.hub.stats().last_error or "no answer yet"
            raise HubTimeoutError(f"the hub is not listening yet: {reason}")

    def _subscribe(self, request: _Request, reason: str) -> ThreadedStream:
        self.hub.start(self.start_timeout)
        subscription = core_of(self.hub).subscribe(request.topics, request.after)
        return self._stay(request, subscription, reason, resumed=request.resumed)

    def _stay(self, request: _Request, source: Source, reason: str, *, resumed: bool) -> ThreadedStream:
        core_of(self.hub).count_kept_in_thread(reason)
        client = ClientSocket(request.environ)
        return ThreadedStream(
            source,
            keepalive=self.keepalive,
            resumed=resumed,
            encoder=request.encoder,
            client=client,
            on_close=request.place,
        )

    def _detach(self, request: _Request, connection: socket.socket) -> DetachedStream:
        def stay(reason: str) -> ThreadedStream:
            if not self.hub.has_listened:
                self._check_hub(can_wait=False)
            _with_room(request.place.keep_thread)
            follower = core.follow_in_thread(feed, reader)
            return self._stay(request, follower, reason, resumed=resumed)

        core = core_of(self.hub)
        feed, reader = core.follow(request.topics, streamer.mailbox, request.after)
        # `early` is read after `follow`: a reader of an early feed gets a refresh anyway, when the hub listens.
        resumed = request.resumed and not feed.early
        return DetachedStream(
            connection,
            feed,
            reader,
            resumed=resumed,
            keepalive=self.keepalive,
            encoder=request.encoder,
            stay=stay,
            release=request.place,
        )

    def _log_refusal(self, error: PgFanoutError) -> None:
        limit = next(limit for kind, limit in self._refusals.items() if isinstance(error, kind))
        if (held_back := limit.take()) is not None:
            more = f" ({held_back} more since the last such line)" if held_back else ""
            level = logging.ERROR if isinstance(error, HubConfigurationError) else logging.WARNING
            logger.log(level, "a stream was refused: %s%s", error, more)

    def _refusal(self, environ: Mapping[str, Any], error: PgFanoutError) -> Answer:
        seconds = self.retry_after * random.uniform(0.5, 1.5)
        if isinstance(error, HubTimeoutError):
            seconds = min(self.retry_after, _SOON) * random.uniform(0.5, 1.0)
        if sse.wants_events(environ) or not environ.get("HTTP_ACCEPT"):
            # An EventSource gives up for good on any status but 200. A client without an Accept header may be one.
            return Answer("200 OK", list(sse.HEADERS), [sse.refusal(seconds, sse.last_event_id(environ))])
        user = isinstance(error, TooManyStreamsForUserError)
        status = "429 Too Many Requests" if user else "503 Service Unavailable"
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", str(math.ceil(seconds)))]
        # The log has the reason why the hub doesn't listen. It is for the operator, not for clients.
        reason = error if isinstance(error, TooManyStreamsError) else "live updates are not available at the moment"
        return Answer(status, headers, [f"{reason}\n".encode()])


def _with_room(take: Callable[[], _Taken]) -> _Taken:
    """Return a place from the limiter. If there is none, block 0.5 s at most for clients that leave, and try again."""
    close_dropped()
    try:
        return take()
    except TooManyStreamsError:
        streamer.close_left(_CLOSE_TIME)
        close_left()
    return take()
