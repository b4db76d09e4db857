"""What a project's views and models call: streams of the project's hub, and publishing through its connection."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections
from django.http import HttpRequest, HttpResponse

from ..backends.memory import MemoryHub
from ..backends.postgres import PostgresHub
from ..errors import HubConfigurationError
from ..executor import Executor
from ..fork import renew_in_children
from ..hub import NotifyHub
from ..settings import Settings
from ..streams import StreamEndpoint, state
from ..topic import TenantId
from .database import alias, given_settings, hub_url, respect_block, setting_name
from .response import StreamResponse, whole_response

__all__ = ["close", "current", "cursor", "get_hub", "publish", "publish_many", "stream"]

_READ_COMMITTED: Final = 2
"""The number of psycopg's `IsolationLevel`. Those above keep one snapshot for a transaction."""

_json_default = DjangoJSONEncoder().default
"""Payloads may have what `JsonResponse` takes: dates, decimals, UUIDs, lazy translations."""


class Current:
    """The endpoint of this process, made from the settings and made anew when these change.

    Django's tests change them: the name of the database, and `override_settings`.

    `_lock` guards `_endpoint` and `_made_of`. It is held while an endpoint is made, which opens nothing. A forked child
    has a new one, since a thread of its parent may have held the lock.
    """

    def __init__(self) -> None:
        self._renew()
        renew_in_children(self._renew)
        self._made_of: object = None
        self._endpoint: StreamEndpoint | None = None

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def endpoint(self) -> StreamEndpoint:
        """Return the endpoint for the settings as they are now. Close the hub of earlier ones.

        Raise the test framework's error in a test that may not use the hub's database.
        """
        endpoint = self._endpoint_now()
        if isinstance(endpoint.hub, PostgresHub):
            respect_block(alias())
        return endpoint

    def _endpoint_now(self) -> StreamEndpoint:
        now = (dict(given_settings()), dict(connections[alias()].settings_dict))
        with self._lock:
            if self._endpoint is not None and self._made_of == now:
                return self._endpoint
            settings = Settings({**now[0], "URL": hub_url()}, setting_name)
            endpoint = settings.new_endpoint(settings.new_hub(_json_default))
            before, self._endpoint = self._endpoint, endpoint
            self._made_of = now
        if before is not None:
            before.hub.close()
        return endpoint

    def close(self) -> None:
        """Close the hub, if there is one. The next use makes another one."""
        with self._lock:
            before, self._endpoint = self._endpoint, None
        if before is not None:
            before.hub.close()


current = Current()
"""The only instance in the process. Creating it reads no setting."""


def get_hub() -> NotifyHub:
    """Return this process's hub, for what the functions of this module don't offer. Connect to nothing.

    Its database is that of the alias `PGFANOUT["USING"]` ("default"), in tests the test database. When the settings
    change, the hub is closed, and a new one is made. Raise `HubConfigurationError`.
    """
    return current.endpoint().hub


def close() -> None:
    """Close the hub: every stream ends, and its threads and database sessions do. Block for at most 5 s.

    For tests, after streams. The next use makes a new hub.
    """
    current.close()


def stream(
    request: HttpRequest,
    channels: str | Iterable[str],
    tenant_id: TenantId | Iterable[TenantId],
    user_id: TenantId = None,
    *,
    detach: str | bool | None = None,
    data: str = "json",
    refresh_first: bool = False,
) -> StreamResponse | HttpResponse:
    """Return a response that streams the events of one channel or several, of one tenant or several.

    Check first that the request's user may see these tenants: the library can't know. With a `user_id`, which follows a
    tenant's rule, the user may have `PGFANOUT["MAX_STREAMS_PER_USER"]` streams. `detach` ("auto" or "never") overrides
    `PGFANOUT["DETACH"]` for this response. The stream holds no database connection of the request. Functions given to
    the response's `call_on_close` are called when the stream has ended. If it was detached, they are called in a thread
    of the library.

    With `data="text"` a payload that is a JSON string is sent as its text, line by line: an HTML fragment for htmx,
    say. Any other payload is sent as JSON. With `refresh_first` the stream starts with a refresh in any case, for
    clients that reconnect without a `Last-Event-ID`. It replays nothing then: the refresh covers it.

    Only the first stream of a process may block until the hub listens, for `PGFANOUT["START_TIMEOUT"]` seconds at most.
    If no stream can be opened, the response asks the browser to retry. Raise `InvalidEventError`, `ValueError` for
    `detach` and `data`, and `HubConfigurationError` for settings that can't work and under ASGI.
    """
    environ = getattr(request, "environ", None)
    if environ is None:
        raise HubConfigurationError(
            "streams need WSGI, and this request came through ASGI, where a stream would stop the event loop: serve the"
            " project's WSGI application, for example with gunicorn's gthread workers"
        )
    answer = current.endpoint().answer(
        environ, channels, tenant_id, user_id, detach=detach, data=data, refresh_first=refresh_first
    )
    return whole_response(answer) if answer.endings is None else StreamResponse(answer)


def publish(
    channel: str,
    tenant_id: TenantId,
    payload: Any,
    *,
    type: str = "",
    executor: Executor | None = None,
) -> None:
    """Send one event through Django's connection to the hub's database, or through another `executor`.

    In `atomic()` and with ATOMIC_REQUESTS the event is delivered when the transaction commits, and never if it or the
    savepoint rolls back. The payload may have what Django's `JsonResponse` takes: dates, decimals, UUIDs. Block for a
    round trip. Raise what `NotifyHub.publish` raises.
    """
    publish_many([(channel, tenant_id, payload, type)], executor=executor)


def publish_many(events: Iterable[Sequence[Any]], *, executor: Executor | None = None) -> None:
    """Send many events in one round trip, as `publish` sends one. See `NotifyHub.publish_many`."""
    hub = get_hub()
    hub.publish_many(events, executor=_connection(hub) if executor is None else executor)


def cursor(*, executor: Executor | None = None) -> str:
    """Return the cursor for a page: with `?last_event_id=<cursor>` its stream gets what is committed from now on.

    Call it before you read the page's state from the database. Templates that read the state themselves have
    `{% pgfanout_cursor %}`. The cursor is empty without history and while the hub isn't listening: the page then has to
    load its state when its stream opens. Only the first thread of a process that needs the hub may block until the hub
    listens, for `PGFANOUT["START_TIMEOUT"]` seconds at most.

    With an `executor` (Django's `connection`), return the cursor of its transaction's snapshot, as REPEATABLE READ
    needs: see `NotifyHub.cursor`. This queries the database and raises the executor's errors. With such an
    `isolation_level` in the alias's OPTIONS, Django's connection is the executor in each transaction.
    """
    return state.cursor(current.endpoint(), _snapshot() if executor is None else executor)


def _connection(hub: NotifyHub) -> Executor | None:
    """Return Django's connection if events of this hub can go through it."""
    if not isinstance(hub, (PostgresHub, MemoryHub)):
        return None
    connection: Executor = connections[alias()]
    return connection


def _snapshot() -> Executor | None:
    """Return Django's connection if it is in a transaction that keeps the snapshot of its first query."""
    connection = connections[alias()]
    # Django sets the attribute when it connects to PostgreSQL.
    if connection.in_atomic_block and getattr(connection, "isolation_level", _READ_COMMITTED) > _READ_COMMITTED:
        executor: Executor = connection
        return executor
    return None
