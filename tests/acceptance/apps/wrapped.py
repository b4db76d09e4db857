"""The plain application behind middlewares of several kinds."""

import os
import queue
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from .plain import app


class _Watched:
    """Hands everything on through a generator, as tracing does, and adds a header of its own."""

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("X-Watched", "yes")], *rest)

        body: Any = app(environ, start)
        try:
            yield from body
        finally:
            body.close()


class _Compressed:
    """Compresses what it is given, item by item, whatever `Cache-Control: no-transform` says."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("Content-Encoding", "deflate")], *rest)

        return self._items(app(environ, start))

    def _items(self, body: Any) -> Iterator[bytes]:
        compressor = zlib.compressobj()
        try:
            for item in body:
                yield compressor.compress(item) + compressor.flush(zlib.Z_SYNC_FLUSH)
        finally:
            if hasattr(body, "close"):
                body.close()


class _Elsewhere:
    """Runs the whole application in a thread of its own, as what bounds its time does; the server's only writes."""

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        items: queue.Queue[bytes | None] = queue.Queue(1)
        head: queue.Queue[Any] = queue.Queue(1)

        def start(*arguments: Any) -> Any:
            head.put(arguments)

        def run() -> None:
            body: Any = app(environ, start)
            try:
                for item in body:
                    items.put(item)
            finally:
                if hasattr(body, "close"):
                    body.close()
                items.put(None)

        threading.Thread(target=run, daemon=True).start()
        start_response(*head.get())
        while (item := items.get()) is not None:
            yield item


class _Ahead:
    """Asks for the next item before it hands one on, and closes nothing."""

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        before = None
        for item in app(environ, start_response):
            if before is not None:
                yield before
            before = item
        if before is not None:
            yield before


class _Failing:
    """Fails after a stream's first item."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        body = app(environ, start_response)
        return self._items(body) if environ["PATH_INFO"] == "/events" else body

    def _items(self, body: Any) -> Iterator[bytes]:
        try:
            for item in body:
                yield item
                raise RuntimeError("a middleware has failed")
        finally:
            body.close()


class _Quitting:
    """Tells its own worker to quit, before a stream's request is answered or amid the answer. `/hang` hangs."""

    def __init__(self, *, amid: bool) -> None:
        self._amid = amid

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/hang":
            print("the page hangs", file=sys.stderr, flush=True)
            time.sleep(60)
        if environ["PATH_INFO"] != "/events":
            return app(environ, start_response)
        if not self._amid:
            _quit()
        return self._items(app(environ, start_response))

    def _items(self, body: Any) -> Iterator[bytes]:
        try:
            for item in body:
                yield item
                if self._amid:
                    _quit()
        finally:
            body.close()


def _quit() -> None:
    os.kill(os.getpid(), signal.SIGQUIT)
    time.sleep(float(os.environ.get("QUIT_PAUSE", "0.01")))  # the handler runs meanwhile


ahead = _Ahead()
failing = _Failing()
quitting_amid = _Quitting(amid=True)
quitting_before = _Quitting(amid=False)
watched = _Watched()
elsewhere = _Elsewhere()
compressed = _Compressed()
