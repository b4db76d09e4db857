"""The plain application behind middlewares: one that hands the body on as it is, and one that compresses it."""

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


watched = _Watched()
compressed = _Compressed()
