"""The views for a project's URLs."""

from __future__ import annotations

import json

from django.test import RequestFactory, override_settings

from pgfanout.django import healthz


def test_healthz_tells_a_hub_that_listens(database: None) -> None:
    response = healthz(RequestFactory().get("/healthz"), timeout=20.0)
    assert response.status_code == 200
    assert json.loads(response.content)["listening"] is True


def test_healthz_tells_why_a_hub_does_not_listen(project: None) -> None:
    with override_settings(PGFANOUT={"URL": "postgresql://nobody@127.0.0.1:1/nothing"}):
        response = healthz(RequestFactory().get("/healthz"))
    assert response.status_code == 503
    assert json.loads(response.content)["error"]
