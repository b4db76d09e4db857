"""The system checks of a project."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from django.core import checks
from django.core.checks import CheckMessage
from django.db import connections
from django.test import override_settings

from pgfanout.django.checks import check_middleware, check_server, check_settings


class AsynchronousMiddleware:
    sync_capable = False


def ids(messages: Sequence[CheckMessage]) -> list[str]:
    return [message.id for message in messages if message.id.startswith("pgfanout")]


def test_the_projects_own_settings_are_in_order(project: None) -> None:
    assert ids(checks.run_checks()) == []


def test_django_runs_them(project: None) -> None:
    with override_settings(PGFANOUT={"KEEP_ALIVE": 5}, ASGI_APPLICATION="asgi.application", WSGI_APPLICATION=None):
        assert sorted(ids(checks.run_checks())) == ["pgfanout.E002", "pgfanout.W002"]  # Django has them in a set


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"KEEPALIVE": "soon"}, r'PGFANOUT\["KEEPALIVE"\] has to be a number'),
        ({"KEEPALIVE": -1}, "keepalive"),
        ({"USING": "replica"}, r"PGFANOUT\[\"USING\"\] is 'replica', and DATABASES has no such alias"),
        ({"URL": "amqp://127.0.0.1"}, "no hub has that scheme"),
        (["HISTORY"], "PGFANOUT has to be a dictionary"),
    ],
)
def test_settings_that_make_no_hub(given: Any, message: str) -> None:
    with override_settings(PGFANOUT=given):
        (found,) = check_settings(None)
    assert found.id == "pgfanout.E001"
    assert re.search(message, found.msg)


def test_a_database_that_is_not_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite = connections.create_connection("default")
    monkeypatch.setattr(type(sqlite), "vendor", "sqlite")
    monkeypatch.setattr(type(sqlite), "display_name", "SQLite")
    with override_settings(PGFANOUT={"BUFFER_SIZE": 3}):
        (found,) = check_settings(None)
    assert "the database 'default' is SQLite, and the hub needs PostgreSQL" in found.msg
    with override_settings(PGFANOUT={"URL": "memory://"}):
        assert check_settings(None) == []
    with override_settings(PGFANOUT={"URL": "postgresql://nobody@127.0.0.1:1/nothing"}):
        (found,) = check_settings(None)
    assert found.id == "pgfanout.W004"
    assert "the database 'default' is SQLite, and publish goes through its connection" in found.msg


def test_a_pooler_in_transaction_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    assert ids(check_settings(None)) == ["pgfanout.W001"]
    with override_settings(PGFANOUT={"URL": "postgresql://nobody@127.0.0.1:1/nothing"}):
        assert check_settings(None) == []


@pytest.mark.parametrize(
    ("asgi", "wsgi", "apps", "found"),
    [
        (None, "wsgi.application", [], []),
        ("asgi.application", "wsgi.application", [], []),
        ("asgi.application", None, [], ["pgfanout.W002"]),
        ("asgi.application", "wsgi.application", ["daphne"], ["pgfanout.W002"]),
    ],
)
def test_asgi(
    asgi: str | None, wsgi: str | None, apps: list[str], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Django can't install an app that is not there.
    settings = SimpleNamespace(ASGI_APPLICATION=asgi, WSGI_APPLICATION=wsgi, INSTALLED_APPS=apps)
    monkeypatch.setattr("pgfanout.django.checks.settings", settings)
    assert ids(check_server(None)) == found


def test_a_middleware_that_is_asynchronous_alone() -> None:
    path = f"{__name__}.AsynchronousMiddleware"
    with override_settings(MIDDLEWARE=[path, "no.such.Middleware", "django.middleware.gzip.GZipMiddleware"]):
        (found,) = check_middleware(None)
    assert path in found.msg
