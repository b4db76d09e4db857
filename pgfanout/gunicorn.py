"""Hooks for gunicorn.conf.py.

    from pgfanout.gunicorn import post_worker_init, worker_exit

With them streams end with `close` and the worker leaves at once, whatever stops it; and streams
leave some of the worker's threads and descriptors to ordinary requests. gunicorn itself runs no hook before it
waits for its threads, so a thread watches the worker from within.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import socket
import time
from typing import Any

from .errors import HubClosedError, HubConfigurationError, HubTimeoutError
from .hub import NotifyHub, live_hubs
from .streams.client import set_request
from .streams.descriptors import raise_limit, set_reserve
from .streams.limiter import set_server_threads
from .streams.stream import close_forgotten, live_streams
from .streams.streamer import streamer
from .threads import start_thread

__all__ = ["post_worker_init", "worker_exit"]

logger = logging.getLogger("pgfanout")

_WATCH_INTERVAL = 0.05
_FAREWELL_TIME = 1.0
_CLOSE_TIME = 0.5


def post_worker_init(worker: Any) -> None:
    """Keep streams below the worker's threads and descriptors, start its hubs, and watch for its end."""
    threads = _threads(worker)
    set_server_threads(threads)
    set_reserve(int(worker.cfg.worker_connections) if threads != 1 else 0)
    worker.log.info(
        "pgfanout: a stream leaves its thread where that is safe; of %s, those that keep one leave"
        " PGFANOUT_THREAD_RESERVE (2 by default) to ordinary requests. This worker may have %d descriptors",
        "its only thread" if threads == 1 else f"{threads or 'any number of'} threads",
        raise_limit(),
    )
    _log_with(worker)
    _quit_safely(worker)
    _tell_requests(worker)
    for hub in live_hubs():
        start_thread("pgfanout-starter", _start, hub, worker)
    start_thread("pgfanout-watcher", _watch, worker)


def worker_exit(server: Any, worker: Any) -> None:
    """Close what is still open when the worker leaves without having been told to stop."""
    _say_goodbye()


def _log_with(worker: Any) -> None:
    """Warnings go where the server's do, unless the application has its own arrangement."""
    if not logger.hasHandlers():
        for handler in worker.log.error_log.handlers:
            logger.addHandler(handler)


def _tell_requests(worker: Any) -> None:
    """Let a stream that leaves its thread say that its connection is not to be kept alive."""
    configured = worker.cfg.pre_request

    def pre_request(worker: Any, request: Any) -> None:
        set_request(request)
        configured(worker, request)

    worker.cfg.set("pre_request", pre_request)


def _quit_safely(worker: Any) -> None:
    """Replace the handler of SIGINT and SIGQUIT of gthread workers by their base class's.

    Their own shuts the thread pool down from within the signal handler. When the signal arrives
    while the main thread hands a request to that pool, it waits for a lock that it holds itself,
    and the worker hangs until the arbiter kills it.
    """
    kinds: tuple[Any, ...] = type(worker).__mro__
    if any(kind.__name__ == "ThreadWorker" for kind in kinds):
        (base,) = (kind for kind in kinds if kind.__name__ == "Worker")
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, functools.partial(base.handle_quit, worker))


def _threads(worker: Any) -> int | None:
    """The threads that answer requests, where each request has one of them."""
    kinds = {kind.__name__ for kind in type(worker).__mro__}
    if "ThreadWorker" in kinds:
        return int(worker.cfg.threads)
    return 1 if "SyncWorker" in kinds else None


def _start(hub: NotifyHub, worker: Any) -> None:
    """Have the hub listen before the first page asks, however long its server takes."""
    while worker.alive:
        try:
            return hub.start()
        except HubTimeoutError as error:
            logger.warning("still not listening: %s", error)
        except HubConfigurationError as error:
            return logger.error("the hub can't listen, the next stream tries again: %s", error)
        except HubClosedError:
            return None
    return None


def _watch(worker: Any) -> None:
    while worker.alive:
        time.sleep(_WATCH_INTERVAL)
    _end_idle_connections(worker)
    _say_goodbye()


def _end_idle_connections(worker: Any) -> None:
    """Newer gunicorns keep connections without a request for 2 s when they stop.

    What has arrived on one is still read and answered.
    """
    for connection in list(getattr(worker, "keepalived_conns", ())):
        if type(connection.sock) is socket.socket:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RD)


def _say_goodbye() -> None:
    """End every stream with `close`; cut the ones whose client doesn't take it."""
    closing = [start_thread("pgfanout-closer", hub.close, _CLOSE_TIME) for hub in live_hubs()]
    for thread in closing:
        thread.join(_CLOSE_TIME)
    deadline = time.monotonic() + _FAREWELL_TIME
    close_forgotten()
    while live_streams() and time.monotonic() < deadline:
        time.sleep(_WATCH_INTERVAL)
        close_forgotten()
    for stream in live_streams():
        stream.cut()
    if not streamer.wait_until_empty(max(0.0, deadline - time.monotonic())):
        streamer.cut(_CLOSE_TIME)
