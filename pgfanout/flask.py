"""PgFanout: the Flask extension."""

from __future__ import annotations

import json
import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
import flask

from . import cli
from .dropped import close_with
from .errors import HubConfigurationError
from .executor import Executor
from .hub import NotifyHub
from .settings import Settings
from .static import page_client
from .streams import StreamEndpoint, StreamLimiter
from .streams.state import cursor, health
from .topic import TenantId

__all__ = ["PgFanout"]

logger = logging.getLogger("pgfanout")

_PREFIX = "PGFANOUT_"

_CLIENT_PATH = "/_pgfanout/pgfanout.js"
_CLIENT_ENDPOINT = "_pgfanout_client"


class PgFanout:
    """Live updates for Flask applications.

    Use `PgFanout(app)`, or `PgFanout()` and `init_app(app)` for any number of applications. Each application gets its
    own hub, made from its configuration. With `PgFanout(hub=...)` they use that hub. The methods use the current
    application. Outside an application context they use the only application, if there is only one.

    `close` closes an application's hub. So does the garbage collector, when it frees an application whose hub was made
    from its configuration.
    """

    def __init__(self, app: flask.Flask | None = None, *, hub: NotifyHub | None = None) -> None:
        self._hub = hub
        self._given = app
        """Keeps the application, which may have no other reference. Those of `init_app` are not kept."""
        self._apps: list[weakref.ref[flask.Flask]] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask, *, hub: NotifyHub | None = None) -> None:
        """Make the application's hub and limits from its configuration. Connect to nothing.

        `PGFANOUT_URL`, of the configuration or else of the environment, selects the hub by its scheme. Raise
        `HubConfigurationError` if it is missing or unreadable, or a setting has the wrong type. Log a warning of names
        that begin with `PGFANOUT_` and are no setting. With `PgFanout(hub=...)`, or a `hub` for this application, the
        hub's settings have no effect, and a warning is logged if one is set.

        The application also serves the page's client, at `PGFANOUT_CLIENT_PATH`, unless that is empty.
        """
        settings = Settings(app.config.get_namespace(_PREFIX, lowercase=False))
        app.config.update({_PREFIX + name: value for name, value in settings.values.items()})
        if unknown := [_PREFIX + name for name in settings.unknown if name != "CLIENT_PATH"]:
            logger.warning(
                "PgFanout ignores what is no setting: %s. docs/settings.md has their names", ", ".join(unknown)
            )
        brought = hub or self._hub
        if brought is not None:
            _warn_of_ignored(settings)
        own = brought or settings.new_hub(_json_default(app))
        app.extensions["pgfanout"] = settings.new_endpoint(own)
        app.jinja_env.globals["pgfanout_cursor"] = self.cursor
        app.jinja_env.globals["pgfanout_client_url"] = self.client_url
        _serve_client(app)
        app.cli.add_command(_command(settings))
        self._apps = [weakref.ref(each) for each in {*self._living(), app}]
        if brought is None:
            close_with(app, own)

    @property
    def hub(self) -> NotifyHub:
        """The current application's hub."""
        return self._endpoint.hub

    @property
    def limiter(self) -> StreamLimiter:
        """The current application's limits."""
        return self._endpoint.limiter

    def stream(
        self,
        channels: str | Iterable[str],
        tenant_id: TenantId | Iterable[TenantId],
        user_id: TenantId = None,
        *,
        detach: str | bool | None = None,
        data: str = "json",
        refresh_first: bool = False,
    ) -> flask.Response:
        """Return a response that streams the events of one channel or several, of one tenant or several.

        Check first that the current user may see these tenants: the library can't know. With a `user_id`, which follows
        a tenant's rule, the user may have `PGFANOUT_MAX_STREAMS_PER_USER` streams. `detach` ("auto" or "never")
        overrides `PGFANOUT_DETACH` for this response. The stream needs neither the request's context nor anything that
        is torn down with it. Functions given to the response's `call_on_close` are called when the stream has ended. If
        it was detached, they are called in a thread of the library.

        With `data="text"` a payload that is a JSON string is sent as its text, line by line: an HTML fragment for htmx,
        say. Any other payload is sent as JSON. With `refresh_first` the stream starts with a refresh in any case, for
        clients that reconnect without a `Last-Event-ID`. It replays nothing then: the refresh covers it.

        Only the first stream of a process may block until the hub listens, for `PGFANOUT_START_TIMEOUT` seconds at
        most. If no stream can be opened, the response asks the browser to retry. Raise `InvalidEventError`, and
        `ValueError` for `detach` and `data`.
        """
        environ = flask.request.environ
        answer = self._endpoint.answer(
            environ, channels, tenant_id, user_id, detach=detach, data=data, refresh_first=refresh_first
        )
        if answer.endings is None:
            return flask.Response(answer.body, answer.status, answer.headers)
        response = flask.Response(answer.body, answer.status, answer.headers, direct_passthrough=True)
        # Set on the object, since the application chooses the response's class. Werkzeug does not call these functions
        # with direct_passthrough, and a detached stream goes on after its response.
        response.call_on_close = answer.endings.append  # type: ignore[method-assign, assignment]
        return response

    def publish(
        self,
        channel: str,
        tenant_id: TenantId,
        payload: Any,
        *,
        type: str = "",
        executor: Executor | None = None,
    ) -> None:
        """Call `NotifyHub.publish` of the current application's hub."""
        self.hub.publish(channel, tenant_id, payload, type=type, executor=executor)

    def publish_many(self, events: Iterable[Sequence[Any]], *, executor: Executor | None = None) -> None:
        """Call `NotifyHub.publish_many` of the current application's hub."""
        self.hub.publish_many(events, executor=executor)

    def healthz(self, timeout: float = 0.0) -> flask.Response:
        """Return 200 if the hub listens, else 503. The body is JSON with the reason.

        Start the hub if it is not started. Block until it listens, for at most `timeout` seconds. By default it does
        not block, so that a probe is answered while the database is away.
        """
        state = health(self._endpoint, timeout)
        body = flask.json.dumps(state)
        return flask.Response(body, 200 if state["listening"] else 503, content_type="application/json")

    def cursor(self, *, executor: Executor | None = None) -> str:
        """Return the cursor for a page: with `?last_event_id=<cursor>` its stream gets what is committed from now on.

        Call it before you read the page's state from the database. Templates that read the state themselves call
        `pgfanout_cursor()`. The cursor is empty without history and while the hub isn't listening: the page then has to
        load its state when its stream opens. Only the first thread of a process that needs the hub may block until the
        hub listens, for `PGFANOUT_START_TIMEOUT` seconds at most.

        With an `executor`, as for `publish`, return the cursor of its transaction's snapshot, as REPEATABLE READ needs:
        see `NotifyHub.cursor`. This queries the database and raises the executor's errors.
        """
        return cursor(self._endpoint, executor)

    def close(self, timeout: float = 5.0) -> None:
        """Close the current application's hub. Outside an application context, close those of all applications.

        Every stream ends with `close`. Idempotent. Block until threads and database sessions have ended, for at most
        `timeout` seconds for each hub: see `NotifyHub.close`. Call it at the end of a test.
        """
        current = _current_app()
        for app in self._living() if current is None else [current]:
            _endpoint_of(app).hub.close(timeout)

    def client_url(self) -> str:
        """Return the URL of the page's client, which browsers may cache. Templates call `pgfanout_client_url()`.

        Raise `RuntimeError` if `PGFANOUT_CLIENT_PATH` is empty.
        """
        if not self._app().config["PGFANOUT_CLIENT_PATH"]:
            raise RuntimeError("PGFANOUT_CLIENT_PATH is empty, so this application does not serve the page's client")
        return flask.url_for(_CLIENT_ENDPOINT, v=page_client().digest)

    @property
    def _endpoint(self) -> StreamEndpoint:
        return _endpoint_of(self._app())

    def _app(self) -> flask.Flask:
        if (app := _current_app()) is not None:
            return app
        apps = self._living()
        if len(apps) == 1:
            return apps[0]
        raise RuntimeError(
            f"PgFanout has {len(apps)} applications, and there is no application context that selects one:"
            " use `with app.app_context():`"
        )

    def _living(self) -> list[flask.Flask]:
        return [app for ref in self._apps if (app := ref()) is not None]


def _current_app() -> flask.Flask | None:
    return flask.current_app._get_current_object() if flask.has_app_context() else None  # type: ignore[attr-defined]


def _endpoint_of(app: flask.Flask) -> StreamEndpoint:
    endpoint = app.extensions.get("pgfanout")
    if not isinstance(endpoint, StreamEndpoint):
        raise RuntimeError("this Flask application has no PgFanout: call fanout.init_app(app) first")
    return endpoint


def _json_default(app: flask.Flask) -> Callable[[Any], Any]:
    """Return the `json_default` of the application's hub: values become what `app.json.dumps` makes of them.

    It asks the application each time, since `app.json` may be replaced. It does not keep the application, which keeps
    the hub.
    """
    app_of = weakref.ref(app)

    def convert(value: Any) -> Any:
        app = app_of()
        if app is None:
            raise TypeError("the application is gone")
        return json.loads(app.json.dumps(value))

    return convert


def _command(settings: Settings) -> click.Command:
    """`flask pgfanout …`: the command line for an application."""

    @click.command("pgfanout", context_settings={"ignore_unknown_options": True}, add_help_option=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        """Listen, publish, install the history."""
        sys.exit(cli.main(arguments, settings=settings, prog="flask pgfanout"))

    return command


def _warn_of_ignored(settings: Settings) -> None:
    if ignored := settings.changed_for_hub():
        logger.warning(
            "PgFanout was given a hub, so it ignores these settings: %s. Remove them, or set them on that hub",
            ", ".join(ignored),
        )


def _serve_client(app: flask.Flask) -> None:
    """Add the route of the page's client, once for all extensions of an application."""
    path = app.config.setdefault("PGFANOUT_CLIENT_PATH", _CLIENT_PATH)
    if path and not (isinstance(path, str) and path.startswith("/")):
        raise HubConfigurationError(f"PGFANOUT_CLIENT_PATH has to be a path that begins with /, or empty, not {path!r}")
    if path and _CLIENT_ENDPOINT not in app.view_functions:
        app.add_url_rule(path, _CLIENT_ENDPOINT, _client)


def _client() -> flask.Response:
    client = page_client()
    response = flask.Response(client.source, headers=client.headers(flask.request.args.get("v", "")))
    response.make_conditional(flask.request)
    return response
