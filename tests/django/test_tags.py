"""The template tags."""

from __future__ import annotations

import pytest
from django.http import HttpResponse
from django.template import Context, Template
from django.test import override_settings
from django.urls import NoReverseMatch, path, resolve

from pgfanout import PostgresHub
from pgfanout.django import get_hub, publish
from pgfanout.django.views import client

TENANT = "7d0e2b1c-0000-4000-8000-000000000001"


def rendered(tag: str) -> str:
    return str(Template("{% load pgfanout %}" + tag).render(Context()))


def test_the_clients_url_is_one_that_the_project_serves(project: None) -> None:
    url = rendered("{% pgfanout_client_url %}")
    assert url.startswith("/_pgfanout/pgfanout.js?v=")
    assert resolve(url.partition("?")[0]).func is client


class WithoutClient:
    urlpatterns = (path("", lambda request: HttpResponse()),)


def test_without_the_urls_it_says_what_to_add(project: None) -> None:
    with override_settings(ROOT_URLCONF=WithoutClient), pytest.raises(NoReverseMatch, match=r"include\("):
        rendered("{% pgfanout_client_url %}")


def test_the_cursor_is_where_a_page_begins(database: None) -> None:
    assert rendered("{% pgfanout_cursor %}") == ""
    with override_settings(PGFANOUT={"HISTORY": True}):
        hub = get_hub()
        assert isinstance(hub, PostgresHub)
        hub.install_history()
        cursor = rendered("{% pgfanout_cursor as cursor %}{{ cursor }}")
        publish("orders", TENANT, 1)
        with hub.subscribe("orders", TENANT, after=cursor) as subscription:
            assert subscription.get(timeout=20.0).json() == 1
