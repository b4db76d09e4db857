"""What an endpoint says about its hub: whether it listens, and the cursor for a page."""

from __future__ import annotations

from typing import Any

from ..errors import HubClosedError, HubTimeoutError, PgFanoutError
from ..executor import Executor
from ..hub import core_of
from .endpoint import StreamEndpoint

__all__ = ["cursor", "health"]


def health(endpoint: StreamEndpoint, timeout: float = 0.0) -> dict[str, Any]:
    """Return whether the hub listens, with the reason if it doesn't, as a JSON object for a probe.

    Start the hub if it is not started. Block until it listens, for at most `timeout` seconds. By default it does not
    block, so that a probe is answered while the database is away.
    """
    reason = ""
    try:
        endpoint.hub.start_in_background()
        if timeout > 0:
            endpoint.hub.start(timeout)
    except PgFanoutError as error:
        reason = str(error)
    stats = endpoint.hub.stats()
    return {
        "listening": stats.listening,
        "since": stats.since,
        "reconnects": stats.reconnects,
        "streams": endpoint.limiter.open,
        "in_threads": endpoint.limiter.in_threads,
        "error": "" if stats.listening else reason or stats.last_error or "not listening yet",
    }


def cursor(endpoint: StreamEndpoint, executor: Executor | None = None) -> str:
    """Return the cursor for a page, as `NotifyHub.cursor` does, or "" where it has none.

    It has none without history and while the hub isn't listening: the page then has to load its state when its stream
    opens. Only the first thread of a process that needs the hub may block until the hub listens, for the endpoint's
    `start_timeout` at most. With an `executor` it queries the database and raises the executor's errors.
    """
    hub = endpoint.hub
    if executor is not None:
        return hub.cursor(executor=executor) or ""
    try:
        if hub.has_history and core_of(hub).lifecycle.await_first_start(endpoint.start_timeout):
            return hub.cursor() or ""
    except (HubClosedError, HubTimeoutError):
        pass
    return ""
