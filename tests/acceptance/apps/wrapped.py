"""The plain application behind middlewares that hand its body on, compress it, or run it in another thread."""

import queue
import threading
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


watched = _Watched()
elsewhere = _Elsewhere()
compressed = _Compressed()
