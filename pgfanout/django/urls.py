"""The page's client, for a project's urls: `path("_pgfanout/", include("pgfanout.django.urls"))`."""

from __future__ import annotations

from typing import Final

from django.urls import path

from .views import client

__all__ = ["app_name", "urlpatterns"]

app_name: Final = "pgfanout"
urlpatterns: Final = [path("pgfanout.js", client, name="client")]
