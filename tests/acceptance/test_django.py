"""A Django project under a real gunicorn: streams leave their threads, and events come with the commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from tests.support.gunicorn import GunicornServer
from tests.support.processes import REPOSITORY
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .conftest import Serve

LONG = 20.0
GZIP = {"Accept-Encoding": "gzip, deflate, br"}


@pytest.fixture
def site(serve: Serve, fresh_database_url: str) -> GunicornServer:
    """The project, its database migrated, in a worker with two threads."""
    command = [
        sys.executable,
        "-m",
        "django",
        "migrate",
        "--verbosity",
        "0",
        "--settings",
        "tests.django.project.settings",
    ]
    environment = {**os.environ, "DATABASE_URL": fresh_database_url}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, timeout=60)
    return serve("tests.django.project.wsgi:application", threads=2)


def get(site: GunicornServer, path: str) -> bytes:
    with urllib.request.urlopen(site.url + path, timeout=LONG) as response:
        return bytes(response.read())


def stats(site: GunicornServer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(site, "/stats"))
    return found


def titles(source: EventSource, last: str) -> list[Any]:
    """The titles of the orders up to the last one."""
    found = [json.loads(event.data) for event in source.events_until(lambda event: last in event.data, LONG)]
    return [each["title"] if isinstance(each, dict) else each for each in found]


def test_streams_leave_their_threads_behind_the_usual_middlewares_and_gzip(site: GunicornServer) -> None:
    sources = [EventSource(f"{site.url}/events", headers=GZIP) for _ in range(10)]
    try:
        for source in sources:
            source.wait_for(lambda source: source.comments, LONG)
            assert source.status == 200
            assert "content-encoding" not in source.headers
            assert source.headers["x-frame-options"] == "DENY"
        now = eventually(lambda: (found := stats(site))["sessions"] == 0 and found)
        assert (now["detached"], now["kept"]) == (10, {})
        get(site, "/order?title=tea")
        assert {tuple(titles(source, "tea")) for source in sources} == {("tea",)}
    finally:
        for source in sources:
            source.close()
    eventually(lambda: stats(site)["detached"] == 0)


def test_events_come_with_the_commit_of_the_request(site: GunicornServer) -> None:
    with EventSource(f"{site.url}/events") as source:
        source.wait_for(lambda source: source.comments, LONG)
        get(site, "/order?title=lost&fail=1")
        get(site, "/order?title=tea")
        assert titles(source, "tea") == ["tea"]


def test_a_stream_that_keeps_its_thread_holds_no_database_connection(site: GunicornServer) -> None:
    with EventSource(f"{site.url}/events?detach=never") as source:
        source.wait_for(lambda source: source.comments, LONG)
        now = stats(site)
        assert now["kept"] == {"it is configured so": 1}
        eventually(lambda: stats(site)["sessions"] == 0)
        get(site, "/order?title=tea")
        assert titles(source, "tea") == ["tea"]


def test_the_hub_listens_before_the_first_request(site: GunicornServer) -> None:
    assert json.loads(get(site, "/healthz"))["listening"] is True
