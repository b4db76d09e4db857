"""StreamResponse: a stream as a response of Django's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from django.db import connections
from django.http import HttpResponse, StreamingHttpResponse
from django.utils.cache import patch_cache_control

from ..streams import Answer, ThreadedStream

__all__ = ["StreamResponse", "whole_response"]


class StreamResponse(StreamingHttpResponse):
    """The response of a stream."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._body = _Body(iter(answer.body))
        super().__init__(self._body, headers=dict(answer.headers))

    def call_on_close(self, function: Callable[[], object]) -> Callable[[], object]:
        """Have a function called when the stream has ended. Return it.

        If the stream was detached, it is called in a thread of the library.
        """
        assert self._answer.endings is not None
        return self._answer.endings.append(function)

    def has_header(self, header: str) -> bool:
        """Whether the response has a header. A stream claims to have a Content-Encoding.

        So GZipMiddleware and others that compress leave it alone. They would hold events back, and the stream would
        keep its thread. The header itself is not sent, as RFC 9110 (8.4.1) asks for content without an encoding.
        """
        return header.lower() == "content-encoding" or bool(super().has_header(header))

    __contains__ = has_header

    def close(self) -> None:
        """End the stream and the request. In a transaction, which is that of a TestCase, end the stream alone."""
        if any(connection.in_atomic_block for connection in connections.all(initialized_only=True)):
            # A test that has read enough closes the response of Django's test client itself. The end of the request
            # would close the connection under the test's transaction.
            self._body.close()
        else:
            super().close()


def whole_response(answer: Answer) -> HttpResponse:
    """Return the response for an answer that is no stream: a refusal, or the answer to HEAD."""
    status, _, reason = answer.status.partition(" ")
    response = HttpResponse(b"".join(answer.body), status=int(status), reason=reason, headers=dict(answer.headers))
    patch_cache_control(response, private=True)  # Django's cache middleware keeps whatever has the status 200 otherwise
    return response


class _Body:
    """A stream's body, which holds none of the thread's database connections while it waits for events.

    When a stream leaves its thread, the server closes the response, and Django then treats the connections as after any
    other request. A stream that keeps its thread closes them. It does so after its first bytes and not when it is made,
    since a transaction of the view and the middlewares still use them then.
    """

    def __init__(self, body: Iterator[bytes]) -> None:
        self._body = body
        self._items = 0
        self.close: Callable[[], None] = getattr(body, "close")  # noqa: B009  # the protocol of iterators has none

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        item = next(self._body)
        if self._items < 2:
            self._items += 1
            if self._items == 2 or isinstance(self._body, ThreadedStream):  # any other stream that goes on stays
                _close_connections()
        return item


def _close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:  # a TestCase is in its transaction all the time
            connection.close()
