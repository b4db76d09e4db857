"""PgFanout: the Flask extension."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import fields
from typing import Any

import flask

from .backends.postgres import History, PostgresHub
from .delivery.tail import BUFFER_BYTES
from .errors import HubClosedError, HubConfigurationError, HubTimeoutError, PgFanoutError
from .hub import NotifyHub, core_of
from .streams import StreamEndpoint, StreamLimiter
from .streams.endpoint import check_detach

__all__ = ["PgFanout"]

logger = logging.getLogger("pgfanout")

_HUB_DEFAULTS: dict[str, Any] = {
    "PGFANOUT_DATABASE_URL": None,
    "PGFANOUT_POSTGRES_CHANNEL": "pgfanout_events",
    "PGFANOUT_BUFFER_SIZE": 32,
    "PGFANOUT_BUFFER_BYTES": BUFFER_BYTES,
    "PGFANOUT_HISTORY": False,
    **{f"PGFANOUT_HISTORY_{field.name.upper()}": field.default for field in fields(History)},
    "PGFANOUT_HEARTBEAT": 5.0,
    "PGFANOUT_HEARTBEAT_TIMEOUT": 5.0,
    "PGFANOUT_MAX_RECONNECT_DELAY": 1.5,
}

_DEFAULTS: dict[str, Any] = {
    **_HUB_DEFAULTS,
    "PGFANOUT_MAX_STREAMS": 5000,
    "PGFANOUT_MAX_STREAMS_PER_USER": 10,
    "PGFANOUT_THREAD_RESERVE": 2,
    "PGFANOUT_KEEPALIVE": 15.0,
    "PGFANOUT_CLIENT_TIMEOUT": 30.0,
    "PGFANOUT_START_TIMEOUT": 5.0,
    "PGFANOUT_RETRY_AFTER": 5.0,
    "PGFANOUT_DETACH": "auto",
}


class PgFanout:
    """Live updates for Flask applications.

    `PgFanout(app)`, or `PgFanout()` and `init_app(app)` for as many applications as you like:
    each has a hub of its own, made from its configuration, unless `PgFanout(hub=...)` brings
    one. The methods use the current application; outside an application context that is the
    one application given, where there is only one.
    """

    def __init__(self, app: flask.Flask | None = None, *, hub: NotifyHub | None = None) -> None:
        self._own_hub = hub
        self._apps: list[flask.Flask] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Make the application's hub and caps from its configuration. Connects to nothing.

        Raises `HubConfigurationError` when `PGFANOUT_DATABASE_URL` is missing or unreadable. With `PgFanout(hub=...)`,
        settings that concern the hub have no effect, which a warning in the log says.
        """
        if self._own_hub is not None:
            _warn_of_ignored(app.config)
        for key, default in _DEFAULTS.items():
            app.config[key] = _checked(key, app.config.get(key, default), default)
        hub = self._own_hub if self._own_hub is not None else _hub(app.config)
        app.extensions["pgfanout"] = _endpoint(hub, app.config)
        app.jinja_env.globals["pgfanout_cursor"] = self.cursor
        self._apps.append(app)

    @property
    def hub(self) -> NotifyHub:
        """The current application's hub."""
        return self._endpoint.hub

    @property
    def limiter(self) -> StreamLimiter:
        """The current application's caps."""
        return self._endpoint.limiter

    def stream(
        self,
        channels: str | Iterable[str],
        tenant_id: str | uuid.UUID,
        user_id: Hashable = None,
        *,
        detach: str | bool | None = None,
    ) -> flask.Response:
        """A response that carries the events of one channel of a tenant, or of several.

        Make sure first that the current user may see this tenant: the library can't know. With a
        `user_id`, `PGFANOUT_MAX_STREAMS_PER_USER` holds for this user. `detach` overrides
        `PGFANOUT_DETACH` for this response ("auto" or "never"). The response needs neither
        the request's context nor anything that is torn down with it. What is given to its `call_on_close` is
        called when the stream has ended: also long after it has left its thread, in a thread of the library's then.

        Only the first stream of a process may wait for the hub, `PGFANOUT_START_TIMEOUT` seconds at most. When a stream
        can't be given, the response asks the browser to come back. Raises `InvalidEventError`.
        """
        answer = self._endpoint.answer(flask.request.environ, channels, tenant_id, user_id, detach=detach)
        if answer.endings is None:
            return flask.Response(answer.body, answer.status, answer.headers)
        response = flask.Response(answer.body, answer.status, answer.headers, direct_passthrough=True)
        # On the object itself: Flask gives a response the application's own class. Werkzeug calls nothing at the end
        # of a response that is passed through, and a detached stream goes on after its response.
        response.call_on_close = answer.endings.append  # type: ignore[method-assign, assignment]
        return response

    def publish(
        self,
        channel: str,
        tenant_id: str | uuid.UUID,
        payload: Any,
        *,
        type: str = "",
        executor: Any = None,
    ) -> None:
        """`NotifyHub.publish` of the current application's hub."""
        self.hub.publish(channel, tenant_id, payload, type=type, executor=executor)

    def publish_many(self, events: Iterable[Sequence[Any]], *, executor: Any = None) -> None:
        """`NotifyHub.publish_many` of the current application's hub."""
        self.hub.publish_many(events, executor=executor)

    def healthz(self, timeout: float = 0.0) -> flask.Response:
        """200 when the hub listens, 503 when not, with the reason as JSON.

        Starts the hub when nobody did. It waits `timeout` seconds at most for the hub to listen: not at all by
        default, so that a probe is answered while the database is away.
        """
        reason = ""
        try:
            self.hub.start_in_background()
            if timeout > 0:
                self.hub.start(timeout)
        except PgFanoutError as error:
            reason = str(error)
        stats = self.hub.stats()
        body = flask.json.dumps(
            {
                "listening": stats.listening,
                "since": stats.since,
                "reconnects": stats.reconnects,
                "streams": self.limiter.open,
                "in_threads": self.limiter.in_threads,
                "error": "" if stats.listening else reason or stats.last_error or "not listening yet",
            }
        )
        return flask.Response(body, 200 if stats.listening else 503, content_type="application/json")

    def cursor(self, *, executor: Any = None) -> str:
        """What a page puts after `?last_event_id=` of its stream's URL, to get what is committed from now on.

        To be called before the page's state is read from the database. Templates have it as
        `pgfanout_cursor()`, for those that read the state themselves. Empty without history, and while the
        hub isn't listening: the page has to load its state when its stream opens then. Only the first thread of a
        process that needs the hub may wait for it, `PGFANOUT_START_TIMEOUT` seconds at most.

        With an `executor`, as for `publish`, the cursor is that of its transaction's snapshot, which counts under
        REPEATABLE READ: `NotifyHub.cursor` has more. That asks the database, and raises the executor's errors.
        """
        hub = self.hub
        if executor is not None:
            return hub.cursor(executor=executor) or ""
        try:
            if hub.has_history and core_of(hub).lifecycle.await_first_start(self._endpoint.start_timeout):
                return hub.cursor() or ""
        except (HubClosedError, HubTimeoutError):
            pass
        return ""

    @property
    def _endpoint(self) -> StreamEndpoint:
        app = self._app()
        endpoint = app.extensions.get("pgfanout")
        if not isinstance(endpoint, StreamEndpoint):
            raise RuntimeError("this Flask application has no PgFanout: call fanout.init_app(app) first")
        return endpoint

    def _app(self) -> flask.Flask:
        if flask.has_app_context():
            app: flask.Flask = flask.current_app._get_current_object()  # type: ignore[attr-defined]
            return app
        if len(self._apps) == 1:
            return self._apps[0]
        raise RuntimeError(
            f"PgFanout has {len(self._apps)} applications, and no application context tells"
            " which one is meant: use it within `with app.app_context():`"
        )


def _checked(key: str, value: Any, default: Any) -> Any:
    """A setting as its default's kind of value, since those from the environment are text."""
    name, convert = _DETACH if key == "PGFANOUT_DETACH" else _KINDS.get(type(default), ("", lambda value: value))
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise HubConfigurationError(f"{key} has to be {name}, not {value!r}") from None


def _warn_of_ignored(config: flask.Config) -> None:
    ignored = [key for key, default in _HUB_DEFAULTS.items() if config.get(key, default) != default]
    if ignored:
        logger.warning(
            "PgFanout was given a hub, so it ignores these settings: %s. Remove them, or set them on that hub",
            ", ".join(ignored),
        )


def _whole(value: Any) -> int:
    number = int(value)
    if number != float(value):
        raise ValueError
    return number


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

_KINDS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bool: ("true or false", lambda value: _BOOLEANS[str(value).lower()]),
    int: ("a whole number", _whole),
    float: ("a number", _finite),
}


_DETACH: tuple[str, Callable[[Any], Any]] = ('"auto" or "never"', check_detach)


def _hub(config: flask.Config) -> NotifyHub:
    url = config["PGFANOUT_DATABASE_URL"]
    if not url:
        raise HubConfigurationError(
            "PGFANOUT_DATABASE_URL is not set: give the PostgreSQL server's URL in the"
            " application's configuration before init_app, or a hub by PgFanout(hub=...)"
        )
    return PostgresHub(
        url,
        buffer_size=config["PGFANOUT_BUFFER_SIZE"],
        buffer_bytes=config["PGFANOUT_BUFFER_BYTES"],
        postgres_channel=config["PGFANOUT_POSTGRES_CHANNEL"],
        history=_history(config),
        heartbeat=config["PGFANOUT_HEARTBEAT"],
        heartbeat_timeout=config["PGFANOUT_HEARTBEAT_TIMEOUT"],
        max_reconnect_delay=config["PGFANOUT_MAX_RECONNECT_DELAY"],
    )


def _history(config: flask.Config) -> History | None:
    if not config["PGFANOUT_HISTORY"]:
        return None
    return History(**{field.name: config[f"PGFANOUT_HISTORY_{field.name.upper()}"] for field in fields(History)})


def _endpoint(hub: NotifyHub, config: flask.Config) -> StreamEndpoint:
    limiter = StreamLimiter(
        config["PGFANOUT_MAX_STREAMS"],
        config["PGFANOUT_MAX_STREAMS_PER_USER"],
        thread_reserve=config["PGFANOUT_THREAD_RESERVE"],
    )
    return StreamEndpoint(
        hub,
        limiter,
        keepalive=config["PGFANOUT_KEEPALIVE"],
        client_timeout=config["PGFANOUT_CLIENT_TIMEOUT"],
        start_timeout=config["PGFANOUT_START_TIMEOUT"],
        retry_after=config["PGFANOUT_RETRY_AFTER"],
        detach=config["PGFANOUT_DETACH"],
    )
