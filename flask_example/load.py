"""Load: the number of requests in progress. Each has a thread of the server."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from werkzeug.wsgi import ClosingIterator

__all__ = ["Load"]


class Load:
    """A WSGI middleware that counts from a request's arrival until its response is closed.

    `_lock` guards `busy`.
    """

    def __init__(self, application: Any) -> None:
        self.busy = 0
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self._count(1)
        try:
            body = self._application(environ, start_response)
        except BaseException:
            self._count(-1)
            raise
        return ClosingIterator(body, lambda: self._count(-1))

    def _count(self, change: int) -> None:
        with self._lock:
            self.busy += change
