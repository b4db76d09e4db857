"""Template tags: `{% load pgfanout %}`."""

from __future__ import annotations

from django import template
from django.urls import NoReverseMatch, reverse

from ...static import page_client
from .. import live

__all__ = ["pgfanout_client_url", "pgfanout_cursor", "register"]

register = template.Library()


@register.simple_tag
def pgfanout_cursor() -> str:
    """Return the cursor for a page: see `pgfanout.django.cursor`. Put the tag before what the page shows."""
    return live.cursor()


@register.simple_tag
def pgfanout_client_url() -> str:
    """Return the URL of the page's client, which browsers may cache."""
    try:
        url = reverse("pgfanout:client")
    except NoReverseMatch:
        raise NoReverseMatch(
            'the client for pages has no URL: add path("_pgfanout/", include("pgfanout.django.urls")) to the project'
        ) from None
    return f"{url}?v={page_client().digest}"
