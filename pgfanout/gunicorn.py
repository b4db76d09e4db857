"""Hooks for gunicorn.conf.py.

    from pgfanout.gunicorn import post_worker_init, worker_exit

With them streams end with `close` and the worker leaves at once, whatever stops it; and streams
leave some of the worker's threads and descriptors to ordinary requests. gunicorn itself runs no hook before it
waits for its threads, and none when its master dies. So a thread watches the worker and its parent from within.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from .errors import HubClosedError
from .hub import core_of, live_hubs
from .streams.client import set_request
from .streams.descriptors import raise_limit, set_reserve
from .streams.detached import are_moving
from .streams.detached.streamer import streamer
from .streams.endings import background
from .streams.limiter import set_server_threads
from .streams.threaded import close_dropped, live_streams
from .threads import start_thread

__all__ = ["post_worker_init", "worker_exit"]

logger = logging.getLogger("pgfanout")

_WATCH_INTERVAL = 0.05
_START_TIME = 2.0
_END_TIME = 1.0
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
    global _quitting
    quitting = _quitting = _quit_safely(worker)
    _tell_requests(worker)
    for hub in live_hubs():
        with contextlib.suppress(HubClosedError):
            # Before the worker accepts requests: pages that come back get what they missed, and no refresh. A database
            # that is away is not waited for once it has refused.
            core_of(hub).lifecycle.await_first_start(_START_TIME)
    start_thread("pgfanout-watcher", _watch, worker, quitting)
    _freeze_if_wanted()


def worker_exit(server: Any, worker: Any) -> None:
    """Close what is still open when the worker leaves without having been told to stop."""
    if _quitting is not None:
        _quitting.leave()
    _end_streams()


def _freeze_if_wanted() -> None:
    """Keep the garbage collector from what the application has loaded, with `PGFANOUT_GC_FREEZE=1`.

    An option, since it is the application's memory: a collection writes to all of it, also to the pages that a worker
    shares with its master after `--preload`.
    """
    wanted = os.environ.get("PGFANOUT_GC_FREEZE") or "0"
    if wanted == "1":
        gc.collect()  # what is garbage already would stay for good
        gc.freeze()
    elif wanted != "0":
        logger.warning("PGFANOUT_GC_FREEZE is 0 or 1, not %r: nothing is frozen", wanted)


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


class _Quitting:
    """The handler of SIGINT and SIGQUIT in a sync worker.

    Such a worker answers requests in its main thread, and its own handler raises `SystemExit` there. A stream that is
    about to leave the thread is lost then, and one that is about to begin gets a 500, after which an EventSource does
    not come back. So the request that is being answered may end first; `interrupt` is for one that takes too long.

    Handlers run in the main thread alone; the flags are written once and need no lock.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._asked = False
        self._left = False
        self._interrupts = False

    def __call__(self, number: int, frame: Any) -> None:
        """Stop the worker after this request. Raise `SystemExit` when it was asked to interrupt."""
        if self._interrupts:
            sys.exit(0)
        if not self._asked:  # a terminal's Ctrl-C sends one signal, and the master another
            self._asked = True
            self._worker.alive = False
            self._worker.cfg.worker_int(self._worker)

    def leave(self) -> None:
        """No request is being answered any more, and what the worker does now is not to be interrupted."""
        self._left = True

    def interrupt(self) -> None:
        """End a request that is still being answered, if the worker was told to quit."""
        if self._asked and not self._left:
            self._interrupts = True
            os.kill(os.getpid(), signal.SIGQUIT)


_quitting: _Quitting | None = None
"""Of this process's worker."""


def _quit_safely(worker: Any) -> _Quitting | None:
    """Replace the handlers of SIGINT and SIGQUIT of sync and gthread workers.

    That of gthread workers shuts the thread pool down from within the signal handler. When the signal arrives
    while the main thread hands a request to that pool, it waits for a lock that it holds itself,
    and the worker hangs until the arbiter kills it. Their base class's handler does not. A sync worker gets
    `_Quitting`.
    """
    kinds = {kind.__name__: kind for kind in type(worker).__mro__}
    quitting = _Quitting(worker) if "SyncWorker" in kinds else None
    if "ThreadWorker" in kinds:
        base: Any = kinds["Worker"]
        _handle_quit(functools.partial(base.handle_quit, worker))
    elif quitting is not None:
        _handle_quit(quitting)
    return quitting


def _handle_quit(handler: Callable[[int, Any], object]) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, handler)


def _threads(worker: Any) -> int | None:
    """The threads that answer requests, where each request has one of them."""
    kinds = {kind.__name__ for kind in type(worker).__mro__}
    if "ThreadWorker" in kinds:
        return int(worker.cfg.threads)
    return 1 if "SyncWorker" in kinds else None


def _watch(worker: Any, quitting: _Quitting | None) -> None:
    """End the streams when the worker stops; stop the worker when its master has gone."""
    # The master's id as the worker got it before the fork: the master may have gone before this thread ran.
    master = getattr(worker, "ppid", None) or os.getppid()
    while worker.alive and os.getppid() == master:
        time.sleep(_WATCH_INTERVAL)
    if worker.alive:
        _stop_without_master(master)
    _end_idle_connections(worker)
    _end_streams()
    if quitting is not None:
        time.sleep(_CLOSE_TIME)  # a worker that has nothing to do is gone by then, and this thread with it
        quitting.interrupt()


def _stop_without_master(master: int) -> None:
    """Give the worker the signal that its master would have sent.

    Workers look for their master themselves, but late: a gthread worker once a second, a sync worker without
    requests after half of gunicorn's `timeout`. The signal wakes both.
    """
    with contextlib.suppress(Exception):  # the application's log handlers
        logger.warning(
            "gunicorn's master (process %d) has gone, so this worker ends its streams and stops. Start gunicorn again",
            master,
        )
    os.kill(os.getpid(), signal.SIGTERM)


def _end_idle_connections(worker: Any) -> None:
    """Newer gunicorns keep connections without a request for 2 s when they stop.

    What has arrived on one is still read and answered.
    """
    for connection in list(getattr(worker, "keepalived_conns", ())):
        if type(connection.sock) is socket.socket:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RD)


def _end_streams() -> None:
    """End every stream with `close`; cut the ones whose client doesn't take it."""
    closing = [start_thread("pgfanout-closer", hub.close, _CLOSE_TIME) for hub in live_hubs()]
    for thread in closing:
        thread.join(_CLOSE_TIME)
    deadline = time.monotonic() + _END_TIME
    close_dropped()
    while (live_streams() or are_moving()) and time.monotonic() < deadline:
        time.sleep(_WATCH_INTERVAL)
        close_dropped()
    for stream in live_streams():
        stream.cut()
    if not streamer.wait_until_empty(max(0.0, deadline - time.monotonic())):
        streamer.cut(_CLOSE_TIME)
    background.wait_until_done(_CLOSE_TIME)
