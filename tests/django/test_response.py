"""StreamResponse: what middlewares see of it."""

from __future__ import annotations

import pytest
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware
from django.middleware.gzip import GZipMiddleware
from django.test import RequestFactory, override_settings

from pgfanout.django import healthz, stream

TENANT = "7d0e2b1c-0000-4000-8000-000000000001"


def request(**headers: str) -> HttpRequest:
    return RequestFactory().get("/events", **headers)


def test_gzip_leaves_a_stream_alone(database: None) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return stream(request, "orders", TENANT)

    response = GZipMiddleware(view)(request(HTTP_ACCEPT_ENCODING="gzip"))
    assert "Content-Encoding" not in response.headers
    assert next(iter(response)).startswith(b": open\n")
    response.close()


def test_its_other_headers_are_as_they_are(database: None) -> None:
    response = stream(request(), "orders", TENANT)
    assert response.has_header("content-type")
    assert not response.has_header("ETag")
    assert "X-Accel-Buffering" in response
    assert "ETag" not in response
    response.close()


def test_a_stream_that_keeps_its_thread_holds_no_connection(database: None) -> None:
    connection.ensure_connection()
    response = stream(request(), "orders", TENANT)
    assert connection.connection is not None
    next(iter(response))
    assert connection.connection is None
    response.close()


@pytest.mark.parametrize("path", ["/events", "/healthz"])
def test_a_site_that_caches_all_pages_caches_no_refusal_and_no_health(project: None, path: str) -> None:
    asked: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        asked.append(path)
        return healthz(request, timeout=20.0) if path == "/healthz" else stream(request, "orders", TENANT)

    site = UpdateCacheMiddleware(FetchFromCacheMiddleware(view))
    with override_settings(PGFANOUT={"URL": "memory://", "MAX_STREAMS": 0}, USE_TZ=False):
        for _ in range(2):
            response = site(request(HTTP_ACCEPT="text/event-stream"))
            assert (response.status_code, response.streaming) == (200, False)
    assert asked == [path, path]
