"""The views for a project's URLs."""

from __future__ import annotations

import json
from unittest.mock import Mock

import pytest
from django.db import OperationalError, connection
from django.test import Client, RequestFactory, override_settings

from pgfanout.django import healthz
from pgfanout.django.views import client
from pgfanout.static import page_client


def test_healthz_tells_a_hub_that_listens(database: None) -> None:
    response = healthz(RequestFactory().get("/healthz"), timeout=20.0)
    assert response.status_code == 200
    assert json.loads(response.content)["listening"] is True


def test_healthz_tells_why_a_hub_does_not_listen(project: None) -> None:
    with override_settings(PGFANOUT={"URL": "postgresql://nobody@127.0.0.1:1/nothing"}):
        response = healthz(RequestFactory().get("/healthz"))
    assert response.status_code == 503
    assert json.loads(response.content)["error"]


def test_the_client_is_cached_by_its_content(project: None) -> None:
    url = f"/_pgfanout/pgfanout.js?v={page_client().digest}"
    response = client(RequestFactory().get(url))
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "immutable" in response.headers["Cache-Control"]
    assert b"export class Feed" in response.content
    etag = response.headers["ETag"]
    assert client(RequestFactory().get(url, HTTP_IF_NONE_MATCH=f"W/{etag}")).status_code == 304
    assert "no-cache" in client(RequestFactory().get("/_pgfanout/pgfanout.js?v=older")).headers["Cache-Control"]


def test_neither_needs_a_login() -> None:
    assert (client.login_required, healthz.login_required) == (False, False)  # type: ignore[attr-defined]


def test_neither_needs_the_database(project: None, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    monkeypatch.setattr(connection, "connect", Mock(side_effect=OperationalError("away")))
    assert connection.settings_dict["ATOMIC_REQUESTS"]
    with override_settings(PGFANOUT={"URL": "postgresql://nobody@127.0.0.1:1/nothing"}):
        assert Client().get("/healthz").status_code == 503
    assert Client().get("/_pgfanout/pgfanout.js").status_code == 200
