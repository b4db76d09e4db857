"""A worker that starts while its database is away."""

from __future__ import annotations

import http.client
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.support.gunicorn import GunicornServer
from tests.support.postgres import MakeServer, PostgresServer
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .conftest import Serve

TENANT = "11111111-1111-4111-8111-111111111111"
LONG = 30.0
THREADS = 8
PAGES = 40


@pytest.fixture
def away(make_server: MakeServer) -> PostgresServer:
    """A server that refuses connections until it is started again."""
    server = make_server()
    server.start()
    server.stop()
    return server


def get(site: GunicornServer, path: str) -> tuple[int, bytes]:
    """Ask for a page. A site whose threads all wait would not answer in time."""
    parts = urlsplit(site.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=LONG)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("history", ["false", "true"])
def test_more_pages_than_threads_wait_for_the_database_and_none_holds_a_thread(
    serve: Serve, away: PostgresServer, history: str
) -> None:
    site = serve(threads=THREADS, env={"DATABASE_URL": away.url(), "PGFANOUT_HISTORY": history})
    with ExitStack() as stack:
        pages = [EventSource(f"{site.url}/events?tenant={TENANT}") for _ in range(PAGES)]
        for page in pages:
            stack.callback(page.close)
            page.wait_for(lambda source: source.comments)
        assert get(site, "/") == (200, b"hello")
        assert get(site, "/cursor") == (200, b"")
        assert get(site, "/healthz")[0] == 503
        assert get(site, "/streams") == (200, str(PAGES).encode())
        away.start()
        if history == "true":
            assert get(site, "/install")[0] == 200
        for page in pages:
            assert page.next_event(LONG).type == "refresh"
        eventually(lambda: get(site, "/healthz")[0] == 200)
        eventually(lambda: get(site, "/cursor")[1] != b"" or history == "false")


def test_pages_that_keep_their_threads_are_asked_to_come_back_and_do(serve: Serve, away: PostgresServer) -> None:
    site = serve(threads=THREADS, env={"DATABASE_URL": away.url(), "PGFANOUT_DETACH": "never"})
    for _ in range(2 * THREADS):
        page = EventSource(f"{site.url}/events?tenant={TENANT}", headers={"Accept": "text/event-stream"})
        assert page.wait_end(LONG)
        assert (page.status, page.retry is not None and page.retry <= 2000) == (200, True)
        page.close()
    assert get(site, "/") == (200, b"hello")
    away.start()
    eventually(lambda: get(site, "/healthz")[0] == 200, timeout=LONG)
    page = EventSource(f"{site.url}/events?tenant={TENANT}", headers={"Accept": "text/event-stream"})
    page.wait_for(lambda source: source.comments)
    page.close()


def test_a_role_that_does_not_exist_is_no_error_of_a_page_and_is_in_the_log(serve: Serve, away: PostgresServer) -> None:
    away.start()
    site = serve(env={"DATABASE_URL": away.url(user="nobody_here"), "PGFANOUT_DETACH": "never"})
    page = EventSource(f"{site.url}/events?tenant={TENANT}", headers={"Accept": "text/event-stream"})
    assert page.wait_end(LONG)
    assert (page.status, page.retry is not None) == (200, True)
    page.close()
    eventually(lambda: "check the user" in site.log)
    with away.connect() as connection:
        connection.execute("CREATE ROLE nobody_here LOGIN")
    eventually(lambda: get(site, "/healthz")[0] == 200, timeout=LONG)
