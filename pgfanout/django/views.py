"""Views for a project's URLs: the page's client, and the state of the hub."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils.cache import get_conditional_response
from django.views.decorators.cache import never_cache

from ..static import page_client
from ..streams.state import health
from .live import current

__all__ = ["client", "healthz"]


def client(request: HttpRequest) -> HttpResponseBase:
    """Return the JavaScript module for pages."""
    module = page_client()
    headers = dict(module.headers(request.GET.get("v", "")))
    response = HttpResponse(module.source, headers=headers)
    answer: HttpResponseBase = get_conditional_response(request, etag=headers["ETag"], response=response)
    return answer


@never_cache
def healthz(request: HttpRequest, timeout: float = 0.0) -> JsonResponse:
    """Return 200 if the hub listens, else 503. The body is JSON with the reason.

    Start the hub if it is not started. Block until it listens, for at most `timeout` seconds. By default it does not
    block, so that a probe is answered while the database is away.
    """
    state = health(current.endpoint(), timeout)
    return JsonResponse(state, status=200 if state["listening"] else 503)


# A probe has no session, and the client is no secret. Django's LoginRequiredMiddleware (5.1 and newer) looks here.
client.login_required = False  # type: ignore[attr-defined]
healthz.login_required = False
